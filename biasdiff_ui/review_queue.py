"""The queue of Review: frozen when it is made, so that no decision moves what the auditor is looking at."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import streamlit as st

from biasdiff_core.review.decisions import ADJUDICATION, Decision, DecisionLog
from biasdiff_core.review.design import EVERY, mixed_order, origin, uniform_order
from biasdiff_core.workspace.database import Database
from biasdiff_core.workspace.preferences import prefer, preference
from biasdiff_ui.examples import Examples
from biasdiff_ui.state import auditor
from biasdiff_ui.why import card_record, evidence, probe_record

Kind = Literal["mixed", "random", "undecided", "not inspected", "assigned", "second review", "disagreements", "selection"]
KINDS: Mapping[Kind, str] = {
    "mixed": f"by rank, one in {EVERY} at random",
    "random": "at random",
    "undecided": "undecided, by rank",
    "not inspected": "undecided or labelled in bulk, by rank",
    "assigned": f"assigned to me, one in {EVERY} at random",
    "second review": "second review (blind), by rank",
    ADJUDICATION: "disagreements, by rank",
    "selection": "selected on Explore",
}
MIXED: tuple[Kind, ...] = ("mixed", "assigned")
STATE = "review-queue"
CHOSEN = "queue"  # in the address: the words of a kind
PREFETCH = 200
WINDOW = 50  # the first card sent moves in such steps
LETTERS = 300_000  # of all cards sent at once


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Examples selected on Explore, in the order to review them. `name` tells it from others; `origin`: what selected them, as recorded."""

    name: str = "selection"
    ids: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Queue:
    """`token` names this making of it; `drawn`: those drawn at random; `place`: the card that the server holds to be the current one.

    Of examples similar to one (`like`): their cosines to it, and the earlier queue, which one goes back to. `selection`: of the kind of
    that name.
    """

    token: str
    made_of: tuple[str, str, str, str]
    ids: tuple[str, ...]
    drawn: frozenset[str] = frozenset()
    selection: Selection | None = None
    place: int = 0
    like: str = ""
    cosines: Mapping[str, float] = field(default_factory=dict)
    earlier: Queue | None = None

    @property
    def kind(self) -> str:
        """What is recorded of it with each decision: one of `KINDS`, the name of a selection, or `similar to <id>`."""
        return self.selection.name if self.selection else self.made_of[-1]

    @property
    def chosen(self) -> Queue:
        """The queue of a chosen kind that the way here began at."""
        return self.earlier.chosen if self.earlier else self

    def origin(self, ids: Collection[str]) -> dict[str, Any]:
        """What is recorded of how these came to be shown."""
        return {**origin(self.kind, ids, self.drawn, seed=self.made_of[0]), **(self.selection.origin if self.selection else {})}

    @property
    def current(self) -> str | None:
        return self.ids[self.place] if self.place < len(self.ids) else None


def queue_ids(ranking: Sequence[str], decisions: Mapping[str, Decision], kind: Kind) -> tuple[str, ...]:
    """Ids to review, best rank first."""
    if kind == "undecided":
        return tuple(id_ for id_ in ranking if id_ not in decisions)
    return tuple(id_ for id_ in ranking if id_ not in decisions or not decisions[id_].inspected)


def in_order(ids: tuple[str, ...], kind: Kind, seed: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Ids in the order in which a queue of this kind shows them, and which are drawn at random. `ids`: best rank first."""
    if kind == "random":
        return uniform_order(ids, seed), frozenset(ids)
    return mixed_order(ids, seed) if kind in MIXED else (ids, frozenset())


def keep_selection(db: Database, audit_id: str, ids: Sequence[str], origin: Mapping[str, Any]) -> None:
    """Keep what this auditor has selected, in place of an earlier selection: it outlasts the session."""
    name = f"selection of {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    prefer(db, auditor(), _selection_of(audit_id), asdict(Selection(name=name, ids=tuple(ids), origin=origin)))


def selection_left(db: Database, log: DecisionLog, examples: Examples) -> Selection:
    """The selection that is kept, less what its auditor has judged out of it, and what a newer ranking lacks; empty without one."""
    kept = preference(db, auditor(), _selection_of(log.audit_id))
    if kept is None:
        return Selection()
    judged = {id_ for id_, own in log.by_auditor().get(auditor(), {}).items() if (own.selection or {}).get("queue") == kept["name"]}
    left = tuple(id_ for id_ in kept["ids"] if id_ in examples.place and id_ not in judged)
    return Selection(name=kept["name"], ids=left, origin=kept["origin"])


def _selection_of(audit_id: str) -> str:
    return f"selection of {audit_id}"


def open_queue(
    audit_id: str, examples: Examples, kind: Kind, ids: Callable[[], tuple[str, ...]], selection: Callable[[], Selection]
) -> Queue:
    """The session's queue, of `ids()` or, of that kind, of `selection()`.

    Made anew only for another audit, ranking, auditor or chosen kind, or after `refresh`.
    """
    queue: Queue | None = st.session_state.get(STATE)
    made_of = (audit_id, examples.key, auditor(), kind)
    if queue is None or queue.chosen.made_of != made_of:
        selected = selection() if kind == "selection" else None
        ordered, drawn = in_order(selected.ids if selected else ids(), kind, seed=audit_id)
        queue = Queue(token=new_token(), made_of=made_of, ids=ordered, drawn=drawn, selection=selected)
        st.session_state[STATE] = queue
    return queue


def new_token() -> str:
    """A name for one making of a queue."""
    return uuid.uuid4().hex[:12]


def refresh() -> None:
    """Make the queue anew on the next drawing (callback)."""
    st.session_state.pop(STATE, None)


def window(examples: Examples, queue: Queue) -> list[dict[str, Any]]:
    """The cards to send, from a little before the current one to `PREFETCH` after it, fewer when the texts are long."""
    first = max(0, queue.place - 1) // WINDOW * WINDOW
    cards, letters = [], 0
    for place in range(first, min(len(queue.ids), first + WINDOW + PREFETCH)):
        card = _card(examples, queue.ids[place])
        letters += len(card["text"]) + len(card["prompt"])
        if letters > LETTERS and place > queue.place + 1:
            break
        cards.append({"place": place, "cosine": queue.cosines.get(card["id"]), **card})
    return cards


@lru_cache(maxsize=4096)
def _card(examples: Examples, id_: str) -> Mapping[str, Any]:
    return card_record(evidence(examples, id_), len(examples.ids))


def probe_records(examples: Examples, cards: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What the card shows of every probe that the cards name, by id (see `probe_record`)."""
    named = {probe for card in cards for probe, *_ in card["nearest"]}
    return {id_: probe_record(examples.probes[id_]) for id_ in sorted(named)}
