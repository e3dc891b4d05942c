"""Review: one example at a time, by keys; each decision is recorded as inspected."""

import streamlit as st

from biasdiff_core.workspace.database import database
from biasdiff_ui.auditors import ids_of
from biasdiff_ui.auditors_view import agreement_panel, assignment_panel, live_line
from biasdiff_ui.boot import require_boot
from biasdiff_ui.checkpoints import checkpoint_ranks
from biasdiff_ui.decide import decision_log, history_panel, name_is_known, show_outcome, undo_button
from biasdiff_ui.estimates import draw_estimates
from biasdiff_ui.examples import load_examples
from biasdiff_ui.loaders import archived
from biasdiff_ui.mitigation_panel import mitigate_in_one_click
from biasdiff_ui.notices import plain
from biasdiff_ui.pace_line import pace_line
from biasdiff_ui.review_card import Desk, native_buttons, review_card
from biasdiff_ui.review_keys import keys_of, keys_panel
from biasdiff_ui.review_queue import CHOSEN, KINDS, open_queue, refresh, selection_left
from biasdiff_ui.selection import selection_line
from biasdiff_ui.similar import similar_line
from biasdiff_ui.skeleton import skeleton
from biasdiff_ui.state import auditor, current_audit
from biasdiff_ui.timeline import opening
from biasdiff_ui.token_shading import load_shading, shading_panel
from biasdiff_ui.verdicts import REASONS

CARD_HEIGHT = 460  # pixels of the grey shape while the ranking is read

require_boot("review")


@st.fragment
def reviewing(desk: Desk) -> None:
    """Queue, card and figures; only this part is drawn again after a press."""
    examples, log, db = desk.examples, desk.log, database(desk.audit.folder.workspace)
    show_outcome(log.audit_id)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = st.selectbox("Queue", list(KINDS), format_func=KINDS.__getitem__, key=CHOSEN, bind="query-params", width=320)
        st.button("Refresh the queue", on_click=refresh, help="The queue stays as it is while you review; this makes it anew.")
    queue = open_queue(
        log.audit_id, examples, kind, ids=lambda: ids_of(kind, log, examples), selection=lambda: selection_left(db, log, examples)
    )
    keys = keys_of(db, auditor())
    selection_line(queue)
    similar_line(examples, queue)
    if not queue.ids:
        st.success("Nothing is left in this queue. Go on to Mitigate, or look at the decisions on the page Explore.")
    else:
        review_card(desk, queue, keys)
        with st.expander("Plain buttons and a reason, for use without the card", key="native", on_change="rerun") as panel:
            if panel.open and queue.current:
                st.text(examples.table["text"].iloc[examples.place[queue.current]])
                reasons = ["", *REASONS]
                st.selectbox("Reason", reasons, key="native-reason", format_func=lambda reason: reason or "none")
                native_buttons(desk, queue)
    st.divider()
    draw_estimates(examples, log, queue)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        pace_line(db, log)
        undo_button(log, log.actions())
    keys_panel(db, keys)
    history_panel(log, log.actions())
    assignment_panel(log, examples)


audit = current_audit()
at = opening("Review", audit)
with skeleton(audit.folder.id if audit else "", ([1], CARD_HEIGHT)):
    examples = load_examples(audit, at.plan) if audit and at else None
if audit is not None and examples is not None:
    if name_is_known():
        log = decision_log(audit, examples)
        # These two look for news by themselves; inside a fragment whose length changes they would lose their place.
        live_line(log, examples)
        shading, ranks = load_shading(audit, examples), checkpoint_ranks(audit, at.plan)
        no_similar = archived(audit, vectors=True)
        reviewing(Desk(audit=audit, examples=examples, log=log, no_similar=no_similar, shading=shading, ranks=ranks))
        if no_similar:
            st.caption(plain(f"Similar examples cannot be looked for. {no_similar}"))
        shading_panel(at, shading)
        agreement_panel(log, examples)
        mitigate_in_one_click(at)
elif at is not None:
    st.info("There is no ranking yet. Start or resume the audit on the page Audits; its examples are then reviewed here.")
