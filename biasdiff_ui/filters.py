"""The filter bar of Explore: chained conditions, kept in the URL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from sys import float_info
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from biasdiff_ui.verdicts import UNDECIDED, VERDICTS, WORDS

TEXT, DECISION, SOURCE, GROUP, SCORE = "find", "decision", "from", "about", "score"
KEYS = (TEXT, DECISION, SOURCE, GROUP, SCORE)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """All conditions must hold; an empty one always does. `low`, `high`: bounds of the score, None = open."""

    text: str = ""
    verdicts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    def mask(self, table: pd.DataFrame, verdicts: pd.Series) -> np.ndarray:
        """Which rows pass, [rows] bool. `verdicts`: verdict of each row, `undecided` where there is none."""
        keep = np.ones(len(table), dtype=bool)
        if self.text.strip():
            keep &= table["searched"].str.contains(self.text.strip().casefold(), regex=False).to_numpy(dtype=bool)
        for column, wanted in ((verdicts, self.verdicts), (table["source"], self.sources), (table["group"], self.groups)):
            if wanted:
                keep &= column.isin(wanted).to_numpy()
        if self.low is not None:
            keep &= (table["score"] >= self.low).to_numpy()
        if self.high is not None:
            keep &= (table["score"] <= self.high).to_numpy()
        return keep

    def record(self) -> dict[str, Any]:
        """The conditions that are set, as plain values, for the record of a decision."""
        given = {
            "text": self.text.strip(),
            "decision": list(self.verdicts),
            "source": list(self.sources),
            "group": list(self.groups),
            "score_from": self.low,
            "score_to": self.high,
        }
        return {name: value for name, value in given.items() if value not in ("", [], None)}


def filter_bar(table: pd.DataFrame) -> Filter:
    """Draw the bar and return what it says."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="filter-bar"):
        text = st.text_input("Text contains", key=TEXT, bind="query-params", placeholder="a word or phrase", width=220)
        verdicts = st.multiselect(
            "Decision", [UNDECIDED, *VERDICTS], format_func=WORDS.__getitem__, key=DECISION, bind="query-params", width=200
        )
        sources = _choices("Source", table["source"], SOURCE)
        groups = _choices("Group", table["group"], GROUP)
        low, high = _score_range(table["score"])
        st.button("Clear filters", on_click=clear_filters)
    return Filter(text=text or "", verdicts=tuple(verdicts), sources=sources, groups=groups, low=low, high=high)


def clear_filters() -> None:
    """Back to all examples."""
    for key in KEYS:
        st.session_state.pop(key, None)


def _choices(label: str, column: pd.Series, key: str) -> tuple[str, ...]:
    values = column.value_counts()
    if len(values) < 2:
        return ()
    return tuple(st.multiselect(label, sorted(values.index), key=key, bind="query-params", width=200))


def _score_range(scores: pd.Series) -> tuple[float | None, float | None]:
    lowest, highest, step = score_bounds(scores.to_numpy())
    if lowest == highest:
        return None, None
    digits = max(0, -round(log10(step)))
    low, high = st.slider(
        "Influence score", lowest, highest, (lowest, highest), step, format=f"%.{digits}f", key=SCORE, bind="query-params", width=240
    )
    return (low if low > lowest else None), (high if high < highest else None)


def score_bounds(scores: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Lowest, highest (outwards to a whole step) and step (a power of ten, 100 to 1000 of them) of a score slider."""
    lowest, highest = float(np.min(scores)), float(np.max(scores))
    if lowest == highest:
        return lowest, highest, 1.0
    digits = 2 - floor(log10(highest - lowest))
    step = max(10.0**-digits, float_info.min)  # of scores that differ by less, the power of ten would be 0
    low, high = floor(lowest / step) * step, ceil(highest / step) * step
    # Of a whole step, but for scores so small beside it that rounding would leave them outside.
    return min(lowest, round(low, max(0, digits))), max(highest, round(high, max(0, digits))), step
