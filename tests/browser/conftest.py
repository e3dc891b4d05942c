"""A real server on a free port, a real Chromium, and a watch on what the page does."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import ConsoleMessage, Page

from benchmarks.served import CHROMIUM, FLAGS, Server
from biasdiff_core.audit import Audit
from tests.undecided import undecided_audit

# On a deep link Streamlit's client first asks for these under the page's own path, gets 404, and then asks at the root.
PROBED = re.compile(r"http://127\.0\.0\.1:\d+/\w+/_stcore/(health|host-config)$")


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """The system's Chromium; nothing is downloaded."""
    if not shutil.which(CHROMIUM):
        pytest.skip(f"There is no {CHROMIUM}: apt-get install chromium, or name one in BIASDIFF_CHROMIUM.")
    return {**browser_type_launch_args, "executable_path": CHROMIUM, "args": FLAGS}


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Serve the app on a workspace, with what else its environment says; every server ends with the test."""
    servers: list[Server] = []

    def start(workspace: Path, **environment: str) -> Server:
        servers.append(Server(workspace, environment={"OMP_NUM_THREADS": "1", **environment}))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def undecided(finished_workspace: Path) -> Audit:
    """The finished audit in a workspace of the test's own, before anybody has decided anything."""
    return undecided_audit(finished_workspace)


@pytest.fixture
def watch() -> Iterator[Callable[[Page], Page]]:
    """Watch a page, which must send no request off this machine and log no error until the test ends."""
    outside: list[str] = []
    errors: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error" and not PROBED.match(message.location["url"]):
            errors.append(f"{message.text} ({message.location['url']})")

    def note(url: str) -> None:
        if not re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:", url):
            outside.append(url)

    def begin(page: Page) -> Page:
        page.on("request", lambda request: note(request.url))
        page.on("websocket", lambda socket: note(socket.url))
        page.on("console", on_console)
        page.on("pageerror", lambda error: errors.append(str(error)))
        return page

    yield begin
    assert outside == []
    assert errors == []


@pytest.fixture
def watched(page: Page, watch: Callable[[Page], Page]) -> Page:
    """The test's own page, watched."""
    return watch(page)
