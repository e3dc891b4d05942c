"""Probing sets to compare: the paper's, our own, and benchmarks taken as indicators (the paper's Figure 5 and Table 9)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.record import DATA, require_data
from biasdiff_core.corpus.recipes import build
from biasdiff_core.evaluation.stereoset import dev_pairs

OWN = Path(__file__).resolve().parents[1] / "assets" / "probes" / "en.csv"


def probing_set(name: str, folder: Path) -> Path:
    """A CSV with the column `text`, written into `folder` where it is not one already, once."""
    path = folder / f"probes-{name}.csv"
    if path.exists():
        return path
    found = SETS[name]()
    if isinstance(found, Path):
        return found
    with path.open("w", encoding="utf8", newline="") as handle:
        csv.writer(handle).writerows([["text"], *([text] for text in found)])
    return path


def _recipe(name: str) -> list[str]:
    return [row[0] for row in build(name, data=DATA).rows]


def _balance() -> list[str]:
    """The biased rows of the recipe: stereotypes of BUG and hate speech."""
    return [row[0] for row in build("balance", data=DATA).rows if row[1] == "1"]


def _stereoset() -> list[str]:
    return [stereotype for stereotype, _ in dev_pairs(str(require_data("stereoset", "dev.json")), 10_000, 0)]


SETS: Mapping[str, Callable[[], Path | list[str]]] = {
    "bias_diff": lambda: require_data("trex_mix", "probe.csv"),
    "own": lambda: OWN,
    "wino": lambda: _recipe("wino"),
    "balance": _balance,
    "seat": lambda: _recipe("seat"),
    "crows": lambda: _recipe("crows"),
    "stereoset": _stereoset,
}
