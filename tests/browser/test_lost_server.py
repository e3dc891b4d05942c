"""A server that dies while somebody reviews: what was pressed before and meanwhile is recorded once, under the right name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from benchmarks.served import Server
from biasdiff_core.audit import Audit
from tests.browser.pages import give_name
from tests.browser.reviewing import VERDICT_OF, pressed, queue, recorded, reviewed_by, saved

pytestmark = pytest.mark.browser
NOTHING_KEPT = "!Object.keys(localStorage).some(name => name.startsWith('biasdiff-review:'))"


@pytest.fixture
def tab(context: BrowserContext) -> Callable[[], Page]:
    """A tab of one browser that may be left although not all is saved."""

    def open_tab() -> Page:
        page = context.new_page()
        page.on("dialog", lambda dialog: dialog.accept())  # “Leave?”
        return page

    return open_tab


@pytest.fixture
def server(serve: Callable[[Path], Server], undecided: Audit) -> Server:
    return serve(undecided.folder.workspace)


def test_presses_outlive_the_server(tab: Callable[[], Page], server: Server, undecided: Audit) -> None:
    page, audit = reviewed_by(tab(), server.url, undecided), undecided
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


def test_what_another_left_unsaved_is_recorded_as_theirs(tab: Callable[[], Page], server: Server, undecided: Audit) -> None:
    page, audit = reviewed_by(tab(), server.url, undecided), undecided
    ids = queue(audit)
    server.kill()
    pressed(page, "bn", waiting=2)
    page.close()

    server.start()
    later = tab()
    later.goto(f"{server.url}/review?audit={audit.folder.id}")
    card = later.get_by_label("Review card")
    expect(later.get_by_text("Give your name in the sidebar first")).to_be_visible()
    give_name(later, "Bo")
    expect(card).to_have_attribute("data-example", ids[0])
    later.get_by_role("heading", name="Review").click()
    pressed(later, "u", waiting=0)
    assert held(audit) == [(ids[0], "unsure", "Bo")]
    give_name(later, "Ana")
    saved(later, 2)
    expect(card).to_have_attribute("data-example", queue(audit)[0])
    assert recorded(audit) == [(ids[0], "biased", ""), (ids[1], "not_biased", "")]
    assert audit.log.verify() == []


def test_two_tabs_that_hold_presses_count_each_once(tab: Callable[[], Page], server: Server, undecided: Audit) -> None:
    one, other = (reviewed_by(tab(), server.url, undecided) for _ in range(2))
    ids = queue(undecided)  # both tabs show it
    server.kill()
    pressed(one, "bnu", waiting=3)
    pressed(other, "ib", waiting=2)
    server.start()
    one.reload()  # its new card finds what both have left in the browser, while the other sends its own by itself
    one.wait_for_function(NOTHING_KEPT)
    for page in (one, other):  # a card made after the other tab had sent all has nothing to save
        expect(page.get_by_label("Review card")).to_be_visible()
        expect(page.get_by_role("status").filter(has_text="saving")).to_have_count(0)
    twice = [(ids[0], "biased"), (ids[1], "not_biased"), (ids[2], "unsure"), (ids[0], "neutral_but_influential"), (ids[1], "biased")]
    assert sorted(row[:2] for row in recorded(undecided)) == sorted(twice)
    assert undecided.log.verify() == []


def test_a_browser_that_keeps_nothing_says_so_and_loses_nothing(tab: Callable[[], Page], server: Server, undecided: Audit) -> None:
    page = tab()
    page.add_init_script("Storage.prototype.setItem = () => { throw new DOMException('refused', 'QuotaExceededError'); }")
    reviewed_by(page, server.url, undecided)
    ids = queue(undecided)
    pressed(page, "b", waiting=0)
    server.kill()
    pressed(page, "nu", waiting=2)
    expect(page.get_by_role("status").filter(has_text="the browser keeps nothing: leave this page open")).to_be_visible()
    server.start()
    pressed(page, "", waiting=0)
    assert recorded(undecided) == [(id_, VERDICT_OF[key], "") for id_, key in zip(ids, "bnu", strict=False)]
    assert undecided.log.verify() == []


def held(audit: Audit) -> list[tuple[str, str, str]]:
    """(id, verdict, auditor) of what holds, in the order of the record."""
    current = audit.log.current()
    return [(id_, decision.verdict, decision.auditor) for id_, decision in sorted(current.items(), key=lambda item: item[1].created)]
