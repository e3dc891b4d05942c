"""The map of Explore: UMAP coordinates as ECharts series, one a class, with a polygon and a box brush."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import streamlit as st

from biasdiff_core.attribution.clusters import cluster_words, clusters
from biasdiff_ui.examples import Examples
from biasdiff_ui.verdicts import COLOURS, GREY, UNDECIDED, VERDICTS, WORDS

ColourBy = Literal["influence", "decision", "bias type", "source", "group", "known label", "cluster"]
MAX_POINTS = 200_000
SMALL = 20_000  # up to so many points the hover text carries the rank, and each point is a graphic of its own
AT_ONCE = 50_000  # points of a class drawn without a pause: the default of 5,000 repaints many times and took longer by a quarter
SYMBOLS = ("circle", "diamond", "triangle", "rect")  # a shape beside each colour
CATEGORIES = ("#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#F0E442")  # Okabe and Ito (2008)
INFLUENCE = ("#D55E00", "#E69F00", "#56B4E9", GREY)


@dataclass(frozen=True, kw_only=True)
class Classes:
    """A class a point: `codes` [n] into `words` and `colours`. `places` [classes, 2]: where the words stand on the map as well."""

    words: Sequence[str]
    colours: Sequence[str]
    codes: np.ndarray
    places: np.ndarray | None = None

    def of(self, rows: np.ndarray) -> Classes:
        """The classes of some of the points. `rows` [n] bool."""
        return replace(self, codes=self.codes[rows])


def classes(table: pd.DataFrame, verdicts: pd.Series, colour_by: ColourBy, cut: int) -> Classes:
    """The classes of the rows of `table`, but for clusters: these are of the whole map (`map_clusters`).

    `cut`: how many examples the selection takes from the top of the ranking.
    """
    if colour_by == "influence":
        bounds = [cut / 2, cut, 2 * cut]
        words = [f"top half of the cut (to rank {cut // 2:,})", f"rest of the cut (to {cut:,})", f"next (to {2 * cut:,})", "below"]
        return Classes(words=words, colours=INFLUENCE, codes=np.searchsorted(bounds, table["rank"].to_numpy(), side="left"))
    if colour_by == "decision":
        return _coded(
            verdicts, [UNDECIDED, *VERDICTS], [WORDS[v] for v in (UNDECIDED, *VERDICTS)], [COLOURS[v] for v in (UNDECIDED, *VERDICTS)]
        )
    if colour_by == "known label":
        labels = pd.Series(np.select([table["label"] == 1, table["label"] == 0], ["biased", "not biased"], "unknown"))
        return _coded(labels, ["not biased", "biased", "unknown"], None, [COLOURS["not_biased"], COLOURS["biased"], GREY])
    return _most_frequent(table["bias_type" if colour_by == "bias type" else colour_by])


@st.cache_resource(max_entries=8, show_spinner="Clustering the map …")
def map_clusters(key: str, _examples: Examples) -> Classes:
    """The clusters of the whole map, one a colour, named by their words; rows of the whole table. `key`: of the ranking."""
    table = _examples.table
    codes = clusters(table[["x", "y"]].to_numpy(), len(CATEGORIES), seed=0)
    names = cluster_words(table["text"].tolist(), codes)
    return Classes(words=names, colours=CATEGORIES, codes=codes, places=table[["x", "y"]].groupby(codes).median().to_numpy())


def _coded(values: pd.Series, order: Sequence[str], words: Sequence[str] | None, colours: Sequence[str]) -> Classes:
    return Classes(words=words or order, colours=colours, codes=pd.Index(order).get_indexer(pd.Index(values)))


def _most_frequent(values: pd.Series) -> Classes:
    """The most frequent values, one colour each, and `other`."""
    named = list(values.value_counts().index[: len(CATEGORIES)])
    codes = pd.Index(named).get_indexer(pd.Index(values))
    others = codes < 0
    if not others.any():
        return Classes(words=named, colours=CATEGORIES, codes=codes)
    return Classes(words=[*named, "other"], colours=[*CATEGORIES[: len(named)], GREY], codes=np.where(others, len(named), codes))


def drawn(rank: np.ndarray, decided: np.ndarray, cut: int, limit: int = MAX_POINTS) -> np.ndarray:
    """Rows to draw, [n] bool: all within the cut and all decided, of the others a seeded sample that fills up to `limit`."""
    keep: np.ndarray = (rank <= cut) | decided
    others = np.flatnonzero(~keep)
    room = max(0, limit - int(keep.sum()))
    if len(others) > room:
        others = np.random.default_rng(0).choice(others, room, replace=False)
    keep[others] = True
    return keep


def map_spec(table: pd.DataFrame, found: Classes) -> dict[str, Any]:
    """The chart of the rows of `table` (x, y, rank, score): sent as Arrow, float32, a dataset a class."""
    columns = ["x", "y", "rank"] if len(table) <= SMALL else ["x", "y"]
    points = table[columns].astype({"x": np.float32, "y": np.float32})
    counts = np.bincount(found.codes, minlength=len(found.words))
    present = [int(code) for code in np.argsort(-counts, kind="stable") if counts[code]]  # the rarer, the further in front
    size = 7 if len(table) <= 2_000 else 4 if len(table) <= SMALL else 2
    series = [
        {
            "type": "scatter",
            "name": found.words[code],
            "datasetIndex": place,
            "encode": {"x": "x", "y": "y"},
            "large": len(table) > SMALL,  # every class of a large map, also a rare one: a graphic a point is slow
            "largeThreshold": 0,
            "progressive": AT_ONCE,
            "symbol": SYMBOLS[code % len(SYMBOLS)],
            "symbolSize": size,
            "itemStyle": {"color": found.colours[code], "opacity": 0.8},
        }
        for place, code in enumerate(present)
    ]
    if found.places is not None:
        series.append(_names(found.words, found.places))
    legend = [found.words[code] for code in sorted(present)]
    hidden = {part: {"show": False} for part in ("axisLabel", "axisTick", "axisLine", "splitLine")}
    axis = {"type": "value", "scale": True, **hidden}
    return {
        "animation": False,
        "dataset": [{"source": points[found.codes == code]} for code in present],
        "legend": {"data": legend, "top": 34, "left": 0, "type": "scroll", "itemWidth": 10, "itemHeight": 10},
        "toolbox": {
            "left": 0,
            "top": 0,
            "itemSize": 18,
            "feature": {
                "brush": {
                    "type": ["polygon", "rect", "keep", "clear"],
                    "title": {"polygon": "Lasso", "rect": "Box", "keep": "Several areas", "clear": "Clear"},
                }
            },
        },
        "brush": {"xAxisIndex": "all", "yAxisIndex": "all", "throttleType": "debounce", "throttleDelay": 200},
        "dataZoom": [{"type": "inside", "xAxisIndex": 0}, {"type": "inside", "yAxisIndex": 0}],
        "tooltip": {"trigger": "item", **({"formatter": "{a}<br>rank {@rank}"} if "rank" in columns else {})},
        "grid": {"left": 8, "right": 8, "top": 68, "bottom": 8},
        "xAxis": axis,
        "yAxis": axis,
        "series": series,
    }


def _names(words: Sequence[str], places: np.ndarray) -> dict[str, Any]:
    """Words on the map, in a box each so that they are read over the points."""
    label = {"show": True, "formatter": "{b}", "position": "inside", "padding": [2, 4], "borderRadius": 3}
    return {
        "type": "scatter",
        "data": [{"name": name, "value": place} for name, place in zip(words, places.tolist(), strict=True)],
        "symbolSize": 1,
        "silent": True,
        "label": {**label, "color": "#FFFFFF", "backgroundColor": "rgba(0, 0, 0, 0.75)"},
    }


def colour_choice(examples: Examples) -> ColourBy:
    """The head of the map: what it is, and what colours it."""
    st.markdown("**Map of gradient directions** – near means that training on them pulls the model the same way")
    options = [option for option in get_args(ColourBy) if option != "known label" or examples.table["label"].notna().any()]
    return st.segmented_control("Colour by", options, default="influence", required=True, key="colour", bind="query-params") or "influence"


def with_clusters(examples: Examples, colour_by: ColourBy) -> pd.DataFrame:
    """The table of the examples; where they are coloured by cluster, with the cluster of each: its name."""
    if colour_by != "cluster" or not examples.mapped:
        return examples.table
    found = map_clusters(examples.key, examples)
    return examples.table.assign(cluster=np.array(found.words)[found.codes])


def map_panel(examples: Examples, passing: np.ndarray, verdicts: pd.Series, colour_by: ColourBy, cut: int) -> list[dict[str, Any]]:
    """The map of the rows that pass the filter; the areas brushed on it."""
    table = examples.table
    if not examples.mapped:
        st.info("The map is not drawn yet: the audit is still running, or was stopped. Resume it on the page Audits.")
        return []
    visible = passing & drawn(table["rank"].to_numpy(), (verdicts != UNDECIDED).to_numpy(), cut)
    points = table[visible]
    if colour_by == "cluster":
        drawn_as = map_clusters(examples.key, examples).of(visible)
    else:
        drawn_as = classes(points, verdicts[visible], colour_by, cut)
    areas = draw_map(points, drawn_as, f"map-{examples.key}")
    if visible.sum() < passing.sum():
        st.caption(f"Drawn: all candidates and decided ones, and a random sample of the others; {MAX_POINTS:,} in all.")
    return areas


def draw_map(table: pd.DataFrame, found: Classes, key: str) -> list[dict[str, Any]]:
    """Draw the map and return the areas brushed on it."""
    described = f"Map of {len(table)} examples; near points have similar gradients. Classes: {', '.join(found.words)}."
    event = st.echarts_chart(map_spec(table, found), height=440, key=key, on_select="rerun", alt=described)
    return [dict(area) for area in event["selection"]["areas"]]
