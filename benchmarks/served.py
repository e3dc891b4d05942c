"""The app, or another Streamlit script, on a free port of this machine, and the system's Chromium to look at it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
from playwright.sync_api import Browser, Playwright

from biasdiff_core.workspace.audits import WORKSPACE_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = os.environ.get("BIASDIFF_CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]


class Server:
    """The app, or another Streamlit script, on a workspace, as it is served to people; `kill` ends it without warning.

    `start_seconds`: from starting its process to its first answer.
    """

    def __init__(self, workspace: Path, script: Path = ROOT / "app.py", environment: Mapping[str, str] | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._command = [sys.executable, "-m", "streamlit", "run", str(script), "--server.port", str(port)]
        self._environment = {**os.environ, **(environment or {}), WORKSPACE_VARIABLE: str(workspace.resolve())}
        self.url = f"http://127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers. Raises RuntimeError with what it said when it ends instead."""
        started = time.perf_counter()
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "URL:" in line:
                break
        else:
            raise RuntimeError("The server ended: " + "".join(said))
        self._reader = threading.Thread(target=self._process.stdout.read)  # a full pipe would block the server
        self._reader.start()
        urllib.request.urlopen(f"{self.url}/_stcore/health").close()
        self.start_seconds = time.perf_counter() - started

    def gigabytes(self) -> float:
        """Resident memory of the server process."""
        return float(psutil.Process(self._process.pid).memory_info().rss) / 1e9

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def served(workspace: Path, script: Path = ROOT / "app.py") -> Iterator[Server]:
    """Serve the script, by default the app, on the workspace."""
    server = Server(workspace, script)
    try:
        yield server
    finally:
        server.kill()


def chromium(playwright: Playwright) -> Browser:
    """The system's Chromium, headless."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
