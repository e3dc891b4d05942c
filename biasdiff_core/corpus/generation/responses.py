"""Every request of a run as a line of JSON, written before anything is judged: what is paid for is kept, and a killed run goes on."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from biasdiff_core.errors import ArtefactError, ConfigError

log = logging.getLogger(__name__)

Outcome = Literal["answer", "failed", "no_format", "no_max_tokens"]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One request and what became of it.

    `outcome`: `no_format`, `no_max_tokens`: the server refused `response_format`, or `max_tokens` for `max_completion_tokens`.
    `bias_type`: what was asked for, None for all. `structured`: whether by JSON schema. `finish`, `served`: the server's finish reason
    and its name of the model. `detail`: what failed. `estimated`: the server did not say how many tokens it took.
    """

    created: str
    endpoint: str
    outcome: Outcome
    bias_type: str | None = None
    structured: bool = False
    text: str = ""
    finish: str = ""
    served: str = ""
    detail: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False


class ResponseLog:
    """The attempts of a run in `path`: first a line of the settings they were made with, then one line each.

    Opening a log that is there takes up its attempts, less a last line that a kill cut short. A request under way at that moment is
    in no log. Raises ConfigError when it was made with other settings, ArtefactError when it is not such a log.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.attempts: list[Attempt] = []
        self._settings = dict(settings)
        if path.exists():
            self._take_up()

    def append(self, attempt: Attempt) -> None:
        """Write `attempt` and have it on the disk before going on."""
        lines = [asdict(attempt)] if self.attempts else [self._settings, asdict(attempt)]
        # A file with settings alone is not made: the first attempt brings them along, over a log that was cut within that line.
        with self.path.open("a" if self.attempts else "w", encoding="utf8") as handle:
            # ASCII, because an answer may hold half a surrogate pair, which no UTF-8 can.
            handle.writelines(json.dumps(line) + "\n" for line in lines)
            handle.flush()
            os.fsync(handle.fileno())
        self.attempts.append(attempt)

    def _take_up(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            log.warning("%s: the last line was cut short and is left out", self.path)
        try:
            settings, *attempts = [json.loads(line) for line in whole.splitlines()] or [self._settings]
            self.attempts = [Attempt(**record) for record in attempts]
            different = [name for name in self._settings if settings.get(name) != self._settings[name]]
        except (ValueError, TypeError, AttributeError) as error:
            raise ArtefactError(f"{self.path} is no log of responses: {error}.", "Move it away, or name another --out.") from error
        if different:
            name = different[0]
            raise ConfigError(
                f"{self.path} was made with {name} {settings.get(name)!r}, not {self._settings[name]!r}.",
                "Give the same options to go on with it, or name another --out.",
            )
        if self.attempts and whole != content:
            os.truncate(self.path, len(whole))
