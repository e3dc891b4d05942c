"""Datasets of the package `datasets`: folders saved by `save_to_disk`, and the Hugging Face hub. Only this module imports it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from biasdiff_core.corpus.formats import BATCH, Row, Table, arrow_rows
from biasdiff_core.errors import DataError, MissingDependency, one_line


def _package() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependency("datasets", "A dataset folder or hub id", "pip install 'biasdiff[datasets]'") from error
    return datasets


class SavedDataset(Table):
    """One split of a dataset. `whole`: the `DatasetDict` that it stands in, if any, whose other splits a copy keeps."""

    unit = "row"

    def __init__(self, dataset: Any, split: str, whole: Any = None) -> None:
        self._dataset, self._split, self._whole = dataset, split, whole

    def columns(self, sought: Collection[str] = ()) -> tuple[str, ...]:
        return tuple(self._dataset.column_names)

    def rows(self, wanted: Collection[str]) -> Iterator[Row]:
        chosen = self._dataset.select_columns(list(wanted)).with_format("arrow")
        return arrow_rows(chosen.iter(batch_size=BATCH), wanted)

    def copy(self, keep: Sequence[bool], target: Path) -> None:
        kept = self._dataset.select(np.flatnonzero(keep))
        if self._whole is not None:
            kept = type(self._whole)({**self._whole, self._split: kept})
        kept.save_to_disk(str(target))


def load_folder(folder: Path, split: str, named: str) -> SavedDataset:
    """A folder saved by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`. `named`: the split asked for in place of `split`, or empty.

    Raises DataError when there is no such split; a `Dataset` has none to name.
    """
    package = _package()
    try:
        loaded = package.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The dataset in {folder} cannot be loaded: {one_line(error)}.", "Save it again with `Dataset.save_to_disk`."
        ) from error
    if not isinstance(loaded, dict):
        if named:
            raise DataError(f"{folder} is one dataset without splits, so it has no {named!r}.", f"Name it without #{named}.")
        return SavedDataset(loaded, split)
    split = named or split
    if split not in loaded:
        raise DataError(f"{folder} has no split {split!r}, only {', '.join(loaded)}.", f"Name one of them: {folder}#{next(iter(loaded))}.")
    return SavedDataset(loaded[split], split, loaded)


def load_hub(name: str, split: str) -> SavedDataset:
    """A dataset of the hub by its id, `owner/name@revision`, of which `owner/name` is enough.

    Raises DataError when the dataset cannot be had.
    """
    package = _package()
    identifier, _, revision = name.partition("@")
    try:
        return SavedDataset(package.load_dataset(identifier, split=split, revision=revision or None), split)
    except Exception as error:  # the client lets through whatever its HTTP library, the hub or a malformed dataset raises
        raise DataError(
            f"There is no file or folder {name!r}, and the hub was not reached or gave no such dataset with split {split!r} "
            f"({type(error).__name__}: {one_line(error)}).",
            "Offline, a file (CSV, TSV, JSONL, Parquet) or a folder saved with `Dataset.save_to_disk` works.",
        ) from error
