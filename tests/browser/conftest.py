"""A real server on a free port, a real Chromium, and a watch on what the page does."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import ConsoleMessage, Page

from benchmarks.served import CHROMIUM, FLAGS, ROOT
from biasdiff_core.workspace.audits import WORKSPACE_VARIABLE

# On a deep link Streamlit's client first asks for these under the page's own path, gets 404, and then asks at the root.
PROBED = re.compile(r"http://127\.0\.0\.1:\d+/\w+/_stcore/(health|host-config)$")


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """The system's Chromium; nothing is downloaded."""
    if not shutil.which(CHROMIUM):
        pytest.skip(f"There is no {CHROMIUM}: apt-get install chromium, or name one in BIASDIFF_CHROMIUM.")
    return {**browser_type_launch_args, "executable_path": CHROMIUM, "args": FLAGS}


class Server:
    """The app as it is served to people; `kill` ends it without warning."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start it and wait until it says that it serves."""
        arguments = ["-m", "streamlit", "run", str(ROOT / "app.py"), "--server.port", str(self._port)]
        environment = {**os.environ, WORKSPACE_VARIABLE: str(self._workspace), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "URL:" in line:
                self._reader = threading.Thread(target=self._process.stdout.read)  # a full pipe would block the server
                self._reader.start()
                return
        raise AssertionError("The server ended: " + "".join(said))

    def memory(self) -> int:
        """Resident bytes of the server process."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Server]]:
    """Serve the app on a workspace; every server ends with the test."""
    servers: list[Server] = []

    def start(workspace: Path) -> Server:
        servers.append(Server(workspace))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def watched(page: Page) -> Iterator[Page]:
    """A page that must send no request off this machine and log no error."""
    outside: list[str] = []
    errors: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error" and not PROBED.match(message.location["url"]):
            errors.append(f"{message.text} ({message.location['url']})")

    def note(url: str) -> None:
        if not re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:", url):
            outside.append(url)

    page.on("request", lambda request: note(request.url))
    page.on("websocket", lambda socket: note(socket.url))
    page.on("console", on_console)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    assert outside == []
    assert errors == []
