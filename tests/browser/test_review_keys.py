"""The review card in a real browser: keys lose nothing, record the right ids in order, and never act while somebody types."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from biasdiff_core.audit import Audit
from biasdiff_core.review.design import mixed_order
from tests.browser.conftest import Server
from tests.undecided import undecided_audit

pytestmark = pytest.mark.browser

VERDICT_OF = {"b": "biased", "n": "not_biased", "i": "neutral_but_influential", "u": "unsure"}
PATIENCE = 60_000


@pytest.fixture
def undecided(finished_workspace: Path) -> Audit:
    return undecided_audit(finished_workspace)


@pytest.fixture
def review(watched: Page, serve: Callable[[Path], Server], undecided: Audit) -> Page:
    """The review page of that audit, opened by its address on a fresh server, by an auditor called Ana."""
    watched.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    watched.goto(f"{serve(undecided.folder.workspace).url}/review?audit={undecided.folder.id}")
    name = watched.get_by_role("textbox", name="Your name")
    name.fill("Ana")
    name.press("Enter")
    expect(watched.get_by_label("Review card")).to_be_visible()
    watched.get_by_role("heading", name="Review").click()
    return watched


def saved(page: Page, decisions: int) -> None:
    """Wait until the server has acknowledged all and says how many decisions there are in this session."""
    expect(page.get_by_role("status").filter(has_text="all saved")).to_be_visible()
    expect(page.get_by_text(re.compile(rf"^{decisions} decisions? in this session$"))).to_be_visible()


def recorded(audit: Audit) -> list[tuple[str, str, str]]:
    """(id, verdict, reason) of every decision of Ana's that was written, in order, undone ones too."""
    links = [link for link in audit.log.links() if link["auditor"] == "Ana"]
    assert all(row["inspected"] for link in links for row in link["decisions"])
    return [(row["example_id"], row["verdict"], row["reason"]) for link in links for row in link["decisions"]]


def holding(audit: Audit) -> dict[str, str]:
    return {id_: decision.verdict for id_, decision in audit.log.current().items()}


def test_twenty_fast_keys_lose_nothing(review: Page, undecided: Audit) -> None:
    ids, _ = mixed_order(undecided.ranking()["id"].tolist(), undecided.folder.id)
    keys = "bnbiu" * 4
    for key in keys:
        review.keyboard.press(key)
    saved(review, 20)
    assert recorded(undecided) == [(id_, VERDICT_OF[key], "") for id_, key in zip(ids, keys, strict=False)]
    assert undecided.log.verify() == []
    expect(review.get_by_label("Review card")).to_have_attribute("data-example", ids[20])


def test_skip_and_undo_come_out_as_pressed(review: Page, undecided: Audit) -> None:
    ids = undecided.ranking()["id"].tolist()
    for key in "bsnn":  # 0 biased, 1 skipped, 2 and 3 not biased
        review.keyboard.press(key)
    saved(review, 3)
    assert set(holding(undecided)) == {ids[0], ids[2], ids[3]}
    for key in "zzzb":  # back over 3, 2 and the skipped 1, which is biased now
        review.keyboard.press(key)
    saved(review, 2)
    assert holding(undecided) == {ids[0]: "biased", ids[1]: "biased"}
    expect(review.get_by_label("Review card")).to_have_attribute("data-example", ids[2])
    assert undecided.log.verify() == []


def test_typing_decides_nothing_and_the_reason_is_recorded(review: Page, undecided: Audit) -> None:
    first = undecided.ranking()["id"].iloc[0]
    review.get_by_label("Reason", exact=True).select_option("stereotype")
    note = review.get_by_label("Note")
    note.click()
    note.press_sequentially("bnius z bin")
    review.get_by_role("textbox", name="Your name").press_sequentially("bnz")
    review.get_by_role("textbox", name="Your name").fill("Ana")
    review.get_by_role("textbox", name="Your name").press("Enter")
    expect(review.get_by_label("Review card")).to_have_attribute("data-example", first)
    assert recorded(undecided) == []
    review.get_by_role("heading", name="Review").click()
    review.keyboard.press("b")
    saved(review, 1)
    assert recorded(undecided) == [(first, "biased", "stereotype: bnius z bin")]


def test_a_held_key_or_a_shortcut_of_the_browser_decides_nothing_more(review: Page, undecided: Audit) -> None:
    ids = undecided.ranking()["id"].tolist()
    review.keyboard.press("Control+b")
    review.keyboard.down("b")
    review.keyboard.down("b")  # a second `down` without `up` is the repetition of a held key
    review.keyboard.up("b")
    review.keyboard.press("n")
    saved(review, 2)
    assert [row[:2] for row in recorded(undecided)] == [(ids[0], "biased"), (ids[1], "not_biased")]
