"""The review card by itself, called as Streamlit calls it: cleanups come before or after the next update, as it happens."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from biasdiff_ui.review_card import FOLDER
from biasdiff_ui.review_keys import USUAL

pytestmark = pytest.mark.browser

PLAY = """async ({ source, data, clean }) => {
  const { default: draw } = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  const root = document.body.appendChild(document.createElement("div")).attachShadow({ mode: "open" });
  const judged = [];
  const setStateValue = (_, { logs }) => judged.push(logs.at(-1).events.at(-1)?.example);
  const update = () => draw({ key: "card", name: "card", data, parentElement: root, setStateValue });
  const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const first = update();
  press("b");
  if (clean === "before") first?.();
  const second = update(); // the server has not heard of the press, and is still at the first card
  if (clean === "after") first?.();
  press("n");
  const cards = root.querySelectorAll("section").length;
  root.host.remove();
  second?.();
  press("i");
  return { judged, cards };
}"""


def card(place: int) -> dict[str, Any]:
    lists = {name: [] for name in ("given", "nearest", "scorers", "checkpoints", "duplicates", "neighbours")}
    words = {"prompt": "", "text": f"Sentence {place}.", "source": "made", "group": ""}
    numbers = {"place": place, "rank": place + 1, "total": 5, "score": 0.5, "cosine": None, "contrast": None, "copies": 0}
    return {"id": f"example-{place}", "drawn": False, "shades": None, **lists, **words, **numbers}


@pytest.mark.parametrize("clean", ["before", "after", "never"])
def test_an_update_keeps_the_card_and_its_place_and_a_card_off_the_page_hears_nothing(page: Page, clean: str) -> None:
    data = {
        "audit": "audit",
        "auditor": "Ana",
        "queue": "queue",
        "kind": "undecided",
        "place": 0,
        "length": 5,
        "cards": [card(place) for place in range(5)],
        "probes": {},
        "others": {},
        "acknowledged": {},
        "keys": {"on": True, "of": dict(USUAL)},
        "verdicts": [],
        "reasons": [],
        "noSimilar": "",
        "unshaded": "",
    }
    source = (FOLDER / "review_card.js").read_text(encoding="utf8")
    assert page.evaluate(PLAY, {"source": source, "data": data, "clean": clean}) == {"judged": ["example-0", "example-1"], "cards": 1}
