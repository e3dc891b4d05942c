"""Plain result types that cross stages: no bare float leaves a stage, each number carries its interval and convention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a long function is. `unit` is what is counted (examples, steps, pairs)."""

    stage: str
    done: int
    total: int
    unit: str = "steps"
    message: str = ""


ProgressCallback = Callable[[Progress], None]


def no_progress(_: Progress) -> None:
    """The callback of callers that do not watch."""


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """One measured figure.

    `low`, `high`: 95 % interval (None where none is defined, and `convention` says why). `n`: items scored.
    `not_scored`: items left out (ties, rows without a loss). `chance`: value of a method that knows nothing.
    `convention`: how exactly the figure is computed; shown wherever the figure is shown.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int
    not_scored: int = 0
    chance: float | None = None
    convention: str
    unit: str = ""
    seeds: int = 1

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> MetricResult:
        """Inverse of `to_json`. Raises TypeError on unknown fields."""
        return cls(**record)

    def text(self, digits: int = 2) -> str:
        """`54.42 [51.69, 57.12]`, or `not defined`."""
        if self.value is None:
            return "not defined"
        shown = f"{self.value:.{digits}f}"
        if self.low is not None and self.high is not None:
            shown += f" [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        return shown


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """A variant against its reference on the same items.

    `difference` = variant − reference with its paired-bootstrap interval. `p_value`: exact McNemar for counts,
    None where the measure has no such test. `only_reference`, `only_variant`: discordant pairs.
    """

    metric: str
    variant: str
    reference: str
    difference: float
    low: float
    high: float
    n: int
    p_value: float | None
    only_reference: int = 0
    only_variant: int = 0
    convention: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    def words(self, digits: int = 2) -> str:
        """The result in words: significant or not to be told from chance."""
        direction = "lower" if self.difference < 0 else "higher"
        if self.low <= 0 <= self.high:
            return f"cannot be told from no change ({self.difference:+.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}])"
        small, large = sorted((abs(self.low), abs(self.high)))
        return f"{direction} by {abs(self.difference):.{digits}f} [{small:.{digits}f}, {large:.{digits}f}]"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Variants × metrics with paired tests; `provenance` leads from each variant to its stage keys."""

    audit: str
    variants: tuple[str, ...]
    metrics: Mapping[str, Mapping[str, MetricResult]]  # variant -> metric name -> result
    tests: tuple[PairedTest, ...]
    provenance: Mapping[str, Mapping[str, str]]
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {
            "audit": self.audit,
            "variants": list(self.variants),
            "metrics": {v: {m: r.to_json() for m, r in rows.items()} for v, rows in self.metrics.items()},
            "tests": [t.to_json() for t in self.tests],
            "provenance": {v: dict(p) for v, p in self.provenance.items()},
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Comparison:
        """Inverse of `to_json`."""
        return cls(
            audit=record["audit"],
            variants=tuple(record["variants"]),
            metrics={v: {m: MetricResult.from_json(r) for m, r in rows.items()} for v, rows in record["metrics"].items()},
            tests=tuple(PairedTest(**t) for t in record["tests"]),
            provenance=record["provenance"],
            notes=tuple(record["notes"]),
        )
