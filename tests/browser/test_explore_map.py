"""Explore in a real browser: what is drawn on the map selects what lies in it, filters live in the address, a large audit stays light."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from benchmarks.large_audit import large_audit
from benchmarks.served import Server
from biasdiff_core.audit import Audit
from biasdiff_core.workspace.audits import install_shipped
from biasdiff_ui.boot import SHIPPED_AUDITS
from biasdiff_ui.examples import load_examples
from biasdiff_ui.ranking_table import PAGE_ROWS
from tests.browser.pages import PATIENCE, choose, give_name, patient
from tests.reference.lasso_slow import inside_polygon_slow
from tests.undecided import undecided_audit

pytestmark = pytest.mark.browser
LASSO_TOOL, BOX_TOOL = (24, 18), (52, 18)  # where the first and the second tool of the map's toolbox lie
MOST_BYTES, MOST_MEMORY = 1_000_000, 1.0  # the memory in GB


def draw_area(page: Page, tool: tuple[int, int], corners: Sequence[tuple[float, float]]) -> None:
    """Draw on the map with a tool, from corner to corner. `corners`: shares of the width and of the height below the toolbox."""
    chart = page.get_by_test_id("stEChartsChart").locator("canvas").first
    place = chart.bounding_box()
    assert place is not None
    left, top = place["x"], place["y"]
    page.mouse.click(left + tool[0], top + tool[1])
    (first, *others) = [(left + 12 + x * (place["width"] - 24), top + 75 + y * (place["height"] - 87)) for x, y in corners]
    page.mouse.move(*first)
    page.mouse.down()
    for x, y in others:
        page.mouse.move(x, y, steps=8)
    page.mouse.up()


def draw_box(page: Page, share: float) -> None:
    """Draw a box on the map from its left edge over a share of its width."""
    draw_area(page, BOX_TOOL, [(0, 0), (share, 1)])


def explored(page: Page, serve: Callable[[Path], Server], workspace: Path) -> Audit:
    """An audit without decisions, open on Explore before Ana."""
    audit = undecided_audit(workspace)
    expect.set_options(timeout=PATIENCE)
    page.set_viewport_size({"width": 1280, "height": 2400})
    page.goto(f"{serve(workspace).url}/explore?audit={audit.folder.id}")
    give_name(page, "Ana")
    expect(page.get_by_role("button", name="Label 40 examples")).to_be_visible()
    return audit


def selected(page: Page, rows: int) -> int:
    """How many of all are selected, as the page says."""
    counted = page.get_by_text(re.compile(rf"^[\d,]+ of {rows:,} selected by the lasso"))
    return int(counted.inner_text().split()[0].replace(",", ""))


def label_selected(page: Page, count: int, *, action: int) -> None:
    """Label what is selected as biased; the number of the action that this is."""
    page.get_by_role("button", name=f"Label {count:,} examples").click()
    page.get_by_role("button", name=f"Yes, label {count:,} as biased").click()
    expect(page.get_by_role("button", name=f"Undo action {action} ({count:,} decision")).to_be_enabled()


def inside_the_box(audit: Audit) -> set[str]:
    """Ids of the examples in the box that the last action was selected by."""
    selection = audit.log.actions()[-1].selection
    assert selection is not None
    (x0, x1), (y0, y1) = selection["lasso"][0]["coord_range"]
    points = pd.read_parquet(audit.artefact("map2d").path("map2d.parquet"))
    return set(points["id"][points["x"].between(x0, x1) & points["y"].between(y0, y1)])


def test_a_box_on_the_map_selects_what_lies_in_it(watched: Page, serve: Callable[[Path], Server], finished_workspace: Path) -> None:
    audit = explored(watched, serve, finished_workspace)
    draw_box(watched, 0.55)
    count = selected(watched, 40)
    assert 0 < count < 40
    label_selected(watched, count, action=3)
    decisions = audit.log.current()
    assert set(decisions) == inside_the_box(audit)
    assert len(decisions) == count


def test_a_lasso_becomes_a_queue_of_review_that_outlasts_a_reload(
    watched: Page, serve: Callable[[Path], Server], finished_workspace: Path
) -> None:
    audit = explored(watched, serve, finished_workspace)
    # About the left half, whose edge leans: in every layout something lies in it and something does not.
    draw_area(watched, LASSO_TOOL, [(0, 0), (0.55, 0), (0.45, 1), (0, 1)])
    count = selected(watched, 40)
    assert 2 < count < 40
    watched.get_by_role("button", name=f"Review these {count}").click()
    expect(watched.get_by_label("Review card")).to_be_visible()
    expect(watched.get_by_text(f"1 of {count} in the queue")).to_be_visible()
    watched.get_by_role("heading", name="Review").click()
    watched.keyboard.press("b")
    expect(watched.get_by_role("button", name="Undo action 3 (1 decision)")).to_be_enabled()
    (held,) = audit.log.current().values()
    assert held.selection is not None and held.inspected
    (area,) = held.selection["lasso"]
    points = pd.read_parquet(audit.artefact("map2d").path("map2d.parquet"))
    inside = {id_ for id_, x, y in points.itertuples(index=False) if inside_polygon_slow(x, y, area["coord_range"])}
    in_order = [id_ for id_ in audit.ranking()["id"] if id_ in inside]
    assert (area["brush_type"], len(inside), held.example_id) == ("polygon", count, in_order[0])
    watched.reload()
    give_name(watched, "Ana")
    expect(watched.get_by_text(f"1 of {count - 1} in the queue")).to_be_visible()
    texts = audit.ranking().set_index("id")["text"]
    expect(watched.get_by_label("Review card").get_by_text(texts[in_order[1]], exact=True)).to_be_visible()


def test_what_another_decides_is_told_without_a_reload(watched: Page, serve: Callable[[Path], Server], finished_workspace: Path) -> None:
    audit = undecided_audit(finished_workspace)
    expect.set_options(timeout=PATIENCE)
    watched.goto(f"{serve(finished_workspace).url}/explore?audit={audit.folder.id}&decision=biased")
    expect(watched.get_by_text(re.compile("^0 of 40 shown"))).to_be_visible()
    audit.log.decide_many(audit.ranking()["id"][:3].tolist(), "biased", "Bo")
    expect(watched.get_by_text("3 new decisions by Bo", exact=True)).to_be_visible()
    expect(watched.get_by_text(re.compile("^0 of 40 shown"))).to_be_visible()
    watched.get_by_role("button", name="Show", exact=True).click()
    expect(watched.get_by_text(re.compile("^3 of 40 shown"))).to_be_visible()
    expect(watched.get_by_text("3 new decisions by Bo", exact=True)).to_be_hidden()


def test_filters_stay_in_the_address_and_on_the_way_back(watched: Page, serve: Callable[[Path], Server], undecided: Audit) -> None:
    patient(watched)
    ranking = undecided.ranking()
    undecided.log.decide_many(ranking["id"][::2].tolist(), "biased", "Bo")
    of_bo, report = ranking[::2], undecided.artefact("corpus").path("report.json")
    matching = of_bo[of_bo["text"].str.contains("women|Belgians") & (of_bo["source"] == "forum") & (of_bo["rank"] <= 30)]
    assert len(matching) > 2
    report.write_text(json.dumps({**json.loads(report.read_text()), "near_duplicate_groups": [matching["id"][:2].tolist()]}))
    watched.goto(f"{serve(undecided.folder.workspace).url}/explore?audit={undecided.folder.id}&from=forum&rank_to=30")
    shown = watched.get_by_text(re.compile(r"^\d+ of 40 shown"))
    expect(shown).to_contain_text("source: forum · rank to: 30")
    text = watched.get_by_role("textbox", name="Text contains")
    text.fill("women|belgians")
    text.press("Enter")
    expect(shown).to_contain_text("0 of 40 shown · text: women|belgians")  # a word, so far
    watched.get_by_role("button", name="More filters").click()
    watched.get_by_text("The text is a regular expression").click()
    expect(watched).to_have_url(re.compile("regex=true"))
    choose(watched, "Decided by", "Bo")
    expect(shown).to_contain_text(f"{len(matching)} of 40 shown")
    watched.get_by_role("radio", name="one of each").click()
    expect(shown).to_contain_text(f"{len(matching) - 1} of 40 shown")
    expect(watched).to_have_url(re.compile(r"(?=.*find=women%7Cbelgians)(?=.*by=Bo)(?=.*copies=one\+of\+each)"))
    watched.keyboard.press("Escape")
    before = shown.inner_text()
    sidebar = watched.get_by_test_id("stSidebar")
    sidebar.get_by_role("link", name="Corpus").click()
    expect(watched.get_by_role("heading", name="Corpus", exact=True)).to_be_visible()
    sidebar.get_by_role("link", name="Explore").click()
    expect(shown).to_have_text(before)
    watched.reload()
    expect(shown).to_have_text(before)


def test_the_table_is_sorted_as_a_whole_and_read_page_by_page(watched: Page, serve: Callable[[Path], Server], tmp_path: Path) -> None:
    patient(watched)
    (folder,) = install_shipped(SHIPPED_AUDITS, tmp_path / "workspace")
    audit = Audit(folder)
    examples = load_examples(audit, audit.plan())
    assert examples is not None
    assert len(examples.ids) > 2 * PAGE_ROWS
    longest = sorted(examples.table["tokens"], reverse=True)
    watched.set_viewport_size({"width": 1280, "height": 2400})
    watched.goto(f"{serve(folder.workspace).url}/explore?audit={folder.id}&descending=true")
    choose(watched, "Sort by", "tokens")
    first = watched.get_by_test_id("glide-cell-2-0")  # beside the rank and the box that chooses the row
    expect(first).to_have_text(str(longest[0]))
    watched.get_by_role("button", name="Page 3").click()
    expect(first).to_have_text(str(longest[2 * PAGE_ROWS]))
    watched.reload()
    expect(first).to_have_text(str(longest[0]))  # the order stands in the address


@pytest.mark.slow
def test_a_hundred_thousand_examples_stay_light(watched: Page, serve: Callable[[Path], Server], workspace: Path) -> None:
    audit = large_audit(workspace, 100_000)
    expect.set_options(timeout=10 * PATIENCE)
    watched.set_default_timeout(10 * PATIENCE)
    watched.set_viewport_size({"width": 1280, "height": 2400})
    received: list[int] = []
    watched.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(len(frame))))
    server = serve(workspace)
    watched.goto(f"{server.url}/?audit={audit.folder.id}")
    give_name(watched, "Ana")
    explore = watched.get_by_test_id("stSidebar").get_by_role("link", name="Explore")
    expect(explore).to_be_visible()
    received.clear()
    explore.click()
    expect(watched.get_by_role("button", name="Label 100,000 examples")).to_be_visible()
    expect(watched.locator(".stApp[data-test-script-state=notRunning]")).to_be_attached()
    assert 0 < sum(received) <= MOST_BYTES
    draw_box(watched, 0.2)
    count = selected(watched, 100_000)
    label_selected(watched, count, action=2)
    assert {id_ for id_, decision in audit.log.current().items() if decision.auditor == "Ana"} == inside_the_box(audit)
    assert len(inside_the_box(audit)) == count
    assert server.gigabytes() <= MOST_MEMORY
