"""Before against after, with intervals; where each figure comes from; downloads."""

import streamlit as st

from biasdiff_core.effect import effects
from biasdiff_core.report import COMPARISON_FILE, answers_side_by_side
from biasdiff_core.results import Comparison
from biasdiff_core.review.removal import load_removal
from biasdiff_core.workspace.artefacts import open_artefact
from biasdiff_ui.answers_view import answers
from biasdiff_ui.boot import require_boot
from biasdiff_ui.downloads import downloads
from biasdiff_ui.effect_view import predicted_against_observed
from biasdiff_ui.format import count, moment
from biasdiff_ui.jobs_view import job_panel
from biasdiff_ui.loaders import record
from biasdiff_ui.notices import errors_shown
from biasdiff_ui.pairs_view import pairs_chart_and_table
from biasdiff_ui.removal_form import SIMULATED
from biasdiff_ui.results_view import provenance_table, result_in_words, types_chart, variants
from biasdiff_ui.state import current_audit
from biasdiff_ui.timeline import opening

require_boot("compare")

audit = current_audit()
at = opening("Compare", audit)
if audit is not None and at is not None:
    if at.live:
        job_panel(at)
    reports = audit.reports()
    if not reports:
        st.info("The comparison is shown here once a removal set was frozen and a method run on it, on the page Mitigate.")
        st.page_link("pages/mitigate.py", label="Go on to Mitigate", query_params={"audit": audit.folder.id})
        st.stop()
    report = reports[0]
    if len(reports) > 1:
        report = st.selectbox(
            "Report", reports, format_func=lambda r: f"{moment(r.created)}, removal set {r.inputs['removal']}", key="report"
        )
    with errors_shown():
        comparison = Comparison.from_json(record(report, COMPARISON_FILE))
        removal = load_removal(open_artefact(audit.folder.path, "removal", report.inputs["removal"]))
        if removal.simulated:
            st.warning(SIMULATED)
        result_in_words(comparison)
        st.caption(f"{count(len(removal.ids), 'example')} of {removal.ranked:,} taken out, policy {removal.policy.replace('_', ' ')}.")
        downloads(audit, report)
        variants(comparison)
        st.subheader("Bias types")
        scorings = list(audit.config.evaluation.crows_pairs.scorings)
        scoring = st.segmented_control("Scoring", scorings, default=scorings[-1], key="compare_scoring", required=True)
        types_chart(comparison, scoring)
        pairs_chart_and_table(audit, comparison, scoring)
        with errors_shown():
            answers(answers_side_by_side(audit.folder.path, comparison))
        with errors_shown():
            unit = comparison.metrics["origin"][f"crows_pairs.{scoring}.stereotype_margin"].unit
            ranking = open_artefact(audit.folder.path, "ranking", report.inputs["ranking"])
            predicted_against_observed(effects(audit.folder.path, comparison, ranking, scoring), scoring, unit)
        provenance_table(comparison, report.inputs, audit.folder.environment)
