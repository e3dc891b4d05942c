"""The file formats: each one reads rows with the place they stood at, and copies a part of them exactly as they are."""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from biasdiff_core.corpus.refusals import BAD_QUOTES, BARE_RETURNS, NOT_HELD, NOT_JSON, NOT_UTF8, NUL, RAGGED, Fault, Flaw, Refusals, shown
from biasdiff_core.errors import DataError, one_line

# The default refuses cells over 128 kB; without any, a quote that is never closed swallows the rest of the file.
csv.field_size_limit(2**27)
BATCH = 1000  # rows of a Parquet file that are taken out at a time
HEAD = 1000  # lines of JSON that tell the columns
BUFFER = 2**20  # bytes of a Parquet column read ahead; otherwise it is a whole row group


class Row(NamedTuple):
    """One row. `line`: where it starts, from 1. `cells`: the wanted columns that it has. `raw`: its bytes, in text files."""

    line: int
    cells: Mapping[str, Any]
    raw: bytes = b""
    flaw: Flaw | None = None


class Table(ABC):
    """A source of rows in a stable order. `unit`: what `Row.line` counts."""

    unit: ClassVar[str]

    @abstractmethod
    def columns(self, sought: Collection[str] = ()) -> tuple[str, ...]:
        """The columns that there are. Raises DataError when the source is not of its format.

        Where each row has its own, those of the first rows, and of as many more as it takes to meet all that are `sought`.
        """

    @abstractmethod
    def rows(self, wanted: Collection[str]) -> Iterator[Row]:
        """All rows, faulty ones too, with the cells of the `wanted` columns."""

    @abstractmethod
    def copy(self, keep: Sequence[bool], target: Path) -> None:
        """Write the rows with a True in `keep` (one a row) to `target`: same format, all columns, nothing changed."""


class _Lines(Iterator[str]):
    """Physical lines of a UTF-8 file (byte order mark accepted), with the bytes, place and flaw of those taken so far."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._number, self._offset = 0, 0
        self._start, self._raw = 1, list[bytes]()
        self._flaw: Flaw | None = None

    def __next__(self) -> str:
        raw = next(self._handle)
        try:
            text = raw.decode("utf-8" if self._number else "utf-8-sig")
        except UnicodeDecodeError as error:
            byte = self._offset + len(raw) - len(error.object) + error.start
            self._flaw = self._flaw or (NOT_UTF8, f"byte {byte} of the file is 0x{error.object[error.start]:02x}")
            text = raw.decode(errors="replace")
        if "\0" in text:
            self._flaw = self._flaw or (NUL, "")
        self._number += 1
        self._offset += len(raw)
        self._raw.append(raw)
        return text

    def take(self) -> tuple[int, bytes, Flaw | None]:
        """First line, bytes and flaw of what was read since the last call; no bytes at the end of the file."""
        taken = (self._start, b"".join(self._raw), self._flaw)
        self._start, self._raw, self._flaw = self._number + 1, [], None
        return taken


class _TextFile(Table):
    unit = "line"

    def __init__(self, path: Path) -> None:
        self.path = path

    def copy(self, keep: Sequence[bool], target: Path) -> None:
        with target.open("wb") as handle:
            handle.write(self._head())
            handle.writelines(row.raw for row, kept in zip(self.rows(()), keep, strict=True) if kept)

    def _head(self) -> bytes:
        """The bytes before the first row."""
        return b""


class DelimitedFile(_TextFile):
    """CSV or TSV, cells quoted by `"` where needed (RFC 4180). Without a header its columns are called `#1`, `#2` and so on.

    With `quoted` False, quotes are letters like any other.
    """

    def __init__(self, path: Path, delimiter: str, *, has_header: bool = True, quoted: bool = True) -> None:
        super().__init__(path)
        self._delimiter, self._has_header, self._quoted = delimiter, has_header, quoted

    def columns(self, sought: Collection[str] = ()) -> tuple[str, ...]:
        return self._header()[0]

    def rows(self, wanted: Collection[str]) -> Iterator[Row]:
        header = self.columns()
        places = [(name, header.index(name)) for name in wanted]
        with self.path.open("rb") as handle:
            lines = _Lines(handle)
            reader = self._reader(lines)
            if self._has_header:
                next(reader)
                lines.take()
            while True:
                cells, problem = _next_cells(reader)
                line, raw, flaw = lines.take()
                if not raw:
                    return
                if not raw.strip():
                    yield Row(line, {}, raw, flaw)
                    continue
                if not problem and len(cells) != len(header):
                    problem = (RAGGED, f"{len(cells)} instead of {len(header)}")
                flaw = flaw or problem
                yield Row(line, {} if flaw else {name: cells[place] for name, place in places}, raw, flaw)

    def _header(self) -> tuple[tuple[str, ...], bytes]:
        with self.path.open("rb") as handle:
            lines = _Lines(handle)
            cells, problem = _next_cells(self._reader(lines))
            _, raw, flaw = lines.take()
        if flaw := flaw or problem:
            refusals = Refusals(str(self.path), self.unit)
            refusals.add(flaw, 1)
            refusals.raise_any()
        if not cells:
            raise DataError(f"{self.path} has no header in line 1.", "Write the names of the columns there.")
        return (tuple(cells), raw) if self._has_header else (tuple(f"#{number}" for number in range(1, len(cells) + 1)), b"")

    def _reader(self, lines: _Lines) -> Iterator[list[str]]:
        if self._quoted:
            return csv.reader(lines, delimiter=self._delimiter, strict=True)
        return csv.reader(lines, delimiter=self._delimiter, quoting=csv.QUOTE_NONE)

    def _head(self) -> bytes:
        return self._header()[1]


def _next_cells(reader: Iterator[list[str]]) -> tuple[list[str], Flaw | None]:
    try:
        return next(reader, []), None
    except csv.Error as error:
        return [], (BARE_RETURNS, "") if str(error).startswith("new-line") else (BAD_QUOTES, str(error))


class JsonLines(_TextFile):
    """One JSON object a line."""

    def columns(self, sought: Collection[str] = ()) -> tuple[str, ...]:
        names: dict[str, None] = {}
        refusals = Refusals(str(self.path), self.unit)
        for line, record, _, flaw in self._records():
            names.update(dict.fromkeys(record))
            if flaw:
                refusals.add(flaw, line)
            if line >= HEAD and names and names.keys() >= set(sought):
                break
        if not names:  # not JSON lines at all
            refusals.raise_any()
        return tuple(names)

    def rows(self, wanted: Collection[str]) -> Iterator[Row]:
        for line, record, raw, flaw in self._records():
            yield Row(line, {name: record[name] for name in wanted if name in record}, raw, flaw)

    def _records(self) -> Iterator[tuple[int, dict[str, Any], bytes, Flaw | None]]:
        with self.path.open("rb") as handle:
            lines = _Lines(handle)
            for text in lines:
                line, raw, flaw = lines.take()
                record, problem = _json_object(text) if text.strip() and not flaw else ({}, None)
                yield line, record, raw, flaw or problem


def _json_object(text: str) -> tuple[dict[str, Any], Flaw | None]:
    try:
        record = json.loads(text.rstrip("\r\n"), object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        return {}, (NOT_JSON, f"{error.msg}, column {error.colno}")
    except (ValueError, RecursionError) as error:
        return {}, (NOT_JSON, one_line(error))
    if not isinstance(record, dict):
        return {}, (NOT_JSON, f"{shown(record)} of type {type(record).__name__}")
    return record, None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; ValueError when it names a key twice, of which Python's reader would keep the last in silence."""
    record = dict(pairs)
    if len(record) != len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {shown(name)} stands there more than once")
    return record


