"""Intervals and tests against arithmetic by hand, closed forms, slow twins and simulated coverage."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import logit
from scipy.stats import norm
from scipy.stats import t as student

from biasdiff_core.errors import NumericError
from biasdiff_core.evaluation.statistics import (
    auroc,
    bootstrap_mean,
    bootstrap_of_means,
    bootstrap_ratio,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    pooled_auroc,
    pooled_coverage,
    pooled_difference,
    pooled_share_undone,
    share_undone,
    smallest_detectable_change,
    wilson,
)


def test_wilson_is_the_closed_form() -> None:
    # centre (p + z²/2n)/(1 + z²/n), half-width z √(p(1−p)/n + z²/4n²)/(1 + z²/n), p = 863/1290
    p, n, z = 863 / 1290, 1290, 1.959963984540054
    centre, half = (p + z**2 / (2 * n)) / (1 + z**2 / n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    found = wilson(863, 1290)
    assert (found.value, found.low, found.high) == pytest.approx((p, centre - half, centre + half))
    assert 100 * found.value == pytest.approx(66.90, abs=0.005)


def test_wilson_at_the_ends_stays_open() -> None:
    # 0 of 10: high = z²/(n + z²) = 3.8415/13.8415
    assert (wilson(0, 10).low, wilson(0, 10).high) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert wilson(10, 10).low == pytest.approx(1 - 0.27753, abs=1e-5)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(NumericError):
        wilson(successes, n)


def test_mcnemar_by_hand() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    # 2 · (C(6,0) + C(6,1)) / 2⁶ = 14/64
    assert mcnemar_exact(1, 5) == pytest.approx(14 / 64)
    assert mcnemar_exact(5, 1) == mcnemar_exact(1, 5)
    assert mcnemar_exact(4, 4) == pytest.approx(1.0)


@pytest.mark.parametrize(("n", "share"), [(1290, 0.08), (1290, 0.3), (400, 0.15), (218, 0.1)])
def test_smallest_detectable_change_is_found_by_the_test_four_times_of_five(n: int, share: float) -> None:
    change = smallest_detectable_change(n, share)
    assert change is not None
    generator = np.random.default_rng(n)
    chances = [(share + change) / 2, (share - change) / 2, 1 - share]
    found = np.mean([mcnemar_exact(*generator.multinomial(n, chances)[:2]) < 0.05 for _ in range(2000)])
    # Standard error of 0.8 over 2,000 cases: 0.009.
    assert found == pytest.approx(0.8, abs=0.036)
    # Normal approximation: (z₀.₉₇₅ √ψ + z₀.₈ √(ψ − δ²)) / √n = δ, solved by iteration; exact McNemar is the more careful of the two.
    normal = 0.0
    for _ in range(100):
        normal = (1.959964 * math.sqrt(share) + 0.841621 * math.sqrt(share - normal**2)) / math.sqrt(n)
    assert normal < change < 1.12 * normal


def test_smallest_detectable_change_by_hand() -> None:
    # All ten pairs change sides. The test rejects at 0, 1, 9 or 10 in one direction (2 · 11/1024); power 0.8 needs the rarer direction
    # with probability p where (1 − p)¹⁰ + 10 p (1 − p)⁹ = 0.8 (the other end is negligible): p ≈ 0.0826; change 1 − 2p.
    change = smallest_detectable_change(10, 1.0)
    assert change is not None
    p = (1 - change) / 2
    assert (1 - p) ** 10 + 10 * p * (1 - p) ** 9 + p**10 + 10 * (1 - p) * p**9 == pytest.approx(0.8)
    assert p == pytest.approx(0.0826, abs=1e-3)


def test_too_few_discordant_pairs_show_no_change() -> None:
    # Five discordant pairs at most: 2/2⁵ > 0.05, whatever their direction.
    assert smallest_detectable_change(5, 1.0) is None
    assert smallest_detectable_change(1290, 0.0) is None and smallest_detectable_change(1290, 0.003) is None
    for n, share in ((0, 0.1), (10, -0.1), (10, 1.1)):
        with pytest.raises(NumericError):
            smallest_detectable_change(n, share)


@given(st.integers(100, 3000), st.floats(0.05, 0.9))
@settings(max_examples=30, deadline=None)
def test_more_pairs_show_smaller_changes(n: int, share: float) -> None:
    change, more = smallest_detectable_change(n, share), smallest_detectable_change(2 * n, share)
    if change is not None:
        assert more is not None and more < change <= share


def test_holm_by_hand() -> None:
    # sorted 0.01·3, 0.03·2, 0.04·1 = 0.03, 0.06, 0.04 → never falling: 0.03, 0.06, 0.06
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for raw, value in zip(p_values, adjusted, strict=True):
        assert raw <= value <= min(1.0, raw * len(p_values)) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert all(np.diff(np.array(adjusted)[order]) >= 0)


def test_bootstrap_mean_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=1508)
    found = bootstrap_mean(values, draws=2000, seed=0)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert found == bootstrap_mean(values, draws=2000, seed=0)
    assert found != bootstrap_mean(values, draws=2000, seed=1)


def test_bootstrap_is_the_plain_loop() -> None:
    # 600 items × 2,000 draws are more than one chunk of indices.
    values = np.random.default_rng(2).normal(size=600)
    generator = np.random.default_rng(7)
    means = [values[generator.integers(0, 600, size=600)].mean() for _ in range(2000)]
    found = bootstrap_mean(values, draws=2000, seed=7)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_values_not_scored_leave_the_mean() -> None:
    assert bootstrap_mean([1.0, math.nan, 3.0], draws=100, seed=0).value == 2.0
    # [50, nan] − [100, 0] : 50 − 50
    assert paired_bootstrap([50.0, math.nan], [100.0, 0.0], draws=100, seed=0).value == 0.0
    with pytest.raises(NumericError):
        bootstrap_mean([math.nan, math.nan], draws=100, seed=0)


def test_ratio_weighs_by_the_denominator() -> None:
    # (6 + 1) / (3 + 1) = 1.75, not the mean of 2 and 1
    assert bootstrap_ratio([6.0, 1.0], [3.0, 1.0], draws=50, seed=0).value == 1.75


def test_bootstrap_of_means_is_the_bootstrap_of_the_mean_where_there_is_one() -> None:
    values = np.random.default_rng(11).normal(size=(300, 2))
    found = bootstrap_of_means(values, lambda means: means[..., 1], draws=400, seed=3)
    mean = bootstrap_mean(values[:, 1], draws=400, seed=3)
    assert (found.value, found.low, found.high) == pytest.approx((mean.value, mean.low, mean.high))
    ratio = bootstrap_of_means(values + 5, lambda means: means[..., 0] / means[..., 1], draws=400, seed=3)
    expected = bootstrap_ratio(values[:, 0] + 5, values[:, 1] + 5, draws=400, seed=3)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_bootstrap_of_means_holds_the_value_at_a_kink() -> None:
    values = np.array([[1.0], [-1.0]] * 50)
    found = bootstrap_of_means(values, lambda means: -np.abs(means[..., 0]), draws=200, seed=0)
    assert found.value == found.high == 0.0 and found.low < -0.1


def test_pairing_removes_what_items_share() -> None:
    generator = np.random.default_rng(3)
    item = generator.normal(0, 10, size=400)
    reference, variant = item + generator.normal(0, 0.1, 400), item + 0.5 + generator.normal(0, 0.1, 400)
    found = paired_bootstrap(variant, reference, draws=500, seed=0)
    assert found.low < 0.5 < found.high and found.high - found.low < 0.05
    same = paired_bootstrap(reference, reference, draws=500, seed=0)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    # A mean of differences is a difference of means when every item is scored.
    assert found.low == pytest.approx(bootstrap_mean(variant - reference, draws=500, seed=0).low)
    with pytest.raises(NumericError, match="paired"):
        paired_bootstrap([1.0], [1.0, 2.0], draws=10, seed=0)


def test_share_undone_by_hand() -> None:
    base, origin = np.zeros(100), np.full(100, 0.8)
    # (0.8 − 0.2) / (0.8 − 0) = 0.75
    found = share_undone(origin, np.full(100, 0.2), base, draws=200, seed=0)
    assert (found.value, found.low, found.high) == pytest.approx((0.75, 0.75, 0.75))
    assert share_undone(origin, base, base, draws=50, seed=0).value == 1.0
    assert share_undone(origin, origin, base, draws=50, seed=0).value == 0.0


def test_pairs_without_a_margin_leave_the_share() -> None:
    origin, after = np.full(100, 0.8), np.full(100, 0.2)
    after[0], origin[1] = math.nan, math.nan
    assert share_undone(origin, after, np.zeros(100), draws=50, seed=0).value == pytest.approx(0.75)


def test_share_undone_is_not_defined_without_a_clear_rise() -> None:
    noise = np.random.default_rng(4).normal(size=200)
    unclear = share_undone(noise, np.zeros(200), np.zeros(200), draws=500, seed=0)
    assert unclear.value is None and unclear.low is None and "not clear of zero" in unclear.reason
    # A clear fall is no rise either.
    assert share_undone(np.zeros(9), np.zeros(9), np.ones(9), draws=50, seed=0).value is None


def crossed_by_hand(values: list[list[float]]) -> tuple[float, float]:
    """Mean and reach of a two-way table [seeds][items] by plain loops."""
    seeds, items = len(values), len(values[0])
    mean = sum(map(sum, values)) / (seeds * items)
    rows = [sum(row) / items for row in values]
    columns = [sum(row[item] for row in values) / seeds for item in range(items)]
    between_rows = items * sum((row - mean) ** 2 for row in rows) / (seeds - 1)
    between_columns = seeds * sum((column - mean) ** 2 for column in columns) / (items - 1)
    rest = sum((values[r][c] - rows[r] - columns[c] + mean) ** 2 for r in range(seeds) for c in range(items))
    residual = rest / ((seeds - 1) * (items - 1))
    squares = student.ppf(0.975, seeds - 1) ** 2 * max(0, between_rows - residual) + student.ppf(0.975, items - 1) ** 2 * between_columns
    return mean, float(np.sqrt(squares / (seeds * items)))


def test_pooling_over_seeds_is_the_plain_loop() -> None:
    generator = np.random.default_rng(5)
    origin = generator.normal(size=(3, 40))
    for after in (origin - 0.4 + generator.normal(0, 0.3, (3, 40)), origin + generator.normal(0, 1, (3, 1))):
        moved = pooled_difference(after, origin)
        mean, reach = crossed_by_hand((after - origin).tolist())
        np.testing.assert_allclose([moved.value, moved.low, moved.high], [mean, mean - reach, mean + reach])


def test_with_one_seed_the_pooled_interval_is_students_over_the_items() -> None:
    values = np.random.default_rng(0).normal(size=(1, 30))
    moved = pooled_difference(values, np.zeros((1, 30)))
    expected = student.interval(0.95, 29, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(30))
    np.testing.assert_allclose([moved.low, moved.high], expected)
    with pytest.raises(NumericError, match="1 scored items"):
        pooled_difference(values[:, :1], values[:, 1:2])


def test_the_pooled_share_holds_what_cannot_be_told_from_it() -> None:
    """At both ends of the interval the difference undone − θ · rise just reaches 0; between them it holds 0, outside it does not."""
    generator = np.random.default_rng(5)
    base = generator.normal(size=(1, 40))
    origin = base + 1 + generator.normal(0, 0.3, (3, 40))
    after = origin - 0.4 + generator.normal(0, 0.3, (3, 40))
    share = pooled_share_undone(origin, after, base)
    assert share.value == pytest.approx((origin - after).mean() / (origin - base).mean())
    assert share.low is not None and share.high is not None
    for theta, inside in ((share.low - 0.01, False), (share.low + 0.01, True), (share.high - 0.01, True), (share.high + 0.01, False)):
        left = pooled_difference(origin - after, theta * (origin - base))
        assert (left.low <= 0 <= left.high) == inside


@pytest.mark.parametrize("spread", [0.0, 0.07, 0.5])
def test_the_pooled_interval_holds_the_truth_as_often_as_it_says(spread: float) -> None:
    """400 tables of three seeds: 95 % intervals hold in 92 to 98 %, whatever the seeds add; a bootstrap of three seeds does not."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        table = generator.normal(0, 1, 200) + generator.normal(0, spread, (3, 1)) + generator.normal(0, 0.5, (3, 200))
        found = pooled_difference(table, np.zeros_like(table))
        held += found.low <= 0 <= found.high
    assert 0.92 * 400 <= held <= 0.98 * 400


