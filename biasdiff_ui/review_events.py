"""The review card's event logs: numbered key presses, folded into what is recorded, each once and in order.

The card sends all events that the server has not acknowledged, again and again, and the browser keeps them, so that a later card sends
those of one that is gone; so an event may come twice, from another card or to another server, never out of reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from biasdiff_core.errors import ReviewError
from biasdiff_core.review.decisions import VERDICTS, Action, Decision, DecisionLog, Verdict
from biasdiff_core.review.design import origin
from biasdiff_core.review.pace import own_decisions
from biasdiff_ui.review_queue import Selection

Move = Literal["skip", "back", "undo", "similar"]  # `back`: over a skipped card, which has no decision to take back
KINDS = (*VERDICTS, *get_args(Move))
MAX_REASON = 500


@dataclass(frozen=True, kw_only=True)
class Event:
    """One press. `number`: from 1, one card's presses in order. `place`: where in the queue the card goes on after it.

    `queue`, `token`, `drawn`: the kind of the queue that was shown at the press, which the server may have left by now, which making of
    it that was, and whether the example was drawn at random for it.
    """

    number: int
    kind: str
    example: str
    place: int
    queue: str
    token: str
    drawn: bool = False
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class EventLog:
    """What one card has not seen acknowledged. `audit`: the folder of the audit that was reviewed; `auditor`: who pressed."""

    audit: str
    auditor: str
    card: str
    events: tuple[Event, ...]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Verdicts pressed one after another in a queue: recorded as one action. `drawn`: ids; `last`: number of the last event up to it."""

    judged: tuple[tuple[str, Verdict, str], ...]
    queue: str
    drawn: frozenset[str] = frozenset()
    last: int


@dataclass(frozen=True, kw_only=True)
class TakeBack:
    """A recorded verdict is taken back. `last`: number of the event that does it."""

    example: str
    last: int


Step = Judge | TakeBack


def read_log(sent: Mapping[str, Any]) -> EventLog:
    """A log as a card sent it. Raises ReviewError for one that no card makes."""
    try:
        events = tuple(
            Event(
                number=int(event["number"]),
                kind=event["kind"],
                example=str(event["example"]),
                place=int(event["place"]),
                queue=str(event["queue"]),
                token=str(event["token"]),
                drawn=event.get("drawn") is True,
                reason=str(event.get("reason", ""))[:MAX_REASON],
            )
            for event in sent["events"]
        )
        log = EventLog(audit=str(sent["audit"]), auditor=str(sent["auditor"]), card=str(sent["card"]), events=events)
    except (KeyError, TypeError, ValueError) as error:
        raise ReviewError(f"The review card sent something that cannot be read ({error!r}).", "Reload the page.") from error
    unknown = [event.kind for event in events if event.kind not in KINDS]
    if unknown:
        raise ReviewError(f"The review card sent {unknown[0]!r}.", "Reload the page.")
    return log


def new_events(events: Iterable[Event], acknowledged: int) -> list[Event]:
    """Those after number `acknowledged`, in order, each once."""
    by_number = {event.number: event for event in events if event.number > acknowledged}
    return [by_number[number] for number in sorted(by_number)]


def fold_events(events: Sequence[Event]) -> list[Step]:
    """What is to be recorded for new events, in order.

    Verdicts in a row, of one queue, are one step. An undo of a verdict that is not recorded yet removes it; of an older one it takes it
    back.
    """
    steps: list[Step] = []
    run: dict[str, Event] = {}

    def close() -> None:
        if run:
            pressed = list(run.values())
            judged = tuple((event.example, event.kind, event.reason) for event in pressed)
            drawn = frozenset(event.example for event in pressed if event.drawn)
            steps.append(Judge(judged=judged, queue=pressed[-1].queue, drawn=drawn, last=last))
            run.clear()

    last = 0
    for event in events:
        if event.kind in VERDICTS:
            if any(earlier.queue != event.queue for earlier in run.values()):
                close()
            run.pop(event.example, None)
            run[event.example] = event
        elif event.kind == "undo" and run.pop(event.example, None) is None:
            close()
            steps.append(TakeBack(example=event.example, last=event.number))
        last = event.number
    close()
    return steps


def acknowledged_number(actions: Iterable[Action], card: str) -> int:
    """The number of the last event of this card that is in the log: what a server that remembers nothing goes on from."""
    numbers = [int(a.selection["last"]) for a in actions if a.selection and a.selection.get("card") == card and "last" in a.selection]
    return max(numbers, default=0)


def record_steps(log: DecisionLog, steps: Sequence[Step], auditor: str, card: str, selection: Selection | None = None) -> None:
    """Write the steps to the log. `selection`: the one under review, if any, whose origin goes with its decisions. Raises ReviewError."""
    for step in steps:
        if isinstance(step, Judge):
            came_from = origin(step.queue, [id_ for id_, _, _ in step.judged], step.drawn, seed=log.audit_id)
            selected = selection.origin if selection and selection.name == step.queue else {}
            log.decide_each(step.judged, auditor, {**came_from, **selected, "card": card, "last": step.last})
        else:
            _take_back(log, step, auditor, card)


def _take_back(log: DecisionLog, step: TakeBack, auditor: str, card: str) -> None:
    """Take back one verdict of this card; what was recorded in the same action stays.

    Nothing happens when there is no such verdict, so that an undo that is sent twice counts once.
    """
    decision = own_decisions(log, auditor).get(step.example)
    if decision is not None and _of_card(decision, card):
        log.withdraw(auditor, decision, {"card": card, "last": step.last})


def _of_card(decision: Decision, card: str) -> bool:
    return (decision.selection or {}).get("card") == card