class ParquetFile(Table):
    """One Parquet file."""

    unit = "row"

    def __init__(self, path: Path) -> None:
        self.path = path

    def columns(self, sought: Collection[str] = ()) -> tuple[str, ...]:
        with self._open() as file:
            return tuple(file.schema_arrow.names)

    def rows(self, wanted: Collection[str]) -> Iterator[Row]:
        with self._open() as file:
            try:
                yield from arrow_rows(file.iter_batches(BATCH, columns=list(wanted)), wanted)
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{self.path} is damaged: {one_line(error)}.", "Write or copy the file again.") from error

    def copy(self, keep: Sequence[bool], target: Path) -> None:
        with self._open() as file:
            compression = file.metadata.row_group(0).column(0).compression if file.metadata.num_row_groups else "zstd"
            codec = "none" if compression == "UNCOMPRESSED" else compression  # the writer has another word for it
            with pq.ParquetWriter(target, file.schema_arrow, compression=codec) as writer:
                done = 0
                for batch in file.iter_batches():
                    writer.write_batch(batch.filter(pa.array(keep[done : done + len(batch)], pa.bool_())))
                    done += len(batch)

    def _open(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.path, buffer_size=BUFFER)
        except (pa.ArrowInvalid, OSError) as error:
            mend = "Give the file the suffix of its format, or copy it again."
            raise DataError(f"{self.path} is not a Parquet file, or not a whole one: {one_line(error)}.", mend) from error


def arrow_rows(batches: Iterator[pa.RecordBatch | pa.Table], wanted: Collection[str]) -> Iterator[Row]:
    """The rows of Arrow batches, counted from 1; of columns with one name, the first."""
    number = count(1)
    for batch in batches:
        columns = [_values(batch.column(batch.schema.names.index(name))) for name in wanted]
        for cells in zip(*columns, strict=True):
            fault = next((cell for cell in cells if isinstance(cell, Fault)), None)
            yield Row(next(number), {} if fault else dict(zip(wanted, cells, strict=True)), flaw=(fault, "") if fault else None)


def _values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
        return values
    except (ValueError, OverflowError):
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    """The value, or the fault for which Python cannot hold it."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return NOT_UTF8
    except (ValueError, OverflowError):  # such as a date after the year 9999
        return NOT_HELD
