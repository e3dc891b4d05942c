"""What the inspected decisions say of the whole ranking: precision, found and left, what more reviews would find, when to stop."""

from __future__ import annotations

import streamlit as st

from biasdiff_core.review.decisions import DecisionLog
from biasdiff_core.review.design import Review, review_so_far
from biasdiff_core.review.estimate import biased_left, precision_at, share_found
from biasdiff_core.review.stop_rule import choose, chosen
from biasdiff_core.review.suggest import NEXT, StopHint, StopRule, expected_found, next_queue, stop_hint
from biasdiff_ui.decide import Notice, attempt
from biasdiff_ui.examples import Examples
from biasdiff_ui.format import count, metric_help, metric_text
from biasdiff_ui.notices import plain
from biasdiff_ui.review_queue import KINDS, Queue
from biasdiff_ui.state import auditor

SHARES = (0.8, 0.9, 0.95, 0.99)
RULE_HELP = "Choose it before you review: the assurance below is that of a rule in which what was found had no say. Its choice is recorded."

STOP_HELP = (
    "A test of the examples drawn at random against the number of biased ones with which the target would be missed. It holds whenever "
    "one looks, so stopping at the first hint is sound. A drawn example that is skipped, or open with another auditor, holds up those "
    "drawn after it."
)


def review_of(examples: Examples, log: DecisionLog) -> Review:
    """The review of these examples as it stands; made once for a state of the log."""
    return _review(log.audit_id, examples.key, log.head()[1], examples, log)


@st.cache_resource(max_entries=8, show_spinner=False)
def _review(audit_id: str, key: str, head: str, _examples: Examples, _log: DecisionLog) -> Review:
    return review_so_far(_examples.ids, _log.current(), _log.first_inspected())


def draw_estimates(examples: Examples, log: DecisionLog, queue: Queue) -> None:
    """What is to be found; precision of the ranks reached, found and left, the yield of the next reviews, the stop hint, how to go on."""
    review, rule = review_of(examples, log), chosen(log.actions())
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.markdown(plain(rule.words()), help=RULE_HELP, width="content")
        _choose_rule(log, rule.rule, begun=bool(len(review.places)))
    if not len(review.places):
        return
    precision, left, share = precision_at(review, review.reached), biased_left(review), share_found(review)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.markdown(
            f"Precision in the {count(review.reached, 'rank')} reached: **{metric_text(precision, with_n=False)}**",
            help=metric_help(precision),
        )
        st.markdown(f"Biased: **{int(review.biased.sum()):,} found**, **{metric_text(left, with_n=False)} left**", help=metric_help(left))
        st.markdown(f"Share found: **{metric_text(share, with_n=False)}**", help=metric_help(share))
        number = st.number_input("Review so many more", 1, None, NEXT, 10, key="next", width=170)
        places = [examples.place[id_] for id_ in queue.ids[queue.place : queue.place + number]]
        upcoming = [place for place in places if review.open[place]]  # in a second review, for one, all are inspected
        if upcoming:
            more = expected_found(review, upcoming)
            st.markdown(f"Review {len(upcoming)} more → about **{metric_text(more, with_n=False)}** more found", help=metric_help(more))
    hint = stop_hint(review, rule.rule)
    st.markdown(stop_words(hint) + ("" if hint.reached else f" {next_words(review)}"), help=STOP_HELP)


def _choose_rule(log: DecisionLog, rule: StopRule, *, begun: bool) -> None:
    """The form that chooses what is to be found. `begun`: something is inspected, so that it comes late."""
    with st.popover("Change", disabled=not auditor()):
        if begun:
            st.caption("The review has begun. A change is recorded, and stands beside the assurance here and in the report.")
        target, confidence = (
            st.selectbox(label, options := sorted({*SHARES, share}), options.index(share), format_func="{:.0%}".format, key=key)
            for label, share, key in (
                ("At least, of the biased examples", rule.target, "rule-target"),
                ("With confidence", rule.confidence, "rule-confidence"),
            )
        )
        wanted = StopRule(target=target, confidence=confidence)
        st.button("Record it", key="rule-record", disabled=wanted == rule, on_click=_record_rule, args=(log, wanted))


def _record_rule(log: DecisionLog, rule: StopRule) -> None:
    def act() -> Notice:
        action = choose(log, rule, auditor())
        return Notice(words=f"Recorded: to be found are at least {rule.words()}.", log=log, action=action)

    attempt(act)


def stop_words(hint: StopHint) -> str:
    """The stop hint in a sentence."""
    if hint.reached:
        return f"**Enough: found are at least {hint.rule.words()}.**"
    return f"Not yet: at least {hint.rule.words()}, takes {count(hint.draws, 'example')} more at random, or more if some are biased."


def next_words(review: Review) -> str:
    """Which queue to go on with, in a sentence."""
    if next_queue(review) == "mixed":
        return f"Go on with the queue *{KINDS['mixed']}*."
    return f"The next by rank promise no more than others: go on with the queue *{KINDS['random']}*, which tells more."
