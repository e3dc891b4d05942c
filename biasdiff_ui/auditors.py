"""What is whose where several auditors work: assignment, what each may see, the queues that follow."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import streamlit as st

from biasdiff_core.review.adjudication import disagreements, given_on
from biasdiff_core.review.assignment import Assignment, announced, assignment_by
from biasdiff_core.review.blind import second_reviews, still_to_review, visible
from biasdiff_core.review.decisions import Action, Decision, DecisionLog
from biasdiff_ui.examples import Examples
from biasdiff_ui.review_queue import Kind, queue_ids
from biasdiff_ui.state import auditor
from biasdiff_ui.verdicts import WORDS


def assignment(log: DecisionLog, examples: Examples) -> Assignment:
    """The assignment in force; empty where there is none."""
    action = announced(log.actions())
    return _assignment(action.action_id, examples.key, action, log, examples) if action else {}


@st.cache_resource(max_entries=16, show_spinner="Dealing the examples …")
def _assignment(action_id: str, key: str, _action: Action, _log: DecisionLog, _examples: Examples) -> Assignment:
    return assignment_by(_action, _log, _examples.ids)


def to_review(log: DecisionLog, examples: Examples) -> list[str]:
    """What this auditor has still to review, best rank first."""
    return still_to_review(assignment(log, examples), auditor(), log.by_auditor())


def seen(log: DecisionLog, examples: Examples) -> dict[str, Decision]:
    """The decisions that hold, less those of others on what this auditor has still to review."""
    return visible(log.current(), auditor(), to_review(log, examples))


def ids_of(kind: Kind, log: DecisionLog, examples: Examples) -> tuple[str, ...]:
    """The examples of a queue of this kind, for this auditor."""
    if kind == "assigned":
        return tuple(to_review(log, examples))
    if kind == "second review":
        return second_reviews(examples.ids, assignment(log, examples), auditor(), log.by_auditor())
    if kind == "disagreements":
        return disagreements(examples.ids, log.by_auditor(), log.current(), to_review(log, examples))
    return queue_ids(examples.ids, log.current(), kind)


def given_records(log: DecisionLog, id_: str) -> list[list[str]]:
    """Auditor, verdict in words, reason of each verdict given on one example: what an adjudicator sees."""
    return [[decision.auditor, WORDS[decision.verdict], decision.reason] for decision in given_on(id_, log.by_auditor())]


@lru_cache(maxsize=4)
def bias_types(examples: Examples) -> Mapping[str, str]:
    """The bias type of each example: that of its nearest probe."""
    nearest = examples.top_probes[~examples.top_probes.index.duplicated()]["probe"]
    types = {str(id_): examples.probes[probe].bias_type for id_, probe in nearest.items()}
    return {id_: bias_type for id_, bias_type in types.items() if bias_type}
