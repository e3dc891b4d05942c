"""The way through an audit in five steps, on the start page until the auditor closes it."""

from __future__ import annotations

import streamlit as st

from biasdiff_core.workspace.audits import default_workspace
from biasdiff_core.workspace.database import Database, database
from biasdiff_core.workspace.preferences import prefer, preference
from biasdiff_ui.notices import plain
from biasdiff_ui.state import STATE, auditor

PREFERENCE = "tour-closed"
STEPS = (
    (
        "audits",
        "Start an audit",
        "Choose a model, a corpus and probes. A job trains on the corpus, takes gradients and ranks the examples.",
    ),
    ("explore", "Look at the ranking", "See which examples push the model towards the stereotypes: on a map, as curves and in a table."),
    ("review", "Decide", "Judge one example after another, one key a verdict. Nothing is lost: every decision can be undone."),
    ("mitigate", "Mitigate", "Freeze what is to be removed, retrain without it or unlearn it, and run a control beside it."),
    ("compare", "Compare", "Read before against after, with intervals, and take the report away."),
)


def tour(audit_id: str | None) -> None:
    """The five steps with links to their pages; once closed, a button that shows them again. Kept by name, else for the session."""
    db = database(default_workspace())
    if _closed(db):
        st.button("Show the five steps of an audit", key="tour_show", type="tertiary", on_click=_close, args=(db, False))
        return
    with st.container(border=True, gap="small", key="tour"):
        st.markdown("**An audit in five steps**")
        for number, (box, (page, title, what)) in enumerate(zip(st.columns(len(STEPS)), STEPS, strict=True), start=1):
            with box.container(gap=None):
                st.page_link(f"pages/{page}.py", label=f"{number} {title}", query_params={"audit": audit_id} if audit_id else None)
                st.caption(plain(what))
        st.button("Close", key="tour_close", on_click=_close, args=(db, True))


def _closed(db: Database) -> bool:
    chosen = st.session_state.get(STATE.tour_closed)
    kept = preference(db, auditor(), PREFERENCE) if auditor() and chosen is None else chosen
    return bool(kept)


def _close(db: Database, closed: bool) -> None:
    st.session_state[STATE.tour_closed] = closed
    if auditor():
        prefer(db, auditor(), PREFERENCE, closed)
