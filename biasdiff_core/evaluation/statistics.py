"""Intervals and tests. Every interval is 95 % and two-sided; loads no torch.

NaN in a value means not scored (a tie): it leaves the denominator of its own mean and keeps its place in the pairing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binom, binomtest, norm, rankdata
from scipy.stats import t as student

from biasdiff_core.errors import NumericError

Floats = NDArray[np.float64]

_Z95 = float(norm.ppf(0.975))
# Indices drawn at a time by the bootstrap: 8 MB.
_CHUNK = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Share:
    """A ratio with its 95 % interval, or None three times and the `reason` why it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    reason: str = ""


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """A proportion and its score interval (Wilson 1927). Raises NumericError unless 0 ≤ successes ≤ n and n > 0."""
    if n <= 0 or not 0 <= successes <= n:
        raise NumericError(f"{successes} of {n} is not a proportion.")
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Estimate(value=successes / n, low=float(interval.low), high=float(interval.high))


def mcnemar_exact(only_reference: int, only_variant: int) -> float:
    """Two-sided exact p-value that both kinds of discordant pairs are equally likely; 1 when there are none (McNemar 1947)."""
    discordant = only_reference + only_variant
    return 1.0 if discordant == 0 else float(binomtest(only_reference, discordant, 0.5).pvalue)


def smallest_detectable_change(n: int, discordant_share: float, *, power: float = 0.8) -> float | None:
    """The smallest change of a proportion, in (0, 1], that exact McNemar at 5 % two-sided finds in n pairs with this probability.

    `discordant_share`: expected share of pairs that change sides. The number of discordant pairs is binomial, and given it the test's
    power is exact (Duffy 1984; the normal approximation is Connor 1987). None where even a change
    all in one direction would not be found so often. Raises NumericError unless n > 0 and the share lies in [0, 1].
    """
    if n <= 0 or not 0 <= discordant_share <= 1:
        raise NumericError(f"A share of {discordant_share} discordant pairs of {n} is none.")
    discordant = np.arange(n + 1)
    weights = binom.pmf(discordant, n, discordant_share)
    discordant, weights = discordant[weights > 1e-12], weights[weights > 1e-12]
    # The most pairs in the rarer direction at which the test still rejects; −1 where it never does.
    quantile = np.asarray(binom.ppf(0.025, discordant, 0.5))
    critical = quantile - (binom.cdf(quantile, discordant, 0.5) > 0.025)

    def shortfall(change: float) -> float:
        rarer = (discordant_share - change) / (2 * discordant_share)
        found = binom.cdf(critical, discordant, rarer) + binom.cdf(critical, discordant, 1 - rarer)
        return float(weights @ found) - power

    if discordant_share == 0 or shortfall(discordant_share) < 0:
        return None
    return float(brentq(shortfall, 0.0, discordant_share))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for so many tests at once, in the order given (Holm 1979, step-down)."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return [float(value) for value in adjusted]


def bootstrap_mean(values: ArrayLike, *, draws: int, seed: int) -> Estimate:
    """Mean of the scored values [n] and its percentile bootstrap interval. Raises NumericError when none is scored."""
    totals, weights = _scored(values)
    return bootstrap_ratio(totals, weights, draws=draws, seed=seed)


def bootstrap_ratio(numerators: ArrayLike, denominators: ArrayLike, *, draws: int, seed: int) -> Estimate:
    """Σ numerators / Σ denominators over items [n] drawn with replacement, both from the same draw (percentile interval)."""
    top, bottom = _floats(numerators), _floats(denominators)
    if not bottom.sum():
        raise NumericError("No item is scored, so there is no mean.")
    return _estimate(float(top.sum() / bottom.sum()), _resampled_ratios(top, bottom, draws=draws, seed=seed))


def bootstrap_of_means(values: ArrayLike, combine: Callable[[Floats], Floats], *, draws: int, seed: int) -> Estimate:
    """combine(column means) of values [items, k], items drawn with replacement; `combine`: means [..., k] → values [...].

    Percentile interval, widened to hold the value: where `combine` has a kink (a minimum), resampled values lie to one side of it.
    """
    given = _floats(values)
    resampled = np.concatenate([combine(given[items].mean(axis=1)) for items in _resamples(len(given), draws, seed)])
    found = _estimate(float(combine(given.mean(axis=0))), resampled)
    return Estimate(value=found.value, low=min(found.low, found.value), high=max(found.high, found.value))


