"""Plotly charts of the corpus, mitigation and comparison pages. Okabe-Ito colours; each title says what is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from biasdiff_core.results import MetricResult
from biasdiff_ui.format import variant_name

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
GREY = "#7F7F7F"
CONFIG = {"displayModeBar": False, "displaylogo": False}
TERMS = {"nll": "loss", "npo": "NPO term on the removal set", "retain_nll": "loss on the retain set"}
LINE_HEIGHT = 24
CATEGORIES = {"autorange": "reversed", "showgrid": False, "zeroline": False}


def show(figure: go.Figure, key: str, alt: str) -> None:
    """Draw a figure without Plotly's button bar."""
    st.plotly_chart(figure, key=key, config=CONFIG, alt=alt)


def bars(counts: Mapping[str, int], title: str, most: int = 12) -> go.Figure:
    """Horizontal bars of counts, the first `most` of them, the rest in one bar."""
    shown = dict(list(counts.items())[:most])
    rest = sum(counts.values()) - sum(shown.values())
    names = [*shown, *([f"{len(counts) - most} more"] if rest else [])]
    values = [*shown.values(), *([rest] if rest else [])]
    labels = [_label(name) for name in names]
    figure = go.Figure(
        go.Bar(
            y=list(range(len(labels))),
            x=values,
            orientation="h",
            marker_color=COLOURS[0],
            text=values,
            textangle=0,
            textposition="outside",
            cliponaxis=False,
        )
    )
    figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, **CATEGORIES)
    figure.update_xaxes(visible=False, range=[0, 1.15 * max(values, default=1)])
    return _laid_out(figure, title, height=70 + LINE_HEIGHT * len(labels))


def lengths(words: pd.Series, title: str) -> go.Figure:
    """Histogram of text lengths in words."""
    size = max(1, ceil((words.max() - words.min()) / 30))
    figure = go.Figure(go.Histogram(x=words, xbins={"start": words.min() - 0.5, "size": size}, marker_color=COLOURS[0]))
    figure.update_xaxes(title="words")
    figure.update_yaxes(title="examples")
    return _laid_out(figure, title, height=220)


def losses(steps: pd.DataFrame, title: str) -> go.Figure:
    """Loss terms over optimizer steps; columns step and one a term."""
    figure = go.Figure()
    for number, term in enumerate(column for column in TERMS if column in steps):
        mode = "lines+markers" if len(steps) < 30 else "lines"
        marker = {"symbol": SYMBOLS[number], "size": 6}
        figure.add_scatter(
            x=steps["step"], y=steps[term], name=TERMS[term], mode=mode, marker=marker, line={"color": COLOURS[number], "width": 2}
        )
    figure.update_xaxes(title="optimizer step", rangemode="tozero", dtick=max(1, ceil(len(steps) / 6)))
    figure.update_yaxes(title="nats")
    return _laid_out(figure, title, height=290, legend=True)


def forest(metrics: Mapping[str, Mapping[str, MetricResult]], kinds: Sequence[str], prefix: str, title: str) -> go.Figure:
    """Score with interval of each bias type (rows) and variant (colour and shape). `metrics`: variant → name → result."""
    figure = go.Figure()
    offset = 0.7 / max(1, len(metrics))
    for number, (variant, rows) in enumerate(metrics.items()):
        found = [(place, rows.get(f"{prefix}.{kind}")) for place, kind in enumerate(kinds)]
        points = [(place, metric) for place, metric in found if metric is not None and metric.value is not None]
        if not points:
            continue
        values, lows, highs = ([_number(end) for end in ends] for ends in zip(*[(m.value, m.low, m.high) for _, m in points], strict=True))
        figure.add_scatter(
            x=values,
            y=[place + (number - (len(metrics) - 1) / 2) * offset for place, _ in points],
            error_x={
                "array": [high - value for high, value in zip(highs, values, strict=True)],
                "arrayminus": [value - low for low, value in zip(lows, values, strict=True)],
                "thickness": 1.2,
                "width": 3,
            },
            mode="markers",
            name=variant_name(variant),
            marker={"color": COLOURS[number % len(COLOURS)], "symbol": SYMBOLS[number % len(SYMBOLS)], "size": 8},
            customdata=[metric.n for _, metric in points],
            hovertemplate="%{x:.1f} %, n = %{customdata}<extra>%{fullData.name}</extra>",
        )
    figure.add_vline(x=50, line={"color": GREY, "dash": "dot", "width": 1})
    figure.update_yaxes(
        tickvals=list(range(len(kinds))), ticktext=[_label(kind) for kind in kinds], autorange="reversed", showgrid=False, zeroline=False
    )
    figure.update_xaxes(title="stereotype score, % (dotted: chance)", range=[-2, 102])
    return _laid_out(figure, title, height=150 + max(LINE_HEIGHT, 16 * len(metrics)) * len(kinds), legend=True)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _label(name: str) -> str:
    """A value of the data as a tick: Plotly reads a few HTML tags in texts, so these are made inert."""
    short = name if len(name) <= 32 else f"{name[:31]}…"
    return short.replace("&", "&amp;").replace("<", "&lt;")


def _laid_out(figure: go.Figure, title: str, *, height: int, legend: bool = False) -> go.Figure:
    figure.update_layout(
        title={"text": title, "font": {"size": 14}, "x": 0},
        height=height,
        margin={"l": 8, "r": 8, "t": 40, "b": 84 if legend else 8},
        showlegend=legend,
        legend={"orientation": "h", "yanchor": "top", "yref": "container", "y": 0.0 + 40 / height, "x": 0},
        bargap=0.35,
    )
    figure.update_yaxes(automargin=True)
    return figure
