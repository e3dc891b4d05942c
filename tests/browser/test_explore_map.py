"""The map in a real browser: a box drawn on it selects what lies in it, and a bulk decision takes just that."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Server
from tests.undecided import undecided_audit

pytestmark = pytest.mark.browser
PATIENCE = 60_000
BOX_TOOL = (52, 18)  # where the second tool of the map's toolbox lies


def test_a_box_on_the_map_selects_what_lies_in_it(watched: Page, serve: Callable[[Path], Server], finished_workspace: Path) -> None:
    audit = undecided_audit(finished_workspace)
    expect.set_options(timeout=PATIENCE)
    watched.set_viewport_size({"width": 1280, "height": 2400})
    watched.goto(f"{serve(finished_workspace).url}/explore?audit={audit.folder.id}")
    name = watched.get_by_role("textbox", name="Your name")
    name.fill("Ana")
    name.press("Enter")
    expect(watched.get_by_role("button", name="Label 40 examples")).to_be_visible()
    chart = watched.get_by_test_id("stEChartsChart").locator("canvas").first
    place = chart.bounding_box()
    assert place is not None
    left, top = place["x"], place["y"]
    watched.mouse.click(left + BOX_TOOL[0], top + BOX_TOOL[1])
    watched.mouse.move(left + 12, top + 75)
    watched.mouse.down()
    watched.mouse.move(left + place["width"] * 0.55, top + place["height"] - 12, steps=8)
    watched.mouse.up()
    counted = watched.get_by_text(re.compile(r"^\d+ of 40 selected by the lasso"))
    count = int(counted.inner_text().split()[0])
    assert 0 < count < 40
    watched.get_by_role("button", name=f"Label {count} examples").click()
    watched.get_by_role("button", name=f"Yes, label {count} as biased").click()
    expect(watched.get_by_role("button", name=f"Undo action 3 ({count} decision")).to_be_enabled()
    decisions = audit.log.current()
    selection = next(iter(decisions.values())).selection
    assert selection is not None
    (x0, x1), (y0, y1) = selection["lasso"][0]["coord_range"]
    points = pd.read_parquet(audit.artefact("map2d").path("map2d.parquet"))
    inside = points[points["x"].between(x0, x1) & points["y"].between(y0, y1)]
    assert set(decisions) == set(inside["id"])
    assert len(decisions) == count