def paired_bootstrap(variant: ArrayLike, reference: ArrayLike, *, draws: int, seed: int) -> Estimate:
    """mean(variant) − mean(reference) over the same items [n]: each draw takes the same items of both (percentile interval)."""
    (top_v, bottom_v), (top_r, bottom_r) = _scored(variant), _scored(reference)
    if len(top_v) != len(top_r):
        raise NumericError(f"{len(top_v)} values cannot be paired with {len(top_r)}.")
    if not bottom_v.sum() or not bottom_r.sum():
        raise NumericError("No item is scored, so there is no mean.")
    value = float(top_v.sum() / bottom_v.sum() - top_r.sum() / bottom_r.sum())
    # The same seed gives the same items to both.
    differences = _resampled_ratios(top_v, bottom_v, draws=draws, seed=seed) - _resampled_ratios(top_r, bottom_r, draws=draws, seed=seed)
    return _estimate(value, differences)


def share_undone(origin: ArrayLike, after: ArrayLike, base: ArrayLike, *, draws: int, seed: int) -> Share:
    """(origin − after) / (origin − base) of the mean margins of the same pairs [n], with a paired bootstrap interval.

    Share of the induced rise undone; with the oracle's margins as `base`, of the removable rise. Not defined unless the
    interval of the rise, the denominator, lies above zero. A pair without a margin somewhere is left out.
    """
    from_origin = _floats(origin)
    undone, rise = from_origin - _floats(after), from_origin - _floats(base)
    scored = np.isfinite(undone) & np.isfinite(rise)
    undone, rise = undone[scored], rise[scored]
    denominator = bootstrap_mean(rise, draws=draws, seed=seed)
    if denominator.low <= 0:
        return Share(value=None, low=None, high=None, reason=_no_rise(denominator))
    ratio = bootstrap_ratio(undone, rise, draws=draws, seed=seed)
    return Share(value=ratio.value, low=ratio.low, high=ratio.high)


def pooled_difference(variant: ArrayLike, reference: ArrayLike) -> Estimate:
    """mean(variant) − mean(reference) of values [training seeds, items], both of which are samples: other seeds, other items.

    Crossed random effects: reach² = (t² · max(0, MS_seeds − MS_residual) + t'² · MS_items) / (seeds · items), of the mean squares of the
    two-way analysis of variance, t of seeds − 1 and t' of items − 1 degrees of freedom: the squares of the two parts' own reaches are
    added (Zou and Donner 2008). With three seeds a bootstrap is too narrow (`python -m benchmarks.calibration`). One seed is no sample
    of seeds, and the interval is then of that training. An item without a value somewhere is left out.
    """
    moved = _floats(variant) - _floats(reference)
    return _Crossed.of(moved[:, np.isfinite(moved).all(axis=0)][None]).interval(np.ones(1))


def pooled_share_undone(origin: ArrayLike, after: ArrayLike, base: ArrayLike) -> Share:
    """As `share_undone`, of margins [training seeds, pairs], seeds and pairs both samples: Fieller's (1954) interval.

    It holds the shares θ for which 0 lies in the interval of `pooled_difference` of undone − θ · rise. A base without training has one
    row [1, pairs]. Not defined unless the interval of the rise lies above zero.
    """
    from_origin = _floats(origin)
    both = np.stack(np.broadcast_arrays(from_origin - _floats(after), from_origin - _floats(base)))
    crossed = _Crossed.of(both[:, :, np.isfinite(both).all(axis=(0, 1))])
    rise = crossed.interval(np.array([0.0, 1.0]))
    if rise.low <= 0:
        return Share(value=None, low=None, high=None, reason=_no_rise(rise))

    def excluded(share: float) -> float:
        """Below 0 where the share cannot be told from the truth."""
        found = crossed.interval(np.array([1.0, -share]))
        return abs(found.value) - (found.high - found.low) / 2

    value = float(crossed.means[0] / crossed.means[1])
    ends = []
    for side in (-1.0, 1.0):
        reach = 1.0
        while excluded(value + side * reach) < 0:  # ends, for with ever greater shares it is the rise alone that is asked about
            reach *= 2
        ends.append(float(brentq(excluded, value, value + side * reach)))
    return Share(value=value, low=ends[0], high=ends[1])


