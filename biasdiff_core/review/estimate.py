"""Precision, coverage and how many biased examples are left, from inspected decisions alone, for corpora without known labels.

What is inspected is known exactly, as in a census; only the number of biased examples among the open ones is estimated. For it two
strata are kept apart, the ranks that the review has reached and those beyond (`Review.reached`). In either, an example that was drawn is
a uniform draw from what of it was open at the time, whatever else had been chosen: with K biased ones in the stratum and f of them among
what had been inspected, it is biased with probability (K − f) / open. The product over the draws is the likelihood of K; beyond the
reached ranks, where nothing is inspected but draws, it is the hypergeometric one. Under the beta-binomial prior of Jeffreys' Beta(½, ½)
the number left is then beta-binomial, too (Ericson 1969; against exact intervals, which cover too much: Brown, Cai and DasGupta 2001).
A figure is the posterior median with the equal-tailed 95 % interval; `python -m benchmarks.review` measures how often these hold.

The interval is for one look, at a review that ends by plan or by what the ranks yield. Whoever looks again and again, and stops where it
pleases, may have less than 95 %; the stop hint (`suggest`) keeps its assurance under that use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from biasdiff_core.results import MetricResult
from biasdiff_core.review.design import PASSED_OVER, Bools, Review

Floats = NDArray[np.float64]

PRIOR = 0.5  # both shapes of Jeffreys' Beta
TAIL = 0.025
HALVINGS = 40  # of the unit interval, in search of a quantile of a share

INSPECTED = "Only inspected decisions count, bulk decisions never; `unsure` is not scored, `neutral_but_influential` is not biased."
COUNTED = "All of it is inspected, so this is a count."
ESTIMATED = "What is open is estimated from what was drawn at random ({draws:,}): posterior median, 95 % interval (Jeffreys' prior)."
UNTOLD = "Not known before examples are drawn at random there: the queues with a random slice do that."
NOTHING_FOUND = "Not defined before a biased example is found."
SIMULATED = " Decisions by the simulated auditor are among them."


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """The biased examples of a part of the ranking. `scored`: inspected examples; `draws`: those of them that were drawn.

    `found`: biased ones among the inspected; `left` [open + 1]: probability of each number of them among the open ones, or None where
    nothing tells. `passed`: examples that are not scored, open or `unsure`.
    """

    scored: int
    draws: int
    found: int
    left: Floats | None
    open: int
    passed: int


@lru_cache(maxsize=16)
def part_of(review: Review, start: int, stop: int) -> Part:
    """The ranks after `start` up to `stop`."""
    place = np.arange(len(review.open))
    inside, reached = (start <= place) & (place < stop), place < review.reached
    scored = inside[review.places]
    left_open = int(review.open[inside].sum())
    # Where hardly any is open, the prior may say alone that it is any number of these; elsewhere it would be the whole answer.
    told = bool((review.drawn & (inside & ~reached)[review.places]).any()) or left_open <= PASSED_OVER * inside.sum()
    return Part(
        scored=int(scored.sum()),
        draws=int(review.drawn[scored].sum()),
        found=int(review.biased[scored].sum()),
        left=np.convolve(_left(review, inside & reached), _left(review, inside & ~reached)) if told else None,
        open=left_open,
        passed=int(inside.sum() - scored.sum()),
    )


def precision_at(review: Review, cut: int) -> MetricResult:
    """Share of biased examples among the first `cut` of the ranking (Eq. 10), as a fraction."""
    part = part_of(review, 0, cut)
    judged = part.scored + part.open
    values = [(part.found + left) / judged for left in spread(part.left)] if part.left is not None and judged else []
    return _figure("precision", values, part, "biased / all within the cut.", review)


def coverage_at(review: Review, cut: int) -> MetricResult:
    """Share of all biased examples that lie within the first `cut` of the ranking (Eq. 9), as a fraction."""
    within, beyond, whole = (part_of(review, *ends) for ends in ((0, cut), (cut, len(review.open)), (0, len(review.open))))
    values = []
    if within.left is not None and beyond.left is not None and whole.found:
        values = [
            _share_quantile(within.found, within.left, beyond.found, beyond.left, probability) for probability in (0.5, TAIL, 1 - TAIL)
        ]
    return _figure("coverage", values, whole, "biased within the cut / all biased.", review)


def biased_examples(review: Review) -> MetricResult:
    """How many examples of the ranking are biased."""
    part = part_of(review, 0, len(review.open))
    values = [part.found + left for left in spread(part.left)] if part.left is not None else []
    return _figure("biased_examples", values, part, "biased ones found and left.", review, unit="examples")


def biased_left(review: Review) -> MetricResult:
    """How many biased examples are not inspected yet."""
    part = part_of(review, 0, len(review.open))
    values = spread(part.left) if part.left is not None else []
    return _figure("biased_left", values, part, "biased ones that are not inspected yet.", review, unit="examples")


def share_found(review: Review) -> MetricResult:
    """Share of all biased examples that is inspected, as a fraction."""
    part = part_of(review, 0, len(review.open))
    values = []
    if part.left is not None and part.found:
        middle, low, high = spread(part.left)
        values = [part.found / (part.found + left) for left in (middle, high, low)]
    return _figure("share_found", values, part, "biased found / all biased.", review)


def _left(review: Review, stratum: Bools) -> Floats:
    """Posterior probability of 0 … open biased ones among the open examples of a stratum, [open + 1]."""
    scored = stratum[review.places]
    biased, drawn = review.biased[scored], review.drawn[scored]
    numbers = np.arange(int(review.open[stratum].sum()) + 1)
    if len(numbers) == 1:
        return np.ones(1)
    kinds = ((biased.sum() + numbers, biased), ((~biased).sum() + numbers[::-1], ~biased))  # all of a kind; which of the inspected are
    logs = np.zeros(len(numbers))
    for total, of_kind in kinds:
        logs += gammaln(total + PRIOR) - gammaln(total + 1)
        for start, stop in _runs(drawn):
            # Draws with nothing chosen between: the ways to draw so many of the kind from what of it was open before them.
            remained = total - of_kind[:start].sum()
            logs += gammaln(remained + 1) - gammaln(remained - of_kind[start:stop].sum() + 1)
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def _runs(flags: Bools) -> list[tuple[int, int]]:
    """(start, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def spread(left: Floats) -> list[int]:
    """Median, 2.5 % and 97.5 % quantile."""
    return [int(number) for number in np.searchsorted(np.cumsum(left), [0.5, TAIL, 1 - TAIL])]


def _share_quantile(found_within: int, left_within: Floats, found_beyond: int, left_beyond: Floats, probability: float) -> float:
    """The least share within / (within + beyond) that is not exceeded with this probability; what is left here and there is independent."""
    within = found_within + np.arange(len(left_within))
    at_least = np.append(np.cumsum(left_beyond[::-1])[::-1], 0.0)  # P(left beyond ≥ 0, 1, …)
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        share = (low + high) / 2
        beyond = np.maximum(np.ceil(within * (1 - share) / share), within == 0)  # so many and the share is no larger; 0 of 0 counts as 1
        needed = np.clip(beyond - found_beyond, 0, len(left_beyond)).astype(np.int64)
        low, high = (low, share) if left_within @ at_least[needed] >= probability else (share, high)
    return high


def _figure(name: str, values: Sequence[float], part: Part, measure: str, review: Review, *, unit: str = "") -> MetricResult:
    how = COUNTED if not part.open else ESTIMATED.format(draws=part.draws)
    if not values:
        how = NOTHING_FOUND if part.left is not None else UNTOLD
    value, low, high = values or (None, None, None)
    return MetricResult(
        name=name,
        value=value,
        low=low,
        high=high,
        n=part.scored,
        not_scored=part.passed,
        convention=f"{INSPECTED} {measure[0].upper()}{measure[1:]} {how}{SIMULATED if review.simulated else ''}",
        unit=unit,
    )
