"""Two auditors at once, each in a browser of their own: nothing is lost, and each sees by itself what the other has recorded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from benchmarks.served import Server
from biasdiff_core.audit import Audit
from biasdiff_core.review.decisions import ADJUDICATION
from biasdiff_core.review.design import mixed_order
from tests.undecided import undecided_audit

pytestmark = pytest.mark.browser

PATIENCE = 60_000


@pytest.fixture
def undecided(finished_workspace: Path) -> Audit:
    return undecided_audit(finished_workspace)


@pytest.fixture
def both(watched: Page, browser: Browser, serve: Callable[[Path], Server], undecided: Audit) -> Iterator[tuple[Page, Page]]:
    """The review page of one server, opened by Ana and by Bo."""
    expect.set_options(timeout=PATIENCE)
    address = f"{serve(undecided.folder.workspace).url}/review?audit={undecided.folder.id}"
    context = browser.new_context()
    other = context.new_page()
    for page, name in ((watched, "Ana"), (other, "Bo")):
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.get_by_role("textbox", name="Your name").fill(name)
        page.get_by_role("textbox", name="Your name").press("Enter")
        expect(page.get_by_label("Review card")).to_be_visible()
        page.get_by_role("heading", name="Review").click()
    yield watched, other
    context.close()


def choose(page: Page, queue: str) -> None:
    page.get_by_role("combobox", name="Queue").click()
    page.get_by_role("option", name=queue, exact=True).click()
    page.get_by_role("heading", name="Review").click()


def test_two_at_once_lose_nothing_and_settle_what_they_differ_on(both: tuple[Page, Page], undecided: Audit) -> None:
    ana, bo = both
    ids, _ = mixed_order(undecided.ranking()["id"].tolist(), undecided.folder.id)
    for key_of_ana, key_of_bo in zip("bbnb", "bnnu", strict=True):
        ana.keyboard.press(key_of_ana)
        bo.keyboard.press(key_of_bo)
    for page in both:
        # Neither page is touched again: what the other recorded comes by itself.
        expect(page.get_by_text(re.compile(r"4 of 40 examples are inspected \(Ana 4, Bo 4\); 2 disagreements to settle"))).to_be_visible()
    verdicts = {name: [held[id_].verdict for id_ in ids[:4]] for name, held in undecided.log.by_auditor().items()}
    assert verdicts == {
        "Ana": ["biased", "biased", "not_biased", "biased"],
        "Bo": ["biased", "not_biased", "not_biased", "unsure"],
    }
    choose(ana, "disagreements, by rank")
    card = ana.get_by_label("Review card")
    expect(card).to_have_attribute("data-example", ids[1])
    expect(card.get_by_text("Ana: biased", exact=True)).to_be_visible()
    expect(card.get_by_text("Bo: not biased", exact=True)).to_be_visible()
    ana.keyboard.press("n")
    expect(bo.get_by_text("1 disagreement to settle")).to_be_visible()
    held = undecided.log.current()[ids[1]]
    assert (held.auditor, held.verdict, (held.selection or {})["queue"]) == ("Ana", "not_biased", ADJUDICATION)
    assert undecided.log.verify() == []
