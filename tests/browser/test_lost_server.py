"""A server that dies while somebody reviews: what was pressed before and meanwhile is recorded once, under the right name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from benchmarks.served import Server
from biasdiff_core.audit import Audit
from biasdiff_core.review.design import mixed_order
from tests.browser.test_review_keys import PATIENCE, VERDICT_OF, recorded, saved, signed_in
from tests.undecided import undecided_audit

pytestmark = pytest.mark.browser


def pressed(page: Page, keys: str, waiting: int) -> None:
    """Press the keys and wait until the card says that so many are not saved."""
    for key in keys:
        page.keyboard.press(key)
    expect(page.get_by_role("status").filter(has_text=f"saving {waiting} …" if waiting else "all saved")).to_be_visible()


def test_presses_outlive_the_server(page: Page, serve: Callable[[Path], Server], finished_workspace: Path) -> None:
    audit = undecided_audit(finished_workspace)
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.on("dialog", lambda dialog: dialog.accept())  # “Leave?”, since not all is saved
    server = serve(finished_workspace)
    page.goto(f"{server.url}/review?audit={audit.folder.id}")
    signed_in(page)
    card, name = page.get_by_label("Review card"), page.get_by_role("textbox", name="Your name")
    first = queue(audit)
    for key in "bn":  # an action each
        pressed(page, key, waiting=0)

    server.kill()
    pressed(page, "ziu", waiting=3)  # the second is taken back and judged anew
    server.start()
    pressed(page, "", waiting=0)
    second = queue(audit)
    expect(card).to_have_attribute("data-example", second[0])
    expect(name).to_have_value("Ana")
    assert held(audit) == [(id_, VERDICT_OF[key], "Ana") for id_, key in zip(first, "biu", strict=False)]
    pressed(page, "b", waiting=0)

    server.kill()
    pressed(page, "nb", waiting=2)
    server.start()
    page.reload()
    pressed(page, "", waiting=0)
    expect(card).to_have_attribute("data-example", queue(audit)[0])
    expect(name).to_have_value("Ana")
    assert held(audit)[3:] == [(id_, VERDICT_OF[key], "Ana") for id_, key in zip(second, "bnb", strict=False)]
    assert len(recorded(audit)) == len("bn" + "iu" + "b" + "nb")  # each once, and the one that was taken back
    assert audit.log.verify() == []


def test_what_another_left_unsaved_is_recorded_as_theirs(page: Page, serve: Callable[[Path], Server], finished_workspace: Path) -> None:
    audit = undecided_audit(finished_workspace)
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.on("dialog", lambda dialog: dialog.accept())
    server = serve(finished_workspace)
    page.goto(f"{server.url}/review?audit={audit.folder.id}")
    signed_in(page)
    ids = queue(audit)
    server.kill()
    pressed(page, "bn", waiting=2)
    page.close()

    server.start()
    later = page.context.new_page()
    later.goto(f"{server.url}/review?audit={audit.folder.id}")
    name, card = later.get_by_role("textbox", name="Your name"), later.get_by_label("Review card")
    expect(later.get_by_text("Give your name in the sidebar first")).to_be_visible()
    name.fill("Bo")
    name.press("Enter")
    expect(card).to_have_attribute("data-example", ids[0])
    later.get_by_role("heading", name="Review").click()
    pressed(later, "u", waiting=0)
    assert held(audit) == [(ids[0], "unsure", "Bo")]
    name.fill("Ana")
    name.press("Enter")
    saved(later, 2)
    expect(card).to_have_attribute("data-example", queue(audit)[0])
    assert recorded(audit) == [(ids[0], "biased", ""), (ids[1], "not_biased", "")]
    assert audit.log.verify() == []


def queue(audit: Audit) -> list[str]:
    """The queue that is made now."""
    current = audit.log.current()
    return list(mixed_order([id_ for id_ in audit.ranking()["id"] if id_ not in current], audit.folder.id)[0])


def held(audit: Audit) -> list[tuple[str, str, str]]:
    """(id, verdict, auditor) of what holds, in the order of the record."""
    current = audit.log.current()
    return [(id_, decision.verdict, decision.auditor) for id_, decision in sorted(current.items(), key=lambda item: item[1].created)]
