"""The queue of Review: frozen when it is made, so that no decision moves what the auditor is looking at."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import streamlit as st

from biasdiff_core.review.decisions import Decision
from biasdiff_ui.examples import Examples
from biasdiff_ui.why import card_record, evidence

Kind = Literal["undecided", "not inspected"]
KINDS: Mapping[Kind, str] = {"undecided": "undecided, by rank", "not inspected": "undecided or labelled in bulk, by rank"}
STATE = "review-queue"
PREFETCH = 200
WINDOW = 50  # the first card sent moves in such steps
LETTERS = 300_000  # of all cards sent at once


@dataclass(frozen=True, kw_only=True)
class Queue:
    """`token` names this making of it; `place`: the card that the server holds to be the current one."""

    token: str
    made_of: tuple[str, str, Kind]
    ids: tuple[str, ...]
    place: int = 0

    @property
    def kind(self) -> Kind:
        return self.made_of[2]

    @property
    def current(self) -> str | None:
        return self.ids[self.place] if self.place < len(self.ids) else None


def queue_ids(ranking: Sequence[str], decisions: Mapping[str, Decision], kind: Kind) -> tuple[str, ...]:
    """Ids to review, best rank first."""
    if kind == "undecided":
        return tuple(id_ for id_ in ranking if id_ not in decisions)
    return tuple(id_ for id_ in ranking if id_ not in decisions or not decisions[id_].inspected)


def open_queue(audit_id: str, examples: Examples, decisions: Mapping[str, Decision], kind: Kind) -> Queue:
    """The session's queue; made anew only for another audit, ranking or kind, or after `refresh`."""
    queue: Queue | None = st.session_state.get(STATE)
    made_of = (audit_id, examples.key, kind)
    if queue is None or queue.made_of != made_of:
        queue = Queue(token=uuid.uuid4().hex[:12], made_of=made_of, ids=queue_ids(examples.ids, decisions, kind))
        st.session_state[STATE] = queue
    return queue


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
        cards.append({"place": place, **card})
    return cards


@lru_cache(maxsize=4096)
def _card(examples: Examples, id_: str) -> Mapping[str, Any]:
    return card_record(evidence(examples, id_), len(examples.ids))


def probe_records(examples: Examples, cards: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Text, twin and bias type of every probe that the cards name, by id."""
    named = {probe for card in cards for probe, _ in card["nearest"]}
    return {id_: [examples.probes[id_].text, examples.probes[id_].twin, examples.probes[id_].bias_type] for id_ in sorted(named)}
