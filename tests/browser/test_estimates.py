"""What the inspected decisions say stands on Review: estimates with intervals, and the stop hint of the rule that was chosen."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from benchmarks.served import Server
from biasdiff_core.audit import Audit
from tests.browser.pages import choose
from tests.browser.reviewing import press_at_once, reviewed_by, saved, signed_in

pytestmark = pytest.mark.browser
RULE = "at least 90 % of the biased examples, with 80 % confidence"


def test_estimates_follow_the_decisions_and_the_chosen_rule_says_when_to_stop(
    watched: Page, serve: Callable[[Path], Server], undecided: Audit
) -> None:
    page = reviewed_by(watched, serve(undecided.folder.workspace).url, undecided)
    page.get_by_role("button", name="Change").click()
    choose(page, "At least, of the biased examples", "90%")
    choose(page, "With confidence", "80%")
    page.get_by_role("button", name="Record it").click()
    expect(page.get_by_text(f"To be found: {RULE}")).to_be_visible()
    page.get_by_role("heading", name="Review").click()
    undecided.log.decide_many(undecided.ranking()["id"][-5:].tolist(), "biased", "Bo")  # in bulk, which no estimate regards
    press_at_once(page, "bbnbbbnnbb")
    saved(page, 10)
    interval = r"\d+(\.\d+)? \[\d+(\.\d+)?, \d+(\.\d+)?\]"
    for words in (r"^Precision in the \d+ ranks reached: ", r"^Biased: 7 found, ", r"^Share found: ", r"^Review 30 more → about "):
        expect(page.get_by_text(re.compile(words + interval))).to_be_visible()
    expect(page.get_by_text(f"Not yet: {RULE}")).to_be_visible()
    page.reload()
    signed_in(page)
    expect(page.get_by_text(f"Not yet: {RULE}")).to_be_visible()
    choose(page, "Queue", "undecided or labelled in bulk, by rank")
    page.get_by_role("heading", name="Review").click()
    expect(page.get_by_text("1 of 30 in the queue")).to_be_visible()
    press_at_once(page, "n" * 30)
    expect(page.get_by_text(re.compile(r"^Biased: 7 found, 0 \[0, 0\] left"))).to_be_visible()  # all 40 are inspected
    expect(page.get_by_text(f"Enough: found are {RULE}")).to_be_visible()
