"""Freeze the removal set and run methods on it: the one button, and on Review the whole way to the comparison in one click."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.config.mitigation import Method
from biasdiff_ui.auditors_view import LOOK_SECONDS
from biasdiff_ui.jobs_view import job_panel, land_on_compare_after, start_job
from biasdiff_ui.methods import method_costs, total_words
from biasdiff_ui.notices import errors_shown, plain
from biasdiff_ui.removal_form import Choice, choose_policy, compositions, preview
from biasdiff_ui.state import auditor
from biasdiff_ui.timeline import Standing

# The two repairs that the paper compares, and the control that both are read against.
ONE_CLICK: tuple[Method, ...] = ("retrain", "npo", "random")


def freeze_and_run(audit: Audit, choice: Choice, methods: Sequence[Method], *, live: bool) -> None:
    """The one button, and what is missing to press it."""
    missing = (
        "Your name is needed in the sidebar: it stands in the record."
        if not auditor()
        else "Choose at least one method."
        if not methods
        else "A job of this audit is running; wait for it, or cancel it."
        if live
        else ""
    )
    if st.button("Freeze and run", type="primary", key="freeze_and_run", disabled=bool(missing)):
        frozen = audit.freeze(choice.policy, choice.selected, auditor=auditor())
        options = [option for method in methods for option in ("--method", method)]
        land_on_compare_after(start_job(audit, ["mitigate", audit.folder.id, "--removal", frozen.key, *options]))
        st.rerun()
    if missing:
        st.caption(missing)


def mitigate_in_one_click(at: Standing) -> None:
    """On Review: its job with the way to the result, and the form, closed at first."""
    if at.job is not None and at.job.command[0] == "mitigate":
        job_panel(at)
    _form(at.audit, at.live)


@st.fragment(run_every=LOOK_SECONDS)
def _form(audit: Audit, live: bool) -> None:
    """Policy, preview and button; looks for new decisions while it is open, since it is these that are frozen."""
    panel = st.expander("Mitigate and compare in one click", key="one_click", on_change="rerun")
    if not panel.open:
        return
    with panel, errors_shown():
        choice = choose_policy(audit)
        removal = preview(audit, choice)
        if removal is None:
            return
        st.markdown(plain(total_words(method_costs(audit, removal), ONE_CLICK)))
        freeze_and_run(audit, choice, ONE_CLICK, live=live)
        st.caption("The result opens on Compare. Other methods and controls, and what each costs, stand on Mitigate.")
        compositions(audit, removal)
