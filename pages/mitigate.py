"""Freeze the removal set; one-click retrain, NPO, random control."""

import streamlit as st

from biasdiff_core.config import METHODS
from biasdiff_ui.boot import require_boot
from biasdiff_ui.jobs_view import job_panel
from biasdiff_ui.methods import choose_methods, loss_curves
from biasdiff_ui.mitigation_panel import freeze_and_run
from biasdiff_ui.notices import errors_shown
from biasdiff_ui.removal_form import choose_policy, compositions, frozen_sets, preview
from biasdiff_ui.state import current_audit
from biasdiff_ui.timeline import opening

require_boot("mitigate")

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
            choice = choose_policy(audit)
            removal = preview(audit, choice)
            if removal is not None:
                compositions(audit, removal)
        with right:
            st.subheader("Methods")
            if removal is not None:
                button = st.container()  # above the cards, whose ticks it needs
                methods = choose_methods(audit, removal)
                with button:
                    freeze_and_run(audit, choice, methods, live=at.live)
            else:
                st.caption("They can be chosen once there is something to remove.")
        loss_curves(audit, METHODS)
        frozen_sets(audit)
