"""The sidebar of every page: audit picker, stage timeline, pages, who I am."""

from __future__ import annotations

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from biasdiff_core.audit import Audit
from biasdiff_core.workspace.audits import default_workspace, list_audits
from biasdiff_ui.login import draw_identity, require_login
from biasdiff_ui.notices import errors_shown
from biasdiff_ui.state import STATE, choose_audit, current_audit
from biasdiff_ui.timeline import draw_timeline, standing

PICKER = "audit_picker"
WARNING = (
    "The texts of a corpus and its probes can be hurtful: they may hold stereotypes, slurs and insults. "
    "They are shown as they are, since they have to be judged."
)


def sidebar(pages: dict[str, StreamlitPage]) -> None:
    """Draw the sidebar; where a login is required and lacking, that alone."""
    require_login()
    audit = current_audit()
    with st.sidebar:
        _pick(audit)
        query = {"audit": audit.folder.id} if audit else None
        for page in pages.values():
            st.page_link(page, query_params=query)
        st.divider()
        if audit is not None:
            with errors_shown():
                draw_timeline(standing(audit))
            st.divider()
        draw_identity()
    _warn_once()


def _pick(audit: Audit | None) -> None:
    ids = [folder.id for folder in list_audits(default_workspace())]
    if audit is None:
        st.caption("No audit yet")
        return
    st.session_state[STATE.audit] = audit.folder.id
    st.session_state[PICKER] = audit.folder.id
    st.selectbox("Audit", ids, key=PICKER, on_change=lambda: choose_audit(st.session_state[PICKER]))


def _warn_once() -> None:
    if not st.session_state.get(STATE.warned):
        with st.container(border=True, gap="xsmall"):
            st.markdown(f":small[:material/info: {WARNING}]")
            st.button("Understood", key="content_warning", type="tertiary", on_click=st.session_state.update, args=({STATE.warned: True},))
