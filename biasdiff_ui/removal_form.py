"""The removal set before it is frozen: policy, count, composition before and after; and the sets frozen already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.config import RemovalConfig
from biasdiff_core.effect import predicted_change
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.evidence import nearest_types
from biasdiff_core.plan import removals
from biasdiff_core.review.history import origin_words
from biasdiff_core.review.removal import RemovalSet, Selected, load_removal
from biasdiff_ui.format import DASH, count, moment
from biasdiff_ui.loaders import table
from biasdiff_ui.notices import plain
from biasdiff_ui.selection import selected_on_explore

CONFIRMED = "Only what was confirmed as biased"
TOP = "Top of the ranking, less the false positives"
SELECTED = "What Explore shows under filter, search and lasso, less the false positives"
SIMULATED = "Simulated: decisions of this audit were made by a program from the known labels, not by a person."


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is removed. `selected`: on Explore, for the policy `filter`."""

    policy: RemovalConfig
    selected: Selected | None = None


def choose_policy(audit: Audit) -> Choice:
    """The policy, for the top of the ranking its percentage, and what Explore selected where it selects anything."""
    default, selected = audit.config.removal, selected_on_explore(audit.folder.id)
    options = [CONFIRMED, TOP, *([SELECTED] if selected else [])]
    chosen = st.radio("What is removed?", options, index=int(default.policy == "top_percent"), key=f"mitigate_policy-{audit.folder.id}")
    if chosen == CONFIRMED:
        return Choice(policy=RemovalConfig(policy="confirmed", percent=default.percent))
    if chosen == TOP:
        percent = st.slider(
            "Top percent of the ranking", 1.0, 100.0, float(default.percent), 0.5, key=f"mitigate_percent-{audit.folder.id}"
        )
        return Choice(policy=RemovalConfig(policy="top_percent", percent=percent))
    if selected:
        st.caption(plain(f"{count(len(selected.ids), 'example')}, as Explore showed them last: {origin_words(selected.selection)}."))
    return Choice(policy=RemovalConfig(policy="filter", percent=default.percent), selected=selected)


def preview(audit: Audit, choice: Choice) -> RemovalSet | None:
    """The set that freezing would give now, described; None (and why) when it cannot be frozen."""
    ranking = table(audit.artefact("ranking"), "ranking.parquet")
    try:
        removal = audit.removal_set(choice.policy, choice.selected)
    except BiasDiffError as error:
        st.info(plain(f"{error.what} {error.mend}"))
        return None
    share = 100 * len(removal.ids) / max(1, removal.ranked)
    st.markdown(
        plain(
            f"{count(len(removal.ids), 'example')} of {removal.ranked:,} would be removed ({share:.1f} %): "
            f"{removal.confirmed} confirmed as biased, {removal.undecided} undecided; {removal.false_positives} spared as false positives."
        )
    )
    st.caption(plain(predicted_words(ranking, removal.ids)))
    if removal.simulated:
        st.warning(SIMULATED)
    return removal


def predicted_words(ranking: pd.DataFrame, removed: Sequence[str]) -> str:
    """What influence says of a removal before it is paid for, beside as many examples drawn at random. `ranking`: columns id, score."""
    predicted = predicted_change(dict(zip(ranking["id"], ranking["score"], strict=True)), removed)
    random = -float(ranking["score"].mean()) * len(removed)
    return (
        f"Predicted change by influence: {predicted:+.2f} (in units of one cosine), {random:+.2f} for as many examples drawn at random. "
        "The lower, the more the stereotypes lose; it orders removal sets and does not say by how much the bias will fall."
    )


def compositions(audit: Audit, removal: RemovalSet) -> None:
    """Groups, sources and bias types before and after."""
    corpus = table(audit.artefact("corpus"), "corpus.parquet").set_index("id")
    top, probes = table(audit.artefact("scores"), "top_probes.parquet"), table(audit.artefact("probes"), "probes.parquet")
    columns = {"group": corpus["group"], "bias type of the nearest probe": nearest_types(top, probes), "source": corpus["source"]}
    for name, values in columns.items():
        if values.notna().any():
            st.caption(f"By {name}")
            st.dataframe(
                composition(values, removal.ids, name), hide_index=True, column_config=_FORMATS, alt=f"Examples before and after by {name}"
            )


_FORMATS = {"removed, %": st.column_config.NumberColumn(format="%.1f")}


def composition(values: pd.Series, removed: Sequence[str], name: str) -> pd.DataFrame:
    """Examples before, removed and after by value of a column indexed by example id; most removed first."""
    named = values.fillna("unknown").astype(str)
    before, gone = named.value_counts(), named[named.index.isin(removed)].value_counts()
    counts = pd.DataFrame({"before": before, "removed": gone}).fillna(0).astype(int).rename_axis(name).reset_index()
    counts["after"] = counts["before"] - counts["removed"]
    counts["removed, %"] = 100.0 * counts["removed"] / counts["before"]
    return counts.sort_values(["removed", name], ascending=[False, True], ignore_index=True)


def frozen_sets(audit: Audit) -> None:
    """Removal sets frozen so far, newest first."""
    found = removals(audit.folder)
    if not found:
        return
    st.subheader("Frozen removal sets")
    rows = [
        {
            "frozen": moment(one.created),
            "by": removal.frozen_by or DASH,
            "what": removal.policy_words(),
            "removed": len(removal.ids),
            "confirmed": removal.confirmed,
            "undecided": removal.undecided,
            "spared": removal.false_positives,
            "decisions": "simulated" if removal.simulated else "by people",
            "SHA-256 of the ids": removal.digest,
            "key": one.key,
        }
        for one, removal in ((one, load_removal(one)) for one in found)
    ]
    config = {"SHA-256 of the ids": st.column_config.TextColumn(width=150)}
    st.dataframe(pd.DataFrame(rows), hide_index=True, column_config=config, alt="Frozen removal sets")
