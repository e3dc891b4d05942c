"""Several auditors at work: how far each is, who reviews what, how far they agree; kept up to date while one looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from biasdiff_core.review.adjudication import disagreements
from biasdiff_core.review.agreement import ALL, Agreement, agreement
from biasdiff_core.review.assignment import Assignment, Terms, announce, announced, terms_of
from biasdiff_core.review.blind import still_to_review
from biasdiff_core.review.decisions import SIMULATED_AUDITOR, Action, DecisionLog
from biasdiff_ui.auditors import assignment, bias_types, to_review
from biasdiff_ui.decide import attempt
from biasdiff_ui.examples import Examples
from biasdiff_ui.format import count, metric_text
from biasdiff_ui.notices import errors_shown, plain
from biasdiff_ui.state import auditor

LOOK_SECONDS = 2  # how often it looks for what others have recorded: one query each time
OVERLAP = 20.0


@st.fragment(run_every=LOOK_SECONDS)
def live_line(log: DecisionLog, examples: Examples) -> None:
    """How many examples are inspected, by whom, and what is open; what others record shows by itself."""
    st.markdown(_line(log.audit_id, log.head()[1], examples.key, auditor(), log, examples))


@st.cache_resource(max_entries=64, show_spinner=False)
def _line(audit_id: str, head: str, key: str, name: str, _log: DecisionLog, _examples: Examples) -> str:
    verdicts, current, total = _log.by_auditor(), _log.current(), len(_examples.ids)
    inspected = sum(decision.inspected for decision in current.values())
    by_whom = ", ".join(f"{plain(who)} {len(held):,}" for who, held in sorted(verdicts.items()))
    parts = [f"{inspected:,} of {total:,} examples are inspected" + (f" ({by_whom})" if len(verdicts) > 1 else "")]
    if left := len(to_review(_log, _examples)):
        parts.append(f"{left:,} assigned to you are left")
    if differ := len(disagreements(_examples.ids, verdicts, current)):
        parts.append(f"{count(differ, 'disagreement')} to settle, until then the later verdict holds")
    return "; ".join(parts) + ". One key a verdict; the next example comes at once."


@st.fragment(run_every=LOOK_SECONDS)
def news_line(log: DecisionLog, drawn: int) -> None:
    """What was recorded after action number `drawn`, up to which the page shows the log, and a button that shows the rest."""
    if log.head()[0] == drawn:
        return
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.markdown(plain(news_words(log.actions()[drawn:])))
        if st.button("Show", key="news"):
            st.rerun()


def news_words(actions: Sequence[Action]) -> str:
    """`3 new decisions by Ana, 1 other action by Bo`, the other ones being undos and assignments."""
    made = Counter[str]()
    others = Counter[str]()
    for action in actions:
        (made if action.count else others)[action.auditor] += action.count or 1
    parts = [f"{count(number, 'new decision')} by {name}" for name, number in made.items()]
    return ", ".join([*parts, *(f"{count(number, 'other action')} by {name}" for name, number in others.items())])


def assignment_panel(log: DecisionLog, examples: Examples) -> None:
    """Who reviews what and how far they are; new terms."""
    panel = st.expander("Who reviews what", key="assignment", on_change="rerun")
    if panel.open:
        with panel, errors_shown():
            actions = log.actions()
            action = announced(actions)
            if action:
                _progress(terms_of(action), action, assignment(log, examples), log)
            _new_terms(log, actions, terms_of(action) if action else None)


def _progress(terms: Terms, action: Action, found: Assignment, log: DecisionLog) -> None:
    st.markdown(f"By action {action.number} of {plain(action.auditor)}: one review an example, two of {terms.overlap:g} %.")
    verdicts = log.by_auditor()
    rows = []
    for name in sorted({name for auditors in found.values() for name in auditors}):
        total = sum(name in auditors for auditors in found.values())
        left = len(still_to_review(found, name, verdicts))
        rows.append({"auditor": name, "assigned": total, "reviewed": total - left, "left": left})
    st.dataframe(pd.DataFrame(rows), hide_index=True, alt="Examples assigned, reviewed and left, by auditor", height="content")


def _new_terms(log: DecisionLog, actions: Sequence[Action], terms: Terms | None) -> None:
    known = sorted({a.auditor for a in actions} - {SIMULATED_AUDITOR} | {auditor(), *(terms.auditors if terms else ())})
    st.caption(
        "Everyone gets equally many, spread over the ranking. What is reviewed stays with who reviewed it; only open examples are dealt. "
        "Until they have decided, an auditor sees nobody else's verdict on an example of theirs, here or on Explore."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.multiselect(
            "Auditors", known, default=terms.auditors if terms else [auditor()], key="assign-auditors", accept_new_options=True, width=420
        )
        overlap = st.number_input(
            "Reviewed by two, %", 0.0, 100.0, float(terms.overlap) if terms else OVERLAP, 5.0, key="assign-overlap", width=180
        )
        st.button("Assign the examples", key="assign", on_click=_announce, args=(log, tuple(chosen), overlap))


def _announce(log: DecisionLog, auditors: tuple[str, ...], overlap: float) -> None:
    def act() -> str:
        announce(log, Terms(auditors=tuple(name.strip() for name in auditors), overlap=overlap), auditor())
        return "Assigned. Refresh the queue to see what is yours."

    attempt(act)


@st.fragment(run_every=LOOK_SECONDS)
def agreement_panel(log: DecisionLog, examples: Examples) -> None:
    """Agreement by bias type, with n and interval. Computed while it is open, once for a state of the log."""
    panel = st.expander("Agreement between auditors", key="agreement", on_change="rerun")
    if panel.open:
        with panel:
            _agreement_tables(_agreement(log.audit_id, log.head()[1], examples.key, log, examples))


@st.cache_resource(max_entries=16, show_spinner=False)
def _agreement(audit_id: str, head: str, key: str, _log: DecisionLog, _examples: Examples) -> list[Agreement]:
    return agreement(_log.by_auditor(), bias_types(_examples))


def _agreement_tables(rows: Sequence[Agreement]) -> None:
    overall = rows[0]
    if not overall.alpha.n:
        st.markdown("No example has verdicts of two auditors yet. The queue *second review* holds what others have inspected.")
        return
    one_pair = next(iter(overall.kappas)) if len(overall.kappas) == 1 else None
    by_type = [
        {
            "bias type of the nearest probe": "all examples" if row.bias_type == ALL else row.bias_type,
            "Krippendorff's alpha": metric_text(row.alpha),
            **({"Cohen's kappa": metric_text(row.kappas[one_pair])} if one_pair else {}),
        }
        for row in rows
    ]
    st.dataframe(pd.DataFrame(by_type), hide_index=True, alt="Agreement over all examples and by bias type", height="content")
    if not one_pair:
        pairs = [{"auditors": " and ".join(pair), "Cohen's kappa": metric_text(kappa)} for pair, kappa in overall.kappas.items() if kappa.n]
        st.dataframe(pd.DataFrame(pairs), hide_index=True, alt="Cohen's kappa of each two auditors", height="content")
    st.caption(f"{overall.alpha.convention} 1 is full agreement, 0 what chance gives.")
    st.caption(next(kappa.convention for kappa in overall.kappas.values() if kappa.n))
