"""Figures in words: every metric with interval, n and convention, durations, sizes, times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from biasdiff_core.guide import guide_of
from biasdiff_core.report import figure_text
from biasdiff_core.results import MetricResult

DASH = "–"


def metric_text(metric: MetricResult | None, *, with_n: bool = True) -> str:
    """`54.4 % [51.7, 57.1], n = 400`; a dash where there is none. Without n only where n stands beside it."""
    if metric is None:
        return DASH
    return figure_text(metric) + (f", n = {metric.n}" if with_n else "")


def metric_help(metric: MetricResult) -> str:
    """What it is (`guide`), the convention, what was left out, and the chance level."""
    left_out = f", {metric.not_scored} not scored" if metric.not_scored else ""
    parts = [f"{guide_of(metric.name).words()} {metric.convention}", f"n = {metric.n}{left_out}"]
    if metric.chance is not None:
        parts.append(f"chance {metric.chance:g}")
    return "; ".join(parts)


def p_text(value: float) -> str:
    """`0.0123`, or `< 0.0001`."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def duration(seconds: float) -> str:
    """`12 s`, `9 min`, `2.5 h`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def count(number: int, noun: str) -> str:
    """`1 example`, `1,508 pairs` (`noun` in the singular)."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def uncounted_words(titles: Sequence[str]) -> str:
    """`, without lm-evaluation-harness`: what a prediction leaves out; empty where it has everything."""
    return f", without {', '.join(titles)}" if titles else ""


def moment(created: str) -> str:
    """An ISO time of the record, in local time: `2026-11-24 12:06`."""
    return datetime.fromisoformat(created).astimezone().strftime("%Y-%m-%d %H:%M")
