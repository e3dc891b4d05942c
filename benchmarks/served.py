"""The app, or another Streamlit script, on a free port of this machine, and the system's Chromium to look at it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

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
LOOK_EVERY = 0.02  # seconds


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that answers. `start_seconds`: from starting its process to its first answer."""

    url: str
    process: psutil.Process
    start_seconds: float

    def gigabytes(self) -> float:
        """Resident memory of the server process."""
        return float(self.process.memory_info().rss) / 1e9


@contextmanager
def served(workspace: Path, script: Path = ROOT / "app.py") -> Iterator[Served]:
    """Serve the script, by default the app, on the workspace."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(script), "--server.port", str(port)]
    environment = {**os.environ, WORKSPACE_VARIABLE: str(workspace.resolve())}
    started = time.perf_counter()
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        while not _answers(f"{url}/_stcore/health"):
            if server.poll() is not None:
                raise SystemExit(f"The server of {script.name} ended with {server.returncode}: {' '.join(command)}")
            time.sleep(LOOK_EVERY)
        yield Served(url=url, process=psutil.Process(server.pid), start_seconds=time.perf_counter() - started)
    finally:
        server.terminate()
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as answer:
            return bool(answer.status == 200)
    except URLError:
        return False


def chromium(playwright: Playwright) -> Browser:
    """The system's Chromium, headless."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
