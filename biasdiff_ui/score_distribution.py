"""How the influence scores lie, and how they would lie by chance: what the auditor's cut separates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from biasdiff_ui.curves import HEIGHT, cut_mark
from biasdiff_ui.examples import Examples
from biasdiff_ui.verdicts import COLOURS, GREY

BINS = 40
EXAMPLES, CHANCE = "examples", "by chance"
CLASS_COLOURS = {EXAMPLES: "#56B4E9", "not biased": COLOURS["not_biased"], "biased": COLOURS["biased"], "unknown": GREY}
HIGH = 0.99  # share of chance scores that lies below what is called above chance
HELP = (
    "How many examples have which influence score. By chance: the same probes with their signs drawn at random, so that nothing they "
    "share is left; examples above what these reach have something in common with the probes as a whole. It says nothing of what that is: "
    "a style that all probes share lies above chance as well."
)


def score_bins(table: pd.DataFrame, null: pd.DataFrame | None) -> pd.DataFrame:
    """Examples in each of `BINS` bins of equal width over the scores: columns score (the bin's middle), then either `EXAMPLES` or, where
    labels are known, `not biased`, `biased` and `unknown`, and `CHANCE`: how many there would be (where `null` is kept)."""
    scores = table["score"].to_numpy()
    edges = np.linspace(scores.min(), scores.max(), BINS + 1)
    bins = {"score": (edges[:-1] + edges[1:]) / 2}
    for name, rows in _known(table).items():
        bins[name] = np.histogram(scores[rows], edges)[0]
    if null is not None:
        below = np.interp(edges, null["score"], null["share"], left=0.0, right=1.0)
        bins[CHANCE] = np.diff(below) * len(scores)
    return pd.DataFrame(bins)


def _known(table: pd.DataFrame) -> Mapping[str, np.ndarray]:
    labels = table["label"].to_numpy()
    if np.isnan(labels).all():
        return {EXAMPLES: np.ones(len(labels), dtype=bool)}
    found = {"not biased": labels == 0, "biased": labels == 1, "unknown": np.isnan(labels)}
    return {name: rows for name, rows in found.items() if rows.any()}


def above_chance(scores: np.ndarray, null: pd.DataFrame) -> tuple[int, float]:
    """How many scores lie above `HIGH` of those by chance, and the score that this is."""
    bound = float(np.interp(HIGH, null["share"], null["score"]))
    return int((scores > bound).sum()), bound


def distribution_spec(bins: pd.DataFrame, cut_score: float, percent: float) -> dict[str, Any]:
    """The bins as steps, classes stacked, chance as a dashed line over them, the score of the last candidate marked."""
    classes = [name for name in CLASS_COLOURS if name in bins]
    series: list[dict[str, Any]] = [
        {
            "type": "line",
            "name": name,
            "step": "middle",
            "stack": EXAMPLES,
            "encode": {"x": "score", "y": name, "tooltip": [name]},
            "showSymbol": False,
            "itemStyle": {"color": CLASS_COLOURS[name]},
            "lineStyle": {"width": 1},
            "areaStyle": {"opacity": 0.5},
        }
        for name in classes
    ]
    if CHANCE in bins:
        series.append(
            {
                "type": "line",
                "name": CHANCE,
                "step": "middle",
                "encode": {"x": "score", "y": CHANCE, "tooltip": [CHANCE]},
                "showSymbol": False,
                "itemStyle": {"color": "#8C8C8C"},
                "lineStyle": {"width": 2, "type": "dashed"},
            }
        )
    series[0]["markLine"] = cut_mark(percent, cut_score)
    return {
        "animation": False,
        "dataset": [{"source": bins}],
        "grid": {"left": 56, "right": 24, "top": 24, "bottom": 84},
        "xAxis": {"type": "value", "scale": True, "splitNumber": 4, "name": "influence score", "nameLocation": "middle", "nameGap": 26},
        "yAxis": {"type": "value", "name": "examples", "nameLocation": "middle", "nameGap": 44},
        "tooltip": {"trigger": "axis", "valueFormatter": "%.0f"},
        "legend": {"data": [entry["name"] for entry in series], "bottom": 0, "left": 0},
        "series": series,
    }


@st.cache_resource(max_entries=8, show_spinner=False)
def _bins(key: str, _examples: Examples) -> pd.DataFrame:
    return score_bins(_examples.table, _examples.null)


def draw_distribution(examples: Examples, percent: float, cut: int) -> None:
    """The distribution of the scores against chance, and in words how many lie above it. `cut`: how many are candidates."""
    scores = examples.table["score"].to_numpy()
    alt = f"Number of examples over the influence score, and how many there would be by chance; cut at {percent:g} %."
    spec = distribution_spec(_bins(examples.key, examples), float(scores[cut - 1]), percent)
    st.echarts_chart(spec, height=HEIGHT, key="scores", alt=alt)
    if examples.null is None:
        st.caption("This audit was scored before the scores by chance were kept with it, so only its own are drawn.")
        return
    count, bound = above_chance(scores, examples.null)
    st.caption(f"{count:,} of {len(scores):,} examples score above {bound:.3f}, which 1 % of the scores by chance do.")
