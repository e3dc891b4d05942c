"""Predicted against observed change: sums by hand, which variants are asked, and how much is said of their order."""

from __future__ import annotations

import pytest

from biasdiff_core.audit import Audit
from biasdiff_core.effect import Effect, effects, in_words, predicted_change, rank_correlation
from biasdiff_core.results import PairedTest
from biasdiff_core.review.removal import load_removal
from biasdiff_core.workspace.artefacts import open_artefact

MARGIN = "crows_pairs.sum.stereotype_margin"


def effect(variant: str, predicted: float, observed: float) -> Effect:
    moved = PairedTest(
        metric=MARGIN, variant=variant, reference="origin", difference=observed, low=observed - 0.1, high=observed + 0.1, n=9, p_value=None
    )
    return Effect(variant=variant, removed=5, unscored=0, predicted=predicted, observed=moved)


def test_the_predicted_change_is_less_the_sum_of_the_removed_scores() -> None:
    # −(0.5 − 0.25) = −0.25; z has no score and counts nothing.
    assert predicted_change({"a": 0.5, "b": -0.25, "c": 0.125}, ["a", "b", "z"]) == -0.25


def test_only_variants_that_removed_examples_are_asked(finished_audit: Audit) -> None:
    comparison, report = finished_audit.compare(), finished_audit.report()
    found = effects(finished_audit.folder.path, comparison, finished_audit.artefact("ranking"), "sum")
    assert [one.variant for one in found] == ["retrain", "random"]  # NPO unlearns, and removes nothing
    removal = load_removal(open_artefact(finished_audit.folder.path, "removal", report.inputs["removal"]))
    scores = finished_audit.ranking().set_index("id")["score"]
    retrained, random = found
    assert (retrained.removed, random.removed) == (len(removal.ids), len(removal.ids))
    assert retrained.predicted == pytest.approx(-scores.loc[list(removal.ids)].sum())
    assert retrained.predicted < random.predicted  # the confirmed ones rank high
    assert retrained.observed == next(test for test in comparison.tests if (test.variant, test.metric) == ("retrain", MARGIN))


def test_the_rank_correlation_by_hand() -> None:
    found = [effect("a", -3, -0.3), effect("b", -2, -0.1), effect("c", -1, -0.2)]
    # Ranks 1, 2, 3 and 1, 3, 2: ρ = 1 − 6 · (0 + 1 + 1) / (3 · 8) = 0.5
    assert rank_correlation(found).value == pytest.approx(0.5)
    assert "0.50 over 3 different removals" in in_words(found)


def test_the_same_removal_counts_once() -> None:
    found = [effect("a", -3, -0.3), effect("b", -3, -0.3), effect("c", -1, -0.2)]
    assert (rank_correlation(found).value, rank_correlation(found).n) == (None, 2)
    assert in_words(found) == "Different removals compared: 2; whether their order is as predicted can be judged from 3 on."


def test_nothing_is_said_where_all_changes_are_the_same() -> None:
    found = [effect(name, predicted, -0.2) for name, predicted in (("a", -3), ("b", -2), ("c", -1))]
    assert rank_correlation(found).value is None
    assert "cannot be judged" in in_words(found)
