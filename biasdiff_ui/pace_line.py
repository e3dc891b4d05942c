"""How many decisions of a goal are made in this session, at what pace, and how long the rest takes: all from the log's own times."""

from __future__ import annotations

import streamlit as st

from biasdiff_core.review.decisions import DecisionLog
from biasdiff_core.review.pace import PAUSE, WINDOW, Pace, pace_of
from biasdiff_core.workspace.database import Database
from biasdiff_core.workspace.preferences import prefer, preference
from biasdiff_ui.format import count, duration
from biasdiff_ui.state import auditor

PREFERENCE = "review-goal"
MINUTES = int(WINDOW.total_seconds() / 60)
HELP = (
    "Your decisions on examples seen one by one, by their times in the log: a session ends with a pause of more than "
    f"{int(PAUSE.total_seconds() / 60)} minutes. The pace is that of the last {MINUTES} minutes."
)


def pace_words(found: Pace, goal: int) -> str:
    """`12 of 50 decisions in this session · 4.5 a minute · about 8 min left`. `goal`: 0 where there is none."""
    done = f"{found.done:,} of {count(goal, 'decision')}" if goal else count(found.done, "decision")
    parts = [f"**{done}** in this session", f"{found.per_minute:.1f} a minute" if found.per_minute else ""]
    left = found.seconds_left(goal)
    parts.append("goal reached" if goal and found.done >= goal else f"about {duration(left)} left" if left else "")
    return " · ".join(filter(None, parts))


def pace_line(db: Database, log: DecisionLog) -> None:
    """The sentence, and beside it the field that sets the goal."""
    goal = preference(db, auditor(), PREFERENCE)
    st.markdown(pace_words(pace_of(log, auditor()), goal or 0), help=HELP)
    st.number_input("Goal", 1, None, goal, 10, key=_field(), placeholder="none", width=150, on_change=_keep, args=(db,))


def _field() -> str:
    """Key of the field: each auditor's own, whose goal it shows."""
    return f"goal-{auditor()}"


def _keep(db: Database) -> None:
    prefer(db, auditor(), PREFERENCE, st.session_state[_field()])
