"""Coverage and precision over the selection percentage, with the auditor's cut on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from biasdiff_core.attribution.ranking import detection_curve, selected_count
from biasdiff_core.audit import Audit
from biasdiff_core.plan import Plan
from biasdiff_core.review.decisions import DecisionLog
from biasdiff_core.review.estimate import coverage_at, precision_at
from biasdiff_ui.estimates import review_of
from biasdiff_ui.examples import Examples, load_examples
from biasdiff_ui.why import SCORER_HELP

BASELINES = ("length", "unigram", "repsim", "random")
LINES: Mapping[str, tuple[str, str | list[int]]] = {  # colour (none of a verdict) and dash
    "influence": ("#009E73", "solid"),
    "length": ("#E69F00", "dashed"),
    "unigram": ("#56B4E9", "dotted"),
    "repsim": ("#0072B2", [2, 2, 8, 2]),
    "random": ("#8C8C8C", [8, 4, 2, 4]),
}
LINES_HELP = (
    "Coverage (Eq. 9): share of the biased examples that the selection holds; precision (Eq. 10): share of the selection that is biased. "
    "1 is best. Beside influence, rankings that know nothing of gradients; where one of them is as high, gradients add nothing here.\n\n"
    + "\n".join(f"- **{name}**: {SCORER_HELP[name]}" for name in BASELINES)
)
PANELS = ("coverage", "precision")
POINTS = 300
HEIGHT = 440  # pixels
ESTIMATE = "estimate from inspected decisions"
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
    for name in filter(table.__contains__, BASELINES):  # ties by id, as in every ranking
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


def label_spec(curves: Mapping[str, pd.DataFrame], percent: float) -> dict[str, Any]:
    """Two panels, coverage over precision, a line a scorer, the cut at `percent` marked."""
    series = [
        {
            "type": "line",
            "name": name,
            "datasetIndex": dataset,
            "encode": {"x": "percent", "y": column, "tooltip": [column]},
            "xAxisIndex": panel,
            "yAxisIndex": panel,
            "showSymbol": False,
            "itemStyle": {"color": LINES[name][0]},
            "lineStyle": {"width": 2, "type": LINES[name][1]},
        }
        for panel, column in enumerate(PANELS)
        for dataset, name in enumerate(curves)
    ]
    return _panels(list(curves.values()), series, percent, {"trigger": "axis", "valueFormatter": "%.3f"}, list(curves))


def estimate_spec(estimates: pd.DataFrame, percent: float) -> dict[str, Any]:
    """Two panels with the estimates and their 95 % intervals, as a band."""
    datasets, series = [], []
    for panel, name in enumerate(PANELS):
        known = estimates[(estimates["name"] == name) & estimates["value"].notna()].drop(columns="name")
        datasets.append(known.assign(width=known["high"] - known["low"]).round(3))
        place = {
            "type": "line",
            "datasetIndex": panel,
            "xAxisIndex": panel,
            "yAxisIndex": panel,
            "itemStyle": {"color": LINES["influence"][0]},
        }
        # A band is the lower bound, unseen, and the width of the interval stacked on it.
        bounds = {**place, "stack": name, "lineStyle": {"opacity": 0}, "showSymbol": False, "silent": True, "tooltip": {"show": False}}
        hover = {"formatter": f"{name} {{@value}} [{{@low}}, {{@high}}] at {{@percent}} %"}
        series += [
            {**bounds, "name": "low", "encode": {"x": "percent", "y": "low"}},
            {**bounds, "name": "95 % interval", "encode": {"x": "percent", "y": "width"}, "areaStyle": {"opacity": 0.25}},
            {**place, "name": ESTIMATE, "encode": {"x": "percent", "y": "value"}, "symbolSize": 7, "tooltip": hover},
        ]
    return _panels(datasets, series, percent, {"trigger": "item"}, [ESTIMATE, "95 % interval"])


def cut_mark(percent: float, at: float, *, labelled: bool = True) -> dict[str, Any]:
    """The auditor's cut, the top `percent` %, as a dotted line `at` a value of the x axis."""
    return {
        "symbol": "none",
        "silent": True,
        "label": {"show": labelled, "formatter": f"cut {percent:g} %", "color": "inherit"},
        "lineStyle": {"color": "#8C8C8C", "width": 1.5, "type": "dotted"},
        "data": [{"xAxis": at}],
    }


def _panels(
    datasets: Sequence[pd.DataFrame], series: Sequence[dict[str, Any]], percent: float, tooltip: Mapping[str, Any], legend: Sequence[str]
) -> dict[str, Any]:
    cuts = [
        {
            "type": "line",
            "xAxisIndex": panel,
            "yAxisIndex": panel,
            "data": [],
            "markLine": cut_mark(percent, percent, labelled=panel == 0),
        }
        for panel in range(len(PANELS))
    ]
    axis = {"type": "value", "min": 0, "max": 100}
    last = {"name": "selection: top % of the ranking", "nameLocation": "middle", "nameGap": 26}
    return {
        "animation": False,
        "dataset": [{"source": dataset} for dataset in datasets],
        # The bounds are fixed, for ECharts would make room for the labels of one panel alone, and the two would not align.
        "grid": [{"left": 56, "right": 24, "top": top, "height": 152, "outerBoundsMode": "none"} for top in (24, 200)],
        "xAxis": [
            {**axis, "gridIndex": 0, "axisLabel": {"show": False}},
            {**axis, **last, "gridIndex": 1, "axisLabel": {"formatter": "{value} %"}},
        ],
        "yAxis": [
            {"type": "value", "min": 0, "max": 1, "gridIndex": panel, "name": name, "nameLocation": "middle", "nameGap": 36}
            for panel, name in enumerate(PANELS)
        ],
        "axisPointer": {"link": [{"xAxisIndex": "all"}]},
        "tooltip": tooltip,
        "legend": {"data": list(legend), "bottom": 0, "left": 0},
        "series": [*series, *cuts],
    }


def draw_curves(examples: Examples, log: DecisionLog, percent: float) -> None:
    """The curves against known labels; without labels, the estimates from inspected decisions; without these, what to do."""
    alt = f"Coverage and precision over the selection percentage, cut at {percent:g} %."
    if examples.labelled:
        st.echarts_chart(label_spec(label_curves(examples.key, examples), percent), height=HEIGHT, key="curves", alt=alt)
        return
    if not any(decision.inspected for decision in log.current().values()):
        st.info("No labels are known, and nothing is inspected yet. Review some examples, and coverage and precision are estimated here.")
        return
    estimates = estimated_curves(examples.key, log.head()[1], examples, log)
    st.echarts_chart(estimate_spec(estimates, percent), height=HEIGHT, key="curves", alt=alt)
    st.caption("Estimated from inspected decisions; where some are open, from those drawn at random in the queues with a random slice.")


def read_ahead(audit: Audit, plan: Plan) -> None:
    """Read what Explore and Review will show of the audit into the caches, where there is a ranking."""
    examples = load_examples(audit, plan)
    if examples is not None and examples.labelled:
        label_curves(examples.key, examples)


def cut_size(examples: Examples, percent: float) -> int:
    """How many examples the top `percent` % are."""
    return selected_count(len(examples.ids), percent)