def test_seeds_that_disagree_widen_the_pooled_interval() -> None:
    """The same pairs and mean; seeds at ±1 instead of 0 add their own spread."""
    pairs = np.random.default_rng(0).normal(0, 0.1, 200)
    agree, disagree = np.stack([pairs, pairs]), np.stack([pairs - 1, pairs + 1])
    narrow, wide = (pooled_difference(values, np.zeros_like(values)) for values in (agree, disagree))
    assert narrow.value == pytest.approx(wide.value)
    assert narrow.high - narrow.low < 0.1 < 1.9 < wide.high - wide.low


def test_pairs_without_a_value_are_left_out_of_pooled_figures() -> None:
    generator = np.random.default_rng(2)
    base = generator.normal(size=(1, 30))
    origin, after = base + 1 + generator.normal(0, 0.1, (2, 30)), base + 0.5 + generator.normal(0, 0.1, (2, 30))
    unscored = after.copy()
    unscored[1, 29] = np.nan
    kept = slice(0, 29)
    assert pooled_share_undone(origin, unscored, base) == pooled_share_undone(origin[:, kept], after[:, kept], base[:, kept])
    assert pooled_difference(unscored, origin) == pooled_difference(after[:, kept], origin[:, kept])


def test_pooled_share_is_not_defined_without_a_clear_rise() -> None:
    noise = np.random.default_rng(1).normal(size=(2, 30))
    share = pooled_share_undone(noise, noise - 1, np.zeros((1, 30)))
    assert share.value is None and "not clear of zero" in share.reason


