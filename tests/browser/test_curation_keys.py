"""Curation in a real browser: keys decide on the pair that is shown, typing decides nothing, and the result can be taken away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from benchmarks.served import Server
from biasdiff_core.config.presets import DEMO_PROBES
from biasdiff_core.review.curation import Curation, queue, read_pairs
from biasdiff_core.workspace.database import database
from tests.browser.pages import give_name, patient

pytestmark = pytest.mark.browser
REJECTED = "1 of 180 pairs accepted, 0 of them edited; 1 rejected"
ACCEPTED = "1 of 180 pairs accepted, 0 of them edited; 0 rejected"


def press(page: Page, key: str) -> None:
    """Press a key once the next pair is there: the key of a button that is being drawn anew is lost."""
    expect(page.locator(".stApp[data-test-script-state=notRunning]")).to_be_attached()
    page.keyboard.press(key)


def test_keys_accept_reject_edit_and_undo_and_typing_does_not(watched: Page, serve: Callable[[Path], Server], workspace: Path) -> None:
    patient(watched)
    watched.goto(f"{serve(workspace).url}/probes")
    curation = Curation(database(workspace), read_pairs(DEMO_PROBES))
    first, second, *_ = queue(curation.pairs().values(), "undecided")
    give_name(watched, "Ana")
    watched.get_by_role("heading", name="Probes", exact=True).click()
    expect(watched.get_by_text("0 of 180 pairs accepted, 0 of them edited; 0 rejected")).to_be_visible()
    for key, counts in (("a", ACCEPTED), ("x", REJECTED), ("z", ACCEPTED)):
        press(watched, key)
        expect(watched.get_by_text(counts)).to_be_visible()
    press(watched, "e")
    text, twin = (watched.get_by_role("textbox", name=label, exact=True) for label in ("Stereotype", "Anti-stereotype twin"))
    for field in (text, twin):
        field.press("End")
        field.press_sequentially(" Zoe asks experts.")
    twin.press("Control+Enter")
    expect(watched.get_by_text("2 of 180 pairs accepted, 1 of them edited; 0 rejected")).to_be_visible()
    kept = {id_: curated for id_, curated in curation.pairs().items() if curated.kept}
    assert first.source.id in kept and second.source.id not in kept and curation.log.verify() == []
    assert [curated.pair.text.endswith(" Zoe asks experts.") for curated in kept.values()].count(True) == 1
    assert [action.kind for action in curation.log.actions()] == ["decide", "decide", "undo", "decide"]
    watched.get_by_text("The curated set").click()
    with watched.expect_download() as download:
        watched.get_by_role("button", name="Curated set (CSV)").click()
    result = curation.result()
    assert Path(download.value.path()).read_bytes() == result.content
    assert download.value.suggested_filename == f"demo-curated-{result.card.digest[:12]}.csv"
