"""Conditions on a comparison, for a user's CI: `stereotype_margin.high > base.high` fails the build, with the reason.

    METRIC.FIELD  OP  NUMBER | VARIANT.FIELD

METRIC is a metric's name or its end; where several scorings of CrowS-Pairs have it, the headline's (the last) is meant. FIELD is
`value`, `low` or `high`; OP one of <, <=, >, >=. `VARIANT.FIELD` is the same metric of another variant. Loads no torch.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from biasdiff_core.errors import ConfigError
from biasdiff_core.results import Comparison, MetricResult

_OPERATORS: dict[str, Callable[[float, float], bool]] = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_CONDITION = re.compile(r"\s*(?P<metric>[\w.]+)\.(?P<field>value|low|high)\s*(?P<operator><=|>=|<|>)\s*(?P<right>\S+)\s*")
_SCORING = re.compile(r"^crows_pairs\.\w+\.")
_RIGHT = re.compile(r"(?P<variant>[\w-]+)\.(?P<field>value|low|high)")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One parsed condition. `bound`: a number, or (variant, field)."""

    text: str
    metric: str
    field: str
    operator: str
    bound: float | tuple[str, str]


def parse_condition(text: str) -> Condition:
    """Raises ConfigError with the grammar when `text` is no condition."""
    mend = 'Write it as "stereotype_margin.high > base.high" or "perplexity_ratio.value > 1.02".'
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} is not a condition.", mend)
    right = _RIGHT.fullmatch(found["right"])
    try:
        bound = (right["variant"], right["field"]) if right else float(found["right"])
    except ValueError as error:
        raise ConfigError(f"{found['right']!r} in {text!r} is neither a number nor a variant's field.", mend) from error
    return Condition(text=text.strip(), metric=found["metric"], field=found["field"], operator=found["operator"], bound=bound)


def reasons_to_fail(comparison: Comparison, conditions: Sequence[Condition], variants: Sequence[str]) -> list[str]:
    """A sentence for each variant and condition that holds, or that cannot be judged because a figure is not defined.

    Raises ConfigError for a metric or variant that the comparison does not have, and for a metric that may be several.
    """
    return [reason for condition in conditions for variant in variants if (reason := _reason(comparison, condition, variant))]


def _reason(comparison: Comparison, condition: Condition, variant: str) -> str:
    result = _metric(comparison, variant, condition.metric)
    left, right, shown = getattr(result, condition.field), condition.bound, ""
    if isinstance(right, tuple):
        other, field = right
        right = getattr(_metric(comparison, other, result.name), field)
        shown = f" ({other}'s {field})"
    where = f"{variant}: {condition.text}: {result.name} {condition.field}"
    if left is None or right is None:
        return f"{where} is not defined, so it cannot be judged ({result.convention})."
    if not _OPERATORS[condition.operator](left, right):
        return ""
    return f"{where} is {left:.4f} {condition.operator} {right:.4f}{shown}."


def _metric(comparison: Comparison, variant: str, name: str) -> MetricResult:
    if variant not in comparison.metrics:
        raise ConfigError(f"There is no variant {variant!r}.", f"It has: {', '.join(comparison.variants)}.")
    figures = comparison.metrics[variant]
    found = [name] if name in figures else [full for full in figures if full.endswith(f".{name}")]
    if not found:
        raise ConfigError(f"{variant} has no metric {name!r}.", f"It has: {', '.join(figures)}.")
    if len({_SCORING.sub("", full) for full in found}) > 1:
        raise ConfigError(f"{name!r} may be {', '.join(found)}.", "Write more of the name.")
    return figures[found[-1]]
