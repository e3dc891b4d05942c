"""Boot and its guard.

With a `pages/` folder Streamlit serves `/review` to the first visitor of a fresh server by running `pages/review.py` alone,
without `app.py`: no boot, no login gate. Each page therefore begins with `require_boot("<page>")`, which sends such a visitor
through `app.py` and on to the page they asked for.
"""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from biasdiff_core.errors import BiasDiffError
from biasdiff_core.review.decisions import DecisionLog
from biasdiff_core.review.removal import replay
from biasdiff_core.workspace.audits import AuditFolder, default_workspace, install_shipped
from biasdiff_core.workspace.database import database
from biasdiff_ui.state import STATE

ROOT = Path(__file__).resolve().parent.parent
SHIPPED_AUDITS = ROOT / "assets" / "audits"


def boot() -> None:
    """Once a session: install the finished demo audits that come with the project, and mark the session as booted."""
    if not st.session_state.get(STATE.booted):
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        for audit in install_shipped(SHIPPED_AUDITS, default_workspace()):
            _take_over_decisions(audit)
        st.session_state[STATE.booted] = True


def _take_over_decisions(audit: AuditFolder) -> None:
    log = DecisionLog(database(audit.workspace), audit.id)
    frozen = sorted(audit.path.glob("removal/*/decisions.jsonl"))
    if frozen and not log.actions():
        try:
            replay(log, frozen[-1])
        except BiasDiffError as error:
            st.warning(f"The decisions of {audit.id} could not be taken over: {error}")


def require_boot(page: str) -> None:
    """First line of every page: send a visitor whose session has not booted through `app.py`."""
    if not st.session_state.get(STATE.booted):
        st.switch_page("app.py", query_params={**st.query_params.to_dict(), "goto": page})


def forwarded_page(pages: dict[str, StreamlitPage]) -> StreamlitPage | None:
    """The page that a guarded visitor asked for, if any."""
    return pages.get(st.query_params.get("goto", ""))
