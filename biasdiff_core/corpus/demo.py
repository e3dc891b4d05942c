"""The demo corpus, probes and held-out text that come with the project."""

from __future__ import annotations

from pathlib import Path

from biasdiff_core.errors import DataError

DEMO_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "demo"


def demo_path(name: str) -> Path:
    """Path of one demo file (`corpus.csv`, `probes.csv`, `heldout.txt`). Raises DataError when it is not there."""
    path = DEMO_FOLDER / name
    if not path.is_file():
        raise DataError(f"The demo file {path} is missing.", "Use a whole checkout of the project, or name a file of your own.")
    return path
