"""Intervals and tests. Every interval is 95 % and two-sided; loads no torch.

NaN in a value means not scored (a tie): it leaves the denominator of its own mean and keeps its place in the pairing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binomtest, norm, rankdata

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
    interval of the rise, the denominator, lies above zero.
    """
    from_origin = _floats(origin)
    undone, rise = from_origin - _floats(after), from_origin - _floats(base)
    denominator = bootstrap_mean(rise, draws=draws, seed=seed)
    if denominator.low <= 0:
        found = f"{denominator.value:.3f} [{denominator.low:.3f}, {denominator.high:.3f}]"
        return Share(value=None, low=None, high=None, reason=f"the rise of the mean margin, {found}, is not clear of zero")
    ratio = bootstrap_ratio(undone, rise, draws=draws, seed=seed)
    return Share(value=ratio.value, low=ratio.low, high=ratio.high)


def auroc(scores: ArrayLike, labels: Sequence[int]) -> Estimate:
    """Probability that a positive (label 1) scores above a negative, ties counted half, with its interval.

    Interval: DeLong et al. (1988) on the logit scale; where the two are separated wholly and DeLong's variance is zero, the score
    interval of Newcombe (2006, method 5). Raises NumericError unless both labels occur.
    """
    values, positive = _floats(scores), np.asarray(labels) == 1
    if positive.all() or not positive.any():
        raise NumericError("AUROC needs positive and negative examples, but all labels are the same.")
    value, error = _delong(values[positive], values[~positive])
    if error == 0.0 or value in (0.0, 1.0):
        low, high = _newcombe(value, int(positive.sum()), int((~positive).sum()))
        return Estimate(value=value, low=low, high=high)
    reach = _Z95 * error / (value * (1 - value))
    return Estimate(value=value, low=float(expit(logit(value) - reach)), high=float(expit(logit(value) + reach)))


def _delong(positives: Floats, negatives: Floats) -> tuple[float, float]:
    """AUROC and its standard error from midranks (Sun and Xu 2014)."""
    m, n = len(positives), len(negatives)
    ranks = rankdata(np.concatenate([positives, negatives]))
    above = (ranks[:m] - rankdata(positives)) / n  # of each positive: share of the negatives below it
    below = 1 - (ranks[m:] - rankdata(negatives)) / m  # of each negative: share of the positives above it
    variance = sum(float(np.var(part, ddof=1)) / len(part) for part in (above, below) if len(part) > 1)
    return float(above.mean()), math.sqrt(variance)


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


def _estimate(value: float, resampled: Floats) -> Estimate:
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high))
