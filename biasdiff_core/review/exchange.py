"""Decisions as files: CSV for spreadsheets, JSONL without loss, Parquet for data frames."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from biasdiff_core.corpus.export import FORMULA_STARTS, safe_cell
from biasdiff_core.errors import ReviewError, one_line
from biasdiff_core.workspace.artefacts import write_atomic

FIELDS = ("example_id", "verdict", "auditor", "reason", "created", "inspected", "action_id", "selection")
SCHEMA = pa.schema([(name, pa.bool_() if name == "inspected" else pa.string()) for name in FIELDS])
TRUTH = {"true": True, "1": True, "false": False, "0": False}


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Rows with `FIELDS` as .csv, .jsonl or .parquet; `selection` is JSON text except in JSONL. Raises ReviewError for another suffix.

    In CSV a cell that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    if path.suffix == ".jsonl":
        write_atomic(path, "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows))
        return
    flat = [{**row, "selection": json.dumps(row["selection"], ensure_ascii=False)} for row in rows]
    if path.suffix == ".csv":
        write_atomic(path, _csv(flat))
    elif path.suffix == ".parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(flat, schema=SCHEMA), buffer, compression="zstd")
        write_atomic(path, buffer.getvalue())
    else:
        raise ReviewError(f"Decisions cannot be written as {path.name!r}.", "Name it *.csv, *.jsonl or *.parquet.")


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {**{name: safe_cell(row[name]) for name in FIELDS if name != "inspected"}, "inspected": str(row["inspected"]).lower()}
        )
    return text.getvalue()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a .csv or .jsonl file, each with example_id, verdict, reason, auditor, created ("" where absent) and inspected.

    Raises ReviewError naming the line of the first row that lacks a column or whose `inspected` is no truth value.
    """
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if path.suffix not in readers:
        raise ReviewError(f"Decisions cannot be read from {path.name!r}.", "Give a *.csv or *.jsonl file.")
    try:
        rows = [_checked(row, f"{path.name} line {line}") for line, row in readers[path.suffix](path)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReviewError(f"{path} cannot be read: {one_line(error)}.", "Give a UTF-8 file.") from error
    if not rows:
        raise ReviewError(f"No example is judged in {path.name}.", "Give one decision a line, under example_id,verdict,inspected.")
    _require_agreement(rows)
    return rows


def _require_agreement(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise ReviewError when one auditor judges an example twice and differently: which of the two is meant, nobody can tell."""
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        before = first.setdefault((row["example_id"], row["auditor"]), row)
        if before["verdict"] != row["verdict"]:
            raise ReviewError(
                f"{row['where']}: {row['example_id']} is {row['verdict']}, but {before['verdict']} in {before['where']}.",
                "Keep one of them.",
            )


def _csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(handle)
        for row in reader:
            if None in row:
                raise ReviewError(
                    f"{path.name} line {reader.line_num} has more cells than the header.", "Put cells with commas into quotes."
                )
            yield reader.line_num, {name: _plain_cell(cell) for name, cell in row.items() if name and cell is not None}


def _plain_cell(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(FORMULA_STARTS) else cell


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Any]]:
    for line, text in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if text.strip():
            try:
                yield line, json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ReviewError(f"{path.name} line {line} is not JSON: {one_line(error)}.", "Give one JSON object a line.") from error


def _checked(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict) or not {"example_id", "verdict", "inspected"} <= row.keys():
        raise ReviewError(f"{where} lacks example_id, verdict or inspected.", "Give example_id,verdict,reason,auditor,inspected.")
    inspected = TRUTH.get(str(row["inspected"]).strip().lower())
    if inspected is None:
        raise ReviewError(f"{where}: inspected is {row['inspected']!r}.", "Write true or false.")
    texts = {name: str(row.get(name) or "") for name in ("example_id", "verdict", "reason", "auditor", "created")}
    return {**texts, "inspected": inspected, "where": where}
