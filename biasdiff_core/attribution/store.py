"""The gradient store: fixed shards of unit vectors (fp16 or int8) with norm, loss, tokens and exact cosines; row order = corpus order.

A shard is `shard-00000.npy`, where hidden states are kept `hidden-00000.npy`, and, written last, `shard-00000.parquet`: a shard whose
Parquet file is there is complete, and a killed run goes on with the others. Reading is memory-mapped and loads no torch.

In int8 a vector is the nearest whole numbers to 127 / max|v| times it. The factor is not stored: made unit again, the numbers are the
vector. That is half the bytes of fp16; what it costs is measured by `python -m benchmarks.search`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from biasdiff_core.config.gradients import StoreDtype
from biasdiff_core.errors import ArtefactError
from biasdiff_core.workspace.artefacts import write_atomic

STORE_FILE = "store.json"
BEGUN_FILE = "begun.json"
BITMAP_FILE = "done.npy"
ROW_COLUMNS = ("norm", "loss", "tokens")


def shard_ranges(count: int, shard_size: int) -> list[range]:
    """Rows of each shard: fixed by the config, whoever works on them."""
    return [range(start, min(start + shard_size, count)) for start in range(0, count, shard_size)]


def missing_shards(folder: Path, count: int, shard_size: int) -> list[int]:
    """Numbers of the shards that are not complete yet."""
    return [number for number in range(len(shard_ranges(count, shard_size))) if not _rows_path(folder, number).exists()]


def write_shard(
    folder: Path, number: int, sketch: np.ndarray, rows: pd.DataFrame, hidden: np.ndarray | None = None, dtype: StoreDtype = "float16"
) -> None:
    """Write one shard: `sketch` [n, dim], unit vectors stored in `dtype`, `hidden` [n, depths, width] in fp16, its rows; the rows last."""
    _write_vectors(_vectors_path(folder, number), _whole_numbers(sketch) if dtype == "int8" else sketch.astype(np.float16))
    if hidden is not None and hidden.size:
        _write_vectors(_hidden_path(folder, number), hidden.astype(np.float16))
    parquet = BytesIO()
    rows.to_parquet(parquet, index=False, compression="zstd")
    write_atomic(_rows_path(folder, number), parquet.getvalue())


def _write_vectors(path: Path, vectors: np.ndarray) -> None:
    buffer = BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def _whole_numbers(vectors: np.ndarray) -> np.ndarray:
    greatest = np.abs(vectors).max(axis=1, keepdims=True)
    return np.rint(vectors * (127 / np.where(greatest > 0, greatest, 1))).astype(np.int8)


def _decoded(stored: np.ndarray) -> np.ndarray:
    """What is stored [n, dim] in fp32; rows of zeros stay as they are."""
    vectors = np.asarray(stored, np.float32)
    if stored.dtype == np.int8:
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
        vectors /= np.where(lengths > 0, lengths, 1)
    return vectors


def digest_rows(rows: Iterable[Sequence[str | None]]) -> str:
    """SHA-256 over the rows in their order, each its id and its texts."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(list(row)).encode() + b"\n")
    return digest.hexdigest()


def begin_store(folder: Path, identity: Mapping[str, Any]) -> None:
    """Make the folder of a store, or go on with one that a killed run began. Raises ArtefactError when that one's identity differs."""
    folder.mkdir(parents=True, exist_ok=True)
    begun = folder / BEGUN_FILE
    if begun.exists():
        _require_same(folder, json.loads(begun.read_text(encoding="utf8")), identity)
    write_atomic(begun, json.dumps(dict(identity), sort_keys=True))


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
    (folder / BEGUN_FILE).unlink(missing_ok=True)
    write_atomic(folder / STORE_FILE, json.dumps(record, indent=1, sort_keys=True))


def _require_same(folder: Path, identity: Mapping[str, Any], expect: Mapping[str, Any]) -> None:
    """Raise ArtefactError naming the first field that differs. What `identity` does not have was not recorded yet when it was made."""
    for name, value in expect.items():
        if name in identity and identity[name] != value:
            raise ArtefactError(
                f"The gradient store {folder.name} was made with {name} = {identity[name]!r}, now {value!r}.",
                "Delete the result that holds it and take the gradients again.",
            )


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
        _require_same(folder, record["identity"], expect or {})
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

    @property
    def dim(self) -> int:
        """Dimensions of a vector. Raises ArtefactError when the vectors are archived."""
        return int(self._shard(0).shape[1])

    def shards(self) -> Iterator[np.ndarray]:
        """The unit vectors of one shard after another, [n, dim] fp32. Raises ArtefactError as `dim`."""
        return (_decoded(self._shard(number)) for number in self._numbers())

    def blocks(self, rows: int) -> Iterator[tuple[slice, np.ndarray]]:
        """The unit vectors `rows` at a time, wherever the shards end: which rows, and their vectors [rows, dim] in fp32.

        A block is overwritten by the next. A shard is mapped for one block alone, so that no page stays that was read before.
        """
        block = np.empty((min(rows, self.count), self.dim), np.float32)
        for start in range(0, self.count, rows):
            end = min(start + rows, self.count)
            for number in range(start // self._shard_size, -(-end // self._shard_size)):
                first = number * self._shard_size
                low, high = max(start, first), min(end, first + self._shard_size)
                block[low - start : high - start] = _decoded(self._shard(number)[low - first : high - first])
            yield slice(start, end), block[: end - start]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The unit vectors of these rows, in their order, [len(rows), dim] fp32; only their shards are read."""
        taken = np.empty((len(rows), self.dim), np.float32)
        numbers, within = np.divmod(rows, self._shard_size)
        for number in np.unique(numbers):
            here = numbers == number
            taken[here] = _decoded(self._shard(int(number))[within[here]])
        return taken

    def vectors(self) -> np.ndarray:
        """All unit vectors [count, dim] in fp32, in memory."""
        return np.concatenate(list(self.shards()))

    def hidden(self) -> list[np.ndarray]:
        """The mean hidden states of every shard, memory-mapped, unit vectors [n, depths, width] fp16. Raises ArtefactError as `dim`."""
        return [self._mapped(_hidden_path(self.folder, number)) for number in self._numbers()]

    @property
    def _shard_size(self) -> int:
        return int(self.record["shard_size"])

    def _numbers(self) -> range:
        return range(len(shard_ranges(self.count, self._shard_size)))

    def _shard(self, number: int) -> np.ndarray:
        return self._mapped(_vectors_path(self.folder, number))

    def _mapped(self, path: Path) -> np.ndarray:
        try:
            vectors: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise ArtefactError(f"The vectors of the gradient store {self.folder.name} are archived.", "Restore the files.") from error
        return vectors


def _vectors_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.npy"


def _hidden_path(folder: Path, number: int) -> Path:
    return folder / f"hidden-{number:05d}.npy"


def _rows_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.parquet"
