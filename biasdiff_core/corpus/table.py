"""Corpus and probing set as Parquet tables in an audit folder; the same content gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from biasdiff_core.corpus.examples import Corpus, Probe, ProbeSet, TrainingExample
from biasdiff_core.errors import ArtefactError

CORPUS_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "text", "prompt", "source", "group")] + [("label", pa.int8()), ("line", pa.int64())]
)
PROBES_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "text", "twin", "bias_type")])


def write_corpus(corpus: Corpus, path: Path) -> None:
    """Columns id, text, prompt, source, group, label (0, 1 or null), line; rows in corpus order; zstd."""
    _write(corpus, CORPUS_SCHEMA, path)


def read_corpus_table(path: Path) -> Corpus:
    """Inverse of `write_corpus`. Raises ArtefactError when the file is not such a table."""
    return Corpus(TrainingExample(**record) for record in _read(CORPUS_SCHEMA, path))


def write_probes(probes: ProbeSet, path: Path) -> None:
    """Columns id, text, twin, bias_type; rows in the order of the set; zstd."""
    _write(probes, PROBES_SCHEMA, path)


def read_probes_table(path: Path) -> ProbeSet:
    """Inverse of `write_probes`. Raises ArtefactError when the file is not such a table."""
    return ProbeSet(probes=tuple(Probe(**record) for record in _read(PROBES_SCHEMA, path)))


def _write(items: Iterable[TrainingExample | Probe], schema: pa.Schema, path: Path) -> None:
    rows = list(items)
    columns = {name: [getattr(row, name) for row in rows] for name in schema.names}
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), path, compression="zstd")


def _read(schema: pa.Schema, path: Path) -> list[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}.", "Run `biasdiff verify` on the audit.") from error
    if not table.schema.equals(schema):
        raise ArtefactError(f"{path} has the columns {table.schema.names}, not {schema.names}.", "Run `biasdiff verify` on the audit.")
    records: list[dict[str, Any]] = table.to_pylist()
    return records
