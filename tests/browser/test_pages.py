"""Every page by deep link on a fresh server, light and dark, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from benchmarks.served import Server
from biasdiff_core.workspace.audits import list_audits
from tests.browser.pages import PATIENCE, settled

pytestmark = pytest.mark.browser
PAGES = {
    "": "Audits",
    "corpus": "Corpus",
    "probes": "Probes",
    "explore": "Explore",
    "review": "Review",
    "mitigate": "Mitigate",
    "compare": "Compare",
}
# By how many pixels the page, or a row of choices on it, is wider than is seen; Streamlit scrolls the main part, not the document.
WIDER = "Math.max(...[...document.querySelectorAll('html, .stMain, [role=radiogroup]')].map(e => e.scrollWidth - e.clientWidth))"


@pytest.fixture
def browser_context_args(browser_context_args: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    """The colour scheme and width that a test names in its parameters."""
    scheme, width = getattr(request, "param", ("light", 1280))
    return {**browser_context_args, "color_scheme": scheme, "viewport": {"width": width, "height": 900}}


@pytest.mark.parametrize("path", PAGES)
def test_a_deep_link_on_a_fresh_server_leads_to_its_page(
    path: str, watched: Page, serve: Callable[[Path], Server], finished_workspace: Path
) -> None:
    audit = list_audits(finished_workspace)[0].id
    watched.goto(f"{serve(finished_workspace).url}/{path}?audit={audit}")
    expect(watched.get_by_role("heading", name=PAGES[path], exact=True)).to_be_visible(timeout=PATIENCE)
    expect(watched.get_by_test_id("stSidebar").get_by_label("Your name", exact=True)).to_be_visible()  # app.py ran, so boot did
    settled(watched)
    expect(watched.get_by_test_id("stSidebar").get_by_role("combobox", name="Audit")).to_have_value(audit)


@pytest.mark.parametrize("browser_context_args", [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)], indirect=True)
def test_every_page_in_both_palettes_and_widths(watched: Page, serve: Callable[[Path], Server], finished_workspace: Path) -> None:
    server = serve(finished_workspace)
    for path, title in PAGES.items():
        watched.goto(f"{server.url}/{path}")
        expect(watched.get_by_role("heading", name=title, exact=True)).to_be_visible(timeout=PATIENCE)
        settled(watched)
        assert watched.evaluate(WIDER) <= 0, f"{title} is cut at its side"
