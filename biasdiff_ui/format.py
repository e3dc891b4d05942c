"""Figures in words: every metric with interval, n and convention, durations, sizes, times."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from biasdiff_core.results import MetricResult, PairedTest

DASH = "–"
FIGURES: Mapping[str, str] = {
    "metric_score": "CrowS-Pairs metric score",
    "stereotype_score": "CrowS-Pairs stereotype score",
    "anti_stereotype_score": "CrowS-Pairs anti-stereotype score",
    "stereotype_margin": "mean margin of the stereotype pairs",
    "rise_undone": "share of the induced rise undone",
}
VARIANTS: Mapping[str, str] = {
    "base": "base (before warm-up)",
    "origin": "origin (trained on the corpus)",
    "retrain": "retrain",
    "npo": "NPO",
    "random": "random control",
}
DIGITS: Mapping[str, int] = {"%": 1}


def metric_name(name: str) -> str:
    """`crows_pairs.sum.stereotype_score` as `CrowS-Pairs stereotype score (sum)`."""
    family, _, rest = name.partition(".")
    scoring, _, figure = rest.partition(".")
    figure, _, kind = figure.partition(".")
    if family != "crows_pairs":
        return "held-out perplexity" if name == "perplexity" else name.replace(".", " ").replace("_", " ")
    return f"{FIGURES.get(figure, figure)} ({scoring}{', ' + kind if kind else ''})"


def metric_text(metric: MetricResult | None, *, with_n: bool = True) -> str:
    """`54.4 % [51.7, 57.1], n = 400`; a dash where there is none. Without n only where n stands beside it."""
    if metric is None:
        return DASH
    n = f", n = {metric.n}" if with_n else ""
    if metric.value is None:
        return f"not defined{n}"
    digits = DIGITS.get(metric.unit, 2 if abs(metric.value) >= 1 else 3)
    value, _, interval = metric.text(digits).partition(" ")
    unit = f" {metric.unit}" if metric.unit == "%" else ""
    return f"{value}{unit} {interval}".strip() + n


def metric_help(metric: MetricResult) -> str:
    """The convention, what was left out, and the chance level."""
    parts = [metric.convention, f"n = {metric.n}" + (f", {metric.not_scored} not scored" if metric.not_scored else "")]
    if metric.chance is not None:
        parts.append(f"chance {metric.chance:g}")
    return "; ".join(parts)


def test_words(test: PairedTest) -> str:
    """`lower by 3.1 [1.0, 5.2]`: percentage points of a score, nats of a margin."""
    return test.words(3 if test.metric.endswith("margin") else 1)


def p_text(value: float) -> str:
    """`0.0123`, or `< 0.0001`."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def variant_name(variant: str) -> str:
    """The variant's name without its explanation."""
    return VARIANTS.get(variant, variant).partition(" (")[0]


def duration(seconds: float) -> str:
    """`12 s`, `9 min`, `2.5 h`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def count(number: int, noun: str) -> str:
    """`1 example`, `1,508 pairs` (`noun` in the singular)."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def moment(created: str) -> str:
    """An ISO time of the record, in local time: `2026-11-24 12:06`."""
    return datetime.fromisoformat(created).astimezone().strftime("%Y-%m-%d %H:%M")
