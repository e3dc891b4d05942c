"""Recording decisions from the pages: one by one, in bulk with a confirm step, undo, and the history of it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.review.decisions import Action, Decision, DecisionLog, last_of
from biasdiff_core.review.history import Entry, history, undone_words
from biasdiff_core.workspace.database import database
from biasdiff_ui.auditors import seen
from biasdiff_ui.examples import Examples
from biasdiff_ui.format import count, moment
from biasdiff_ui.notices import plain, show_error
from biasdiff_ui.ranking_table import COLUMNS
from biasdiff_ui.state import auditor
from biasdiff_ui.verdicts import HELP, UNDECIDED, VERDICTS, WORDS, Verdict

NOTICE, PROBLEM, PENDING = "decide-notice", "decide-problem", "decide-pending"
HISTORY = 30  # actions on a page
PREVIEW = 5  # examples shown before a bulk act


def decision_log(audit: Audit, examples: Examples) -> DecisionLog:
    """The audit's log, shared by all sessions so that its fold is computed once; refuses ids that are not in the corpus."""
    return _log(str(audit.folder.workspace), audit.folder.id, examples.key, audit, examples)


@st.cache_resource(max_entries=16, show_spinner=False)
def _log(workspace: str, audit_id: str, key: str, _audit: Audit, _examples: Examples) -> DecisionLog:
    return DecisionLog(database(_audit.folder.workspace), audit_id, known_ids=_examples.corpus_ids)


def verdict_column(examples: Examples, decisions: Mapping[str, Decision]) -> pd.Series:
    """The verdict that holds on each ranked example, `undecided` where there is none."""
    return _column(examples, decisions, "verdict", [UNDECIDED, *VERDICTS])


def auditor_column(examples: Examples, decisions: Mapping[str, Decision]) -> pd.Series:
    """Whose decision holds on each ranked example, empty where there is none."""
    return _column(examples, decisions, "auditor", ["", *sorted({decision.auditor for decision in decisions.values()})])


def _column(examples: Examples, decisions: Mapping[str, Decision], field: str, values: Sequence[str]) -> pd.Series:
    """What `field` of the decision on each ranked example is, one of `values`, the first of them where there is none."""
    number = {value: code for code, value in enumerate(values)}
    codes = np.zeros(len(examples.ids), dtype=np.int16)
    for id_, decision in decisions.items():
        if id_ in examples.place:
            codes[examples.place[id_]] = number[getattr(decision, field)]
    return pd.Series(pd.Categorical.from_codes(codes, list(values)), index=examples.table.index)


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What a callback has recorded in a log, said in words; it stays until it is dismissed, undone or followed by another.

    `undone`: what is recorded took something back, so that the next undo restores it.
    """

    words: str
    log: DecisionLog
    action: Action
    undone: bool = False


def attempt(act: Callable[[], str | Notice]) -> None:
    """Carry out a callback's work; what it says, or what went wrong, is shown on the next drawing (`show_outcome`)."""
    try:
        st.session_state[NOTICE] = act()
    except BiasDiffError as error:
        st.session_state[PROBLEM] = error


def show_outcome(log_id: str) -> None:
    """Show what the last callback did. `log_id`: of the log on the page; a notice stands beside its own alone."""
    if problem := st.session_state.pop(PROBLEM, None):
        show_error(problem)
    notice = st.session_state.get(NOTICE)
    if isinstance(notice, Notice):
        if notice.log.audit_id == log_id:
            _notice_bar(notice)
    elif notice := st.session_state.pop(NOTICE, None):
        st.toast(notice)


def _notice_bar(notice: Notice) -> None:
    """The words with their undo, bound to the action. Not a toast: that holds no button."""
    with st.container(key="notice", horizontal=True, vertical_alignment="center", border=True, width="content"):
        st.markdown(plain(notice.words), width="content")
        label = "Restore" if notice.undone else "Undo"
        st.button(label, key="notice-undo", type="primary", on_click=_undo, args=(notice.log, notice.action))
        st.button("Dismiss", key="notice-close", on_click=st.session_state.pop, args=(NOTICE, None))


