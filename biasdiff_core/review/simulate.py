"""The simulated auditor, who decides by known labels: for the demo and benchmarks, by the same way as people, marked as such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from biasdiff_core.attribution.ranking import selected_count
from biasdiff_core.errors import ReviewError
from biasdiff_core.review.decisions import SIMULATED_AUDITOR, Action, DecisionLog, Verdict


def decide_from_labels(log: DecisionLog, labels: Mapping[str, int], ranking_ids: Sequence[str], percent: float) -> Action:
    """Judge the top `percent` % of the ranking (best first) by `labels` (id → 1 biased, 0 not), one inspected decision each, as one action.

    Raises ReviewError when one of them has no label.
    """
    chosen = ranking_ids[: selected_count(len(ranking_ids), percent)]
    missing = [id_ for id_ in chosen if id_ not in labels]
    if missing:
        raise ReviewError(f"{len(missing)} example(s) have no known label, e.g. {missing[0]}.", "Name the label column of the corpus.")
    judged = [(id_, _verdict(labels[id_]), f"known label {labels[id_]}") for id_ in chosen]
    return log.decide_each(judged, SIMULATED_AUDITOR, {"simulated": True, "top_percent": percent})


def _verdict(label: int) -> Verdict:
    return "biased" if label else "not_biased"
