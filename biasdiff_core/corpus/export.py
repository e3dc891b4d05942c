"""The cleaned dataset: the source less the removed examples, in its own format, everything else as it was."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from biasdiff_core.config import CorpusConfig
from biasdiff_core.corpus.read import DEMO_FILE, content_rows, open_corpus
from biasdiff_core.corpus.sources import local_path
from biasdiff_core.errors import DataError

log = logging.getLogger(__name__)

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def export_without(config: CorpusConfig, removed: Collection[str], target: Path) -> int:
    """Write the corpus of `config` less the examples with the ids `removed` to `target`; the number of rows written.

    Format, columns, order and values are those of the source: text files keep the bytes of each row, Parquet its schema,
    a dataset folder its features and other splits (a dataset of the hub becomes such a folder). Rows that were empty are
    kept. Raises DataError when `target` exists, has no folder or another suffix, or an id is not in the source.
    """
    _check_target(config, target)
    table = open_corpus(config)
    ids = [found.id for found in content_rows(table, config)]
    unknown = set(removed).difference(id_ for id_ in ids if id_ is not None)
    if unknown:
        raise DataError(
            f"{len(unknown)} id(s) to remove are not in {config.path}, e.g. {min(unknown)}.",
            "Name the file that the audit was made from, unchanged.",
        )
    gone = set(removed)
    keep = [id_ not in gone for id_ in ids]
    partial = target.with_name(f"{target.name}.partial")
    try:
        table.copy(keep, partial)
        os.replace(partial, target)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)
    log.info("wrote %d of %d rows to %s", sum(keep), len(keep), target)
    return sum(keep)


def _check_target(config: CorpusConfig, target: Path) -> None:
    if target.exists():
        raise DataError(f"{target} is there already.", "Name another file, or delete it first.")
    if not target.parent.is_dir():
        raise DataError(f"There is no folder {target.parent}.", "Make it first, or name another.")
    source = local_path(config.path, DEMO_FILE)
    suffix = source.suffix if source is not None and source.is_file() else ""
    if suffix and target.suffix.lower() != suffix.lower():
        raise DataError(f"The target {target.name} has not the suffix {suffix!r} of the source.", f"The format is kept: name it *{suffix}.")


def safe_cell(value: str) -> str:
    """`value` for a CSV cell that a spreadsheet opens: what it would take for a formula gets an apostrophe in front."""
    return f"'{value}" if value.startswith(FORMULA_STARTS) else value
