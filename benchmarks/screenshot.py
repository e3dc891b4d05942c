"""Screenshots of every page on an audit, light and dark, from the real server in headless Chromium.

python -m benchmarks.screenshot WORKSPACE AUDIT FOLDER
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import click
from playwright.sync_api import expect, sync_playwright

from biasdiff_core.workspace.audits import WORKSPACE_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("audits", "corpus", "probes", "explore", "review", "mitigate", "compare")
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
SETTLE = 4000  # milliseconds for charts to be drawn after the page has stopped running


@click.command()
@click.argument("workspace", type=click.Path(path_type=Path, exists=True))
@click.argument("audit")
@click.argument("folder", type=click.Path(path_type=Path))
def main(workspace: Path, audit: str, folder: Path) -> None:
    """Write <page>-light.png and <page>-dark.png into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    environment = {**os.environ, WORKSPACE_VARIABLE: str(workspace.resolve())}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for scheme in ("light", "dark"):
                context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
                page = context.new_page()
                page.set_default_timeout(60_000)
                page.request.get(f"http://127.0.0.1:{port}/_stcore/health", max_retries=10, timeout=60_000)
                for name in PAGES:
                    page.goto(f"http://127.0.0.1:{port}/{'' if name == 'audits' else name}?audit={audit}")
                    expect(page.get_by_text("Your name").first).to_be_visible(timeout=60_000)
                    understood = page.get_by_role("button", name="Understood")
                    if understood.count():
                        understood.first.click()
                    page.wait_for_timeout(SETTLE)
                    page.screenshot(path=folder / f"{name}-{scheme}.png", full_page=True)
            browser.close()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