def test_auroc_by_hand_counts_ties_half() -> None:
    # positives 3, 2; negatives 2, 1: pairs 3>2, 3>1, 2=2, 2>1 → 3.5/4
    assert auroc([3.0, 2.0, 2.0, 1.0], [1, 1, 0, 0]).value == pytest.approx(3.5 / 4)
    assert auroc([1.0, 1.0, 1.0, 1.0], [1, 1, 0, 0]).value == 0.5
    with pytest.raises(NumericError):
        auroc([1.0, 2.0], [1, 1])


def test_auroc_and_its_standard_error_are_the_plain_double_loop() -> None:
    generator = np.random.default_rng(5)
    positive, negative = np.round(generator.normal(1, 1, 60), 1), np.round(generator.normal(0, 1, 90), 1)
    wins = np.array([[1.0 if p > n else 0.5 if p == n else 0.0 for n in negative] for p in positive])
    error = math.sqrt(wins.mean(1).var(ddof=1) / 60 + wins.mean(0).var(ddof=1) / 90)
    value = wins.mean()
    found = auroc(np.concatenate([positive, negative]), [1] * 60 + [0] * 90)
    reach = 1.959963984540054 * error / (value * (1 - value))
    odds = math.log(value / (1 - value))
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx((1 / (1 + math.exp(reach - odds)), 1 / (1 + math.exp(-reach - odds))))


