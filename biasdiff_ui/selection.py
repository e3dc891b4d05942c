"""The selection of Explore – filter, search and lasso – and where it goes: to Review as a queue, to Mitigate as a set, away as a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.review.decisions import Decision
from biasdiff_core.review.history import origin_words
from biasdiff_core.review.removal import Selected
from biasdiff_core.workspace.database import database
from biasdiff_ui.downloads import selected_rows, selection_downloads
from biasdiff_ui.examples import Examples
from biasdiff_ui.format import count
from biasdiff_ui.notices import plain
from biasdiff_ui.review_queue import CHOSEN, KINDS, Queue, keep_selection, refresh
from biasdiff_ui.state import auditor

SHOWN = "explore-shown"


def selection_bar(
    audit: Audit, examples: Examples, decisions: Mapping[str, Decision], rows: np.ndarray, passing: int, origin: Mapping[str, Any]
) -> None:
    """How many are selected and by what, and the ways on.

    `rows`: of the selected examples in the ranking's table, in the order to review them; `passing`: how many pass the filter and search,
    whatever the lasso; `decisions`: those that the auditor may see.
    """
    selected = Selected(ids=tuple(examples.table["id"].iloc[rows]), selection=dict(origin))
    st.session_state[SHOWN] = (audit.folder.id, selected)
    by_lasso = f"**{len(rows):,} of {passing:,} selected** by the lasso"
    counted = by_lasso if "lasso" in origin else f"**{passing:,} of {len(examples.ids):,}** shown"
    conditions = origin_words({name: value for name, value in origin.items() if name in ("filter", "query")})
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(counted + (f" · {plain(conditions)}" if conditions else ""))
        if st.button(
            f"Review these {len(rows):,}",
            key="review-selection",
            disabled=not (auditor() and len(rows)),
            help="One by one, in a queue of their own that stays as it is." if auditor() else "Give your name in the sidebar first.",
        ):
            keep_selection(database(audit.folder.workspace), audit.folder.id, selected.ids, selected.selection)
            refresh()
            st.switch_page("pages/review.py", query_params={"audit": audit.folder.id, CHOSEN: KINDS["selection"]})
        selection_downloads(audit.folder.id, len(rows), lambda: selected_rows(examples, decisions, rows))


def selected_on_explore(audit_id: str) -> Selected | None:
    """What Explore last showed of this audit in this session; None where no filter, search or lasso chose it."""
    of, selected = st.session_state.get(SHOWN, ("", None))
    return selected if of == audit_id and any(selected.selection.get(by) for by in ("filter", "query", "lasso")) else None


def selection_line(queue: Queue) -> None:
    """Of a queue selected on Explore: how many, and by what."""
    if queue.selection and queue.ids:
        st.markdown(f"**{count(len(queue.ids), 'example')}** selected on {plain(origin_words(queue.selection.origin))}.")
