"""Where an audit stands: its stages with ticks, what is stale and why, and one sentence that says what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.plan import TITLES, Plan, removals
from biasdiff_core.workspace.database import database
from biasdiff_core.workspace.jobs import Job, list_jobs
from biasdiff_core.workspace.progress import ProgressRecord, read_progress
from biasdiff_ui.format import count, duration
from biasdiff_ui.notices import plain, show_error

REPAIRING = ("run", "mitigate")  # commands that go on to mitigations once the analysis is finished
State = Literal["done", "running", "stale", "todo"]
MARKS: dict[State, str] = {
    "done": ":green[:material/check:]",
    "running": ":blue[:material/play_arrow:]",
    "stale": ":orange[:material/history:]",
    "todo": ":gray[:material/radio_button_unchecked:]",
}

# Stages whose progress comes without a title.
STAGES: Mapping[str, str] = {"warmup": "Warm up the model", "gradients": "Take gradients", **{str(k): v for k, v in TITLES.items()}}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of the timeline. `why`: of a stale stage, what it was made from and what holds now."""

    title: str
    state: State
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """All that the app says about where an audit stands. `job`: the newest one; `progress`: of that job alone."""

    audit: Audit
    plan: Plan
    job: Job | None
    progress: ProgressRecord | None
    decided: int
    confirmed: int
    removal_sets: int
    reports: int

    @property
    def live(self) -> bool:
        """Whether a job of the audit runs now."""
        return self.job is not None and self.job.live

    @property
    def ranked(self) -> bool:
        """Whether there is a ranking to look at."""
        return self.plan["ranking"].done

    def steps(self) -> list[Step]:
        """The timeline from the corpus to the report."""
        running = next((stage for stage in self.plan.stages if not stage.done), None) if self.live else None
        found = [
            Step(
                title=stage.title,
                state="done" if stage.done else "running" if stage is running else "stale" if stage.stale else "todo",
                why=stage.stale,
            )
            for stage in self.plan.stages
        ]
        review = f"Review ({self.decided} decided)" if self.decided else "Review"
        freeze = f"Freeze the removal set ({self.removal_sets})" if self.removal_sets else "Freeze the removal set"
        repairing = self.live and self.plan.finished and self.job is not None and self.job.command[0] in REPAIRING
        return [
            *found,
            Step(title=review, state="done" if self.decided else "todo"),
            Step(title=freeze, state="done" if self.removal_sets else "todo"),
            Step(title="Mitigate and compare", state="running" if repairing else "done" if self.reports else "todo"),
        ]

    def sentence(self) -> str:
        """Where the audit stands and what to do next."""
        return _sentence(self)


def standing(audit: Audit) -> Standing:
    """The present standing. Raises BiasDiffError when the audit cannot be read."""
    jobs = list_jobs(database(audit.folder.workspace), audit.folder.id)
    job = jobs[0] if jobs else None
    verdicts = [decision.verdict for decision in audit.log.current().values()]
    return Standing(
        audit=audit,
        plan=audit.plan(),
        job=job,
        progress=job_progress(audit, job),
        decided=len(verdicts),
        confirmed=verdicts.count("biased"),
        removal_sets=len(removals(audit.folder)),
        reports=len(audit.reports()),
    )


def job_progress(audit: Audit, job: Job | None) -> ProgressRecord | None:
    """The progress that a running job has written; None for what an earlier one left."""
    record = read_progress(audit.folder.path)
    if job is None or not job.live or record is None or record.updated < datetime.fromisoformat(job.started).timestamp():
        return None
    return record


def progress_words(record: ProgressRecord) -> str:
    """`Warm up the model: 12 of 40 steps, about 2 min left`."""
    step = record.progress
    left = f", about {duration(record.eta_seconds)} left" if record.eta_seconds else ""
    return f"{stage_words(record)}: {step.done:,} of {step.total:,} {step.unit}{left}"


def stage_words(record: ProgressRecord) -> str:
    """What is being done: `Warm up the model`, `Retrain`, `Evaluate origin`."""
    return record.progress.message or STAGES.get(record.progress.stage, record.progress.stage)


def _sentence(at: Standing) -> str:
    name, job = at.audit.folder.id, at.job
    if job is not None and job.live:
        doing = f"now: {stage_words(at.progress)}" if at.progress else "it is starting"
        return f"{name} is being worked on ({doing}); you may close this page, the job goes on."
    if job is not None and job.state != "finished":
        how = {"failed": "ended by an error", "interrupted": "was killed", "cancelled": "was cancelled"}[job.state]
        return f"The last job of {name} {how}; see why on the Audits page and resume it there."
    if not at.plan.finished:
        stale = next((stage.stale for stage in at.plan.stages if stage.stale), "")
        reason = f" ({stale})" if stale else ""
        return f"The analysis of {name} is not finished{reason}; run it on the Audits page."
    if at.reports:
        return f"{name} was mitigated: read the result in Compare, or freeze another removal set in Mitigate."
    if at.removal_sets:
        return f"A removal set of {name} is frozen and nothing was made of it yet; run a method in Mitigate."
    if at.decided:
        return (
            f"{count(at.decided, 'example')} of {name} decided, {at.confirmed} as biased; "
            "go on in Review, or freeze the removal set in Mitigate."
        )
    return f"{name} is ranked and nothing is decided yet; look at the top of the ranking in Explore, then decide in Review."


def draw_timeline(at: Standing) -> None:
    """The stages, one a line, each with its mark."""
    lines = [f":small[{MARKS[step.state]} {plain(step.title)}]" for step in at.steps()]
    st.markdown("  \n".join(lines))
    for why in dict.fromkeys(step.why for step in at.steps() if step.why):
        st.caption(plain(why))


def opening(title: str, audit: Audit | None, empty: str = "") -> Standing | None:
    """The head of a page: its title and the sentence. Without an audit, `empty` says what to do; None when there is nothing to show."""
    st.header(title)
    if audit is None:
        if empty:
            st.markdown(plain(empty))
        else:
            st.markdown("There is no audit in this workspace yet; start one on the Audits page.")
            st.page_link("pages/audits.py", label="Start an audit")
        return None
    try:
        at = standing(audit)
    except BiasDiffError as error:
        show_error(error)
        return None
    st.markdown(plain(at.sentence()))
    for note in at.plan.notes:
        st.caption(plain(note))
    return at
