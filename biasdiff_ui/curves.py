"""Coverage and precision over the selection percentage, with the auditor's cut on them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from biasdiff_core.attribution.ranking import detection_curve, selected_count
from biasdiff_core.review.decisions import DecisionLog
from biasdiff_core.review.estimate import coverage_at, precision_at
from biasdiff_ui.estimates import review_of
from biasdiff_ui.examples import Examples

BASELINES = ("length", "unigram", "random")
LINES: Mapping[str, tuple[str, str]] = {  # colour (none of a verdict) and dash
    "influence": ("#009E73", "solid"),
    "length": ("#E69F00", "dash"),
    "unigram": ("#56B4E9", "dot"),
    "random": ("#8C8C8C", "dashdot"),
}
POINTS = 300
NO_BAR = {"displayModeBar": False}
ESTIMATED_AT = tuple(range(10, 101, 10))


def thinned(curve: pd.DataFrame, points: int = POINTS) -> pd.DataFrame:
    """At most `points` rows, the first and last among them."""
    if len(curve) <= points:
        return curve
    return curve.iloc[np.unique(np.linspace(0, len(curve) - 1, points).round().astype(int))]


@st.cache_resource(max_entries=8, show_spinner=False)
def label_curves(key: str, _examples: Examples) -> dict[str, pd.DataFrame]:
    """Curves against the known labels: influence and the baselines. `key`: of the ranking."""
    table = _examples.table
    labels = table["label"].to_numpy(dtype=int)
    by_id = np.argsort(table["id"].array)
    orders = {"influence": np.arange(len(table))}
    for name in BASELINES:  # ties by id, as in every ranking
        orders[name] = by_id[np.argsort(-table[name].to_numpy()[by_id], kind="stable")]
    return {name: thinned(detection_curve(labels[order].tolist())) for name, order in orders.items()}


@st.cache_resource(max_entries=8, show_spinner=False)
def estimated_curves(key: str, head: str, _examples: Examples, _log: DecisionLog) -> pd.DataFrame:
    """Coverage and precision with intervals at each tenth of the ranking, from inspected decisions; NaN: not known. `head`: of the log."""
    review = review_of(_examples, _log)
    rows = []
    for percent in ESTIMATED_AT:
        cut = selected_count(len(_examples.ids), percent)
        for figure in (coverage_at(review, cut), precision_at(review, cut)):
            rows.append({"percent": percent, "name": figure.name, "value": figure.value, "low": figure.low, "high": figure.high})
    return pd.DataFrame(rows, columns=["percent", "name", "value", "low", "high"]).astype({"value": float, "low": float, "high": float})


@st.cache_resource(max_entries=64, show_spinner=False)
def label_figure(key: str, percent: float, _examples: Examples) -> go.Figure:
    """Two panels, coverage over precision, a line a scorer. `key`: of the ranking."""
    figure = _panels(percent)
    for name, curve in label_curves(key, _examples).items():
        colour, dash = LINES[name]
        style = {"mode": "lines", "name": name, "legendgroup": name, "line": {"color": colour, "dash": dash, "width": 2}}
        for row, column in enumerate(("coverage", "precision"), start=1):
            hover = f"{name}: {column} %{{y:.3f}} at %{{x:.1f}} %<extra></extra>"
            figure.add_scatter(x=curve["percent"], y=curve[column], row=row, col=1, showlegend=row == 1, hovertemplate=hover, **style)
    return figure


def estimate_figure(estimates: pd.DataFrame, percent: float) -> go.Figure:
    """Two panels with the estimates and their 95 % intervals."""
    figure = _panels(percent)
    for row, name in enumerate(("coverage", "precision"), start=1):
        part = estimates[(estimates["name"] == name) & estimates["value"].notna()]
        bars = {"type": "data", "symmetric": False, "array": part["high"] - part["value"], "arrayminus": part["value"] - part["low"]}
        hover = f"{name} %{{y:.2f}} at %{{x}} %<extra></extra>"
        figure.add_scatter(
            x=part["percent"],
            y=part["value"],
            error_y=bars,
            row=row,
            col=1,
            mode="lines+markers",
            name="estimate from inspected decisions",
            showlegend=row == 1,
            line={"color": LINES["influence"][0]},
            hovertemplate=hover,
        )
    return figure


def _panels(percent: float) -> go.Figure:
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    figure.add_vline(x=percent, line={"color": "#8C8C8C", "width": 1.5, "dash": "dot"}, exclude_empty_subplots=False)
    figure.add_annotation(x=percent, y=1, yref="paper", yanchor="bottom", text=f"cut {percent:g} %", showarrow=False)
    for row, name in enumerate(("coverage", "precision"), start=1):
        figure.update_yaxes(title_text=name, range=[0, 1.03], row=row, col=1)
    figure.update_xaxes(range=[0, 100], ticksuffix=" %")
    figure.update_xaxes(title_text="selection: top % of the ranking", row=2, col=1)
    return figure.update_layout(
        height=440, margin={"l": 8, "r": 8, "t": 28, "b": 8}, legend={"orientation": "h", "y": -0.16, "x": 0}, hovermode="closest"
    )


def draw_curves(examples: Examples, log: DecisionLog, percent: float) -> None:
    """The curves against known labels; without labels, the estimates from inspected decisions; without these, what to do."""
    alt = f"Coverage and precision over the selection percentage, cut at {percent:g} %."
    if examples.labelled:
        st.plotly_chart(label_figure(examples.key, percent, examples), key="curves", config=NO_BAR, alt=alt)
        return
    if not any(decision.inspected for decision in log.current().values()):
        st.info("No labels are known, and nothing is inspected yet. Review some examples, and coverage and precision are estimated here.")
        return
    estimates = estimated_curves(examples.key, log.head()[1], examples, log)
    st.plotly_chart(estimate_figure(estimates, percent), key="curves", config=NO_BAR, alt=alt)
    st.caption("Estimated from inspected decisions; where some are open, from those drawn at random in the queues with a random slice.")


def cut_size(examples: Examples, percent: float) -> int:
    """How many examples the top `percent` % are."""
    return selected_count(len(examples.ids), percent)