def name_is_known() -> bool:
    """Whether there is an auditor to decide; if not, say what to do."""
    if auditor():
        return True
    st.info("Give your name in the sidebar first: each decision is recorded with who made it.")
    return False


def record_one(log: DecisionLog, id_: str, verdict: Verdict, reason: str, selection: Mapping[str, Any]) -> None:
    """One inspected decision (callback)."""

    def act() -> Notice:
        action = log.decide(id_, verdict, auditor(), reason, selection)
        return Notice(words=f"Recorded: {WORDS[verdict]}.", log=log, action=action)

    attempt(act)


def verdict_buttons(log: DecisionLog, id_: str, selection: Mapping[str, Any], reason: str = "") -> None:
    """A button a verdict, bound to this example, whatever is shown by the time it is pressed."""
    with st.container(horizontal=True, gap="small"):
        for verdict in VERDICTS:
            st.button(
                WORDS[verdict].capitalize(),
                key=f"one-{verdict}-{id_}",
                help=HELP[verdict],
                on_click=record_one,
                args=(log, id_, verdict, reason, selection),
            )


def bulk_panel(
    log: DecisionLog, examples: Examples, shown: Sequence[str], top: Sequence[str], percent: float, selection: Mapping[str, Any]
) -> None:
    """Label all that is shown, or the top of the ranking, with one verdict, after a second look at what that is.

    `shown`: ids under filter and lasso; `top`: ids within the cut; `selection`: what filter and lasso say.
    """
    targets = {
        f"Shown now (filter and lasso): {len(shown):,}": (shown, selection),
        f"Top {percent:g} % of the ranking: {len(top):,}": (top, {"page": "explore", "top_percent": percent}),
    }
    st.caption("A bulk act: its examples count as **not inspected**, and never enter the estimates.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        target = st.radio("Which examples", list(targets), key="bulk-target")
        verdict = st.selectbox("Verdict", VERDICTS, format_func=WORDS.__getitem__, key="bulk-verdict", width=220)
        reason = st.text_input("Reason", key="bulk-reason", width=260)
        ids, source = targets[target]
        st.button(
            f"Label {len(ids):,} examples …",
            key="bulk-ask",
            disabled=not len(ids),
            on_click=_ask,
            args=({"ids": list(ids), "verdict": verdict, "reason": reason, "selection": dict(source), "audit": log.audit_id},),
        )
    pending = st.session_state.get(PENDING)
    if pending and pending["audit"] == log.audit_id:
        _confirm(log, examples, pending)


def _ask(pending: dict[str, Any]) -> None:
    st.session_state[PENDING] = pending


def _confirm(log: DecisionLog, examples: Examples, pending: Mapping[str, Any]) -> None:
    words, ids = WORDS[pending["verdict"]], pending["ids"]
    rows = examples.table.iloc[[examples.place[id_] for id_ in ids]]
    st.warning(f"Label {count(len(ids), 'example')} as {words}, without having inspected them one by one?")
    st.markdown(plain(f"Bias types: {counted(rows['bias_type'])}."))
    for line in replaced_words(ids, log.current(), seen(log, examples)):
        st.markdown(line)
    first = rows.head(PREVIEW)[["rank", "text", "bias_type"]].rename(columns={"bias_type": "bias type"})
    st.dataframe(first, hide_index=True, column_config=COLUMNS, alt="The first of them")
    st.caption(f"The first {len(first):,} of {len(ids):,}." if len(first) < len(ids) else "All of them.")
    with st.container(horizontal=True):
        st.button(f"Yes, label {len(ids):,} as {words}", key="bulk-yes", type="primary", on_click=_bulk, args=(log, pending))
        st.button("Cancel", key="bulk-no", on_click=st.session_state.pop, args=(PENDING, None))


def counted(values: Iterable[str]) -> str:
    """`12 age, 5 gender`, the most frequent first."""
    return ", ".join(f"{number:,} {value}" for value, number in Counter(values).most_common())


def replaced_words(ids: Collection[str], current: Mapping[str, Decision], visible: Mapping[str, Decision]) -> list[str]:
    """Which verdicts a bulk act would replace, inspected ones named apart. `visible`: those that this auditor may see already."""
    held = [current[id_] for id_ in ids if id_ in current]
    shown = [decision for decision in held if decision.example_id in visible]
    parts = (
        ("Replaces {} given **one by one**: {}.", [WORDS[decision.verdict] for decision in shown if decision.inspected]),
        ("Replaces {} given in bulk: {}.", [WORDS[decision.verdict] for decision in shown if not decision.inspected]),
    )
    lines = [line.format(count(len(verdicts), "verdict"), counted(verdicts)) for line, verdicts in parts if verdicts]
    hidden = len(held) - len(shown)
    return lines + ([f"Replaces {count(hidden, 'verdict')} of others that you see after your own review of these."] if hidden else [])


def _bulk(log: DecisionLog, pending: Mapping[str, Any]) -> None:
    st.session_state.pop(PENDING, None)

    def act() -> Notice:
        action = log.decide_many(pending["ids"], pending["verdict"], auditor(), pending["reason"], pending["selection"])
        return Notice(words=f"{count(action.count, 'example')} labelled as {WORDS[pending['verdict']]}.", log=log, action=action)

    attempt(act)


def undo_button(log: DecisionLog, actions: Sequence[Action]) -> None:
    """Take back the last action of this auditor; the button says which."""
    last = last_of(actions, auditor())
    label = f"Undo action {last.number} ({count(last.count, 'decision')})" if last else "Nothing to undo"
    st.button(label, key="undo", disabled=last is None, on_click=_undo, args=(log, last))


def _undo(log: DecisionLog, action: Action) -> None:
    """Take an action back, or with an undo what it took back (callback)."""

    def act() -> Notice:
        undo = log.undo(auditor(), action.action_id)
        words, undone = undone_words(log, undo)
        return Notice(words=f"{words.capitalize()}.", log=log, action=undo, undone=undone)

    attempt(act)


def history_panel(log: DecisionLog, actions: Sequence[Action]) -> None:
    """Who did what, when, from which filter; newest first, a page at a time. Read only while it is open."""
    panel = st.expander(f"History: {count(len(actions), 'action')}", key="history", on_change="rerun")
    if panel.open and actions:
        with panel:
            _history_pages(log)


def _history_pages(log: DecisionLog) -> None:
    head = log.head()[1]
    entries = _history(log.audit_id, head, log)
    pages = -(-len(entries) // HISTORY)
    page = st.pagination(pages, key="history-page") if pages > 1 else 1
    shown = entries[(page - 1) * HISTORY : page * HISTORY]
    # The state of the log stands in the key: what is selected is a place in the table, and a new action moves all rows.
    event = st.dataframe(
        history_rows(shown),
        hide_index=True,
        key=f"history-{head[:8]}-{page}",
        on_select="rerun",
        selection_mode="single-row",
        alt=f"Actions, newest first, page {page} of {pages}",
    )
    chosen = event["selection"]["rows"]
    if chosen:
        _take_back(log, shown[chosen[0]])
    else:
        st.caption("Select a row to undo that action, or to restore it. Nothing is ever deleted: an undo is an action of its own.")


@st.cache_resource(max_entries=16, show_spinner=False)
def _history(audit_id: str, head: str, _log: DecisionLog) -> list[Entry]:
    return history(_log)


def history_rows(entries: Sequence[Entry]) -> pd.DataFrame:
    """Columns action, when, who, what, from, state."""
    return pd.DataFrame([entry.row() | {"when": moment(entry.action.created)} for entry in entries])


def _take_back(log: DecisionLog, entry: Entry) -> None:
    """The selected action and its button, bound to it."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(plain(f"Action {entry.action.number} of {entry.action.auditor}: {entry.what}; {entry.state}."))
        if entry.action.kind == "freeze":
            st.caption("A frozen set stays as it is; freeze another one.")
        else:
            label = "Undo this" if entry.holds else "Restore"
            st.button(label, key="history-undo", disabled=not auditor(), on_click=_undo, args=(log, entry.undo))
