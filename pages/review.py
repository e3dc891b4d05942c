"""Review: one example at a time, by keys; each decision is recorded as inspected."""

import streamlit as st

from biasdiff_core.review.decisions import DecisionLog
from biasdiff_ui.auditors import ids_of
from biasdiff_ui.auditors_view import agreement_panel, assignment_panel, live_line
from biasdiff_ui.boot import require_boot
from biasdiff_ui.decide import decision_log, history_panel, name_is_known, show_outcome, undo_button
from biasdiff_ui.estimates import draw_estimates
from biasdiff_ui.examples import Examples, load_examples
from biasdiff_ui.format import count
from biasdiff_ui.review_card import DONE, native_buttons, review_card
from biasdiff_ui.review_queue import KINDS, open_queue, refresh
from biasdiff_ui.state import current_audit
from biasdiff_ui.timeline import opening
from biasdiff_ui.verdicts import REASONS

require_boot("review")


@st.fragment
def reviewing(examples: Examples, log: DecisionLog) -> None:
    """Queue, card and figures; only this part is drawn again after a press."""
    show_outcome()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = st.selectbox("Queue", list(KINDS), format_func=KINDS.__getitem__, key="queue", bind="query-params", width=320)
        st.button("Refresh the queue", on_click=refresh, help="The queue stays as it is while you review; this makes it anew.")
    queue = open_queue(log.audit_id, examples, kind, lambda: ids_of(kind, log, examples))
    if not queue.ids:
        st.success("Nothing is left in this queue. Go on to Mitigate, or look at the decisions on the page Explore.")
    else:
        review_card(examples, log, queue)
        with st.expander("Plain buttons and a reason, for use without the card", key="native", on_change="rerun") as panel:
            if panel.open and queue.current:
                st.text(examples.table["text"].iloc[examples.place[queue.current]])
                reasons = ["", *REASONS]
                st.selectbox("Reason", reasons, key="native-reason", format_func=lambda reason: reason or "none")
                native_buttons(log, queue)
    st.divider()
    draw_estimates(examples, log, queue)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.markdown(f"**{count(st.session_state.get(DONE, 0), 'decision')}** in this session")
        undo_button(log, log.actions())
    history_panel(log, log.actions())
    assignment_panel(log, examples)


audit = current_audit()
at = opening("Review", audit)
examples = load_examples(audit, at.plan) if audit and at else None
if audit is not None and examples is not None:
    if name_is_known():
        log = decision_log(audit, examples)
        # These two look for news by themselves; inside a fragment whose length changes they would lose their place.
        live_line(log, examples)
        reviewing(examples, log)
        agreement_panel(log, examples)
elif at is not None:
    st.info("There is no ranking yet. Start or resume the audit on the page Audits; its examples are then reviewed here.")
