"""Explore: the ranking as figures, map, curves and table; filter, lasso and bulk decisions."""

from __future__ import annotations

import numpy as np
import streamlit as st

from biasdiff_core.errors import DataError
from biasdiff_ui.auditors import seen
from biasdiff_ui.auditors_view import news_line
from biasdiff_ui.boot import require_boot
from biasdiff_ui.checkpoints import checkpoint_ranks
from biasdiff_ui.curves import LINES_HELP, cut_size, draw_curves
from biasdiff_ui.decide import (
    auditor_column,
    bulk_panel,
    decision_log,
    history_panel,
    name_is_known,
    show_outcome,
    undo_button,
    verdict_buttons,
    verdict_column,
)
from biasdiff_ui.estimates import review_of
from biasdiff_ui.examples import load_examples
from biasdiff_ui.explore_map import colour_choice, map_panel, with_clusters
from biasdiff_ui.figures import strip
from biasdiff_ui.filters import filter_bar
from biasdiff_ui.lasso import area_record, inside_areas
from biasdiff_ui.notices import show_error
from biasdiff_ui.ranking_table import open_rank, ranked_table
from biasdiff_ui.score_distribution import HELP as SCORES_HELP
from biasdiff_ui.score_distribution import draw_distribution
from biasdiff_ui.search_view import sentence_search
from biasdiff_ui.selection import selection_bar
from biasdiff_ui.skeleton import skeleton
from biasdiff_ui.state import begin_anew, current_audit
from biasdiff_ui.timeline import opening
from biasdiff_ui.verdicts import WORDS
from biasdiff_ui.why import draw_evidence, evidence

require_boot("explore")
audit = current_audit()
at = opening("Explore", audit)
with skeleton(audit.folder.id if audit else "", ([1] * 5, 90), ([3, 2], 440), ([1], 480)):
    examples = load_examples(audit, at.plan) if audit and at else None
if audit is None or examples is None:
    if at is not None:
        st.info("There is no ranking yet. Start or resume the audit on the page Audits; its ranking then opens here.")
    st.stop()

log = decision_log(audit, examples)
decisions, actions = log.current(), log.actions()
news_line(log, len(actions))
table = examples.table
in_view = seen(log, examples)
verdicts, auditors = verdict_column(examples, in_view), auditor_column(examples, in_view)
show_outcome(log.audit_id)

where, figures, slider, views, bar, search, below = (st.container() for _ in range(7))
with slider:
    begin_anew("percent", audit.folder.id, audit.config.removal.percent)
    percent = st.slider(
        "Selection: top % of the ranking",
        0.5,
        100.0,
        audit.config.removal.percent,
        0.5,
        key="percent",
        bind="query-params",
        format="%.1f %%",
    )
cut = cut_size(examples, percent)
with views:
    left, right = st.columns([3, 2], gap="medium")
with left:
    colour_by = colour_choice(examples)
with bar:
    filtered = with_clusters(examples, colour_by)
    chosen = filter_bar(filtered, auditors)
    try:
        passing = chosen.mask(filtered, verdicts, auditors)
    except DataError as error:
        show_error(error)
        passing = np.zeros(len(table), dtype=bool)
with search:
    found = sentence_search(at, examples, verdicts)
near = found if found and found.only else None
if near:
    passing &= np.isin(table.index, near.rows)

undecided = int((verdicts.iloc[:cut] == "undecided").sum())
where.markdown(
    f"{undecided:,} of the {cut:,} candidates, the top {percent:g} %, are undecided"
    + (": judge them one by one in Review, or in bulk below." if undecided else ".")
)
with figures:
    strip(examples, decisions, review_of(examples, log), verdicts, cut, percent)

with left:
    areas = map_panel(examples, passing, verdicts, colour_by, cut)
with right:
    show = st.segmented_control(
        "Show", ["coverage and precision", "scores"], default="coverage and precision", required=True, key="show", bind="query-params"
    )
    if show == "scores":
        st.markdown("**Influence scores** – against what chance gives", help=SCORES_HELP)
        draw_distribution(examples, percent, cut)
    else:
        st.markdown("**Coverage and precision** – over how much of the ranking is selected", help=LINES_HELP)
        draw_curves(examples, log, percent)

shown = passing & inside_areas(table["x"].to_numpy(), table["y"].to_numpy(), areas) if areas else passing
asked = {"query": near.query} if near else {}
selection = {"page": "explore", "filter": chosen.record(), **asked, **({"lasso": area_record(areas)} if areas else {})}
rows = near.rows[shown[near.rows]] if near else np.flatnonzero(shown)
with bar:
    selection_bar(audit, examples, in_view, rows, int(passing.sum()), selection)

with below:
    rank = open_rank(len(table))
    left, right = st.columns([3, 2], gap="medium") if rank else (st.container(), None)
    with left:
        ranked_table(table[shown], verdicts, {**selection, "audit": audit.folder.id})
    if rank and right:
        with right:
            id_ = str(table["id"].iloc[rank - 1])
            st.markdown(f"Decision: **{WORDS[verdicts.iloc[rank - 1]]}**")
            by_search = found and found.opened == rank
            came_from = {"page": "explore", "query": found.query} if by_search else selection
            if name_is_known():
                verdict_buttons(log, id_, {**came_from, "rank": rank})
            draw_evidence(evidence(examples, id_), examples, checkpoint_ranks(audit, at.plan))
    st.subheader("Label in bulk")
    if name_is_known():
        bulk_panel(log, examples, table["id"][shown].tolist(), examples.ids[:cut], percent, selection)
        undo_button(log, actions)
    history_panel(log, actions)
