"""Plotly charts of the corpus, mitigation and comparison pages. Okabe-Ito colours; each title says what is shown."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from math import ceil

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from biasdiff_core.effect import Effect
from biasdiff_core.naming import variant_name
from biasdiff_core.results import MetricResult

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
GREY = "#7F7F7F"
CONFIG = {"displayModeBar": False, "displaylogo": False}
TERMS = {"nll": "loss", "retain_nll": "loss on the others", "retain_kl": "KL to origin on the others"}
WEIGHT = "weight:"  # prefix of the columns of a term's weight
NOT_TERMS = ("epoch", "step", "learning_rate", "gradient_norm")
LINE_HEIGHT, LEGEND_LINE = 24, 20
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


def training(steps: pd.DataFrame, title: str) -> go.Figure:
    """Panels over optimizer steps: every loss term; the gradient norm; with several that have a weight, the weights in the same colours.

    `steps`: columns step, one a term, `weight:<term>` of those that are minimised, gradient_norm.
    """
    terms = [name for name in steps if name not in NOT_TERMS and not name.startswith(WEIGHT)]
    weighed = [term for term in terms if f"{WEIGHT}{term}" in steps]
    panels = ["loss", "gradient norm", *(["weight"] if len(weighed) > 1 else [])]
    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[3, 1, 1][: len(panels)])
    for number, term in enumerate(terms):
        name = TERMS.get(term, f"{variant_name(term)} term") + ("" if term in weighed else " (logged only)")
        _line(figure, steps, term, row=1, number=number, name=name, legendgroup=term)
        if term in weighed and len(weighed) > 1:
            _line(figure, steps, f"{WEIGHT}{term}", row=3, number=number, name=name, legendgroup=term, showlegend=False)
    _line(figure, steps, "gradient_norm", row=2, number=None, name="gradient norm", showlegend=False)
    for row, panel in enumerate(panels, start=1):
        figure.update_yaxes(title=panel, row=row, col=1)
    figure.update_yaxes(rangemode="tozero", row=2, col=1)
    figure.update_xaxes(rangemode="tozero", dtick=max(1, ceil(len(steps) / 6)))
    figure.update_xaxes(title="optimizer step", row=len(panels), col=1)
    return _laid_out(figure, title, height=202 + 90 * len(panels), rows=len(terms))


def _line(figure: go.Figure, steps: pd.DataFrame, column: str, *, row: int, number: int | None, **more: object) -> None:
    """One column of `steps` in one panel. `number`: of its colour and symbol, None for grey."""
    colour, symbol = (GREY, "circle") if number is None else (COLOURS[number % len(COLOURS)], SYMBOLS[number % len(SYMBOLS)])
    figure.add_scatter(
        x=steps["step"],
        y=steps[column],
        mode="lines+markers" if len(steps) < 30 else "lines",
        marker={"symbol": symbol, "size": 6, "color": colour},
        line={"color": colour, "width": 2},
        row=row,
        col=1,
        **more,
    )


def margins(pairs: pd.DataFrame, before: str, after: str, unit: str, title: str, subtitle: str) -> go.Figure:
    """Margin of every pair before over after; those that flipped in another colour and shape, and the line of no change.

    `pairs`: columns margin before, margin after, flipped, text (of the data; shown on hover as it is).
    """
    figure = go.Figure()
    for flipped, name, colour, symbol, size in ((False, "same side", COLOURS[0], "circle", 5), (True, "flipped", COLOURS[1], "diamond", 9)):
        part = pairs[pairs["flipped"] == flipped]
        figure.add_scatter(
            x=part["margin before"],
            y=part["margin after"],
            mode="markers",
            name=f"{name} ({len(part):,})",
            marker={"color": colour, "symbol": symbol, "size": size, "opacity": 0.9 if flipped else 0.45},
            hovertext=[_pair_hover(*row) for row in zip(part["margin before"], part["margin after"], part["text"], strict=True)],
            hoverinfo="text",
        )
    ends = [pairs[["margin before", "margin after"]].min().min(), pairs[["margin before", "margin after"]].max().max()]
    figure.add_scatter(x=ends, y=ends, mode="lines", name="no change", hoverinfo="skip", line={"color": GREY, "dash": "dot", "width": 1.2})
    figure.update_xaxes(title=f"margin of {before}, {unit}", zeroline=True, zerolinewidth=1, zerolinecolor=GREY)
    figure.update_yaxes(title=f"margin of {after}, {unit}", zeroline=True, zerolinewidth=1, zerolinecolor=GREY)
    return _laid_out(figure, title, subtitle, height=480, legend=True)


def _pair_hover(before: float, after: float, text: str) -> str:
    return f"{before:+.3f} → {after:+.3f}<br>{inert(text)}"


def agreement(by_size: Mapping[int, MetricResult], wanted: float, title: str, subtitle: str) -> go.Figure:
    """Correlation of rankings over the number of probes, with the spread of the subsets and the line that is wanted."""
    sizes, found = list(by_size), list(by_size.values())
    ends = [(sizes, [_number(metric.high) for metric in found], None), (sizes, [_number(metric.low) for metric in found], "tonexty")]
    figure = go.Figure()
    for x, y, fill in ends:
        figure.add_scatter(x=x, y=y, mode="lines", line={"width": 0}, fill=fill, fillcolor="rgba(0, 114, 178, 0.2)", hoverinfo="skip")
    figure.add_scatter(
        x=sizes,
        y=[_number(metric.value) for metric in found],
        mode="lines+markers",
        line={"color": COLOURS[0], "width": 2},
        hovertemplate="%{x} probes: %{y:.3f}<extra></extra>",
    )
    figure.add_hline(y=wanted, line={"color": GREY, "dash": "dot", "width": 1})
    figure.update_xaxes(title="probes", type="log", tickvals=[step * 10**power for power in range(5) for step in (1, 2, 5)])
    figure.update_yaxes(title="Spearman's ρ", range=[min(0.0, *(_number(metric.low) for metric in found)), 1.02])
    return _laid_out(figure, title, subtitle, height=300)


def predicted_observed(effects: Sequence[Effect], unit: str, title: str, subtitle: str) -> go.Figure:
    """Observed change of the margin with its interval over the predicted change, a point a variant."""
    figure = go.Figure()
    for number, effect in enumerate(effects):
        moved = effect.observed
        colour, symbol = _look(number)
        figure.add_scatter(
            x=[effect.predicted],
            y=[moved.difference],
            error_y={"array": [moved.high - moved.difference], "arrayminus": [moved.difference - moved.low], "thickness": 1.2, "width": 4},
            mode="markers",
            name=variant_name(effect.variant),
            marker={"color": colour, "symbol": symbol, "size": 10},
            hovertemplate="predicted %{x:.3f}, observed %{y:.3f}<extra>%{fullData.name}</extra>",
        )
    figure.add_hline(y=0, line={"color": GREY, "dash": "dot", "width": 1})
    figure.update_xaxes(title="predicted change, cosines")
    figure.update_yaxes(title=f"observed change, {unit}")
    return _laid_out(figure, title, subtitle, height=330, rows=len(effects))


def forest(metrics: Mapping[str, Mapping[str, MetricResult]], kinds: Sequence[str], prefix: str, title: str, subtitle: str) -> go.Figure:
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
            marker={"color": _look(number)[0], "symbol": _look(number)[1], "size": 8},
            customdata=[metric.n for _, metric in points],
            hovertemplate="%{x:.1f} %, n = %{customdata}<extra>%{fullData.name}</extra>",
        )
    figure.add_vline(x=50, line={"color": GREY, "dash": "dot", "width": 1})
    figure.update_yaxes(
        tickvals=list(range(len(kinds))), ticktext=[_label(kind) for kind in kinds], autorange="reversed", showgrid=False, zeroline=False
    )
    figure.update_xaxes(title="stereotype score, % (dotted: chance)", range=[-2, 102])
    return _laid_out(figure, title, subtitle, height=120 + max(LINE_HEIGHT, 16 * len(metrics)) * len(kinds), rows=len(metrics))


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _look(number: int) -> tuple[str, str]:
    """Colour and symbol of the n-th of several: no two of the first 36 share both."""
    return COLOURS[number % len(COLOURS)], SYMBOLS[(number + number // len(COLOURS)) % len(SYMBOLS)]


def inert(text: str, width: int = 72) -> str:
    """A text of the data for a hover label, broken into lines: Plotly reads a few HTML tags in texts, so these are made inert."""
    return "<br>".join(html.escape(line, quote=False) for line in textwrap.wrap(text, width))


def _label(name: str) -> str:
    """A value of the data as a tick, as inert as a hover label."""
    return html.escape(name if len(name) <= 32 else f"{name[:31]}…", quote=False)


def _laid_out(figure: go.Figure, title: str, subtitle: str = "", *, height: int, legend: bool = False, rows: int = 0) -> go.Figure:
    """`legend`: one of a few entries below the chart, side by side. `rows`: one of so many, each on a line of its own."""
    below = LEGEND_LINE * rows
    figure.update_layout(
        title={"text": title, "font": {"size": 14}, "x": 0, "subtitle": {"text": subtitle, "font": {"size": 12}}},
        height=height + below,
        margin={"l": 8, "r": 8, "t": 64 if subtitle else 40, "b": 84 if legend else 56 + below if rows else 8},
        showlegend=legend or rows > 0,
        legend={
            "orientation": "v" if rows else "h",
            "tracegroupgap": 0,
            "yanchor": "top",
            "yref": "container",
            "y": (8 + below if rows else 40) / (height + below),
            "x": 0,
        },
        bargap=0.35,
    )
    figure.update_yaxes(automargin=True)
    return figure
