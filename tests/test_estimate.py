"""Precision, coverage, found and left from inspected decisions: by hand, against a slow twin, by laws, and on planted labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom

from biasdiff_core.results import MetricResult
from biasdiff_core.review.decisions import SIMULATED_AUDITOR
from biasdiff_core.review.design import Review, mixed_order
from biasdiff_core.review.estimate import biased_examples, biased_left, coverage_at, part_of, precision_at, share_found
from tests.reference.estimate_slow import left_slow, share_quantile_slow
from tests.reviews import read_in_part, review, reviewed

Figure = Callable[[Review], MetricResult]
FIGURES: tuple[Figure, ...] = (
    biased_examples,
    biased_left,
    share_found,
    lambda found: precision_at(found, len(found.open) // 2),
    lambda found: coverage_at(found, len(found.open) // 2),
)


def ends(figure: MetricResult) -> tuple[float | None, float | None, float | None]:
    return figure.value, figure.low, figure.high


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_what_is_left_after_draws_is_beta_binomial() -> None:
    found = review(4, [(2, True, True), (0, False, True)])
    # 1 of 2 draws is biased, 2 are open: beta-binomial with n = 2 and shapes ½ + 1, ½ + 1. With B(1.5, 1.5) = π/8 and
    # B(2.5, 2.5) = 3π/128 the probability of 1 is 2 · (3/128) / (1/8) = 0.375, that of 0 and of 2 is half the rest, 0.3125.
    assert part_of(found, 0, 4).left == pytest.approx([0.3125, 0.375, 0.3125])
    assert ends(biased_left(found)) == (1, 0, 2)
    assert ends(biased_examples(found)) == (2, 1, 3)
    assert ends(share_found(found)) == (1 / 2, 1 / 3, 1)
    assert (biased_left(found).n, biased_left(found).not_scored) == (2, 2)


def test_draws_and_choices_in_turn_by_hand() -> None:
    # Place 0 chosen: biased. Then one drawn of the 3 open: biased. 2 are open, in one stratum with the draw (reached: 1 rank).
    found = review(4, [(0, True, False), (2, True, True)])
    # Beyond the rank reached: 3 examples, 1 drawn and biased: beta-binomial with n = 2, shapes 1.5 and 0.5: B(1.5, 0.5) = π/2,
    # P(2) = B(3.5, 0.5) / (π/2) = (5π/16) / (π/2) = 0.625, P(1) = 2 · B(2.5, 1.5) / (π/2) = 2 · (π/16) / (π/2) = 0.25, P(0) = 0.125.
    assert part_of(found, 0, 4).left == pytest.approx([0.125, 0.25, 0.625])
    assert ends(precision_at(found, 1)) == (1, 1, 1)
    # All 4 ranks: 2 found and 0, 1 or 2 more; the median of the number left is 2.
    assert ends(precision_at(found, 4)) == (1, 0.5, 1)


def test_a_choice_beyond_the_ranks_reached_changes_the_odds_of_later_draws() -> None:
    # 10 examples. A draw at place 9, not biased, of 10 open; place 8 chosen from far down, biased; a draw at 7, not biased, of 8 open.
    found = review(10, [(9, False, True), (8, True, False), (7, False, True)])
    assert found.reached == 0
    # With K biased in all (1 ≤ K ≤ 8): prior × (1 − K/10) × (1 − (K − 1)/8), as the chosen one is known by the second draw.
    weights = [betabinom.pmf(k, 10, 0.5, 0.5) * (1 - k / 10) * (1 - (k - 1) / 8) for k in range(1, 9)]
    assert part_of(found, 0, 10).left == pytest.approx(np.array(weights) / sum(weights))


def test_coverage_by_hand() -> None:
    # Ranks 1 to 3 inspected, 2 biased; of the other 3 one is drawn, not biased: of the 2 open it is 0, 1 or 2 with the shapes 0.5 and 1.5,
    # by the mirror image of the case above: 0.625, 0.25, 0.125.
    found = review(6, [(0, True, False), (1, True, False), (2, False, False), (5, False, True)])
    figure = coverage_at(found, 3)  # 2/2, 2/3 or 2/4
    assert ends(figure) == pytest.approx((1, 0.5, 1))
    assert (figure.n, figure.not_scored) == (4, 2)


def test_unsure_leaves_the_ranking_and_neutral_is_not_biased() -> None:
    everything = {n: "biased" if n < 4 else "neutral_but_influential" for n in range(20)} | {0: "unsure", 19: "unsure"}
    found = reviewed(everything)
    # 3 biased of the 9 scored among the first 10; 18 scored in all.
    assert ends(precision_at(found, 10)) == (3 / 9, 3 / 9, 3 / 9)
    assert (precision_at(found, 10).n, precision_at(found, 10).not_scored) == (9, 1)
    assert ends(biased_examples(found)) == (3, 3, 3)
    assert biased_examples(found).n == 18


# --- what is known and what is not ------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.data())
def test_a_census_is_the_truth(labels: list[bool], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(labels))))
    drawn = data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    cut = data.draw(st.integers(1, len(labels) + 3))
    truth = np.array(labels)
    found = read_in_part(truth, order, drawn)
    assert ends(precision_at(found, cut)) == (truth[:cut].mean(),) * 3
    assert ends(biased_examples(found)) == (truth.sum(),) * 3
    assert ends(biased_left(found)) == (0, 0, 0)
    if truth.any():
        assert ends(coverage_at(found, cut)) == pytest.approx((truth[:cut].sum() / truth.sum(),) * 3)
        assert ends(share_found(found)) == (1, 1, 1)


def test_ranks_read_whole_are_exact_though_others_are_open() -> None:
    found = reviewed({n: "biased" if n % 2 else "not_biased" for n in range(8)})
    assert ends(precision_at(found, 8)) == (0.5, 0.5, 0.5)
    assert "is a count" in precision_at(found, 8).convention


def test_nothing_is_claimed_of_ranks_where_nothing_is_drawn() -> None:
    found = reviewed(dict.fromkeys(range(8), "biased"))
    for figure in (biased_examples(found), biased_left(found), share_found(found), coverage_at(found, 8), precision_at(found, 12)):
        assert ends(figure) == (None, None, None)
        assert "Not known before examples are drawn at random" in figure.convention
    drawn_within = review(20, [(n, True, False) for n in range(8)] + [(9, True, True)])
    assert precision_at(drawn_within, 12).value is not None
    assert coverage_at(drawn_within, 12).value is None  # what lies beyond is still unknown


def test_a_rank_passed_over_may_be_either() -> None:
    found = review(20, [(n, True, False) for n in range(20) if n != 4])
    assert ends(precision_at(found, 20)) == (1, 19 / 20, 1)


def test_no_share_before_a_biased_example_is_found() -> None:
    found = review(8, [(n, False, n > 5) for n in range(8) if n != 4])
    for figure in (share_found(found), coverage_at(found, 4)):
        assert figure.value is None
        assert "Not defined before a biased example is found." in figure.convention


def test_an_empty_review_claims_nothing() -> None:
    for figure in FIGURES:
        assert ends(figure(reviewed({}))) == (None, None, None)
        assert figure(reviewed({})).n == 0


def test_bulk_decisions_never_enter() -> None:
    for figure in FIGURES:
        assert figure(reviewed(dict.fromkeys(range(20), "biased"), inspected=False)) == figure(reviewed({}))


def test_a_cut_beyond_the_ranking_is_the_whole() -> None:
    found = review(20, [(0, True, False), (7, False, True)])
    assert precision_at(found, 50) == precision_at(found, 20)
    assert ends(coverage_at(found, 50)) == pytest.approx((1, 1, 1))


def test_the_convention_says_what_it_rests_on() -> None:
    found = review(20, [(0, True, False), (7, False, True)])
    assert "from what was drawn at random (1)" in precision_at(found, 20).convention
    assert "simulated" not in precision_at(found, 20).convention
    assert "simulated" in precision_at(reviewed({0: "biased"}, auditor=SIMULATED_AUDITOR), 1).convention


# --- laws -------------------------------------------------------------------------------------------------------------


@st.composite
def reviews(draw: st.DrawFn) -> Review:
    size = draw(st.integers(2, 24))
    places = draw(st.permutations(range(size)))[: draw(st.integers(1, size))]
    flags = st.lists(st.booleans(), min_size=len(places), max_size=len(places))
    return review(size, list(zip(places, draw(flags), draw(flags), strict=True)))


@given(reviews())
def test_the_posterior_equals_the_slow_twin(found: Review) -> None:
    size = len(found.open)
    strata = []
    for start, stop in ((0, found.reached), (found.reached, size)):
        inside = (start <= found.places) & (found.places < stop)
        inspections = list(zip(found.biased[inside].tolist(), found.drawn[inside].tolist(), strict=True))
        strata.append(left_slow(inspections, int(found.open[start:stop].sum())))
    left = part_of(found, 0, size).left
    if left is not None:
        assert left == pytest.approx(np.convolve(*strata), rel=1e-9, abs=1e-12)


@given(reviews(), st.integers(1, 24))
def test_coverage_equals_the_slow_twin(found: Review, cut: int) -> None:
    within, beyond, figure = part_of(found, 0, cut), part_of(found, cut, len(found.open)), coverage_at(found, cut)
    if figure.value is not None and within.left is not None and beyond.left is not None:
        for value, probability in zip(ends(figure), (0.5, 0.025, 0.975), strict=True):
            # A probability that is met but for rounding may be met one share earlier or later.
            near = [
                share_quantile_slow(within.found, within.left.tolist(), beyond.found, beyond.left.tolist(), probability + shift)
                for shift in (-1e-9, 1e-9)
            ]
            assert near[0] - 1e-9 <= value <= near[1] + 1e-9  # type: ignore[operator]


@given(reviews())
def test_figures_agree_with_each_other(found: Review) -> None:
    count = int(found.biased.sum())
    total, left, share = (np.array(ends(figure(found)), dtype=float) for figure in (biased_examples, biased_left, share_found))
    assert np.array_equal(total, left + count, equal_nan=True)
    if count:
        assert share == pytest.approx(count / total[[0, 2, 1]], nan_ok=True)
    for figure in FIGURES:
        value, low, high = ends(figure(found))
        assert value is None or 0 <= low <= value <= high  # type: ignore[operator]


def test_draws_alone_give_the_textbook_posterior_on_a_large_corpus() -> None:
    generator = np.random.default_rng(0)
    labels = generator.random(5_000) < 0.1
    found = read_in_part(labels, generator.permutation(5_000)[:300].tolist(), [True] * 300)
    hits = int(found.biased.sum())
    assert part_of(found, 0, 5_000).left == pytest.approx(betabinom.pmf(np.arange(4_701), 4_700, 0.5 + hits, 0.5 + 300 - hits), rel=1e-6)


def mixed_review(labels: np.ndarray, share: float, seed: int) -> Review:
    ids, drawn = mixed_order(tuple(map(str, range(len(labels)))), str(seed))
    read = ids[: int(share * len(labels))]
    return read_in_part(labels, [int(id_) for id_ in read], [id_ in drawn for id_ in read])


def test_permuted_labels_give_the_base_rate() -> None:
    """A ranking that knows nothing: coverage at half the ranks is a half, precision there is the share of biased examples."""
    generator = np.random.default_rng(0)
    labels = np.arange(400) < 120
    found = [mixed_review(generator.permutation(labels), 0.3, seed) for seed in range(60)]
    # The 120 inspected reach some 100 ranks, and some 7 draws lie from there to 200: √(0.3 · 0.7 / 7) = 0.17 for the open half of the
    # first 200, so 0.09 for one precision and 0.012 for the mean of 60; coverage varies as much in proportion to 0.3, twice as much.
    assert np.mean([precision_at(review, 200).value for review in found]) == pytest.approx(0.3, abs=3.5 * 0.012)
    assert np.mean([coverage_at(review, 200).value for review in found]) == pytest.approx(0.5, abs=3.5 * 0.024)


def test_the_interval_holds_a_planted_number_about_as_often_as_it_says() -> None:
    """A fair ranking, 300 reviews of 400 examples: 95 % less 3.5 standard errors of a share, 0.0126 each, is 0.906."""
    held = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        biased = np.arange(400) < 80
        labels = biased[np.argsort(-(generator.normal(size=400) + biased))]
        found = mixed_review(labels, 0.3, seed)
        _, low, high = ends(biased_left(found))
        assert low is not None and high is not None
        held += low <= labels[found.open].sum() <= high
    assert held / 300 > 0.906
