"""How fast an auditor works, from the times of their decisions alone, so that a reload of the page loses nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from biasdiff_core.review.decisions import Decision, DecisionLog

PAUSE = timedelta(minutes=30)  # a longer one ends a session
WINDOW = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """`done`: decisions of the session so far. `per_minute`: over its last ten minutes, or over all of a shorter one; 0 while unknown."""

    done: int
    per_minute: float

    def seconds_left(self, goal: int) -> float | None:
        """How long the rest of `goal` decisions takes at this pace; None where the pace is not known or nothing is left."""
        left = goal - self.done
        return 60 * left / self.per_minute if left > 0 and self.per_minute else None


def pace(times: Iterable[datetime], now: datetime) -> Pace:
    """The pace at `now` of decisions made at `times`. A session is all decisions without a pause of `PAUSE` between them, or since.

    The first decision of a session starts its clock, so it counts as done but not towards the pace.
    """
    session: list[datetime] = []
    for time in sorted((min(time, now) for time in times), reverse=True):
        if (session[-1] if session else now) - time > PAUSE:
            break
        session.append(time)
    if not session:
        return Pace(done=0, per_minute=0.0)
    since = max(session[-1], now - WINDOW)
    minutes = (now - since) / timedelta(minutes=1)
    recent = sum(time > since for time in session)
    return Pace(done=len(session), per_minute=recent / minutes if minutes else 0.0)


def own_decisions(log: DecisionLog, auditor: str) -> dict[str, Decision]:
    """What the auditor has decided on examples seen one by one and not taken back, also where somebody has decided on it since."""
    holding = {id_: decision for id_, decision in log.current().items() if decision.auditor == auditor and decision.inspected}
    return log.by_auditor().get(auditor, {}) | holding


def pace_of(log: DecisionLog, auditor: str, now: datetime | None = None) -> Pace:
    """The auditor's pace by the log; `now`: the present by default. What was imported was decided elsewhere and does not count."""
    own = own_decisions(log, auditor).values()
    times = [datetime.fromisoformat(d.created).astimezone(UTC) for d in own if "imported" not in (d.selection or {})]
    return pace(times, now or datetime.now(UTC))
