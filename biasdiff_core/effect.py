"""Predicted against observed: what influence says of the examples that a variant was trained without, beside what its evaluation found.

Influence is a first-order estimate and the scores are cosines, so only the order of the variants is predicted. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from scipy.stats import spearmanr

from biasdiff_core.config.evaluation import Scoring
from biasdiff_core.config.mitigation import METHODS, UNLEARNINGS
from biasdiff_core.results import Comparison, MetricResult, PairedTest
from biasdiff_core.workspace.artefacts import Artefact, is_complete, open_artefact

REMOVED_FILE = "removed.json"
REMOVING = tuple(method for method in METHODS if method not in (*UNLEARNINGS, "prompt"))
EXPLAINED = (
    "Predicted: less the sum of the influence scores of the examples that a variant was trained without. Observed: its mean stereotype "
    "margin less that of origin. Below zero, the stereotypes lose. Influence is a first-order estimate and its scores are cosines, so it "
    "predicts which variant changes more, not by how much."
)
FEWEST = 3  # removals that an order can be judged by


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A variant that was trained without some of the examples. `unscored`: of the `removed`, those without an influence score.

    `predicted`: −Σ influence score of the removed examples, in units of one cosine; below zero, the stereotypes of the probes
    are predicted to become less likely. `observed`: the mean margin of the stereotype pairs against origin, in the unit of the scoring.
    """

    variant: str
    removed: int
    unscored: int
    predicted: float
    observed: PairedTest


def predicted_change(scores: Mapping[str, float], removed: Iterable[str]) -> float:
    """−Σ influence score of the removed examples; those without a score count nothing. `scores`: example id → score."""
    return -sum(scores[id_] for id_ in removed if id_ in scores)


def influence_scores(ranking: Artefact) -> dict[str, float]:
    """Example id → the influence score that the ranking is by; examples without a rank are absent."""
    table = pd.read_parquet(ranking.path("ranking.parquet"), columns=["id", "score"])
    return dict(zip(table["id"], table["score"], strict=True))


def effects(audit: Path, comparison: Comparison, ranking: Artefact, scoring: Scoring) -> list[Effect]:
    """A row for every variant of the comparison that removes examples and was tested against origin, in the comparison's order.

    `audit`: the audit's folder. Raises ArtefactError when the ids that a variant did without are no longer there.
    """
    scores = influence_scores(ranking)
    margin = f"crows_pairs.{scoring}.stereotype_margin"
    observed = {test.variant: test for test in comparison.tests if test.metric == margin}
    found = []
    for variant in comparison.variants:
        key = comparison.provenance[variant]["adapter"]
        if variant not in observed or not is_complete(audit, "mitigation", key):
            continue
        trained = open_artefact(audit, "mitigation", key)
        if trained.config["method"] not in REMOVING:
            continue
        removed = removed_ids(audit, trained)
        found.append(
            Effect(
                variant=variant,
                removed=len(removed),
                unscored=sum(id_ not in scores for id_ in removed),
                predicted=predicted_change(scores, removed),
                observed=observed[variant],
            )
        )
    return found


def removed_ids(audit: Path, trained: Artefact) -> list[str]:
    """Ids that a mitigation took out: its own list where it is a control, else the removal set's. Raises ArtefactError."""
    if REMOVED_FILE in trained.files:
        return list(trained.read_json(REMOVED_FILE))
    return list(open_artefact(audit, "removal", trained.inputs["removal"]).read_json("ids.json"))


def rank_correlation(found: Sequence[Effect]) -> MetricResult:
    """Spearman's ρ of predicted and observed change over removals: 1 where their order is as predicted.

    Variants that did without the same examples count once. Not defined for fewer than three removals, or where all have the same value.
    """
    points = sorted({(one.predicted, one.observed.difference) for one in found})
    predicted, observed = [point[0] for point in points], [point[1] for point in points]
    defined = len(points) >= FEWEST and len(set(predicted)) > 1 and len(set(observed)) > 1
    return MetricResult(
        name="effect.rank_correlation",
        value=float(spearmanr(predicted, observed).statistic) if defined else None,
        n=len(points),
        chance=0.0,
        convention="Spearman's rank correlation of predicted and observed change over different removals; no interval, they are too few",
    )


def in_words(found: Sequence[Effect]) -> str:
    """What the order of the removals says of the prediction, and no more than that."""
    correlation = rank_correlation(found)
    if correlation.n < FEWEST:
        return f"Different removals compared: {correlation.n}; whether their order is as predicted can be judged from {FEWEST} on."
    if correlation.value is None:
        return "The order cannot be judged: all removals have the same predicted or the same observed change."
    return (
        f"Spearman's rank correlation of predicted and observed change is {correlation.value:.2f} over {correlation.n} different removals "
        "(1: their order is as predicted, 0: no relation). So few give a hint, not a proof."
    )
