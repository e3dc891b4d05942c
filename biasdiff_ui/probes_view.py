"""What the probes page shows: what is weak, every figure with what it means, bias types, the number of probes, and each probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.corpus.examples import ProbeSet
from biasdiff_core.naming import metric_label
from biasdiff_core.plan import Plan, nearness_stage
from biasdiff_core.probe_report import STABLE, ProbeQuality
from biasdiff_core.report import measured_text
from biasdiff_core.results import MetricResult
from biasdiff_ui.charts import agreement, show
from biasdiff_ui.format import DASH, count, metric_help, metric_text
from biasdiff_ui.notices import plain
from biasdiff_ui.style import WRAPPED

PAGE = 200
PHONE = 330  # pixels of a column that is seen whole on a phone
EVERY = "all bias types"
SECTIONS: Mapping[str, Sequence[str]] = {
    "Leakage": ("copied_corpus", "shared_corpus", "near_corpus", "copied_evaluation", "shared_evaluation", "near_evaluation"),
    "Style": ("style_auroc", "length_auroc"),
    "Twins and bias types": ("one_change", "types_present", "imbalance"),
    "Gradients and preference": ("coherence", "coherence_across", "coherence_gap", "margin", "least_size"),
}
UNMEASURED, WEAK, SOUND = ":gray[:material/remove:]", ":orange[:material/flag:]", ":green[:material/check:]"


@st.cache_resource(max_entries=16, show_spinner="Judging the probes")
def _judged(made_from: tuple[str, ...], _audit: Audit) -> ProbeQuality:
    return _audit.probe_quality()


def load_quality(audit: Audit, plan: Plan) -> ProbeQuality:
    """The quality of the audit's probes, kept for as long as nothing that it is made from changes."""
    nearness = nearness_stage(audit.folder)
    done = (stage.key for stage in (plan["gradients"], nearness) if stage.done)
    return _judged((audit.folder.id, nearness.key, *done), audit)


def weaknesses(quality: ProbeQuality) -> None:
    """One sentence, then a line for each flag."""
    missing = sum(metric.value is None for metric in quality.metrics)
    found = f"Weaknesses found: {len(quality.flags)}" if quality.flags else "No weakness was found"
    st.markdown(found + (f"; {count(missing, 'figure')} could not be measured." if missing else "."))
    with st.container(gap="xsmall"):
        for flag in quality.flags:
            st.markdown(f"{WEAK} {plain(flag.words)}")


def figures(quality: ProbeQuality) -> None:
    """Every figure on a line, with its interval and, as help, its convention."""
    st.subheader("Quality")
    st.caption("Brackets: 95 % intervals. The question mark says how a figure is computed, or what is missing.")
    flagged = {flag.metric for flag in quality.flags}
    for boxes in (list(SECTIONS.items())[:2], list(SECTIONS.items())[2:]):
        for box, (title, names) in zip(st.columns(2), boxes, strict=True):
            with box.container(gap="xsmall"):
                st.markdown(f"**{title}**")
                for name in names:
                    _line(quality[name], flagged)


def _line(metric: MetricResult, flagged: set[str]) -> None:
    if metric.value is None:
        st.markdown(f"{UNMEASURED} {metric_label(metric.name)}: not measured", help=plain(metric.convention))
        return
    mark = WEAK if metric.name in flagged else SOUND
    unit = "" if metric.unit in ("", "%") else f" {metric.unit}"
    st.markdown(f"{mark} {metric_label(metric.name)}: **{plain(measured_text(metric))}**{unit}", help=plain(metric_help(metric)))


def bias_types(quality: ProbeQuality) -> None:
    """A row a bias type: its probes, their coherence, and the preference of the model."""
    st.subheader("Bias types")
    coherences, margins = quality.parts("coherence"), quality.parts("margin")
    rows = [
        {
            "bias type": kind,
            "probes": number,
            "coherence": metric_text(coherences.get(kind), with_n=False),
            "preference (nats)": metric_text(margins.get(kind), with_n=False),
        }
        for kind, number in quality.types.items()
    ]
    config = {
        "coherence": st.column_config.TextColumn(help=quality["coherence"].convention),
        "preference (nats)": st.column_config.TextColumn(help=quality["margin"].convention),
    }
    st.dataframe(pd.DataFrame(rows), hide_index=True, column_config=config, height="content", alt="Probes by bias type")


def number_of_probes(quality: ProbeQuality) -> None:
    """How the ranking settles as probes are added."""
    by_size = {int(size): metric for size, metric in quality.parts("correlation").items()}
    if by_size:
        title, subtitle = (
            "How many probes the ranking needs",
            f"correlation with the ranking of all; dotted: {STABLE}; band: 95 % of subsets",
        )
        show(agreement(by_size, STABLE, title, subtitle), "probes_agreement", f"{title}, {subtitle}")


def probe_rows(probes: ProbeSet, quality: ProbeQuality) -> pd.DataFrame:
    """A row a probe: probe, what differs (words, in small letters), remarks, bias type, twin."""
    remarks, differences = quality.remarks, {twin.probe: twin.text() for twin in quality.twins}
    return pd.DataFrame(
        [
            {
                "probe": probe.text,
                "what differs": differences.get(probe.id, DASH),
                "remarks": "; ".join(remarks.get(probe.id, ())),
                "bias type": probe.bias_type,
                "twin": probe.twin or DASH,
            }
            for probe in probes
        ]
    )


def probe_table(rows: pd.DataFrame) -> None:
    """The probes, by bias type or only those with a remark, a page at a time."""
    st.subheader("Each probe with its twin")
    with st.container(horizontal=True, vertical_alignment="center"):
        kinds = [EVERY, *sorted(rows["bias type"].unique())]
        kind = st.selectbox("Bias type", kinds, key="probes_type", label_visibility="collapsed", width=240)
        remarked = st.toggle("Only those with a remark", key="probes_remarked", disabled=not rows["remarks"].any())
    found = rows[((rows["bias type"] == kind) | (kind == EVERY)) & ((rows["remarks"] != "") | (not remarked))]
    pages = max(1, ceil(len(found) / PAGE))
    st.caption(f"{count(len(found), 'probe')} of {len(rows):,}" + (f", {PAGE} a page" if pages > 1 else ""))
    page = st.pagination(pages, key=f"probes_page_{kind}_{remarked}") if pages > 1 else 1
    shown = found.iloc[(page - 1) * PAGE : page * PAGE]
    config = {
        "probe": st.column_config.TextColumn(width=PHONE),
        "twin": st.column_config.TextColumn(width=PHONE),
        "what differs": st.column_config.TextColumn(
            help="The words of the probe and those that its twin has in their place.", width="medium"
        ),
        "remarks": st.column_config.TextColumn(width="medium"),
    }
    columns = [name for name in shown if name != "remarks" or shown["remarks"].any()]
    st.dataframe(shown[columns], hide_index=True, column_config=config, row_height=WRAPPED, alt="Probes with their twins")
