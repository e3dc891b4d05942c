"""The ranking, the selected count, coverage and precision, and the test of the tester: permuted labels find nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasdiff_core.attribution.ranking import detection_curve, rank, selected_count
from biasdiff_core.evaluation.statistics import auroc

SIGMA = 4.5


def test_ranks_begin_at_one_and_the_highest_score_comes_first() -> None:
    table = rank(["a", "b", "c"], np.array([0.1, 0.9, -0.5]))
    assert table.columns.tolist() == ["rank", "id", "score"]
    assert table["rank"].tolist() == [1, 2, 3]
    assert table["id"].tolist() == ["b", "a", "c"]


def test_ties_are_broken_by_id() -> None:
    assert rank(["c", "a", "d", "b"], np.array([1.0, 1.0, 2.0, 1.0]))["id"].tolist() == ["d", "a", "b", "c"]


def test_rows_without_a_score_are_left_out() -> None:
    table = rank(["a", "b", "c"], np.array([np.nan, 1.0, 2.0]))
    assert table["id"].tolist() == ["c", "b"] and table["rank"].tolist() == [1, 2]
    assert rank(["a"], np.array([np.nan])).empty


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=12), st.randoms())
def test_the_order_of_the_corpus_does_not_matter(scores: list[int], random: object) -> None:
    ids = [f"id{number:02d}" for number in range(len(scores))]
    order = list(range(len(scores)))
    random.shuffle(order)  # type: ignore[attr-defined]
    turned = rank([ids[i] for i in order], np.array([scores[i] for i in order]))
    assert turned.equals(rank(ids, np.array(scores)))


@given(st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=1, max_size=12, unique=True))
def test_turning_the_scores_around_reverses_the_ranking(scores: list[float]) -> None:
    ids = [f"id{number:02d}" for number in range(len(scores))]
    assert rank(ids, np.array(scores))["id"].tolist() == rank(ids, -np.array(scores))["id"].tolist()[::-1]


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [
        (600, 35.0, 210),
        (10, 35.0, 4),  # 3.5, half up; Python's round would give 4 too
        (30, 15.0, 5),  # 4.5, half up; Python's round would give 4
        (10, 34.9, 3),
        (3, 100.0, 3),
        (1000, 0.1, 1),
        (200, 0.25, 1),  # 0.5
        (7, 1.0, 0),
        (1000, 1.15, 12),  # 11.5 exactly; 1000 × 1.15 / 100 in floats is 11.499999999999998
    ],
)
def test_the_selected_count_rounds_half_up(count: int, percent: float, expected: int) -> None:
    assert selected_count(count, percent) == expected


def test_coverage_and_precision_by_hand() -> None:
    # Best first: biased, not, biased, not; two biased in all.
    curve = detection_curve([1, 0, 1, 0])
    assert curve["selected"].tolist() == [0, 1, 2, 3, 4]
    assert curve["percent"].tolist() == [0, 25, 50, 75, 100]
    assert curve["coverage"].tolist() == [0, 1 / 2, 1 / 2, 1, 1]
    assert np.isnan(curve["precision"][0])
    assert curve["precision"][1:].tolist() == [1, 1 / 2, 2 / 3, 1 / 2]


def test_without_a_biased_example_coverage_is_not_defined() -> None:
    curve = detection_curve([0, 0])
    assert curve["coverage"].isna().all() and curve["precision"][1:].tolist() == [0, 0]
    assert len(detection_curve([])) == 1


def test_permuted_labels_are_found_at_the_base_rate() -> None:
    """The test of the tester: whatever the scores, labels that have nothing to do with them give AUROC ½ and coverage p.

    Under permutation the AUROC has mean ½ and variance (m + n + 1) / (12 m n); the number of biased among the first k is
    hypergeometric: mean k·b/N, variance k·(b/N)·(1 − b/N)·(N − k)/(N − 1). Both are means over R permutations.
    """
    total, biased, permutations, percent = 300, 90, 200, 35.0
    generator = np.random.default_rng(0)
    scores = generator.normal(size=total)
    ids = [f"id{number:03d}" for number in range(total)]
    labels = np.array([1] * biased + [0] * (total - biased))
    k = selected_count(total, percent)
    areas, coverages = [], []
    for _ in range(permutations):
        permuted = generator.permutation(labels)
        areas.append(auroc(scores, permuted.tolist()).value)
        by_rank = dict(zip(ids, permuted.tolist(), strict=True))
        curve = detection_curve([by_rank[i] for i in rank(ids, scores)["id"]])
        coverages.append(curve["coverage"][k])
    area_error = np.sqrt((total + 1) / (12 * biased * (total - biased)) / permutations)
    assert abs(np.mean(areas) - 0.5) < SIGMA * area_error
    share = biased / total
    coverage_error = np.sqrt(k * share * (1 - share) * (total - k) / (total - 1) / permutations) / biased
    assert abs(np.mean(coverages) - k / total) < SIGMA * coverage_error
    # And the tester can tell: scores that are the labels give 1.
    assert auroc(labels.astype(float), labels.tolist()).value == 1.0
