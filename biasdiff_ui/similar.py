"""'Similar to this': a queue of the examples whose gradients are nearest to one example's, and the way back to the earlier queue."""

from __future__ import annotations

import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.review.decisions import DecisionLog
from biasdiff_ui.decide import attempt
from biasdiff_ui.examples import Examples
from biasdiff_ui.format import count
from biasdiff_ui.notices import plain
from biasdiff_ui.review_queue import STATE, Queue, new_token, queue_ids

NEAREST = 50  # more than an auditor judges in a row for the sake of one example, and few enough to stay near it
QUOTED = 120  # letters of the example that the others are similar to


def open_similar(audit: Audit, log: DecisionLog, queue: Queue, id_: str) -> None:
    """Go over to what is nearest to `id_` and not inspected yet. Raises ArtefactError without vectors."""
    found = audit.similar_to(id_, NEAREST)
    ids = queue_ids(tuple(found), log.current(), "not inspected")
    made_of = (*queue.made_of[:3], f"similar to {id_}")
    st.session_state[STATE] = Queue(token=new_token(), made_of=made_of, ids=ids, like=id_, cosines=found, earlier=queue)


def similar_button(audit: Audit, log: DecisionLog, queue: Queue, id_: str, why_not: str) -> None:
    """The same as a plain button, bound to this example; `why_not` is said where it cannot be pressed."""

    def act() -> str:
        open_similar(audit, log, queue, id_)
        return "These are the nearest ones."

    st.button(
        "Similar to this",
        key="native-similar",
        disabled=bool(why_not),
        help=plain(why_not) if why_not else None,
        on_click=lambda: attempt(act),
    )


def similar_line(examples: Examples, queue: Queue) -> None:
    """Of a queue of similar examples: similar to what, how many are left out, and the way back."""
    if queue.earlier is None:
        return
    text = examples.table["text"].iloc[examples.place[queue.like]]
    rank = examples.place[queue.like] + 1
    inspected = len(queue.cosines) - len(queue.ids)
    left_out = f" {inspected} of the {len(queue.cosines)} nearest were inspected already and are left out." if inspected else ""
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.markdown(
            f"**{count(len(queue.ids), 'example')} similar** to the one at rank {rank}, nearest first: "
            f"“{plain(text[:QUOTED])}{' …' if len(text) > QUOTED else ''}”.{left_out}",
            help="Near by the cosine of the projected gradients at the last checkpoint: training on them pulls the model the same way.",
        )
        st.button("Back to the earlier queue", key="earlier", on_click=_go_back, args=(queue.earlier,))


def _go_back(earlier: Queue) -> None:
    st.session_state[STATE] = earlier
