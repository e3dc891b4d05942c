"""Screenshots of the pages on an audit, light and dark, from the real server in headless Chromium.

python -m benchmarks.screenshot pages WORKSPACE AUDIT FOLDER
python -m benchmarks.screenshot pages WORKSPACE AUDIT FOLDER --page explore --width 390
python -m benchmarks.screenshot tour        the pictures of docs/tour.md: the shipped demo audit in a workspace of its own
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.served import ROOT, Server, chromium, served
from biasdiff_ui.boot import SHIPPED_AUDITS

PAGES = ("audits", "corpus", "probes", "explore", "review", "mitigate", "compare")
SCHEMES = ("light", "dark")
SETTLE = 4000  # milliseconds for charts to be drawn after the page has stopped running
IDLE = ".stApp[data-test-script-state=notRunning]"
PATIENCE = 300_000  # milliseconds, for a machine that does other work beside
TOUR_HEIGHT = 1000  # pixels of a page that its picture in the tour shows
COLOURS = 256  # of the pictures of the tour: a palette makes the files half as large; k-means keeps the few pixels of the verdicts


@click.group()
def main() -> None:
    """Screenshots of the app."""


@main.command("pages")
@click.argument("workspace", type=click.Path(path_type=Path, exists=True))
@click.argument("audit")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--page", "pages", type=click.Choice(PAGES), multiple=True, help="May be repeated (default: all).")
@click.option("--width", type=int, default=1280, show_default=True, help="Pixels; other widths than 1280 are put into the names.")
@click.option("--height", type=int, default=900, show_default=True, help="Pixels; what lies below is not in the picture.")
def pages_of(workspace: Path, audit: str, folder: Path, pages: tuple[str, ...], width: int, height: int) -> None:
    """Write <page>-light.png and <page>-dark.png into FOLDER."""
    suffix = "" if width == 1280 else f"-{width}"
    shoot(workspace, audit, folder, pages or PAGES, width, height, suffix=suffix)


@main.command()
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / "docs" / "images" / "tour", help="Default: docs/images/tour.")
def tour(folder: Path) -> None:
    """Write the pictures of docs/tour.md: every page of the shipped demo audit as an auditor called Ana sees it."""
    (audit,) = (path.name for path in SHIPPED_AUDITS.iterdir())
    with tempfile.TemporaryDirectory() as workspace:
        shoot(Path(workspace), audit, folder, PAGES, 1280, TOUR_HEIGHT, auditor="Ana")
    pictures = sorted(folder.glob("*.png"))
    for path in pictures:
        Image.open(path).convert("RGB").quantize(COLOURS, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True)
    click.echo(f"{len(pictures)} pictures, {sum(path.stat().st_size for path in pictures) / 1e6:.2f} MB")


def shoot(
    workspace: Path, audit: str, folder: Path, pages: tuple[str, ...], width: int, height: int, *, suffix: str = "", auditor: str = ""
) -> None:
    """A picture of each page in both palettes. `auditor`: the name to give; without one what needs a name is greyed."""
    folder.mkdir(parents=True, exist_ok=True)
    with served(workspace) as server, sync_playwright() as playwright:
        browser = chromium(playwright)
        for scheme in SCHEMES:
            page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
            page.set_default_timeout(PATIENCE)
            for name in pages:
                open_page(page, server, name, audit, auditor)
                page.screenshot(path=folder / f"{name}{suffix}-{scheme}.png")
        browser.close()


def open_page(page: Page, server: Server, name: str, audit: str, auditor: str) -> None:
    """Go to a page, give the name, close the content warning, and wait until all is drawn."""
    page.goto(f"{server.url}/{'' if name == 'audits' else name}?audit={audit}")
    expect(page.get_by_test_id("stHeading").first).to_be_visible(timeout=PATIENCE)
    expect(page.locator(IDLE)).to_be_attached(timeout=PATIENCE)
    if auditor:
        box = page.get_by_role("textbox", name="Your name")
        box.fill(auditor)
        box.press("Enter")
        expect(page.locator(IDLE)).to_be_attached(timeout=PATIENCE)
    understood = page.get_by_role("button", name="Understood")
    if understood.count():
        understood.first.click()
    page.wait_for_timeout(SETTLE)
    expect(page.locator(IDLE)).to_be_attached(timeout=PATIENCE)


if __name__ == "__main__":
    main()