@dataclass(frozen=True, kw_only=True)
class _Crossed:
    """Means [k] of k quantities [seeds, items], and the mean squares and products of their two-way tables [k, k].

    `residual` is what seeds and items do not explain, `by_seed` what the seeds add to it, negative where chance has them nearer than that.
    """

    means: Floats
    by_seed: Floats
    by_item: Floats
    residual: Floats
    seeds: int
    items: int

    @classmethod
    def of(cls, values: Floats) -> _Crossed:
        """Of values [k, seeds, items]. Raises NumericError without two items."""
        _, seeds, items = values.shape
        if items < 2:
            raise NumericError(f"{items} scored items give no interval.", "Compare on more.")
        means = values.mean(axis=(1, 2))
        of_seeds, of_items = values.mean(axis=2) - means[:, None], values.mean(axis=1) - means[:, None]
        rest = values - means[:, None, None] - of_seeds[:, :, None] - of_items[:, None]
        residual = np.tensordot(rest, rest, axes=([1, 2], [1, 2])) / max(1, (seeds - 1) * (items - 1))
        return cls(
            means=means,
            by_seed=items * (of_seeds @ of_seeds.T) / max(1, seeds - 1) - residual,
            by_item=seeds * (of_items @ of_items.T) / (items - 1),
            residual=residual,
            seeds=seeds,
            items=items,
        )

    def interval(self, weights: Floats) -> Estimate:
        """Of the sum of the k quantities, so weighted."""
        value, items = float(weights @ self.means), float(weights @ self.by_item @ weights)
        squares = float(student.ppf(0.975, self.items - 1)) ** 2 * items
        if self.seeds > 1:
            squares += float(student.ppf(0.975, self.seeds - 1)) ** 2 * max(0.0, float(weights @ self.by_seed @ weights))
        reach = math.sqrt(squares / (self.seeds * self.items))
        return Estimate(value=value, low=value - reach, high=value + reach)


def pooled_coverage(scores: ArrayLike, labels: Sequence[int], selected: int) -> Estimate:
    """Share of the examples with label 1 among the `selected` with the highest scores (Eq. 9), mean over training seeds.

    `scores` [training seeds, examples], ties by place; both are samples. Another sample moves the cut too: an example counts by its part
    in the coverage, y / π · (h − c) − ρ / π · (h − q), of label y, hit h, coverage c, share of label 1 π, selected share q, and ρ, the
    share of label 1 about the cut (the linearisation of Ash and Hughes-Oliver 2022). Those parts are pooled as in `pooled_difference`, on
    the logit scale; where all or none are hit, Wilson's interval of one seed's examples. Raises NumericError as `auroc`.
    """
    values, positive = _floats(scores), np.asarray(labels) == 1
    if positive.all() or not positive.any():
        raise NumericError("Coverage needs examples with and without the label 1, but all labels are the same.")
    size, near = values.shape[1], math.isqrt(values.shape[1])
    order = np.argsort(-values, axis=1, kind="stable")
    hit = (np.argsort(order, axis=1) < selected).astype(np.float64)
    covered, share = hit[:, positive].mean(axis=1, keepdims=True), positive.mean()
    at_cut = positive[order[:, max(0, selected - near) : selected + near]].mean(axis=1, keepdims=True)
    parts = covered + (positive * (hit - covered) - at_cut * (hit - selected / size)) / share
    value = float(covered.mean())
    if value in (0.0, 1.0):
        return wilson(round(value * positive.sum()), int(positive.sum()))
    found = pooled_difference(parts, np.zeros_like(parts))
    return _on_logit_scale(value, (found.high - found.low) / 2)


def auroc(scores: ArrayLike, labels: Sequence[int]) -> Estimate:
    """Probability that a positive (label 1) scores above a negative, ties counted half, with its interval.

    Interval: DeLong et al. (1988) on the logit scale; where the two are separated wholly and DeLong's variance is zero, the score
    interval of Newcombe (2006, method 5). Raises NumericError unless both labels occur.
    """
    return pooled_auroc(_floats(scores)[None], labels)


