"""What an auditor does on Review: sign in, press keys on the card, wait until all is saved; and what was recorded of it."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from biasdiff_core.audit import Audit
from biasdiff_core.review.design import mixed_order
from tests.browser.pages import give_name, patient

VERDICT_OF = {"b": "biased", "n": "not_biased", "i": "neutral_but_influential", "u": "unsure"}
AT_ONCE = "keys => [...keys].forEach(key => document.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true })))"


def signed_in(page: Page, name: str = "Ana") -> None:
    """Say who one is on Review, and leave the box, so that keys reach the card."""
    give_name(page, name)
    expect(page.get_by_label("Review card")).to_be_visible()
    page.get_by_role("heading", name="Review").click()


def reviewed_by(page: Page, url: str, audit: Audit, name: str = "Ana") -> Page:
    """Open the review page by its address on a server, as this auditor."""
    patient(page)
    page.goto(f"{url}/review?audit={audit.folder.id}")
    signed_in(page, name)
    return page


def press_at_once(page: Page, keys: str) -> None:
    """Press the keys without a pause between them."""
    page.evaluate(AT_ONCE, keys)


def pressed(page: Page, keys: str, waiting: int) -> None:
    """Press the keys and wait until the card says that so many are not saved."""
    for key in keys:
        page.keyboard.press(key)
    expect(page.get_by_role("status").filter(has_text=f"saving {waiting} …" if waiting else "all saved")).to_be_visible()


def saved(page: Page, decisions: int) -> None:
    """Wait until the server has acknowledged all and says how many decisions there are in this session."""
    expect(page.get_by_role("status").filter(has_text="all saved")).to_be_visible()
    expect(page.get_by_text(re.compile(rf"^{decisions} decisions? in this session"))).to_be_visible()


def recorded(audit: Audit, auditor: str = "Ana") -> list[tuple[str, str, str]]:
    """(id, verdict, reason) of every decision of the auditor that was written, in order, undone ones too."""
    links = [link for link in audit.log.links() if link["auditor"] == auditor]
    assert all(row["inspected"] for link in links for row in link["decisions"])
    return [(row["example_id"], row["verdict"], row["reason"]) for link in links for row in link["decisions"]]


def queue(audit: Audit) -> list[str]:
    """The queue that is made now."""
    current = audit.log.current()
    return list(mixed_order([id_ for id_ in audit.ranking()["id"] if id_ not in current], audit.folder.id)[0])
