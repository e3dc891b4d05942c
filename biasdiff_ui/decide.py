"""Recording decisions from the pages: one by one, in bulk with a confirm step, undo, and the history of it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.review.decisions import Action, Decision, DecisionLog, in_effect
from biasdiff_core.workspace.database import database
from biasdiff_ui.examples import Examples
from biasdiff_ui.format import count, moment
from biasdiff_ui.notices import show_error
from biasdiff_ui.state import auditor
from biasdiff_ui.verdicts import HELP, UNDECIDED, VERDICTS, WORDS, Verdict

NOTICE, PROBLEM, PENDING = "decide-notice", "decide-problem", "decide-pending"
HISTORY = 30


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


def attempt(act: Callable[[], str]) -> None:
    """Carry out a callback's work; its sentence, or what went wrong, is shown on the next drawing (`show_outcome`)."""
    try:
        st.session_state[NOTICE] = act()
    except BiasDiffError as error:
        st.session_state[PROBLEM] = error


def show_outcome() -> None:
    """Show what the last callback did."""
    if problem := st.session_state.pop(PROBLEM, None):
        show_error(problem)
    if notice := st.session_state.pop(NOTICE, None):
        st.toast(notice)


def name_is_known() -> bool:
    """Whether there is an auditor to decide; if not, say what to do."""
    if auditor():
        return True
    st.info("Give your name in the sidebar first: each decision is recorded with who made it.")
    return False


def record_one(log: DecisionLog, id_: str, verdict: Verdict, reason: str, selection: Mapping[str, Any]) -> None:
    """One inspected decision (callback)."""

    def act() -> str:
        log.decide(id_, verdict, auditor(), reason, selection)
        return f"Recorded: {WORDS[verdict]}."

    attempt(act)


def verdict_buttons(log: DecisionLog, id_: str, selection: Mapping[str, Any], reason: str = "") -> None:
    """A button a verdict, bound to this example, whatever is shown by the time it is pressed."""
    with st.container(horizontal=True, gap="small"):
        for verdict in VERDICTS:
            st.button(
                WORDS[verdict].capitalize(),
                key=f"one-{verdict}",
                help=HELP[verdict],
                on_click=record_one,
                args=(log, id_, verdict, reason, selection),
            )


def bulk_panel(log: DecisionLog, shown: Sequence[str], top: Sequence[str], percent: float, selection: Mapping[str, Any]) -> None:
    """Label all that is shown, or the top of the ranking, with one verdict, after a second look at the count.

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
        _confirm(log, pending)


def _ask(pending: dict[str, Any]) -> None:
    st.session_state[PENDING] = pending


def _confirm(log: DecisionLog, pending: Mapping[str, Any]) -> None:
    words = WORDS[pending["verdict"]]
    over = len(log.current().keys() & set(pending["ids"]))
    replaced = f" {over:,} of them have a decision, which this one replaces." if over else ""
    st.warning(f"Label {len(pending['ids']):,} examples as {words}, without having inspected them one by one?{replaced}")
    with st.container(horizontal=True):
        st.button(f"Yes, label {len(pending['ids']):,} as {words}", key="bulk-yes", type="primary", on_click=_bulk, args=(log, pending))
        st.button("Cancel", key="bulk-no", on_click=st.session_state.pop, args=(PENDING, None))


def _bulk(log: DecisionLog, pending: Mapping[str, Any]) -> None:
    st.session_state.pop(PENDING, None)

    def act() -> str:
        log.decide_many(pending["ids"], pending["verdict"], auditor(), pending["reason"], pending["selection"])
        return f"{len(pending['ids']):,} examples labelled as {WORDS[pending['verdict']]}. Undo takes all of it back."

    attempt(act)


def last_own_action(actions: Sequence[Action], name: str) -> Action | None:
    """The newest action of this auditor that stands and is no undo."""
    standing = in_effect(actions)
    own = (a for a in reversed(actions) if a.auditor == name and a.kind != "undo" and a.action_id in standing)
    return next(own, None)


def undo_button(log: DecisionLog, actions: Sequence[Action]) -> None:
    """Take back the last action of this auditor; the button says which."""
    last = last_own_action(actions, auditor())
    label = f"Undo action {last.number} ({count(last.count, 'decision')})" if last else "Nothing to undo"
    st.button(label, key="undo", disabled=last is None, on_click=_undo, args=(log, last))


def _undo(log: DecisionLog, action: Action) -> None:
    def act() -> str:
        log.undo(auditor(), action.action_id)
        return f"Action {action.number} is undone."

    attempt(act)


def history_panel(log: DecisionLog, actions: Sequence[Action]) -> None:
    """Who did what, when, from which filter; newest first. Read only while it is open."""
    panel = st.expander(f"History: {count(len(actions), 'action')}", key="history", on_change="rerun")
    if panel.open and actions:
        rows = history_rows(log.audit_id, log.head()[1], actions[-HISTORY:], log)
        panel.dataframe(rows, hide_index=True, alt="The latest actions, newest first")


@st.cache_resource(max_entries=16, show_spinner=False)
def history_rows(audit_id: str, head: str, _actions: Sequence[Action], _log: DecisionLog) -> pd.DataFrame:
    """Columns action, when, who, what, from, state; newest first. `head`: hash of the log's last action."""
    numbers = {action.action_id: action.number for action in _log.actions()}
    standing = in_effect(_log.actions())
    links = {link["action_id"]: link for link in _log.links(after=_actions[0].number - 1)}
    rows = [
        {
            "action": action.number,
            "when": moment(action.created),
            "who": action.auditor,
            "what": _what(action, links[action.action_id]["decisions"], numbers),
            "from": origin_words(action.selection),
            "state": "holds" if action.action_id in standing else "undone",
        }
        for action in reversed(_actions)
    ]
    return pd.DataFrame(rows)


def _what(action: Action, decisions: Sequence[Mapping[str, Any]], numbers: Mapping[str, int]) -> str:
    if action.undoes:
        return f"undid action {numbers[action.undoes]}"
    if action.kind == "assign":
        return "assigned the examples"
    counts = Counter(WORDS[row["verdict"]] for row in decisions)
    kind = {"bulk": ", in bulk", "import": ", imported"}.get(action.kind, "")
    return ", ".join(f"{number} {word}" for word, number in counts.items()) + kind


def origin_words(selection: Mapping[str, Any] | None) -> str:
    """What a decision came from, in words."""
    if not selection:
        return ""
    parts = []
    for name, value in selection.items():
        if name == "filter":
            parts += [f"{key.replace('_', ' ')}: {', '.join(map(str, v)) if isinstance(v, list) else v}" for key, v in value.items()]
        elif name == "lasso":
            parts.append(f"lasso of {count(len(value), 'area')}")
        elif name == "query":
            parts.append(f"search: “{value}”")
        elif name == "top_percent":
            parts.append(f"top {value:g} %")
        elif name == "assignment":
            parts.append(f"{', '.join(value['auditors'])} · overlap {value['overlap']:g} %")
        elif name in ("page", "queue", "rank", "imported"):
            parts.append(str(value) if name == "page" else f"{name} {value}")
        elif name == "drawn":
            parts.append(f"{len(value):,} at random")
        elif name == "simulated":
            parts.append("simulated")
    return " · ".join(parts)
