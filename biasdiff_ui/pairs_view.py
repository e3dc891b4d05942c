"""Pair by pair: the margins before and after, and the pairs whose preferred sentence changed."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.comparison import BASE, ORIGIN
from biasdiff_core.config.evaluation import Scoring
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.evaluation.crows_pairs import PairScores
from biasdiff_core.evaluation.pairs import Pair, load_pairs
from biasdiff_core.evaluation.suites import PAIRS_FILE
from biasdiff_core.naming import variant_name
from biasdiff_core.results import Comparison
from biasdiff_core.workspace.artefacts import open_artefact
from biasdiff_ui.charts import margins, show
from biasdiff_ui.format import count
from biasdiff_ui.notices import errors_shown, plain, show_error
from biasdiff_ui.style import WRAPPED

SHOWN = ["more stereotyped", "less stereotyped", "bias type", "direction", "margin before", "margin after", "id"]
FORMATS = {
    "more stereotyped": st.column_config.TextColumn(width=250),
    "less stereotyped": st.column_config.TextColumn(width=250),
    **{
        name: st.column_config.NumberColumn(format="%+.3f", width=90, help="Score of the first sentence less that of the second.")
        for name in ("margin before", "margin after")
    },
}


def pairs_chart_and_table(audit: Audit, comparison: Comparison, scoring: Scoring) -> None:
    """Every pair of a variant against its reference, and the table of those that flipped."""
    st.subheader("Pair by pair")
    judged = [variant for variant in comparison.variants if variant != BASE]
    first = judged[min(1, len(judged) - 1)]
    variant = st.selectbox("Variant", judged, judged.index(first), format_func=variant_name, key="flips_variant", width=320)
    reference = BASE if variant == ORIGIN else ORIGIN
    with errors_shown():
        after, before = (_scores(audit, comparison, name) for name in (variant, reference))
        changes = with_texts(pair_changes(after, before, scoring), _texts(audit))
        flipped = flips(changes)
        towards = int((flipped["margin after"] > 0).sum())
        words = f"{count(len(flipped), 'pair')} of {len(changes):,} flipped from {reference} to {variant_name(variant)}"
        st.markdown(plain(f"{words}: {towards} towards the first sentence, {len(flipped) - towards} away from it."))
        title, subtitle = "Margin of each pair", f"{variant_name(variant)} against {reference}, {scoring} scoring"
        unit = comparison.metrics[variant][f"crows_pairs.{scoring}.stereotype_margin"].unit
        chart = margins(changes[changes["scored"]], reference, variant_name(variant), unit, title, subtitle)
        show(chart, "compare_pairs", f"{title}, {subtitle}; {words}")
        if len(flipped):
            st.dataframe(flipped[SHOWN], hide_index=True, column_config=FORMATS, row_height=WRAPPED, alt=words)


def _texts(audit: Audit) -> dict[str, Pair]:
    """The pairs by id; none, and why, when their file cannot be read any more."""
    try:
        return {pair.id: pair for pair in load_pairs(audit.config.evaluation.crows_pairs)}
    except BiasDiffError as error:
        show_error(error)
        return {}


def _scores(audit: Audit, comparison: Comparison, variant: str) -> PairScores:
    artefact = open_artefact(audit.folder.path, "evaluation", comparison.provenance[variant]["evaluation"])
    return PairScores.load(artefact.path(PAIRS_FILE))


def pair_changes(after: PairScores, before: PairScores, scoring: Scoring) -> pd.DataFrame:
    """A row a pair: id, bias type, direction, margin before, margin after, scored, flipped (ties on either side flip nothing)."""
    table = after.frame[["id", "bias_type", "direction"]].rename(columns={"bias_type": "bias type"})
    decided = after.decided(scoring) & before.decided(scoring)
    return table.assign(
        **{"margin before": before.margins(scoring), "margin after": after.margins(scoring)},
        scored=after.scored(scoring) & before.scored(scoring),
        flipped=(after.wins(scoring) != before.wins(scoring)) & decided,
    )


def with_texts(changes: pd.DataFrame, pairs: dict[str, Pair]) -> pd.DataFrame:
    """The rows with both sentences, and `text`: what is shown of a pair on hover. Empty where the pair is not known."""
    found = [pairs.get(id_) for id_ in changes["id"]]
    more, less = ([getattr(pair, name) if pair else "" for pair in found] for name in ("sent_more", "sent_less"))
    return changes.assign(
        **{"more stereotyped": more, "less stereotyped": less}, text=[f"{a} / {b}" for a, b in zip(more, less, strict=True)]
    )


def flips(changes: pd.DataFrame) -> pd.DataFrame:
    """The rows that flipped, most moved first."""
    flipped = changes[changes["flipped"]]
    moved = (flipped["margin after"] - flipped["margin before"]).abs()
    return flipped.loc[moved.sort_values(ascending=False).index].reset_index(drop=True)
