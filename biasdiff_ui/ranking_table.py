"""The ranked table: pages made on the server, a click opens the example."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from biasdiff_core.workspace.artefacts import digest_json
from biasdiff_ui.verdicts import WORDS

PAGE_ROWS = 200
PREVIEW = 240
OPEN, SORT, DESCENDING = "rank", "sort", "descending"
DECISION = "decision"


def ranked_table(shown: pd.DataFrame, verdicts: pd.Series, selection: Mapping[str, Any]) -> None:
    """One page of the rows `shown`, in the order that is chosen. `selection`: what chose them; another starts at page 1, no row open."""
    if not len(shown):
        st.info("No example passes the filter and lasso. Clear them to see all.")
        return
    columns = sort_columns(shown)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        by = st.selectbox("Sort by", list(columns), key=SORT, bind="query-params", width=200)
        descending = st.toggle("Descending", key=DESCENDING, bind="query-params")
    key = digest_json({**selection, "sort": [by, descending]})[:8]
    pages = -(-len(shown) // PAGE_ROWS)
    page = st.pagination(pages, key=f"page-{key}") if pages > 1 else 1
    rows = in_order(shown, verdicts, columns[by], descending).iloc[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
    table = page_rows(rows, verdicts.loc[rows.index])
    if by not in table:
        table.insert(1, by, rows[columns[by]])
    draw_rows(table, f"rows-{key}-{page}", 480, f"Ranked examples, page {page} of {pages}")


def sort_columns(table: pd.DataFrame) -> dict[str, str]:
    """What the table can be sorted by, in words, and the column of each."""
    scorers = {f"rank by {name.removeprefix('rank:')}": name for name in table if name.startswith("rank:")}
    return {
        "rank": "rank",
        DECISION: DECISION,
        "bias type": "bias_type",
        "source": "source",
        "group": "group",
        "tokens": "tokens",
        **scorers,
    }


def in_order(rows: pd.DataFrame, verdicts: pd.Series, column: str, descending: bool) -> pd.DataFrame:
    """All `rows`, not one page of them, sorted by a column; ties as they stand, which is by rank."""
    if column == "rank" and not descending:
        return rows
    values = verdicts.loc[rows.index] if column == DECISION else rows[column]
    order = values.reset_index(drop=True).sort_values(ascending=not descending, kind="stable").index
    return rows.iloc[order]


COLUMNS = {
    "rank": st.column_config.NumberColumn(width="small"),
    "cosine": st.column_config.NumberColumn(format="%.3f", width="small"),
    "score": st.column_config.NumberColumn(format="%.4f", width="small"),
    "text": st.column_config.TextColumn(width="large"),
    "known label": st.column_config.TextColumn(width="small"),
}


def page_rows(rows: pd.DataFrame, verdicts: pd.Series) -> pd.DataFrame:
    """What is sent of a page: rank, score, decision, text cut to a preview, and the columns that the corpus has."""
    page = pd.DataFrame({"rank": rows["rank"], "score": rows["score"], DECISION: verdicts.map(WORDS)})
    page["text"] = rows["text"].where(rows["text"].str.len() <= PREVIEW, rows["text"].str.slice(0, PREVIEW) + " …")
    for name in ("bias_type", "source", "group"):
        page[name.replace("_", " ")] = rows[name]
    if rows["label"].notna().any():
        page["known label"] = rows["label"].map({1.0: "biased", 0.0: "not biased"})
    return page


def draw_rows(table: pd.DataFrame, key: str, height: int, alt: str) -> int | None:
    """Rows as `page_rows` makes them; a click on one opens its example. The rank of the one that is chosen."""
    event = st.dataframe(
        table,
        hide_index=True,
        height=height,
        key=key,
        on_select=partial(_open_row, key, table["rank"].tolist()),
        selection_mode="single-row",
        column_config=COLUMNS,
        alt=alt,
    )
    chosen = event["selection"]["rows"]
    return int(table["rank"].iloc[chosen[0]]) if chosen else None


def _open_row(key: str, ranks: list[int]) -> None:
    """Open the example whose row was clicked in the table `key`. `ranks`: of its rows."""
    chosen = st.session_state[key]["selection"]["rows"]
    if chosen:
        st.session_state[OPEN] = ranks[chosen[0]]


def open_rank(count: int) -> int | None:
    """The rank that is open, chosen by a click or by number; it stands in the URL."""
    return st.number_input(
        "Open the example of rank",
        1,
        count,
        value=None,
        key=OPEN,
        bind="query-params",
        placeholder="click a row, or give a rank",
        width=260,
    )