def test_auroc_turns_round_with_the_sign() -> None:
    scores, labels = np.random.default_rng(6).normal(size=50), [1, 0] * 25
    found, turned = auroc(scores, labels), auroc(-scores, labels)
    assert (turned.value, turned.low, turned.high) == pytest.approx((1 - found.value, 1 - found.high, 1 - found.low))


def test_perfect_separation_still_has_an_interval() -> None:
    few, many = auroc([2.0, 3.0, 0.0, 1.0], [1, 1, 0, 0]), auroc(np.arange(1000.0), [0] * 500 + [1] * 500)
    assert few.value == many.value == 1.0 and few.high == many.high == 1.0
    assert few.low < 0.7 and 0.98 < many.low < 1.0
    assert auroc([0.0, 1.0, 2.0, 3.0], [1, 1, 0, 0]).low == 0.0


def raters(generator: np.random.Generator, distance: float, spread: float) -> tuple[np.ndarray, list[int]]:
    """Scores [3 seeds, 300 examples] that are `distance` higher where the label is 1, give or take the seed's own `spread`, and labels."""
    labels = (generator.random(300) < 0.3).astype(int)
    moved = labels * (distance + spread * generator.normal(size=(3, 1)))
    return moved + generator.normal(size=300) + 0.5 * generator.normal(size=(3, 300)), labels.tolist()


def test_pooled_auroc_is_that_of_readers_and_cases() -> None:
    """Obuchowski and Rockette from the covariances of the seeds' AUROCs (DeLong), each by the double loop over pairs."""
    scores, labels = raters(np.random.default_rng(2), 1.0, 0.6)
    positive, negative = scores[:, np.array(labels) == 1], scores[:, np.array(labels) == 0]
    m, n = positive.shape[1], negative.shape[1]
    wins = np.array([[[float(p > q) for q in below] for p in above] for above, below in zip(positive, negative, strict=True)])
    covariance = np.cov(wins.mean(axis=2)) / m + np.cov(wins.mean(axis=1)) / n
    within = np.trace(covariance) / 3
    between = (covariance.sum() - np.trace(covariance)) / 6
    value, seeds = wins.mean(), wins.mean(axis=(1, 2)).var(ddof=1)
    assert seeds > within - between  # so that what the seeds add is in the interval
    squares = 4.302652729749464**2 * (seeds - within + between) / 3 + 1.959963984540054**2 * (within + 2 * between) / 3
    found = pooled_auroc(scores, labels)
    assert found.value == pytest.approx(value)
    assert (logit(found.high) - logit(found.low)) / 2 == pytest.approx(math.sqrt(squares) / (value * (1 - value)))
    assert logit(found.high) + logit(found.low) == pytest.approx(2 * logit(value))


