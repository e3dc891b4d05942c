"""What the inspected decisions say of the whole ranking: precision, found and left, what more reviews would find, when to stop."""

from __future__ import annotations

import streamlit as st

from biasdiff_core.review.decisions import DecisionLog
from biasdiff_core.review.design import Review, review_so_far
from biasdiff_core.review.estimate import biased_left, precision_at, share_found
from biasdiff_core.review.suggest import NEXT, StopHint, expected_found, next_queue, stop_hint
from biasdiff_ui.examples import Examples
from biasdiff_ui.format import count, metric_help, metric_text
from biasdiff_ui.review_queue import KINDS, Queue

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
    """Precision of the ranks reached, found and left, the yield of the next reviews, the stop hint and what to go on with."""
    review = review_of(examples, log)
    if not len(review.places):
        return
    precision, left, share = precision_at(review, review.reached), biased_left(review), share_found(review)
    upcoming = [examples.place[id_] for id_ in queue.ids[queue.place : queue.place + NEXT]]
    more = expected_found(review, upcoming)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.markdown(
            f"Precision in the {count(review.reached, 'rank')} reached: **{metric_text(precision, with_n=False)}**",
            help=metric_help(precision),
        )
        st.markdown(f"Biased: **{int(review.biased.sum()):,} found**, **{metric_text(left, with_n=False)} left**", help=metric_help(left))
        st.markdown(f"Share found: **{metric_text(share, with_n=False)}**", help=metric_help(share))
        if upcoming:
            st.markdown(f"Review {len(upcoming)} more → about **{metric_text(more, with_n=False)}** more found", help=metric_help(more))
    hint = stop_hint(review)
    st.markdown(stop_words(hint) + ("" if hint.reached else f" {next_words(review)}"), help=STOP_HELP)


def stop_words(hint: StopHint) -> str:
    """The stop hint in a sentence."""
    goal = f"{100 * hint.target:g} % of the biased examples are found, with {100 * hint.confidence:g} % confidence"
    if hint.reached:
        return f"**Enough: at least {goal}.**"
    return f"Not yet: that at least {goal}, takes {count(hint.draws, 'example')} more at random, or more if some of them are biased."


def next_words(review: Review) -> str:
    """Which queue to go on with, in a sentence."""
    if next_queue(review) == "mixed":
        return f"Go on with the queue *{KINDS['mixed']}*."
    return f"The next by rank promise no more than others: go on with the queue *{KINDS['random']}*, which tells more."
