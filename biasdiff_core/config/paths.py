"""Paths in an audit's choices, made to mean the same from every folder."""

from __future__ import annotations

import os
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

# Fields that hold a path, a name that stands for what comes with the project, or a Hugging Face id.
PATHS = ("path", "include_path", "adapter", "dev")
NAMES = ("demo", "bundled", "paper", "probes")  # that stand for no path, also where a file of that name lies about

Config = TypeVar("Config")


def anchored(config: Config) -> Config:
    """The choices with every relative path that is there now made absolute; names, ids and paths of nothing stay as they are."""
    changes: dict[str, Any] = {}
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if is_dataclass(value):
            changes[field.name] = anchored(value)
        elif isinstance(value, str) and (field.name in PATHS or field.name == "name" and hasattr(config, "revision")):
            changes[field.name] = _absolute(value)
    return replace(config, **changes)  # type: ignore[type-var]


def _absolute(path: str) -> str:
    """`path`, or `folder#split`, from the root where it is there."""
    folder, sign, split = path.rpartition("#")
    for local, rest in ((path, ""), (folder, sign + split)):
        if local and local not in NAMES and _exists(local):
            return os.path.abspath(Path(local).expanduser()) + rest
    return path


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long a name, no such home folder, a NUL in it: refused where it is read
        return False
