"""What every browser test does on a page: wait as a busy machine needs, see that all is drawn, say who one is, choose from a list."""

from __future__ import annotations

from playwright.sync_api import Page, expect

PATIENCE = 60_000  # milliseconds


def patient(page: Page) -> None:
    """Let the page and what is expected of it take as long as a busy machine needs."""
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)


def settled(page: Page) -> None:
    """Wait until the script has run through and the browser has all that it draws with, and see that no error is shown."""
    expect(page.locator(".stApp[data-test-script-state=notRunning]")).to_be_attached(timeout=PATIENCE)
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0, timeout=PATIENCE)
    expect(page.get_by_test_id("stException")).to_have_count(0)
    expect(page.locator("[data-testid=stAlertContentError]")).to_have_count(0)


def give_name(page: Page, name: str) -> None:
    """Say who one is."""
    box = page.get_by_role("textbox", name="Your name")
    box.fill(name)
    box.press("Enter")


def choose(page: Page, label: str, option: str) -> None:
    """Take an option of the list so labelled."""
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option, exact=True).click()
