"""Precision and coverage from inspected decisions, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from biasdiff_core.review.decisions import SIMULATED_AUDITOR, Decision
from biasdiff_core.review.estimate import coverage_at, precision_at

RANKING = [f"e{number}" for number in range(20)]


def _decisions(verdicts: Mapping[int, Any], **changes: Any) -> dict[str, Decision]:
    common: dict[str, Any] = {"auditor": "Ann", "reason": "", "created": "", "inspected": True, "action_id": "a", "selection": None}
    return {f"e{n}": Decision(**{**common, "example_id": f"e{n}", "verdict": verdict, **changes}) for n, verdict in verdicts.items()}


def test_precision_is_the_share_of_biased_among_inspected() -> None:
    verdicts = {0: "biased", 1: "biased", 2: "not_biased", 3: "neutral_but_influential", 4: "biased", 5: "unsure", 15: "not_biased"}
    result = precision_at(_decisions(verdicts), RANKING, 10)
    # Within the first 10: 3 biased of 5 scored (unsure is not), 10 - 5 not scored.
    assert (result.value, result.n, result.not_scored) == (0.6, 5, 5)
    # Wilson, z = 1.959964, p = 0.6, n = 5: z²/n = 0.768292; centre (0.6 + 0.384146) / 1.768292 = 0.556551;
    # half width 1.959964 / 1.768292 · √(0.24/5 + 0.768292/20) = 1.108394 · √0.0864146 = 0.325827.
    assert result.low == pytest.approx(0.556551 - 0.325827, abs=2e-5)
    assert result.high == pytest.approx(0.556551 + 0.325827, abs=2e-5)


def test_coverage_is_the_share_of_inspected_biased_within_the_cut() -> None:
    result = coverage_at(_decisions({0: "biased", 1: "biased", 2: "not_biased", 9: "biased", 10: "biased"}), RANKING, 10)
    # 3 of the 4 biased lie at ranks 1 to 10; 20 - 5 were not judged.
    assert (result.value, result.n, result.not_scored) == (0.75, 4, 15)


def test_bulk_decisions_never_enter() -> None:
    bulk = _decisions(dict.fromkeys(range(10), "biased"), inspected=False)
    for measure in (precision_at, coverage_at):
        result = measure(bulk, RANKING, 10)
        assert (result.value, result.low, result.high, result.n) == (None, None, None, 0)
    mixed = {**bulk, **_decisions({0: "not_biased"})}
    assert precision_at(mixed, RANKING, 10).value == 0


def test_a_cut_beyond_the_ranking_is_the_whole() -> None:
    result = precision_at(_decisions({0: "biased"}), RANKING, 50)
    assert (result.value, result.n, result.not_scored) == (1, 1, 19)


def test_the_convention_says_what_it_rests_on() -> None:
    result = precision_at(_decisions({0: "biased"}), RANKING, 10)
    assert "random sample within the cut" in result.convention and "simulated" not in result.convention
    assert "simulated" in precision_at(_decisions({0: "biased"}, auditor=SIMULATED_AUDITOR), RANKING, 10).convention
