"""Reading at size: seconds and peak memory of previewing, checking and reading a corpus of 100,000 rows, and of checking one of 1 GB.

python -m benchmarks.reading                  record (the files take 1.2 GB of the temporary folder while it runs)
python -m benchmarks.reading --rows 5000      a trial of the same shape, printed only

Every file is read in a process of its own, whose peak resident memory is that of the reading.
"""

from __future__ import annotations

import csv
import json
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.alone import alone, peak_bytes
from benchmarks.record import record
from biasdiff_core.config import CorpusConfig
from biasdiff_core.corpus.read import count_corpus, read_corpus
from biasdiff_core.corpus.sources import open_source

ROWS = 100_000
WORDS = 60  # a text
PREVIEW_ROWS = 20
BYTES_A_ROW = 10_000  # of the large file, so that it has 1 GB where the others have 100,000 rows
BLOCK = 2000  # rows that are written at a time


def examples(count: int) -> Iterator[dict[str, str]]:
    """So many rows with text, label and source, all different, the same in every run."""
    draw = random.Random(0)
    vocabulary = [f"word{number}" for number in range(5000)]
    for number in range(count):
        text = " ".join(draw.choices(vocabulary, k=WORDS))
        yield {"text": f"{text} {number}.", "label": draw.choice(["0", "1", ""]), "source": draw.choice(["forum", "news", "wiki"])}


def write_csv(path: Path, count: int) -> Path:
    """The rows as a CSV."""
    with path.open("w", encoding="utf8", newline="") as handle:
        writer = csv.DictWriter(handle, ["text", "label", "source"])
        writer.writeheader()
        writer.writerows(examples(count))
    return path


def write_jsonl(path: Path, count: int) -> Path:
    """The rows as JSON lines."""
    with path.open("w", encoding="utf8") as handle:
        handle.writelines(f"{json.dumps(row)}\n" for row in examples(count))
    return path


def write_parquet(path: Path, count: int) -> Path:
    """The rows as a Parquet file of one row group, as pandas writes it."""
    pq.write_table(pa.Table.from_pylist(list(examples(count))), path)
    return path


def write_large(path: Path, size: int) -> Path:
    """JSON lines of at least `size` bytes: the first rows again and again."""
    block = b"".join(f"{json.dumps(row)}\n".encode() for row in examples(BLOCK))
    with path.open("wb") as handle:
        for _ in range(-(-size // len(block))):
            handle.write(block)
    return path


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


def measured(path: Path, whole: bool) -> Mapping[str, float]:
    """Seconds and peak resident memory in GB of previewing and checking a file, and of reading it where `whole`."""
    return alone(_read_through, path, whole)


def _read_through(path: Path, whole: bool) -> Mapping[str, float]:
    config = CorpusConfig(path=str(path), label_column="label", source_column="source")
    start = time.perf_counter()
    table = open_source(config.path, config.split, demo="corpus.csv")
    previewed = len(list(islice(table.rows(table.columns()), PREVIEW_ROWS)))
    checked = count_corpus(config).rows_used
    if whole:
        read_corpus(config)
    return {
        "previewed": previewed,
        "rows": checked,
        "seconds": time.perf_counter() - start,
        "peak_rss_gb": peak_bytes() / 1e9,
    }


@click.command()
@click.option("--rows", default=ROWS, show_default=True, help="Fewer for a trial, which is printed and not recorded.")
def main(rows: int) -> None:
    """Write the files, read each, and record what it took."""
    with tempfile.TemporaryDirectory(prefix="biasdiff-") as folder:
        for kind, write in WRITERS.items():
            found = measured(write(Path(folder, f"corpus.{kind}"), rows), True)
            _report(f"reading.{kind}_100k_seconds", found, "seconds", "s: preview, check, read", rows)
            _report(f"reading.{kind}_100k_peak_rss_gb", found, "peak_rss_gb", "GB peak resident: preview, check, read", rows)
        found = measured(write_large(Path(folder, "large.jsonl"), rows * BYTES_A_ROW), False)
        _report("reading.jsonl_1gb_peak_rss_gb", found, "peak_rss_gb", "GB peak resident: preview, check", rows)


def _report(metric: str, found: Mapping[str, float], figure: str, unit: str, rows: int) -> None:
    if rows == ROWS:
        record(metric, found[figure], n=int(found["rows"]), unit=unit, model="none")
    else:
        print(f"{metric} (trial of {int(found['rows'])} rows) = {found[figure]:.3f} {unit}")


if __name__ == "__main__":
    main()
