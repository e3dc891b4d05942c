"""How far an audit's running stage is: one small file that the job rewrites and the app reads."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from biasdiff_core.results import Progress
from biasdiff_core.workspace.artefacts import write_atomic

SECONDS_BETWEEN_WRITES = 0.25


@dataclass(frozen=True, kw_only=True)
class ProgressRecord:
    """The last progress written. `started` (of the stage), `updated`: seconds since the epoch; `eta_seconds` counts from `updated`."""

    progress: Progress
    started: float
    updated: float
    eta_seconds: float | None


class ProgressWriter:
    """A progress callback that writes `<audit>/progress/current.json`: at most 4 times a second, and the first and last of each stage.

    The expected remaining time is that of the steps seen here, so that a resumed stage is not taken for a fast one.
    """

    def __init__(self, audit: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = _path(audit)
        self._clock = clock
        self._first = self._last = Progress(stage="", done=0, total=0)
        self._started = 0.0
        self._written = 0.0

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        begins = progress.stage != self._last.stage or progress.done < self._last.done
        self._last = progress
        if begins:
            self._first, self._started = progress, now
        if begins or progress.done >= progress.total or now - self._written >= SECONDS_BETWEEN_WRITES:
            self._written = now
            eta = _eta(progress.done - self._first.done, progress.total - progress.done, now - self._started)
            record = {"progress": asdict(progress), "started": self._started, "updated": now, "eta_seconds": eta}
            write_atomic(self._path, json.dumps(record))


def read_progress(audit: Path) -> ProgressRecord | None:
    """The last progress of the audit, None when nothing was written yet."""
    try:
        record = json.loads(_path(audit).read_text(encoding="utf8"))
    except FileNotFoundError:
        return None
    return ProgressRecord(**{**record, "progress": Progress(**record["progress"])})


def _path(audit: Path) -> Path:
    return audit / "progress" / "current.json"


def _eta(done: int, remaining: int, elapsed: float) -> float | None:
    return elapsed * remaining / done if done > 0 else None