def test_pooled_coverage_of_one_seed_is_the_published_variance() -> None:
    """Ash and Hughes-Oliver (2022): (c (1 − c) (1 − 2 ρ) / π + ρ² q (1 − q) / π²) / n, here of n − 1, as sample variances are."""
    scores, labels = raters(np.random.default_rng(3), 1.0, 0.0)
    found, known = pooled_coverage(scores[:1], labels, 105), np.array(labels)[np.argsort(-scores[0])]
    # 300 examples, 105 selected: q = 0.35; the share about the cut is that of the 17 places before and after it (17² = 289).
    pi, rho, covered = known.mean(), known[88:122].mean(), known[:105].sum() / known.sum()
    variance = (covered * (1 - covered) * (1 - 2 * rho) / pi + rho**2 * 0.35 * 0.65 / pi**2) / 299
    reach = student.ppf(0.975, 299) * math.sqrt(variance) / (covered * (1 - covered))
    assert found.value == pytest.approx(covered)
    assert (logit(found.low), logit(found.high)) == pytest.approx((logit(covered) - reach, logit(covered) + reach))


def test_pooled_coverage_at_its_ends_still_has_an_interval() -> None:
    labels = [1] * 20 + [0] * 80
    every, none = (pooled_coverage(np.stack([sign * np.arange(100.0)] * 3), labels, 30) for sign in (-1, 1))
    assert (every, none) == (wilson(20, 20), wilson(0, 20))
    with pytest.raises(NumericError, match="Coverage needs"):
        pooled_coverage(np.zeros((3, 4)), [1, 1, 1, 1], 2)


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_pooled_rank_figures_hold_the_truth_as_often_as_they_say(spread: float) -> None:
    """400 cases of three seeds: 95 % intervals hold in 92 to 98.5 %; a bootstrap over three seeds does in fewer."""
    # A score less one of the other label is normal with variance 2 · (1 + 0.25), and 1 the mean; over seeds the mean has variance spread².
    truth = norm.cdf(1 / math.sqrt(2.5 + spread**2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    cut = np.array([brentq(_over_the_cut, -9, 9, args=(1 + spread * node,)) for node in nodes])
    covered = float(weights @ norm.sf((cut - 1 - spread * nodes) / math.sqrt(1.25)) / weights.sum())
    generator, held = np.random.default_rng(4), np.zeros(2)
    for _ in range(400):
        scores, labels = raters(generator, 1.0, spread)
        area, coverage = pooled_auroc(scores, labels), pooled_coverage(scores, labels, 105)
        held += area.low <= truth <= area.high, coverage.low <= covered <= coverage.high
    assert ((held >= 0.92 * 400) & (held <= 0.985 * 400)).all(), held


def _over_the_cut(cut: float, distance: float) -> float:
    """How much more than 35 % of the examples of `raters` lie above the cut."""
    return float(0.3 * norm.sf((cut - distance) / math.sqrt(1.25)) + 0.7 * norm.sf(cut / math.sqrt(1.25)) - 0.35)


def test_permuted_labels_give_chance() -> None:
    generator = np.random.default_rng(8)
    found = auroc(generator.normal(size=2000), list(generator.integers(0, 2, size=2000)))
    assert found.low < 0.5 < found.high


def test_intervals_cover_the_truth_about_95_times_of_100() -> None:
    # 400 cases: the standard error of a coverage of 0.95 is 0.011, so [0.915, 0.985] is ± 3.2 of them.
    generator = np.random.default_rng(9)
    hits = {"wilson": 0, "mean": 0, "paired": 0, "auroc": 0}
    truth = 0.7602499389065233  # Φ(1/√2): a normal shifted by one against a standard normal
    for case in range(400):
        successes = int(generator.binomial(300, 0.55))
        hits["wilson"] += wilson(successes, 300).low <= 0.55 <= wilson(successes, 300).high
        found = bootstrap_mean(generator.exponential(size=150), draws=300, seed=case)
        hits["mean"] += found.low <= 1.0 <= found.high
        item = generator.normal(size=150)
        found = paired_bootstrap(item + generator.normal(0.3, 1, 150), item, draws=300, seed=case)
        hits["paired"] += found.low <= 0.3 <= found.high
        found = auroc(np.concatenate([generator.normal(1, 1, 60), generator.normal(0, 1, 60)]), [1] * 60 + [0] * 60)
        hits["auroc"] += found.low <= truth <= found.high
    assert all(0.915 <= count / 400 <= 0.985 for count in hits.values()), hits


def test_loads_no_torch() -> None:
    code = (
        "import sys, biasdiff_core.evaluation.statistics, biasdiff_core.evaluation.crows_pairs, biasdiff_core.evaluation.perplexity; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
