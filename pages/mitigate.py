"""Freeze the removal set; one-click retrain, NPO, random control."""

import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.config import METHODS, RemovalConfig
from biasdiff_core.config.mitigation import Method
from biasdiff_ui.boot import require_boot
from biasdiff_ui.jobs_view import job_panel, start_job
from biasdiff_ui.methods import choose_methods, loss_curves
from biasdiff_ui.notices import errors_shown
from biasdiff_ui.removal_form import choose_policy, compositions, frozen_sets, preview
from biasdiff_ui.state import auditor, current_audit
from biasdiff_ui.timeline import opening

require_boot("mitigate")


def freeze_and_run(audit: Audit, policy: RemovalConfig, methods: list[Method], *, live: bool) -> None:
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
        frozen = audit.freeze(policy).config["removal"]
        options = [option for method in methods for option in ("--method", method)]
        start_job(audit, ["mitigate", audit.folder.id, "--policy", frozen["policy"], "--percent", str(frozen["percent"]), *options])
        st.rerun()
    if missing:
        st.caption(missing)


audit = current_audit()
at = opening("Mitigate", audit)
if audit is not None and at is not None:
    job_panel(at)
    if not at.ranked:
        st.info("A removal set can be frozen once the examples are ranked and some are decided.")
        st.stop()
    with errors_shown():
        left, right = st.columns([3, 2], gap="large")
        with left:
            st.subheader("Removal set")
            policy = choose_policy(audit)
            removal = preview(audit, policy)
            if removal is not None:
                compositions(audit, removal)
        with right:
            st.subheader("Methods")
            if removal is not None:
                freeze_and_run(audit, policy, choose_methods(audit, removal), live=at.live)
            else:
                st.caption("They can be chosen once there is something to remove.")
        loss_curves(audit, METHODS)
        frozen_sets(audit)
