"""axe-core on every page of the shipped demo audit, light and dark: nothing serious or critical."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from benchmarks.served import Server
from biasdiff_ui.boot import SHIPPED_AUDITS
from tests.browser.pages import PATIENCE, settled
from tests.browser.test_pages import PAGES

Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install -e '.[dev]'").Axe
pytestmark = pytest.mark.browser


@pytest.fixture
def browser_context_args(browser_context_args: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    """The palette that a test names."""
    return {**browser_context_args, "color_scheme": request.param, "viewport": {"width": 1280, "height": 1000}}


def serious(page: Page) -> list[tuple[str, str]]:
    """(rule, element) of each serious or critical violation."""
    found = Axe().run(page).response["violations"]
    return [
        (violation["id"], node["html"][:200])
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("browser_context_args", ["light", "dark"], indirect=True)
def test_nothing_serious_on_any_page(watched: Page, serve: Callable[[Path], Server], tmp_path: Path) -> None:
    url, audit = serve(tmp_path).url, next(SHIPPED_AUDITS.iterdir()).name
    found = {}
    for path, title in PAGES.items():
        watched.goto(f"{url}/{path}?audit={audit}")
        expect(watched.get_by_role("heading", name=title, exact=True)).to_be_visible(timeout=PATIENCE)
        settled(watched)
        if violations := serious(watched):
            found[title] = violations
    assert found == {}
