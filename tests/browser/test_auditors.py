"""Several auditors at once, each in a browser of their own: nothing is lost, and each sees by itself what the others have recorded."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from benchmarks.served import Server
from biasdiff_core.audit import Audit
from biasdiff_core.review.decisions import ADJUDICATION
from biasdiff_core.workspace.audits import install_shipped
from biasdiff_ui.boot import SHIPPED_AUDITS
from tests.browser.pages import choose, settled
from tests.browser.reviewing import VERDICT_OF, press_at_once, queue, recorded, reviewed_by, saved

pytestmark = pytest.mark.browser

AUDITORS, PRESSES = 10, 200  # of each
AT_A_TIME = 50  # presses before it is the next auditor's turn


@pytest.fixture
def at_work(
    new_context: Callable[[], BrowserContext], watch: Callable[[Page], Page], serve: Callable[[Path], Server]
) -> Callable[..., list[Page]]:
    """Open the review page of an audit on one server, once for each name, each in a browser of its own."""

    def open_pages(audit: Audit, *names: str) -> list[Page]:
        url = serve(audit.folder.workspace).url
        return [reviewed_by(watch(new_context().new_page()), url, audit, name) for name in names]

    return open_pages


def choose_queue(page: Page, name: str) -> None:
    choose(page, "Queue", name)
    page.get_by_role("heading", name="Review").click()


def test_two_at_once_lose_nothing_and_settle_what_they_differ_on(at_work: Callable[..., list[Page]], undecided: Audit) -> None:
    ana, bo = both = at_work(undecided, "Ana", "Bo")
    ids = queue(undecided)
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
    choose_queue(ana, "disagreements, by rank")
    card = ana.get_by_label("Review card")
    expect(card).to_have_attribute("data-example", ids[1])
    expect(card.get_by_text("Ana: biased", exact=True)).to_be_visible()
    expect(card.get_by_text("Bo: not biased", exact=True)).to_be_visible()
    ana.keyboard.press("n")
    expect(bo.get_by_text("1 disagreement to settle")).to_be_visible()
    held = undecided.log.current()[ids[1]]
    assert (held.auditor, held.verdict, (held.selection or {})["queue"]) == ("Ana", "not_biased", ADJUDICATION)
    assert undecided.log.verify() == []
    ana.get_by_text("Agreement between auditors").click()
    # What was judged stays as it was. Three examples have two verdicts, `unsure` being none: b b, b n, n n. Alpha is 1 - 5 * 2 / (36 - 18),
    # 4/9. Of Ana's verdicts 2/3 are `biased`, of Bo's 1/3: chance agrees on 4/9, they on 2/3, so kappa is (2/3 - 4/9) / (5/9), 2/5.
    for column, words in enumerate(("all examples", "0.444, n = 3", "0.400, n = 3")):  # too few for an interval
        expect(ana.get_by_test_id(f"glide-cell-{column}-0")).to_have_text(words)


def test_ten_at_once_lose_none_of_two_thousand(at_work: Callable[..., list[Page]], tmp_path: Path) -> None:
    (folder,) = install_shipped(SHIPPED_AUDITS, tmp_path / "workspace")
    audit = Audit(folder)
    pages = at_work(audit, *(names := [f"Auditor {number}" for number in range(AUDITORS)]))
    ids = queue(audit)  # of all, since nobody has decided before the last has come
    keys = {name: ("bniu" * PRESSES)[number:][:PRESSES] for number, name in enumerate(names)}
    for start in range(0, PRESSES, AT_A_TIME):
        for name, page in zip(names, pages, strict=True):
            press_at_once(page, keys[name][start : start + AT_A_TIME])
    for page in pages:
        saved(page, PRESSES)
        settled(page)
    for name in names:
        assert recorded(audit, name) == [(id_, VERDICT_OF[key], "") for id_, key in zip(ids, keys[name], strict=False)]
    assert sum(action.count for action in audit.log.actions()) == AUDITORS * PRESSES
    assert audit.log.verify() == []
