"""The queue of Review: frozen when it is made, so that no decision moves what the auditor is looking at."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import streamlit as st

from biasdiff_core.review.decisions import ADJUDICATION, Decision
from biasdiff_core.review.design import EVERY, mixed_order, origin, uniform_order
from biasdiff_ui.examples import Examples
from biasdiff_ui.state import auditor
from biasdiff_ui.why import card_record, evidence

Kind = Literal["mixed", "random", "undecided", "not inspected", "assigned", "second review", "disagreements"]
KINDS: Mapping[Kind, str] = {
    "mixed": f"by rank, one in {EVERY} at random",
    "random": "at random",
    "undecided": "undecided, by rank",
    "not inspected": "undecided or labelled in bulk, by rank",
    "assigned": f"assigned to me, one in {EVERY} at random",
    "second review": "second review (blind), by rank",
    ADJUDICATION: "disagreements, by rank",
}
MIXED: tuple[Kind, ...] = ("mixed", "assigned")
STATE = "review-queue"
PREFETCH = 200
WINDOW = 50  # the first card sent moves in such steps
LETTERS = 300_000  # of all cards sent at once


@dataclass(frozen=True, kw_only=True)
class Queue:
    """`token` names this making of it; `drawn`: those drawn at random; `place`: the card that the server holds to be the current one.

    Of examples similar to one (`like`): their cosines to it, and the earlier queue, which one goes back to.
    """

    token: str
    made_of: tuple[str, str, str, str]
    ids: tuple[str, ...]
    drawn: frozenset[str] = frozenset()
    place: int = 0
    like: str = ""
    cosines: Mapping[str, float] = field(default_factory=dict)
    earlier: Queue | None = None

    @property
    def kind(self) -> str:
        """What is recorded of it with each decision: one of `KINDS`, or `similar to <id>`."""
        return self.made_of[-1]

    @property
    def chosen(self) -> Queue:
        """The queue of a chosen kind that the way here began at."""
        return self.earlier.chosen if self.earlier else self

    def origin(self, ids: Collection[str]) -> dict[str, Any]:
        """What is recorded of how these came to be shown."""
        return origin(self.kind, ids, self.drawn, seed=self.made_of[0])

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


def open_queue(audit_id: str, examples: Examples, kind: Kind, ids: Callable[[], tuple[str, ...]]) -> Queue:
    """The session's queue; made anew, of `ids()`, only for another audit, ranking, auditor or chosen kind, or after `refresh`."""
    queue: Queue | None = st.session_state.get(STATE)
    made_of = (audit_id, examples.key, auditor(), kind)
    if queue is None or queue.chosen.made_of != made_of:
        ordered, drawn = in_order(ids(), kind, seed=audit_id)
        queue = Queue(token=new_token(), made_of=made_of, ids=ordered, drawn=drawn)
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


def probe_records(examples: Examples, cards: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Text, twin and bias type of every probe that the cards name, by id."""
    named = {probe for card in cards for probe, _ in card["nearest"]}
    return {id_: [examples.probes[id_].text, examples.probes[id_].twin, examples.probes[id_].bias_type] for id_ in sorted(named)}
