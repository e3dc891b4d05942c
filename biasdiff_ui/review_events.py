"""The review card's event log: numbered key presses, folded into what is recorded, each once and in order.

The card sends all events that the server has not acknowledged, again and again; so an event may come twice, never out of reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from biasdiff_core.errors import ReviewError
from biasdiff_core.review.decisions import VERDICTS, Action, Decision, DecisionLog, Verdict

Move = Literal["skip", "back", "undo"]  # `back`: over a skipped card, which has no decision to take back
KINDS = (*VERDICTS, *get_args(Move))
MAX_REASON = 500


@dataclass(frozen=True, kw_only=True)
class Event:
    """One press. `number`: from 1, one card's presses in order. `place`: where in the queue the card goes on after it."""

    number: int
    kind: str
    example: str
    place: int
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Verdicts pressed one after another: recorded as one action. `last`: number of the last event in it."""

    judged: tuple[tuple[str, Verdict, str], ...]
    last: int


@dataclass(frozen=True, kw_only=True)
class TakeBack:
    """A recorded verdict is taken back."""

    example: str


Step = Judge | TakeBack


def read_events(sent: Iterable[Mapping[str, Any]]) -> list[Event]:
    """The events as the card sent them. Raises ReviewError for one that no card makes."""
    try:
        events = [
            Event(
                number=int(event["number"]),
                kind=event["kind"],
                example=str(event["example"]),
                place=int(event["place"]),
                reason=str(event.get("reason", ""))[:MAX_REASON],
            )
            for event in sent
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ReviewError(f"The review card sent something that cannot be read ({error!r}).", "Reload the page.") from error
    unknown = [event.kind for event in events if event.kind not in KINDS]
    if unknown:
        raise ReviewError(f"The review card sent {unknown[0]!r}.", "Reload the page.")
    return events


def new_events(events: Iterable[Event], acknowledged: int) -> list[Event]:
    """Those after number `acknowledged`, in order, each once."""
    by_number = {event.number: event for event in events if event.number > acknowledged}
    return [by_number[number] for number in sorted(by_number)]


def fold_events(events: Sequence[Event]) -> list[Step]:
    """What is to be recorded for new events, in order.

    Verdicts in a row are one step. An undo of a verdict that is not recorded yet removes it; of an older one it takes it back.
    """
    steps: list[Step] = []
    run: dict[str, tuple[str, Verdict, str]] = {}
    last = 0

    def close() -> None:
        if run:
            steps.append(Judge(judged=tuple(run.values()), last=last))
            run.clear()

    for event in events:
        if event.kind in VERDICTS:
            run.pop(event.example, None)
            run[event.example] = (event.example, event.kind, event.reason)
            last = event.number
        elif event.kind == "undo" and run.pop(event.example, None) is None:
            close()
            steps.append(TakeBack(example=event.example))
    close()
    return steps


def acknowledged_number(actions: Iterable[Action], card: str) -> int:
    """The number of the last event of this card that is in the log: what a server that remembers nothing goes on from."""
    numbers = [int(a.selection["last"]) for a in actions if a.selection and a.selection.get("card") == card and "last" in a.selection]
    return max(numbers, default=0)


def record_steps(log: DecisionLog, steps: Sequence[Step], auditor: str, card: str, queue: str) -> int:
    """Write the steps to the log; how many verdicts were recorded less those taken back. Raises ReviewError."""
    balance = 0
    for step in steps:
        if isinstance(step, Judge):
            log.decide_each(step.judged, auditor, {"queue": queue, "card": card, "last": step.last})
            balance += len(step.judged)
        else:
            balance -= _take_back(log, step.example, auditor, card)
    return balance


def _take_back(log: DecisionLog, example: str, auditor: str, card: str) -> int:
    """Undo one verdict of this card; what was recorded in the same action is recorded anew first, so that nothing else is lost.

    Nothing happens when there is no such verdict, so that an undo that is sent twice counts once.
    """
    current = log.current()
    decision = current.get(example)
    if decision is None or not _of_card(decision, auditor, card):
        return 0
    rest = [d for d in current.values() if d.action_id == decision.action_id and d.example_id != example]
    if rest:
        log.decide_each([(d.example_id, d.verdict, d.reason) for d in rest], auditor, decision.selection)
    log.undo(auditor, decision.action_id)
    return 1


def _of_card(decision: Decision, auditor: str, card: str) -> bool:
    return decision.auditor == auditor and bool(decision.selection) and (decision.selection or {}).get("card") == card
