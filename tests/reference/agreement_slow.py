"""Agreement, slow and obvious: every pair of verdicts is looked at by itself. None where undefined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fractions import Fraction

Verdicts = Mapping[str, str | None]


def krippendorff_alpha(ratings: Mapping[str, Verdicts]) -> Fraction | None:
    """From the matrix of coincidences, filled by one ordered pair of auditors on one example at a time."""
    coincidences: Counter[tuple[str, str]] = Counter()
    for id_ in {id_ for verdicts in ratings.values() for id_ in verdicts}:
        given = [verdicts[id_] for verdicts in ratings.values() if verdicts.get(id_) is not None]
        for i, one in enumerate(given):
            for j, other in enumerate(given):
                if i != j:
                    coincidences[str(one), str(other)] += Fraction(1, len(given) - 1)  # type: ignore[assignment]
    total = Fraction(sum(coincidences.values()))
    of_verdict: Counter[str] = Counter()
    for (one, _), times in coincidences.items():
        of_verdict[one] += times
    observed = sum(times for (one, other), times in coincidences.items() if one != other)
    expected = sum(of_verdict[one] * of_verdict[other] for one in of_verdict for other in of_verdict if one != other)
    return 1 - (total - 1) * observed / expected if expected else None


def cohen_kappa(first: Verdicts, second: Verdicts) -> Fraction | None:
    """From the shares of agreement seen, and of every first verdict set against every second one."""
    both = [(first[id_], second[id_]) for id_ in first if first[id_] is not None and second.get(id_) is not None]
    if not both:
        return None
    observed = Fraction(sum(one == other for one, other in both), len(both))
    by_chance = Fraction(sum(one == other for one, _ in both for _, other in both), len(both) ** 2)
    return None if by_chance == 1 else (observed - by_chance) / (1 - by_chance)
