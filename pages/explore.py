"""Explore: the ranking as figures, map, curves and table; filter, lasso and bulk decisions."""

from __future__ import annotations

from typing import get_args

import numpy as np
import streamlit as st

from biasdiff_core.errors import DataError
from biasdiff_ui.auditors import seen
from biasdiff_ui.boot import require_boot
from biasdiff_ui.curves import LINES_HELP, cut_size, draw_curves
from biasdiff_ui.decide import (
    auditor_column,
    bulk_panel,
    decision_log,
    history_panel,
    name_is_known,
    origin_words,
    show_outcome,
    undo_button,
    verdict_buttons,
    verdict_column,
)
from biasdiff_ui.estimates import review_of
from biasdiff_ui.examples import load_examples
from biasdiff_ui.explore_map import MAX_POINTS, ColourBy, classes, draw_map, drawn, map_clusters
from biasdiff_ui.figures import strip
from biasdiff_ui.filters import filter_bar
from biasdiff_ui.lasso import area_record, inside_areas
from biasdiff_ui.notices import plain, show_error
from biasdiff_ui.ranking_table import open_rank, ranked_table
from biasdiff_ui.score_distribution import HELP as SCORES_HELP
from biasdiff_ui.score_distribution import draw_distribution
from biasdiff_ui.search_view import sentence_search
from biasdiff_ui.state import current_audit
from biasdiff_ui.timeline import opening
from biasdiff_ui.verdicts import WORDS
from biasdiff_ui.why import draw_evidence, evidence

require_boot("explore")
audit = current_audit()
at = opening("Explore", audit)
examples = load_examples(audit, at.plan) if audit and at else None
if audit is None or examples is None:
    if at is not None:
        st.info("There is no ranking yet. Start or resume the audit on the page Audits; its ranking then opens here.")
    st.stop()

log = decision_log(audit, examples)
decisions, actions = log.current(), log.actions()
table = examples.table
in_view = seen(log, examples)
verdicts, auditors = verdict_column(examples, in_view), auditor_column(examples, in_view)
show_outcome()

where, figures, slider, views, bar, below = (st.container() for _ in range(6))
with slider:
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
with bar:
    chosen = filter_bar(table, auditors)
    try:
        passing = chosen.mask(table, verdicts, auditors)
    except DataError as error:
        show_error(error)
        passing = np.zeros(len(table), dtype=bool)

undecided = int((verdicts.iloc[:cut] == "undecided").sum())
where.markdown(
    f"{undecided:,} of the {cut:,} candidates, the top {percent:g} %, are undecided"
    + (": judge them one by one in Review, or in bulk below." if undecided else ".")
)
with figures:
    strip(examples, decisions, review_of(examples, log), verdicts, cut, percent)

areas: list[dict[str, object]] = []
with views:
    left, right = st.columns([3, 2], gap="medium")
    with left:
        st.markdown("**Map of gradient directions** – near means that training on them pulls the model the same way")
        options = [option for option in get_args(ColourBy) if option != "known label" or table["label"].notna().any()]
        colour_by = st.segmented_control("Colour by", options, default="influence", required=True, key="colour", bind="query-params")
        if examples.mapped:
            visible = passing & drawn(table["rank"].to_numpy(), (verdicts != "undecided").to_numpy(), cut)
            points = table[visible]
            if colour_by == "cluster":
                drawn_as = map_clusters(examples.key, examples).of(visible)
            else:
                drawn_as = classes(points, verdicts[visible], colour_by or "influence", cut)
            areas = draw_map(points, drawn_as, f"map-{examples.key}")
            if visible.sum() < passing.sum():
                st.caption(f"Drawn: all candidates and decided ones, and a random sample of the others; {MAX_POINTS:,} in all.")
        else:
            st.info("The map is not drawn yet: the audit is still running, or was stopped. Resume it on the page Audits.")
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
selection = {"page": "explore", "filter": chosen.record(), **({"lasso": area_record(areas)} if areas else {})}
with bar:
    counted = (
        f"**{int(shown.sum()):,} of {int(passing.sum()):,} selected** by the lasso"
        if areas
        else f"**{int(passing.sum()):,} of {len(table):,}** shown"
    )
    conditions = origin_words({"filter": chosen.record()})
    st.markdown(counted + (f" · {plain(conditions)}" if conditions else ""))

with below:
    sentence_search(at, examples, verdicts)
    rank = open_rank(len(table))
    left, right = st.columns([3, 2], gap="medium") if rank else (st.container(), None)
    with left:
        ranked_table(table[shown], verdicts, {**selection, "audit": audit.folder.id})
    if rank and right:
        with right:
            id_ = str(table["id"].iloc[rank - 1])
            st.markdown(f"Decision: **{WORDS[verdicts.iloc[rank - 1]]}**")
            if name_is_known():
                verdict_buttons(log, id_, {**selection, "rank": rank})
            draw_evidence(evidence(examples, id_), examples)
    st.subheader("Label in bulk")
    if name_is_known():
        bulk_panel(log, table["id"][shown].tolist(), examples.ids[:cut], percent, selection)
        undo_button(log, actions)
    history_panel(log, actions)
