"""The review card in a real browser: keys lose nothing, record the right ids in order, and never act while somebody types."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from benchmarks.served import Server
from biasdiff_core.audit import Audit
from biasdiff_core.review.design import mixed_order
from biasdiff_core.workspace.audits import install_shipped
from biasdiff_ui.boot import SHIPPED_AUDITS
from biasdiff_ui.examples import load_examples
from biasdiff_ui.why import evidence, word_difference
from tests.browser.reviewing import VERDICT_OF, press_at_once, queue, recorded, reviewed_by, saved, signed_in

pytestmark = pytest.mark.browser


@pytest.fixture
def review(watched: Page, serve: Callable[[Path], Server], undecided: Audit) -> Page:
    """The review page of that audit, opened by its address on a fresh server, by an auditor called Ana."""
    return opened(watched, serve, undecided)


def opened(page: Page, serve: Callable[[Path], Server], audit: Audit) -> Page:
    return reviewed_by(page, serve(audit.folder.workspace).url, audit)


def holding(audit: Audit) -> dict[str, str]:
    return {id_: decision.verdict for id_, decision in audit.log.current().items()}


def test_twenty_fast_keys_lose_nothing(review: Page, undecided: Audit) -> None:
    ids = queue(undecided)
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
    for key in "213":  # the last one counts
        review.keyboard.press(key)
    reasons = review.get_by_role("group", name="Reason").get_by_role("button")
    expect(reasons.and_(review.locator("[aria-pressed=true]"))).to_have_text("3unfair generalisation")
    review.keyboard.press("3")
    expect(reasons.and_(review.locator("[aria-pressed=true]"))).to_have_count(0)
    review.keyboard.press("1")
    note = review.get_by_label("Note")
    note.click()
    note.press_sequentially("bnius z 23")
    review.get_by_role("textbox", name="Your name").press_sequentially("bnz")
    review.get_by_role("textbox", name="Your name").fill("Ana")
    review.get_by_role("textbox", name="Your name").press("Enter")
    expect(review.get_by_label("Review card")).to_have_attribute("data-example", first)
    assert recorded(undecided) == []
    review.get_by_role("heading", name="Review").click()
    review.keyboard.press("b")
    review.keyboard.press("n")  # a reason and a note are of one verdict
    saved(review, 2)
    second = mixed_order(undecided.ranking()["id"].tolist(), undecided.folder.id)[0][1]
    assert recorded(undecided) == [(first, "biased", "stereotype: bnius z 23"), (second, "not_biased", "")]


def test_a_held_key_or_a_shortcut_of_the_browser_decides_nothing_more(review: Page, undecided: Audit) -> None:
    ids = undecided.ranking()["id"].tolist()
    review.keyboard.press("Control+b")
    review.keyboard.down("b")
    review.keyboard.down("b")  # a second `down` without `up` is the repetition of a held key
    review.keyboard.up("b")
    review.keyboard.press("n")
    saved(review, 2)
    assert [row[:2] for row in recorded(undecided)] == [(ids[0], "biased"), (ids[1], "not_biased")]


def test_two_hundred_keys_at_once_lose_nothing(watched: Page, serve: Callable[[Path], Server], tmp_path: Path) -> None:
    """The shipped demo audit has examples enough; the presses come without a pause between them."""
    (folder,) = install_shipped(SHIPPED_AUDITS, tmp_path / "workspace")
    audit = Audit(folder)
    page = opened(watched, serve, audit)
    ids = queue(audit)
    keys = "bnbiu" * 40
    press_at_once(page, keys)
    saved(page, 200)
    assert recorded(audit) == [(id_, VERDICT_OF[key], "") for id_, key in zip(ids, keys, strict=False)]
    assert audit.log.verify() == []


def test_other_keys_hold_after_a_reload_and_can_be_turned_off(review: Page, undecided: Audit) -> None:
    ids = queue(undecided)
    card = review.get_by_label("Review card")
    review.get_by_text("Keys", exact=True).click()
    review.get_by_role("textbox", name="Biased", exact=True).fill("7")
    review.get_by_role("textbox", name="Not biased", exact=True).fill("7")
    review.get_by_role("button", name="Keep these keys").click()
    expect(review.get_by_text("are both on the key 7")).to_be_visible()
    review.get_by_role("textbox", name="Not biased", exact=True).fill("0")
    review.get_by_role("textbox", name="Reason: stereotype").fill("9")
    review.get_by_role("button", name="Keep these keys").click()
    expect(card.locator("button[data-act=biased] kbd")).to_have_text("7")
    review.get_by_role("heading", name="Review").click()
    for key in "b7n0":  # b and n do nothing any more
        review.keyboard.press(key)
    saved(review, 2)
    review.reload()
    signed_in(review)
    expect(card.locator("button[data-act=not_biased] kbd")).to_have_text("0")
    for key in "190":
        review.keyboard.press(key)
    saved(review, 3)
    assert recorded(undecided) == [(ids[0], "biased", ""), (ids[1], "not_biased", ""), (ids[2], "not_biased", "stereotype")]
    review.get_by_text("Keys", exact=True).click()
    keys_act = review.get_by_label("Keys act")
    keys_act.press("Space")  # a click could miss it, since the panel is still growing
    expect(keys_act).not_to_be_checked()
    review.get_by_role("button", name="Keep these keys").click()
    expect(card.locator("button[data-act=biased] kbd")).to_be_hidden()
    review.get_by_role("heading", name="Review").click()
    review.keyboard.press("7")
    card.locator("button[data-act=not_biased]").click()
    saved(review, 4)
    assert recorded(undecided)[-1][:2] == (ids[3], "not_biased")


def test_a_key_leads_to_similar_ones_and_a_button_back(review: Page, undecided: Audit) -> None:
    ids = queue(undecided)
    card = review.get_by_label("Review card")
    for key in "bm":
        review.keyboard.press(key)
    expect(review.get_by_text("nearest first")).to_be_visible()
    expect(card.get_by_text("1 of 38 in the queue")).to_be_visible()
    near = card.get_attribute("data-example")
    review.keyboard.press("n")
    saved(review, 2)
    assert [row[:2] for row in recorded(undecided)] == [(ids[0], "biased"), (near, "not_biased")]
    held = undecided.log.current()[str(near)]
    assert held.selection and held.selection["queue"] == f"similar to {ids[1]}"
    review.get_by_role("button", name="Back to the earlier queue").click()
    expect(card).to_have_attribute("data-example", ids[1])


def test_the_card_shows_twins_duplicates_and_what_lies_near(watched: Page, serve: Callable[[Path], Server], undecided: Audit) -> None:
    copied, copy = undecided.ranking()["id"].iloc[[0, 4]]
    report = undecided.artefact("corpus").path("report.json")
    report.write_text(json.dumps({**json.loads(report.read_text()), "near_duplicate_groups": [[copied, copy]]}))
    undecided.log.decide(copy, "unsure", "Ana")
    examples = load_examples(undecided, undecided.plan())
    assert examples is not None
    found = evidence(examples, copied)
    page = opened(watched, serve, undecided)
    card = page.get_by_label("Review card")
    expect(card).to_have_attribute("data-example", copied)
    near = found.nearest[0]
    assert near.twin_cosine is not None
    probes, copies, neighbours = (card.locator(".near").nth(number) for number in range(3))
    expect(probes.locator("div").nth(0)).to_have_text(f"{near.cosine:.3f}")
    expect(probes.locator("div").nth(3)).to_have_text(f"{near.twin_cosine:.3f}")
    expect(probes.locator("div").nth(5)).to_have_text(near.probe.twin)
    alone = [piece for piece, shared in word_difference(near.probe.text, near.probe.twin) if not shared]
    assert alone
    expect(probes.locator("div").nth(5).locator(".other")).to_have_text(alone)
    expect(copies.locator("div")).to_have_text(["rank 5", "unsure", examples.table["text"].iloc[4]])
    expect(neighbours.locator(".number")).to_have_text([f"rank {examples.place[id_] + 1}" for id_ in found.neighbours])


def test_the_text_is_shaded_by_token_on_a_key(watched: Page, serve: Callable[[Path], Server], undecided: Audit) -> None:
    undecided.shade_tokens()
    page = opened(watched, serve, undecided)
    text = undecided.ranking()["text"].iloc[0]
    body = page.get_by_label("Review card").locator(".body")
    expect(body).to_have_text(text)
    expect(body.locator("span")).to_have_count(0)
    page.keyboard.press("t")
    expect(page.get_by_text("raises", exact=True)).to_be_visible()
    expect(body.locator("span")).to_have_count(len(text))  # of a tokenizer by bytes
    expect(body).to_have_text(text)
    expect(body.locator("span").nth(1)).to_have_attribute("title", re.compile(r"^influence [+−]0\.\d{4}, loss \d+\.\d{2} nats$"))
    expect(body.locator("span").nth(1)).to_have_attribute("style", re.compile("background-color"))
    page.keyboard.press("t")
    expect(page.get_by_text("loss: the model did not expect this token")).to_be_visible()
    page.keyboard.press("t")
    expect(body.locator("span")).to_have_count(0)
    assert recorded(undecided) == []