def pooled_auroc(scores: ArrayLike, labels: Sequence[int]) -> Estimate:
    """As `auroc`, the mean over training seeds, of scores [training seeds, examples]: both are samples, other seeds, other examples.

    Seeds cross examples as readers cross cases in Obuchowski and Rockette (1995): of the variance of the seeds' values, what DeLong's
    components within a seed leave there is the seeds' own, and DeLong's variance of the components' means over seeds is the examples'.
    The squares of the two reaches are added as in `pooled_difference`, on the logit scale. Ties and refusals as `auroc`.
    """
    values, positive = _floats(scores), np.asarray(labels) == 1
    if positive.all() or not positive.any():
        raise NumericError("AUROC needs positive and negative examples, but all labels are the same.")
    above, below = (np.stack(part) for part in zip(*(_components(row[positive], row[~positive]) for row in values), strict=True))
    value, seeds = float(above.mean()), len(values)
    sides = [_Crossed.of(side[None]) for side in (above, below) if side.shape[1] > 1]
    squares = _Z95**2 * sum(side.by_item.item() / (seeds * side.items) for side in sides)
    if seeds > 1:
        own = float(np.var(above.mean(axis=1), ddof=1)) - sum(side.residual.item() / side.items for side in sides)
        squares += float(student.ppf(0.975, seeds - 1)) ** 2 * max(0.0, own) / seeds
    if squares == 0.0 or value in (0.0, 1.0):
        low, high = _newcombe(value, int(positive.sum()), int((~positive).sum()))
        return Estimate(value=value, low=low, high=high)
    return _on_logit_scale(value, math.sqrt(squares))


def _components(positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """Of each positive the share of the negatives below it, of each negative that of the positives above it: midranks (Sun and Xu 2014)."""
    m, n = len(positives), len(negatives)
    ranks = rankdata(np.concatenate([positives, negatives]))
    return (ranks[:m] - rankdata(positives)) / n, 1 - (ranks[m:] - rankdata(negatives)) / m


def _on_logit_scale(value: float, reach: float) -> Estimate:
    """A share in (0, 1) with a reach that is carried over to the logit scale (delta method), so that the interval stays within."""
    reach /= value * (1 - value)
    return Estimate(value=value, low=float(expit(logit(value) - reach)), high=float(expit(logit(value) + reach)))


def _newcombe(value: float, m: int, n: int) -> tuple[float, float]:
    """Where |value − θ| = z √V(θ), V after Hanley and McNeil with (m + n)/2 − 1 in place of m − 1 and n − 1."""
    average = (m + n) / 2 - 1

    def distance(theta: float) -> float:
        variance = theta * (1 - theta) * (1 + average * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / (m * n)
        return (value - theta) ** 2 - _Z95**2 * variance

    low = 0.0 if value == 0 else float(brentq(distance, 0.0, value * (1 - 1e-12)))
    high = 1.0 if value == 1 else float(brentq(distance, value + (1 - value) * 1e-12, 1.0))
    return low, high


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _scored(values: ArrayLike) -> tuple[Floats, Floats]:
    """The values with 0 for those not scored, and 1 or 0 for scored or not."""
    given = _floats(values)
    return np.nan_to_num(given, nan=0.0), np.isfinite(given).astype(np.float64)


def _resampled_ratios(top: Floats, bottom: Floats, *, draws: int, seed: int) -> Floats:
    """Ratio of the sums in each draw, [draws]; NaN for a draw without a scored item."""
    ratios = np.full(draws, np.nan)
    done = 0
    for items in _resamples(len(top), draws, seed):
        sums = bottom[items].sum(axis=1)
        np.divide(top[items].sum(axis=1), sums, out=ratios[done : done + len(items)], where=sums != 0)
        done += len(items)
    return ratios


def _resamples(n: int, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Items drawn with replacement, [some draws, n] at a time."""
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK // n)
    for start in range(0, draws, step):
        yield generator.integers(0, n, size=(min(step, draws - start), n))


def _no_rise(rise: Estimate) -> str:
    return f"the rise of the mean margin, {rise.value:.3f} [{rise.low:.3f}, {rise.high:.3f}], is not clear of zero"


def _estimate(value: float, resampled: Floats) -> Estimate:
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high))
