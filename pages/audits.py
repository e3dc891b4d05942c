"""All audits: start one, watch it, cancel, resume."""

import streamlit as st

from biasdiff_core.workspace.audits import default_workspace
from biasdiff_ui.audits_table import audits_table
from biasdiff_ui.boot import require_boot
from biasdiff_ui.curves import read_ahead
from biasdiff_ui.jobs_view import analysis_button, job_panel
from biasdiff_ui.new_audit import new_audit
from biasdiff_ui.notices import errors_shown
from biasdiff_ui.state import current_audit
from biasdiff_ui.timeline import opening
from biasdiff_ui.tour import tour

require_boot("audits")

FORM = "new_audit_open"
audit = current_audit()
at = opening("Audits", audit, "There is no audit in this workspace yet; make the first one here: choose a model, a corpus and probes.")
tour(audit.folder.id if audit is not None else None)
if at is not None:
    job_panel(at)
    analysis_button(at)
if audit is not None:
    audits_table(default_workspace(), audit.folder.id)
    if not st.session_state.get(FORM):
        st.button("New audit", key="new_audit", on_click=lambda: st.session_state.update({FORM: True}))
    else:
        st.button("Close the form", key="close_form", on_click=lambda: st.session_state.update({FORM: False}))
if audit is None or st.session_state.get(FORM):
    new_audit()
if audit is not None and at is not None:
    with errors_shown():  # when all is drawn, so that Explore and Review open at once
        read_ahead(audit, at.plan)
