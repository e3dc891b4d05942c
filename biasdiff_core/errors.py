"""Exceptions of BiasDiff. Each message says what is wrong and how to mend it.

BiasDiffError
├── ConfigError          a choice that cannot be meant, or two that contradict each other
├── MissingDependency    an optional package is not installed
├── DataError            a corpus, probing set or evaluation file that cannot be used as it is
├── ArtefactError        a stage result that is missing, does not match, or is corrupt
├── NumericError         a computation that left the finite numbers or would be meaningless
├── ReviewError          a decision or removal set that cannot be accepted
└── JobError             a background job that cannot be started, resumed or cancelled
"""

from __future__ import annotations

import re


class BiasDiffError(Exception):
    """Base of every error that a user can mend.

    `what` says what is wrong (with the two values that disagree); `mend` says what to do, ideally a command.
    """

    def __init__(self, what: str, mend: str = "") -> None:
        self.what = what
        self.mend = mend
        super().__init__(f"{what} {mend}".strip())


def one_line(error: Exception, limit: int = 200) -> str:
    """What another package's error says: one line of at most `limit` characters, no terminal escapes; its class where it says nothing."""
    said = str((error.strerror if isinstance(error, OSError) else None) or error)
    words = " ".join(re.sub(r"\x1b\[[0-9;]*m|[\x00-\x1f\x7f]", " ", said).split()).rstrip(".")
    return (words if len(words) <= limit else f"{words[: limit - 1]}…") or type(error).__name__


class ConfigError(BiasDiffError):
    """A choice that cannot be meant."""


class MissingDependency(BiasDiffError):
    """An optional package is missing."""

    def __init__(self, package: str, needed_for: str, install: str) -> None:
        super().__init__(f"{needed_for} needs the package {package!r}.", f"Install it: {install}")


class DataError(BiasDiffError):
    """Input data that cannot be used as it is."""


class ArtefactError(BiasDiffError):
    """A stage result that is missing, mismatched or corrupt."""


class NumericError(BiasDiffError):
    """A computation that is not finite or would be meaningless."""


class ReviewError(BiasDiffError):
    """A decision or removal set that cannot be accepted."""


class JobError(BiasDiffError):
    """A background job that cannot be started, resumed or cancelled."""
