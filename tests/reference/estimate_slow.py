"""The estimates of a review, slow and obvious: every possible number of biased examples weighed by a plain product, in exact fractions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

Inspection = tuple[bool, bool]  # biased, drawn


def prior(total: int, size: int) -> Fraction:
    """Beta-binomial with both shapes ½, but for a constant: Γ(k + ½) / k! as a product of (j − ½) / j, and the same for the others."""
    weight = Fraction(1)
    for count in (total, size - total):
        for j in range(1, count + 1):
            weight *= Fraction(2 * j - 1, 2 * j)
    return weight


def left_slow(inspections: Sequence[Inspection], open_: int) -> list[float]:
    """Probability of 0 … open biased ones among the open examples of one stratum. `inspections`: in order."""
    size = len(inspections) + open_
    weights = []
    for left in range(open_ + 1):
        total = left + sum(biased for biased, _ in inspections)
        weight, before = prior(total, size), 0
        for number, (biased, drawn) in enumerate(inspections):
            chance = Fraction(total - before, size - number)
            if drawn:
                weight *= chance if biased else 1 - chance
            before += biased
        weights.append(weight)
    return [float(weight / sum(weights)) for weight in weights]


def share_quantile_slow(
    found_within: int, left_within: Sequence[float], found_beyond: int, left_beyond: Sequence[float], probability: float
) -> float:
    """The least share within / (within + beyond) whose cumulated probability reaches this one; 0 of 0 counts as 1."""
    joint = []
    for more_within, p in enumerate(left_within):
        for more_beyond, q in enumerate(left_beyond):
            within, beyond = found_within + more_within, found_beyond + more_beyond
            joint.append((within / (within + beyond) if within + beyond else 1.0, p * q))
    cumulated = 0.0
    for share, weight in sorted(joint):
        cumulated += weight
        if cumulated >= probability:
            return share
    return 1.0


def evidence_slow(inspections: Sequence[Inspection], open_: int, target: Fraction) -> Fraction:
    """The probability ratio of the stop hint."""
    found = sum(biased for biased, _ in inspections)
    missed = 0
    while missed == 0 or Fraction(found, missed) >= target:
        missed += 1
    met = min(Fraction(missed - 1), target * missed)
    ratio, before = Fraction(1), 0
    for number, (biased, drawn) in enumerate(inspections):
        remained = len(inspections) + open_ - number
        if drawn:
            enough, too_few = Fraction(met - before, remained), Fraction(missed - before, remained)
            ratio *= enough / too_few if biased else (1 - enough) / (1 - too_few)
        before += biased
    return ratio
