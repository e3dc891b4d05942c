"""Typed state: what a session remembers of its view. Truth lives in the workspace and the database, never here."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.workspace.audits import default_workspace, find_listed, list_audits
from biasdiff_ui.notices import show_error


@dataclass(frozen=True)
class StateKeys:
    """Names of the session-state entries that more than one module uses."""

    booted: str = "booted"
    audit: str = "audit"
    auditor: str = "auditor"
    warned: str = "content_warning_seen"
    tour_closed: str = "tour_closed"
    drawn_for: str = "drawn_for"


STATE = StateKeys()


def current_audit() -> Audit | None:
    """The audit that the session looks at: `?audit=` first, then the one chosen before, then the newest.

    Only those of the workspace: a link may not lead to any folder of the machine.
    """
    wanted = st.query_params.get("audit") or st.session_state.get(STATE.audit)
    audits = list_audits(default_workspace())
    if not audits:
        return None
    if wanted:
        try:
            return Audit(find_listed(default_workspace(), wanted))
        except BiasDiffError as error:
            show_error(error)
    return Audit(audits[0])


def choose_audit(audit_id: str) -> None:
    """Make an audit the session's current one, also in the URL."""
    st.session_state[STATE.audit] = audit_id
    st.query_params["audit"] = audit_id


def begin_anew(key: str, audit_id: str, default: object) -> None:
    """Give a widget its default where the session has turned to another audit since: for one in the address, whose key names no audit.

    To be called before the widget is drawn.
    """
    drawn_for: dict[str, str] = st.session_state.setdefault(STATE.drawn_for, {})
    if drawn_for.get(key, audit_id) != audit_id:
        st.session_state[key] = default
    drawn_for[key] = audit_id


def auditor() -> str:
    """The reviewer's name, empty until it was given in the sidebar."""
    return str(st.session_state.get(STATE.auditor, "")).strip()
