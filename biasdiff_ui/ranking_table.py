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
OPEN = "rank"


def ranked_table(shown: pd.DataFrame, verdicts: pd.Series, selection: Mapping[str, Any]) -> None:
    """One page of the rows `shown`. `selection`: what chose them; another choice starts at page 1 with no row open."""
    if not len(shown):
        st.info("No example passes the filter and lasso. Clear them to see all.")
        return
    key = digest_json(selection)[:8]
    pages = -(-len(shown) // PAGE_ROWS)
    page = st.pagination(pages, key=f"page-{key}") if pages > 1 else 1
    rows = shown.iloc[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
    table = page_rows(rows, verdicts.loc[rows.index])
    name = f"rows-{key}-{page}"
    st.dataframe(
        table,
        hide_index=True,
        height=480,
        key=name,
        on_select=partial(_open_row, name, table["rank"].tolist()),
        selection_mode="single-row",
        column_config=COLUMNS,
        alt=f"Ranked examples, page {page} of {pages}",
    )


COLUMNS = {
    "rank": st.column_config.NumberColumn(width="small"),
    "score": st.column_config.NumberColumn(format="%.4f", width="small"),
    "text": st.column_config.TextColumn(width="large"),
    "known label": st.column_config.TextColumn(width="small"),
}


def page_rows(rows: pd.DataFrame, verdicts: pd.Series) -> pd.DataFrame:
    """What is sent of a page: rank, score, decision, text cut to a preview, and the columns that the corpus has."""
    page = pd.DataFrame({"rank": rows["rank"], "score": rows["score"], "decision": verdicts.map(WORDS)})
    page["text"] = rows["text"].where(rows["text"].str.len() <= PREVIEW, rows["text"].str.slice(0, PREVIEW) + " …")
    for name in ("source", "group"):
        page[name] = rows[name]
    if rows["label"].notna().any():
        page["known label"] = rows["label"].map({1.0: "biased", 0.0: "not biased"})
    return page


def _open_row(key: str, ranks: list[int]) -> None:
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
