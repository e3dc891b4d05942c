"""The review card: shows one example at a time, goes on at once at a key press, and sends numbered events."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.review.decisions import ADJUDICATION, DecisionLog
from biasdiff_ui.auditors import given_records, seen
from biasdiff_ui.checkpoints import Ranks
from biasdiff_ui.decide import PROBLEM, attempt
from biasdiff_ui.examples import Examples
from biasdiff_ui.review_events import EventLog, acknowledged_number, fold_events, new_events, read_log, record_steps
from biasdiff_ui.review_keys import Keys
from biasdiff_ui.review_queue import STATE as QUEUE
from biasdiff_ui.review_queue import Queue, probe_records, refresh, window
from biasdiff_ui.similar import open_similar, similar_button
from biasdiff_ui.state import auditor
from biasdiff_ui.token_shading import Shading
from biasdiff_ui.verdicts import COLOURS, HELP, REASONS, VERDICTS, WORDS, Verdict
from biasdiff_ui.why import other_records

KEY = "review-card"
ACKNOWLEDGED = "review-acknowledged"
NEXT = 20  # cards whose duplicates and neighbours are sent, with their decisions as they stand; the others' follow in time
FOLDER = Path(__file__).parent

_recording = threading.Lock()  # two tabs of one browser may send the same log at once
_component = st.components.v2.component(
    "biasdiff_review_card",
    js=(FOLDER / "review_card.js").read_text(encoding="utf8"),
    css=(FOLDER / "review_card.css").read_text(encoding="utf8"),
)


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What is reviewed. `no_similar`: why no similar examples can be looked for, or nothing; `ranks`: at each checkpoint."""

    audit: Audit
    examples: Examples
    log: DecisionLog
    no_similar: str
    shading: Shading
    ranks: Ranks


def review_card(desk: Desk, queue: Queue, keys: Keys) -> None:
    """Draw the card of the queue's current example and record what it sends. An adjudicator's card shows the verdicts given."""
    settling = queue.kind == ADJUDICATION
    cards = [
        {
            **card,
            "drawn": card["id"] in queue.drawn,
            "given": given_records(desk.log, card["id"]) if settling else [],
            "shades": desk.shading.cards.get(card["id"]),
            "checkpoints": [[name, int(ranks[card["id"]])] for name, ranks in desk.ranks.items()],
        }
        for card in window(desk.examples, queue)
    ]
    ahead = [card for card in cards if queue.place <= card["place"] < queue.place + NEXT]
    data = {
        "audit": _folder(desk),
        "auditor": auditor(),
        "queue": queue.token,
        "kind": queue.kind,
        "place": queue.place,
        "length": len(queue.ids),
        "cards": cards,
        "probes": probe_records(desk.examples, cards),
        "others": other_records(desk.examples, ahead, seen(desk.log, desk.examples)),
        "acknowledged": st.session_state.get(ACKNOWLEDGED, {}),
        "keys": asdict(keys),
        "verdicts": [[v, WORDS[v], COLOURS[v], HELP[v]] for v in VERDICTS],
        "reasons": list(REASONS),
        "noSimilar": desk.no_similar,
        "unshaded": desk.shading.unshaded,
    }
    _component(key=KEY, data=data, on_log_change=lambda: take_events(desk))


def take_events(desk: Desk) -> None:
    """Record what the card has sent (callback); what could not be recorded is not acknowledged, and comes again."""
    for sent in ((st.session_state[KEY] or {}).get("log") or {}).get("logs", ()):
        try:
            record_events(desk, read_log(sent))
        except BiasDiffError as error:
            st.session_state[PROBLEM] = error


def record_events(desk: Desk, sent: EventLog) -> None:
    """Record the log, acknowledge it, and move on. Raises BiasDiffError."""
    if (sent.audit, sent.auditor) != (_folder(desk), auditor()):
        return  # pressed by somebody else, or elsewhere: their browser keeps it until they are back
    acknowledged: dict[str, int] = st.session_state.setdefault(ACKNOWLEDGED, {})
    queue: Queue | None = st.session_state.get(QUEUE)
    with _recording:
        done = max(acknowledged.get(sent.card, 0), acknowledged_number(desk.log.actions(), sent.card))
        events = new_events(sent.events, done)
        record_steps(desk.log, fold_events(events), sent.auditor, sent.card, queue.selection if queue else None)
    acknowledged[sent.card] = events[-1].number if events else done
    if not events or queue is None:
        return
    if queue.token == events[-1].token:
        st.session_state[QUEUE] = left = replace(queue, place=min(max(0, events[-1].place), len(queue.ids)))
        if events[-1].kind == "similar":  # after it the card waits for the queue that it asked for
            open_similar(desk.audit, desk.log, left, events[-1].example)
    elif not {event.example for event in events}.isdisjoint(queue.ids[queue.place :]):
        refresh()  # judged in an earlier queue, and so not to be judged here again


def _folder(desk: Desk) -> str:
    """Which audit this is, among all that a browser may know: workspaces share the ids of shipped audits."""
    return str(desk.audit.folder.path.resolve())


def native_buttons(desk: Desk, queue: Queue) -> None:
    """The same acts as plain buttons, bound to the example that is shown above them."""
    id_ = queue.current
    if id_ is None:
        return
    if queue.kind == ADJUDICATION:
        st.text("\n".join(": ".join(filter(None, given)) for given in given_records(desk.log, id_)))
    with st.container(horizontal=True, gap="small"):
        for verdict in VERDICTS:
            st.button(
                WORDS[verdict].capitalize(),
                key=f"native-{verdict}-{id_}",
                help=HELP[verdict],
                on_click=judge,
                args=(desk.log, queue, id_, verdict),
            )
        st.button("Skip", key=f"native-skip-{id_}", on_click=_move_on, args=(queue, id_))
        similar_button(desk.audit, desk.log, queue, id_, desk.no_similar)


def judge(log: DecisionLog, queue: Queue, id_: str, verdict: Verdict) -> None:
    """Record one verdict and go on to the next example (callback)."""

    def act() -> str:
        log.decide(id_, verdict, auditor(), st.session_state.get("native-reason", ""), queue.origin([id_]))
        _move_on(queue, id_)
        return f"Recorded: {WORDS[verdict]}."

    attempt(act)


def _move_on(queue: Queue, id_: str) -> None:
    """Go on after `id_`. The new token tells the card to follow."""
    place = queue.ids.index(id_) + 1
    st.session_state[QUEUE] = replace(queue, token=f"{queue.token[:12]}.{place}", place=place)
