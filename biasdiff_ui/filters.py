"""The filter bar of Explore: chained conditions, kept in the URL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from sys import float_info
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import streamlit as st

from biasdiff_core.errors import DataError
from biasdiff_ui.verdicts import UNDECIDED, VERDICTS, WORDS

Copies = Literal["all", "repeated", "one of each"]
COPIES: tuple[Copies, ...] = get_args(Copies)
TEXT, REGEX, DECISION, TYPE, SOURCE, GROUP, SCORE = "find", "regex", "decision", "type", "from", "about", "score"
FIRST, LAST, AUDITOR, COPY = "rank_from", "rank_to", "by", "copies"
CLUSTER = "cluster"  # offered where the map is coloured by cluster
FOUND = "found"  # drawn with the search by a sentence
KEYS = (TEXT, REGEX, DECISION, TYPE, SOURCE, GROUP, SCORE, FIRST, LAST, AUDITOR, COPY, CLUSTER, FOUND)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """All conditions must hold; an empty one always does.

    `text`: part of the text or prompt, any case, as it is or, with `regex`, as a regular expression (RE2, whose time grows with the text
    alone). `low`, `high`: bounds of the score, `first`, `last`: of the rank, None = open. `copies`: all, only what has duplicates, or the
    best rank of each group of them. `clusters`: names, for a table that has the cluster of each row.
    """

    text: str = ""
    regex: bool = False
    verdicts: tuple[str, ...] = ()
    bias_types: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    first: int | None = None
    last: int | None = None
    auditors: tuple[str, ...] = ()
    copies: Copies = "all"
    clusters: tuple[str, ...] = ()

    def mask(self, table: pd.DataFrame, verdicts: pd.Series, auditors: pd.Series) -> np.ndarray:
        """Which rows pass, [rows] bool. `verdicts`, `auditors`: of the decision on each row, `undecided` and empty where there is none.

        Raises DataError when the text is to be a regular expression and is none.
        """
        keep = np.ones(len(table), dtype=bool)
        if self.text.strip():
            keep &= self._found(table["text"]) | self._found(table["prompt"])
        values = ((verdicts, self.verdicts), (auditors, self.auditors))
        named = (("bias_type", self.bias_types), ("source", self.sources), ("group", self.groups), ("cluster", self.clusters))
        for column, wanted in (*values, *((table.get(name), wanted) for name, wanted in named)):
            if wanted:
                keep &= column.isin(wanted).to_numpy()
        for name, low, high in (("score", self.low, self.high), ("rank", self.first, self.last)):
            if low is not None:
                keep &= (table[name] >= low).to_numpy()
            if high is not None:
                keep &= (table[name] <= high).to_numpy()
        if self.copies != "all":
            keep &= (table["copy"] > 0 if self.copies == "repeated" else table["copy"] <= 1).to_numpy()
        return keep

    def _found(self, texts: pd.Series) -> np.ndarray:
        """Which of the texts [rows] hold the wanted one. Arrow looks through 100,000 of them in a few hundredths of a second."""
        if texts.isna().all():
            return np.zeros(len(texts), dtype=bool)
        match = pc.match_substring_regex if self.regex else pc.match_substring
        try:
            found = match(pa.array(texts, pa.large_string()), self.text.strip(), ignore_case=True)
        except pa.ArrowInvalid as error:
            raise DataError(f"{self.text.strip()!r} is no regular expression: {error}.", "Correct it, or turn Regex off.") from error
        return np.asarray(found.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)

    def record(self) -> dict[str, Any]:
        """The conditions that are set, as plain values, for the record of a decision."""
        given = {
            "text": self.text.strip(),
            "regex": self.regex and bool(self.text.strip()),
            "decision": list(self.verdicts),
            "bias_type": list(self.bias_types),
            "source": list(self.sources),
            "group": list(self.groups),
            "score_from": self.low,
            "score_to": self.high,
            "rank_from": self.first,
            "rank_to": self.last,
            "decided_by": list(self.auditors),
            "copies": "" if self.copies == "all" else self.copies,
            "cluster": list(self.clusters),
        }
        return {name: value for name, value in given.items() if value not in ("", [], None) and value is not False}


def filter_bar(table: pd.DataFrame, auditors: pd.Series) -> Filter:
    """Draw the bar and return what it says. `table`: the ranking's, with a column cluster where it can be filtered by; `auditors`: as for
    `Filter.mask`.
    """
    with st.container(horizontal=True, vertical_alignment="bottom", key="filter-bar"):
        text = st.text_input("Text contains", key=TEXT, bind="query-params", placeholder="a word or phrase", width=220)
        verdicts = st.multiselect(
            "Decision", [UNDECIDED, *VERDICTS], format_func=WORDS.__getitem__, key=DECISION, bind="query-params", width=200
        )
        bias_types = _choices("Bias type", table["bias_type"], TYPE)
        sources = _choices("Source", table["source"], SOURCE)
        groups = _choices("Group", table["group"], GROUP)
        clusters = _choices("Cluster", table["cluster"], CLUSTER) if "cluster" in table else ()
        low, high = _score_range(table["score"])
        with st.popover("More filters"):
            regex = st.toggle("The text is a regular expression", key=REGEX, bind="query-params")
            first = st.number_input("From rank", 1, len(table), None, key=FIRST, bind="query-params")
            last = st.number_input("To rank", 1, len(table), None, key=LAST, bind="query-params")
            by = st.multiselect("Decided by", list(auditors.cat.categories[1:]), key=AUDITOR, bind="query-params")
            copies = st.segmented_control("Duplicates", COPIES, default="all", required=True, key=COPY, bind="query-params")
        st.button("Clear filters", on_click=clear_filters)
    return Filter(
        text=text or "",
        regex=regex,
        verdicts=tuple(verdicts),
        bias_types=bias_types,
        sources=sources,
        groups=groups,
        low=low,
        high=high,
        first=first,
        last=last,
        auditors=tuple(by),
        copies=copies or "all",
        clusters=clusters,
    )


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
