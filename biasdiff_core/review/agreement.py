"""How far auditors agree: Krippendorff's alpha (any number of them) and Cohen's kappa (each two), overall and by bias type.

Both are functions of sums over examples, so a bootstrap over examples draws how often each pattern of verdicts occurs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biasdiff_core.results import MetricResult
from biasdiff_core.review.decisions import SIMULATED_AUDITOR, Decision

Floats = NDArray[np.float64]
Verdicts = Mapping[str, str | None]  # example id → verdict; None: seen, but not judged
Ratings = Mapping[str, Verdicts]  # by auditor

ALL = "all"
DRAWS = 2000
SEED = 0
# Undefined resamples beyond this share could move a bound, whichever way they were counted.
MOST_UNDEFINED = 0.05

VERDICTS_TAKEN = (
    "The latest inspected verdict of each auditor, bulk decisions and adjudications aside; `unsure` counts as no verdict. "
    "Verdicts are blind for certain only where the examples were assigned. "
)
ALPHA = "Krippendorff's alpha, nominal: 1 − observed / expected disagreement, of the examples with two verdicts or more. "
KAPPA = "Cohen's kappa: (observed − expected agreement) / (1 − expected agreement), of the examples that both judged. "
INTERVAL = f"95 % percentile bootstrap over examples, {DRAWS:,} draws."


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The figures of one bias type, or of `ALL`. `kappas`: by pair of auditors, in alphabetical order."""

    bias_type: str
    alpha: MetricResult
    kappas: Mapping[tuple[str, str], MetricResult]


def agreement(verdicts: Mapping[str, Mapping[str, Decision]], bias_types: Mapping[str, str]) -> list[Agreement]:
    """Figures over all examples, then by bias type in alphabetical order.

    `verdicts`: as `DecisionLog.by_auditor()`; `bias_types`: of each example id; an id without one counts in `ALL` alone.
    """
    ratings: dict[str, dict[str, str | None]] = {
        auditor: {id_: None if decision.verdict == "unsure" else decision.verdict for id_, decision in held.items()}
        for auditor, held in sorted(verdicts.items())
    }
    found = sorted({bias_types[id_] for held in ratings.values() for id_ in held if id_ in bias_types})
    rows = [_figures(ALL, ratings)]
    for bias_type in found:
        of_type = {a: {id_: v for id_, v in held.items() if bias_types.get(id_) == bias_type} for a, held in ratings.items()}
        rows.append(_figures(bias_type, of_type))
    return rows


def _figures(bias_type: str, ratings: Ratings) -> Agreement:
    kappas = {(a, b): cohen_kappa(ratings[a], ratings[b], _note((a, b))) for a, b in combinations(ratings, 2)}
    return Agreement(bias_type=bias_type, alpha=krippendorff_alpha(ratings, _note(ratings)), kappas=kappas)


def _note(auditors: Collection[str]) -> str:
    return " The simulated auditor is one of them." if SIMULATED_AUDITOR in auditors else ""


def krippendorff_alpha(ratings: Ratings, note: str = "") -> MetricResult:
    """Krippendorff's alpha for nominal data with missing values (Krippendorff 2011); `n`: examples with two verdicts or more."""
    marks = _marks(list(ratings.values()))
    counts = marks.sum(axis=0)
    paired = counts[counts.sum(axis=1) > 1]
    each = paired.sum(axis=1)
    # Ordered pairs of verdicts on an example that differ, over the verdicts that each could be paired with.
    disagreement = (each**2 - (paired**2).sum(axis=1)) / (each - 1)

    def alpha(sums: Floats) -> Floats:
        total: Floats = sums[..., 1:].sum(axis=-1)
        expected: Floats = total**2 - np.square(sums[..., 1:]).sum(axis=-1)
        return 1 - (total - 1) * sums[..., 0] / expected

    features = np.column_stack([disagreement, paired])
    return _measured("krippendorff_alpha", features, alpha, len(counts) - len(paired), ALPHA, note)


def cohen_kappa(first: Verdicts, second: Verdicts, note: str = "") -> MetricResult:
    """Cohen's kappa of two auditors (Cohen 1960); `n`: examples that both judged."""
    one, other = _marks([first, second])
    both = one.any(axis=1) & other.any(axis=1)
    agreed = (one * other).sum(axis=1)[both]
    categories = one.shape[1]

    def kappa(sums: Floats) -> Floats:
        n: Floats = sums[..., 1 : 1 + categories].sum(axis=-1)
        by_chance: Floats = (sums[..., 1 : 1 + categories] * sums[..., 1 + categories :]).sum(axis=-1) / n**2
        return (sums[..., 0] / n - by_chance) / (1 - by_chance)

    features = np.column_stack([agreed, one[both], other[both]])
    return _measured("cohen_kappa", features, kappa, len(one) - int(both.sum()), KAPPA, note)


def _marks(ratings: Sequence[Verdicts]) -> Floats:
    """[auditors, examples that one of them saw, verdicts]: 1 where the auditor gave this verdict."""
    ids = sorted({id_ for verdicts in ratings for id_ in verdicts})
    categories = sorted({verdict for verdicts in ratings for verdict in verdicts.values() if verdict is not None})
    marks = [[[verdicts.get(id_) == category for category in categories] for id_ in ids] for verdicts in ratings]
    return np.array(marks, dtype=np.float64).reshape(len(ratings), len(ids), len(categories))


def _measured(name: str, features: Floats, statistic: Callable[[Floats], Floats], not_scored: int, formula: str, note: str) -> MetricResult:
    """`statistic`: sums of features over examples [..., k] → values [...], not finite where undefined. `features`: [examples, k]."""
    common: dict[str, Any] = {"name": name, "n": len(features), "not_scored": not_scored, "chance": 0.0}
    value = _finite(statistic, features.sum(axis=0)) if len(features) else np.array(np.nan)
    if np.isnan(value):
        why = "one verdict alone occurs, so nothing could be expected to disagree" if len(features) else "no example has two verdicts"
        return MetricResult(**common, value=None, convention=f"{VERDICTS_TAKEN}{formula}Not defined: {why}.{note}")
    low, high, reason = _bounds(features, statistic)
    return MetricResult(**common, value=float(value), low=low, high=high, convention=f"{VERDICTS_TAKEN}{formula}{reason}{note}")


def _bounds(features: Floats, statistic: Callable[[Floats], Floats]) -> tuple[float | None, float | None, str]:
    """The interval's ends, and how it was found or why there is none."""
    # Resampling examples is drawing the multinomial counts of their distinct patterns.
    patterns, times = np.unique(features, axis=0, return_counts=True)
    drawn = np.random.default_rng(SEED).multinomial(len(features), times / len(features), size=DRAWS)
    resampled = _finite(statistic, drawn @ patterns)
    if len(np.unique(resampled[~np.isnan(resampled)])) < 2:
        return None, None, "No interval: every resample has the same value."
    if np.isnan(resampled).mean() > MOST_UNDEFINED:
        return None, None, f"No interval: in more than {MOST_UNDEFINED:.0%} of the resamples one verdict alone occurs."
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return float(low), float(high), INTERVAL


def _finite(statistic: Callable[[Floats], Floats], sums: Floats) -> Floats:
    """The statistic, NaN where it is undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.asarray(statistic(sums))
    return np.where(np.isfinite(found), found, np.nan)
