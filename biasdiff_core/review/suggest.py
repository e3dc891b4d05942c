"""What to review next: what more reviews would find, whether to go on by rank or at random, and when it is enough.

The stop hint is Wald's probability ratio (1945) of two numbers of biased examples: one with which the target is just met, and the least
with which it is missed. Every draw multiplies it by the probability of what was drawn under the first over that under the second. With
the second as the true number the product is a martingale of mean 1, whatever is chosen between the draws, and it grows with the number
supposed; so where the target is missed, the hint is ever given with probability 1 − confidence at most, although the two
numbers grow with what is found (Ville 1939; sampling without replacement: Waudby-Smith and Ramdas 2020). One may look after each decision
and stop at the first hint. The question, recall ≥ target, is that of Callaghan and Müller-Hansen (2020), whose hypergeometric
test at one fixed size of the sample does not allow that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, log
from typing import Literal

import numpy as np
from scipy.stats import betabinom

from biasdiff_core.errors import ReviewError
from biasdiff_core.results import MetricResult
from biasdiff_core.review.design import Ints, Review
from biasdiff_core.review.estimate import INSPECTED, PRIOR, SIMULATED, Floats, part_of, spread

NEIGHBOURS = 20  # inspected examples about a rank that its rate comes from
NEXT = 50  # examples looked ahead
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """Which share of the biased examples is to be found, with which confidence. Raises ReviewError unless both lie between 0 and 1."""

    target: float = 0.95
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not (0 < self.target < 1 and 0 < self.confidence < 1):
            raise ReviewError(f"A target of {self.target} with confidence {self.confidence} is none.", "Give shares between 0 and 1.")

    def words(self) -> str:
        """`90 % of the biased examples, with 95 % confidence`."""
        return f"{100 * self.target:g} % of the biased examples, with {100 * self.confidence:g} % confidence"


@dataclass(frozen=True, kw_only=True)
class StopHint:
    """Whether enough is found by the rule.

    `evidence`: the probability ratio, or infinity where the target cannot be missed; enough from 1 / (1 − confidence).
    `draws`: how many more examples at random it takes at least, none of them biased; 0 when reached.
    """

    rule: StopRule
    evidence: float
    draws: int

    @property
    def reached(self) -> bool:
        """Whether one may stop."""
        return self.draws == 0


def stop_hint(review: Review, rule: StopRule) -> StopHint:
    """Whether enough is found. Its assurance is that of a rule chosen before the review (see `stop_rule`)."""
    target = rule.target
    found, left_open = int(review.biased.sum()), int(review.open.sum())
    missed = floor(found / Fraction(str(target))) + 1  # the least number of biased examples with which the target is missed
    if missed > found + left_open:
        return StopHint(rule=rule, evidence=np.inf, draws=0)
    met = min(missed - 1.0, target * missed)
    before: Ints = (np.cumsum(review.biased) - review.biased)[review.drawn]
    remained = (left_open + len(review.biased) - np.arange(len(review.biased)))[review.drawn]
    hits = review.biased[review.drawn]
    ratios = np.where(hits, (met - before) / (missed - before), (remained - met + before) / np.maximum(1, remained - missed + before))
    evidence = float(np.log(ratios).sum())
    # What each further draw gives that is not biased; after the last of these not enough is open for the target to be missed.
    others = left_open - (missed - found) - np.arange(left_open - (missed - found))
    gains = evidence + np.cumsum(np.log(others + missed - met) - np.log(others))
    enough = -log(1 - rule.confidence) - ROUNDING
    draws = 0 if evidence >= enough else int(np.searchsorted(gains, enough)) + 1
    return StopHint(rule=rule, evidence=float(np.exp(evidence)), draws=draws)


def expected_found(review: Review, upcoming: Sequence[int]) -> MetricResult:
    """How many biased examples the next reviews would find. `upcoming`: the places (rank − 1) of open examples, e.g. the next of a queue.

    Median and 95 % interval of the number found (beta-binomial), at the mean of the rates about these places.
    """
    whole = part_of(review, 0, len(review.open))
    values: Sequence[int | None] = (None, None, None)
    if len(upcoming) and whole.scored:
        rates, seen = _rates(review)
        rate, weight = rates[list(upcoming)].mean(), seen[list(upcoming)].mean() + 2 * PRIOR
        numbers = np.arange(len(upcoming) + 1)
        values = spread(betabinom.pmf(numbers, len(upcoming), rate * weight, (1 - rate) * weight))
    value, low, high = values
    return MetricResult(
        name="expected_found",
        value=value,
        low=low,
        high=high,
        n=whole.scored,
        not_scored=whole.passed,
        convention=f"{INSPECTED} Biased ones to be found in the next {len(upcoming)}, by the {NEIGHBOURS} inspected examples nearest in "
        f"rank to each: median and 95 % interval of the number (Jeffreys' prior).{SIMULATED if review.simulated else ''}",
        unit="examples",
    )


def next_queue(review: Review) -> Literal["mixed", "random"]:
    """`mixed` while the next by rank promise more than examples at random do; else `random`, which finds as many and tells more."""
    if len(review.places) < NEXT or not review.drawn.any():
        return "mixed"  # nothing tells the ranks apart yet
    open_rates = _rates(review)[0][review.open]
    return "mixed" if open_rates[:NEXT].mean() > open_rates.mean() else "random"


def _rates(review: Review) -> tuple[Floats, Ints]:
    """Rate of biased ones about each place of the ranking, and from how many inspected examples: half of them above, half below."""
    order = np.argsort(review.places)
    found = np.concatenate([[0], np.cumsum(review.biased[order])])
    here = np.searchsorted(review.places[order], np.arange(len(review.open)))
    first, last = np.maximum(0, here - NEIGHBOURS // 2), np.minimum(len(order), here + NEIGHBOURS // 2)
    seen = last - first
    return (found[last] - found[first] + PRIOR) / (seen + 2 * PRIOR), seen
