"""Who decides: an account where the server's secrets have an `[auth]` section (OpenID Connect), else a name that is asked for.

Streamlit gives `st.user` the claim `is_logged_in` when, and only when, there is such a section.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.errors import StreamlitAuthError, StreamlitMissingAuthlibError

from biasdiff_core.errors import ConfigError, MissingDependency
from biasdiff_ui.notices import plain, show_error
from biasdiff_ui.state import STATE

NAME = "auditor_name"
MAX_NAME = 80
KEEPER = "kept-name"

_keeper = st.components.v2.component("biasdiff_kept_name", js=(Path(__file__).parent / "login.js").read_text(encoding="utf8"))


def require_login() -> None:
    """Where accounts are configured, show nothing but the login to whoever has none."""
    if st.user.get("is_logged_in", True):
        return
    st.session_state[STATE.auditor] = ""
    st.title("BiasDiff")
    st.markdown("Log in to see the audits of this workspace: each decision is recorded with the account that made it.")
    if st.button("Log in", key="log_in", type="primary"):
        _log_in()
    st.stop()


def _log_in() -> None:
    try:
        st.login()
    except StreamlitMissingAuthlibError:
        show_error(MissingDependency("Authlib", "The login", "pip install 'biasdiff[auth]'"))
    except StreamlitAuthError as error:
        show_error(ConfigError(str(error), "Mend the section [auth] of .streamlit/secrets.toml."))


def draw_identity() -> None:
    """In the sidebar: the account and a way out, or the field for the name."""
    if "is_logged_in" not in st.user:
        _ask_name()
        return
    name = account_name(st.user)
    st.session_state[STATE.auditor] = name
    st.caption(f"Logged in as {plain(name)}")
    st.button("Log out", key="log_out", type="tertiary", on_click=st.logout)


def account_name(claims: Mapping[str, Any]) -> str:
    """What stands in the record: the e-mail address, unless the provider says that it is not verified; else the subject.

    Neither `name` nor `preferred_username` need be unique, and two people must never count as one auditor.
    """
    verified = str(claims.get("email_verified", True)).lower() == "true"
    return str(claims["email"] if verified and claims.get("email") else claims["sub"])


def _ask_name() -> None:
    """The name is kept under a key of its own: a widget's entry goes when a page does not draw it.

    A session that was not given one yet takes the one that the browser kept, if any.
    """
    known = st.session_state.get(STATE.auditor)
    st.session_state.setdefault(NAME, known or "")
    name = st.text_input(
        "Your name",
        key=NAME,
        placeholder="needed to decide and to mitigate",
        max_chars=MAX_NAME,
        help="Stands in the record beside each of your decisions.",
    )
    if name or known is not None:
        st.session_state[STATE.auditor] = name
    _keeper(key=KEEPER, data={"name": st.session_state.get(STATE.auditor)}, on_kept_change=_take_kept)


def _take_kept() -> None:
    """The name that the browser kept (callback), unless one was given meanwhile."""
    kept = str((st.session_state[KEEPER] or {}).get("kept") or "")[:MAX_NAME]
    if STATE.auditor not in st.session_state:
        st.session_state[NAME] = kept
