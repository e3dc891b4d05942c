"""The newest job of an audit, live: bar with ETA, cancel, resume, log. The job is a process of its own; this only looks at it."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.workspace.database import database
from biasdiff_core.workspace.jobs import Job, cancel, list_jobs, resume, start, tail
from biasdiff_core.workspace.progress import ProgressRecord
from biasdiff_ui.format import moment
from biasdiff_ui.notices import errors_shown, plain, show_error
from biasdiff_ui.state import auditor
from biasdiff_ui.timeline import Standing, job_progress, progress_words, stage_words

UNNAMED = "not named"
AWAITED = "awaited-job"
WORDS = {
    "running": "is running",
    "cancelling": "is being cancelled",
    "finished": "has finished",
    "failed": "ended by an error",
    "cancelled": "was cancelled",
    "interrupted": "was killed",
}


def start_job(audit: Audit, command: list[str]) -> Job:
    """Start a detached job of the audit. Raises JobError when one is running."""
    workspace = audit.folder.workspace
    return start(database(workspace), workspace, audit.folder.id, command, auditor() or UNNAMED)


def job_panel(at: Standing) -> None:
    """The newest job, refreshed every second while it runs; when a stage or the job ends the whole page is drawn again."""
    if at.job is not None:
        st.fragment(_panel, run_every=1 if at.live else None)(at.audit, at.live, stage_words(at.progress) if at.progress else "")


def _panel(audit: Audit, was_live: bool, was_doing: str) -> None:
    db = database(audit.folder.workspace)
    job = list_jobs(db, audit.folder.id)[0]
    progress = job_progress(audit, job)
    if was_live and _lands(audit, job):
        st.switch_page("pages/compare.py", query_params={"audit": audit.folder.id})
    if was_live and (not job.live or (progress is not None and stage_words(progress) != was_doing)):
        st.rerun(scope="app")
    with st.container(border=True):
        st.markdown(f"Job {job.id} ({plain(job.command[0])}) {WORDS[job.state]}; started {moment(job.started)} by {plain(job.auditor)}.")
        if job.live:
            _bar(progress)
            label = "End it at once" if job.state == "cancelling" else "Cancel"
            if st.button(label, key=f"cancel_{job.id}"):
                with errors_shown():
                    cancel(db, job)
                st.rerun(scope="fragment")
        elif job.state != "finished":
            if job.error:
                st.error(plain(job.error))
            if st.button("Resume", key=f"resume_{job.id}", type="primary", help="Finished stages are kept; it goes on from there."):
                _resume(audit, job)
        elif job.command[0] == "mitigate":
            st.page_link("pages/compare.py", label="Read the result in Compare", query_params={"audit": audit.folder.id})
        with st.expander("Log"):
            st.code(tail(audit.folder.workspace, job) or "nothing yet", language=None)


def land_on_compare_after(job: Job) -> None:
    """Remember that this session waits for the job: where its panel is watched to the end, the result opens by itself."""
    st.session_state[AWAITED] = job.id


def _lands(audit: Audit, job: Job) -> bool:
    """Whether the result is to open now: not under the hands of somebody who has gone on deciding meanwhile."""
    if st.session_state.get(AWAITED) != job.id or job.state != "finished":
        return False
    del st.session_state[AWAITED]
    since = datetime.fromisoformat(job.started)
    return not any(a.auditor == auditor() and datetime.fromisoformat(a.created) > since for a in audit.log.actions())


def _bar(record: ProgressRecord | None) -> None:
    if record is None:
        st.progress(0.0, text="Starting")
        return
    step = record.progress
    st.progress(min(1.0, step.done / max(1, step.total)), text=plain(progress_words(record)))


def _resume(audit: Audit, job: Job) -> None:
    try:
        resume(database(audit.folder.workspace), audit.folder.workspace, job, auditor() or UNNAMED)
    except BiasDiffError as error:
        show_error(error)
        return
    st.rerun(scope="app")


def analysis_button(at: Standing) -> None:
    """Start the analysis of an audit that has no job to resume."""
    resumable = at.job is not None and not at.live and at.job.state != "finished"
    if at.plan.finished or at.live or resumable:
        return
    if st.button("Run the analysis", type="primary", key="run_analysis"):
        with errors_shown():
            start_job(at.audit, ["run", at.audit.folder.id])
            st.rerun()
