"""The review card: shows one example at a time, goes on at once at a key press, and sends numbered events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from biasdiff_core.errors import ReviewError
from biasdiff_core.review.decisions import ADJUDICATION, DecisionLog
from biasdiff_ui.auditors import given_records
from biasdiff_ui.decide import PROBLEM, attempt
from biasdiff_ui.examples import Examples
from biasdiff_ui.review_events import acknowledged_number, fold_events, new_events, read_events, record_steps
from biasdiff_ui.review_queue import STATE as QUEUE
from biasdiff_ui.review_queue import Queue, probe_records, window
from biasdiff_ui.state import auditor
from biasdiff_ui.verdicts import COLOURS, HELP, KEYS, REASONS, VERDICTS, WORDS, Verdict

KEY = "review-card"
ACKNOWLEDGED, DONE = "review-acknowledged", "review-done"
FOLDER = Path(__file__).parent

_component = st.components.v2.component(
    "biasdiff_review_card",
    js=(FOLDER / "review_card.js").read_text(encoding="utf8"),
    css=(FOLDER / "review_card.css").read_text(encoding="utf8"),
)


def review_card(examples: Examples, log: DecisionLog, queue: Queue) -> None:
    """Draw the card of the queue's current example and record what it sends. An adjudicator's card shows the verdicts given."""
    settling = queue.kind == ADJUDICATION
    cards = [
        {**card, "drawn": card["id"] in queue.drawn, "given": given_records(log, card["id"]) if settling else []}
        for card in window(examples, queue)
    ]
    data = {
        "queue": queue.token,
        "kind": queue.kind,
        "place": queue.place,
        "length": len(queue.ids),
        "cards": cards,
        "probes": probe_records(examples, cards),
        "acknowledged": st.session_state.get(ACKNOWLEDGED, {}),
        "verdicts": [[v, WORDS[v], KEYS[v], COLOURS[v], HELP[v]] for v in VERDICTS],
        "reasons": list(REASONS),
    }
    _component(key=KEY, data=data, on_log_change=lambda: take_events(log))


def take_events(log: DecisionLog) -> None:
    """Record the events that the card has sent (callback); what could not be recorded is not acknowledged, and comes again."""
    sent = (st.session_state[KEY] or {}).get("log")
    if not sent:
        return
    try:
        record_events(log, sent)
    except ReviewError as error:
        st.session_state[PROBLEM] = error


def record_events(log: DecisionLog, sent: Mapping[str, Any]) -> None:
    """Record, acknowledge, and move on. `sent`: card, queue and events. Raises ReviewError."""
    card = str(sent["card"])
    acknowledged: dict[str, int] = st.session_state.setdefault(ACKNOWLEDGED, {})
    if card not in acknowledged:
        acknowledged[card] = acknowledged_number(log.actions(), card)
    events = new_events(read_events(sent["events"]), acknowledged[card])
    if not events:
        return
    balance = record_steps(log, fold_events(events), auditor(), card)
    acknowledged[card] = events[-1].number
    st.session_state[DONE] = st.session_state.get(DONE, 0) + balance
    queue: Queue | None = st.session_state.get(QUEUE)
    if queue is not None and queue.token == sent["queue"]:
        st.session_state[QUEUE] = replace(queue, place=min(max(0, events[-1].place), len(queue.ids)))


def native_buttons(log: DecisionLog, queue: Queue) -> None:
    """The same verdicts as plain buttons, bound to the example that is shown above them."""
    id_ = queue.current
    if id_ is None:
        return
    if queue.kind == ADJUDICATION:
        st.text("\n".join(": ".join(filter(None, given)) for given in given_records(log, id_)))
    with st.container(horizontal=True, gap="small"):
        for verdict in VERDICTS:
            st.button(
                WORDS[verdict].capitalize(), key=f"native-{verdict}", help=HELP[verdict], on_click=judge, args=(log, queue, id_, verdict)
            )
        st.button("Skip", key="native-skip", on_click=_move_on, args=(queue, id_))


def judge(log: DecisionLog, queue: Queue, id_: str, verdict: Verdict) -> None:
    """Record one verdict and go on to the next example (callback)."""

    def act() -> str:
        log.decide(id_, verdict, auditor(), st.session_state.get("native-reason", ""), queue.origin([id_]))
        st.session_state[DONE] = st.session_state.get(DONE, 0) + 1
        _move_on(queue, id_)
        return f"Recorded: {WORDS[verdict]}."

    attempt(act)


def _move_on(queue: Queue, id_: str) -> None:
    """Go on after `id_`. The new token tells the card to follow."""
    place = queue.ids.index(id_) + 1
    st.session_state[QUEUE] = replace(queue, token=f"{queue.token[:12]}.{place}", place=place)
