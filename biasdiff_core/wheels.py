"""Files inside wheels that only carry data: found without importing them. Loads nothing heavy."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def file_in_wheel(module: str, path: str) -> Path | None:
    """Where the file or folder `path` of the installed package `module` lies; None when there is none."""
    spec = importlib.util.find_spec(module)
    places = (spec.submodule_search_locations or []) if spec else []
    return next((Path(place) / path for place in places if (Path(place) / path).exists()), None)
