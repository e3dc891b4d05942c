"""The gradient store: fixed shards of unit vectors (fp16) with norm, loss, tokens and exact cosines; row order = corpus order.

A shard is two files, `shard-00000.npy` and, written last, `shard-00000.parquet`: a shard whose Parquet file is there is
complete, and a killed run goes on with the others. Reading is memory-mapped and loads no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from biasdiff_core.errors import ArtefactError
from biasdiff_core.workspace.artefacts import write_atomic

STORE_FILE = "store.json"
BITMAP_FILE = "done.npy"
ROW_COLUMNS = ("norm", "loss", "tokens")


def shard_ranges(count: int, shard_size: int) -> list[range]:
    """Rows of each shard: fixed by the config, whoever works on them."""
    return [range(start, min(start + shard_size, count)) for start in range(0, count, shard_size)]


def missing_shards(folder: Path, count: int, shard_size: int) -> list[int]:
    """Numbers of the shards that are not complete yet."""
    return [number for number in range(len(shard_ranges(count, shard_size))) if not _rows_path(folder, number).exists()]


def write_shard(folder: Path, number: int, sketch: np.ndarray, rows: pd.DataFrame) -> None:
    """Write one shard: `sketch` [n, dim] unit vectors (stored fp16) and its rows; the rows last."""
    buffer = BytesIO()
    np.save(buffer, sketch.astype(np.float16), allow_pickle=False)
    write_atomic(_vectors_path(folder, number), buffer.getvalue())
    parquet = BytesIO()
    rows.to_parquet(parquet, index=False, compression="zstd")
    write_atomic(_rows_path(folder, number), parquet.getvalue())


def finish_store(folder: Path, identity: Mapping[str, Any], ids: Sequence[str], shard_size: int) -> None:
    """Write the strict manifest (`identity`: model, adapter, map, sketch …) and the bitmap of rows that hold a vector.

    Raises ArtefactError when a shard is missing.
    """
    missing = missing_shards(folder, len(ids), shard_size)
    if missing:
        raise ArtefactError(f"The gradient store {folder.name} lacks shards {missing[:5]}.", "Run the stage again: it resumes.")
    record = {"identity": dict(identity), "shard_size": shard_size, "count": len(ids)}
    store = GradientStore(folder, record)
    np.save(folder / BITMAP_FILE, np.packbits(store.rows["tokens"].to_numpy() > 0), allow_pickle=False)
    pd.DataFrame({"id": list(ids)}).to_parquet(folder / "ids.parquet", index=False, compression="zstd")
    write_atomic(folder / STORE_FILE, json.dumps(record, indent=1, sort_keys=True))


@dataclass(frozen=True)
class GradientStore:
    """A store on disk. `record`: its manifest; `rows`: norm, loss, tokens and `cosine:<direction>` of every row."""

    folder: Path
    record: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path, expect: Mapping[str, Any] | None = None) -> GradientStore:
        """Open a finished store. Raises ArtefactError when it is missing or differs from `expect`, naming both sides."""
        try:
            record = json.loads((folder / STORE_FILE).read_text(encoding="utf8"))
        except FileNotFoundError as error:
            raise ArtefactError(f"There is no finished gradient store in {folder}.", "Run `biasdiff run` on the audit.") from error
        for name, value in (expect or {}).items():
            if record["identity"].get(name) != value:
                raise ArtefactError(
                    f"The gradient store {folder.name} was made with {name} = {record['identity'].get(name)!r}, now {value!r}.",
                    "Take the gradients again.",
                )
        return cls(folder, record)

    @property
    def count(self) -> int:
        return int(self.record["count"])

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Example ids in row order."""
        return tuple(pd.read_parquet(self.folder / "ids.parquet")["id"])

    @cached_property
    def done(self) -> np.ndarray:
        """Which rows hold a vector, [count] bool: rows without a token to predict have none."""
        bits = np.load(self.folder / BITMAP_FILE, allow_pickle=False)
        return np.unpackbits(bits, count=self.count).astype(bool)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Norm, loss, tokens and exact cosines of every row, in corpus order."""
        paths = [_rows_path(self.folder, number) for number in self._numbers()]
        return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)

    def shards(self) -> list[np.ndarray]:
        """The unit vectors of every shard, memory-mapped, [n, dim] fp16. Raises ArtefactError when they are archived."""
        try:
            return [np.load(_vectors_path(self.folder, n), mmap_mode="r", allow_pickle=False) for n in self._numbers()]
        except FileNotFoundError as error:
            raise ArtefactError(f"The vectors of the gradient store {self.folder.name} are archived.", "Restore the files.") from error

    def vectors(self) -> np.ndarray:
        """All unit vectors [count, dim] in fp32, in memory."""
        return np.concatenate([np.asarray(shard, np.float32) for shard in self.shards()])

    def _numbers(self) -> range:
        return range(len(shard_ranges(self.count, int(self.record["shard_size"]))))


def _vectors_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.npy"


def _rows_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.parquet"
