"""Work in a process of its own, so that its peak of memory is not that of what was done before."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def alone(function: Callable[..., T], *arguments: object) -> T:
    """What it gives, called in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def peak_bytes() -> int:
    """Peak resident memory of this process. Linux only: `ru_maxrss` would count what its parent held when it was started."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf8").splitlines())
    return int(status["VmHWM"].split()[0]) * 1024
