"""The curves of Explore as ECharts options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from biasdiff_ui.curves import ESTIMATE, LINES, PANELS, estimate_spec, label_spec, thinned

PERCENT = [0.0, 50.0, 100.0]
CURVES = {
    "influence": pd.DataFrame({"percent": PERCENT, "coverage": [0.0, 0.9, 1.0], "precision": [1.0, 0.6, 0.3]}),
    "length": pd.DataFrame({"percent": PERCENT, "coverage": [0.0, 0.4, 1.0], "precision": [0.0, 0.3, 0.3]}),
}


def drawn(spec: dict[str, Any], panel: int, name: str) -> list[list[float]]:
    """The points of a line, as ECharts takes them from the dataset."""
    series = next(found for found in spec["series"] if found.get("name") == name and found["yAxisIndex"] == panel)
    assert series["xAxisIndex"] == panel
    source = spec["dataset"][series["datasetIndex"]]["source"]
    points: list[list[float]] = source[[series["encode"]["x"], series["encode"]["y"]]].to_numpy().tolist()
    return points


def test_each_scorer_is_a_line_in_each_panel() -> None:
    spec = label_spec(CURVES, 35.0)
    for panel, column in enumerate(PANELS):
        assert spec["yAxis"][panel]["name"] == column
        for name, curve in CURVES.items():
            assert drawn(spec, panel, name) == curve[["percent", column]].to_numpy().tolist()
    assert spec["legend"]["data"] == ["influence", "length"]
    styles = [(str(style), colour) for colour, style in LINES.values()]
    assert len(set(styles)) == len(LINES)  # told apart without colour too
    assert len({style for style, _ in styles}) == len(LINES)


def test_the_cut_is_marked_in_both_panels() -> None:
    marks = [series["markLine"] for series in label_spec(CURVES, 12.5)["series"] if "markLine" in series]
    assert [mark["data"] for mark in marks] == [[{"xAxis": 12.5}]] * 2
    assert marks[0]["label"]["formatter"] == "cut 12.5 %"


def test_the_band_reaches_from_low_to_high() -> None:
    rows = [
        {"percent": 10, "name": "coverage", "value": np.nan, "low": np.nan, "high": np.nan},
        {"percent": 20, "name": "coverage", "value": 0.5, "low": 0.25, "high": 0.75},
        {"percent": 20, "name": "precision", "value": 0.875, "low": 0.75, "high": 1.0},
    ]
    spec = estimate_spec(pd.DataFrame(rows), 35.0)
    assert drawn(spec, 0, ESTIMATE) == [[20.0, 0.5]]  # what is not known is not drawn
    assert drawn(spec, 1, ESTIMATE) == [[20.0, 0.875]]
    for panel, (low, high) in enumerate([(0.25, 0.75), (0.75, 1.0)]):
        assert drawn(spec, panel, "low") == [[20.0, low]]
        assert drawn(spec, panel, "95 % interval") == [[20.0, high - low]]
        stacked = {found["stack"] for found in spec["series"] if "stack" in found and found["yAxisIndex"] == panel}
        assert len(stacked) == 1


def test_thinning_keeps_both_ends() -> None:
    curve = pd.DataFrame({"percent": np.linspace(0, 100, 5001)})
    few = thinned(curve, 300)
    assert len(few) <= 300
    assert few["percent"].iloc[[0, -1]].tolist() == [0.0, 100.0]
    assert thinned(few, 300) is few
