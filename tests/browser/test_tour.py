"""The five steps of a first visit: they lead to their pages, can be closed, and do not come back to whoever closed them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from benchmarks.served import Server
from tests.browser.pages import give_name, patient

pytestmark = pytest.mark.browser
STEPS = 5


def test_the_steps_lead_on_and_do_not_come_back(watched: Page, serve: Callable[[Path], Server], finished_workspace: Path) -> None:
    patient(watched)
    watched.goto(serve(finished_workspace).url)
    give_name(watched, "Ana")
    steps, again = watched.locator(".st-key-tour"), watched.get_by_role("button", name="Show the five steps")
    sidebar = watched.get_by_test_id("stSidebar")
    expect(steps.get_by_role("link")).to_have_count(STEPS)
    steps.get_by_role("link", name="2 Look at the ranking").click()
    expect(watched.get_by_role("heading", name="Explore", exact=True)).to_be_visible()
    sidebar.get_by_role("link", name="Audits").click()
    steps.get_by_role("button", name="Close").click()
    expect(again).to_be_visible()
    sidebar.get_by_role("link", name="Explore").click()
    expect(watched.get_by_role("heading", name="Explore", exact=True)).to_be_visible()
    sidebar.get_by_role("link", name="Audits").click()
    expect(again).to_be_visible()
    watched.reload()
    expect(again).to_be_visible()
    expect(steps).to_have_count(0)
