"""Export of the cleaned dataset: the removed rows are gone, everything else is as it was."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biasdiff_core.config import CorpusConfig
from biasdiff_core.corpus.export import export_without, safe_cell
from biasdiff_core.corpus.read import read_corpus
from biasdiff_core.errors import DataError

# Odd on purpose: byte order mark, quotes where none are needed, a cell with a line break, a formula, a blank line,
# both line endings, white space around cells, no line break at the end.
CSV_HEAD = b'\xef\xbb\xbfid,"text",note\r\n'
CSV_ROWS = [
    b"1,first,=SUM(A1)\r\n",
    b'002,"second, with ""quotes""\nand a line break", padded \n',
    b"\r\n",
    b'3,first,"NA"\r\n',
    "4,zuletzt ü,null".encode(),
]


def write(folder: Path, name: str, content: bytes) -> CorpusConfig:
    (folder / name).write_bytes(content)
    return CorpusConfig(path=str(folder / name))


@pytest.mark.parametrize(("removed", "kept_rows"), [([], [0, 1, 2, 3, 4]), ([0], [1, 2, 3, 4]), ([1, 3], [0, 2, 3]), ([2], [0, 1, 2, 4])])
def test_csv_keeps_the_bytes_of_the_kept_rows(tmp_path: Path, removed: list[int], kept_rows: list[int]) -> None:
    config = write(tmp_path, "a.csv", CSV_HEAD + b"".join(CSV_ROWS))
    corpus = read_corpus(config).corpus  # four examples: rows 0, 1, 3 and 4
    count = export_without(config, [corpus.ids[index] for index in removed], tmp_path / "clean.csv")
    assert (tmp_path / "clean.csv").read_bytes() == CSV_HEAD + b"".join(CSV_ROWS[row] for row in kept_rows)
    assert count == len(kept_rows)
    assert not list(tmp_path.glob("*.partial"))


def test_of_equal_rows_only_the_named_one_goes(tmp_path: Path) -> None:
    config = write(tmp_path, "a.tsv", b"text\tn\nsame\t1\nsame\t2\nsame\t3\n")
    ids = read_corpus(config).corpus.ids
    export_without(config, [ids[1]], tmp_path / "b.tsv")
    assert (tmp_path / "b.tsv").read_bytes() == b"text\tn\nsame\t1\nsame\t3\n"


def test_json_lines_keep_their_bytes(tmp_path: Path) -> None:
    lines = [
        b'{"text":"a", "n": 1.50, "more": [1,  2]}\n',
        b"\n",
        b'{ "n": 1e3, "text": "caf\\u00e9" }\r\n',
        b'{"text": "b", "text2": null}',
    ]
    config = write(tmp_path, "a.jsonl", b"".join(lines))
    ids = read_corpus(config).corpus.ids
    assert export_without(config, {ids[0]}, tmp_path / "b.jsonl") == 3
    assert (tmp_path / "b.jsonl").read_bytes() == b"".join(lines[1:])


def test_parquet_keeps_schema_metadata_and_compression(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", "b", "", "c"], pa.large_string()),
            "n": pa.array([1, None, 3, 4], pa.int16()),
            "tags": pa.array([["x"], [], None, ["y", "z"]], pa.list_(pa.string())),
            "kind": pa.array(["k", "l", "k", "l"]).dictionary_encode(),
        }
    ).replace_schema_metadata({"made by": "hand"})
    pq.write_table(table, tmp_path / "a.parquet", compression="gzip")
    config = CorpusConfig(path=str(tmp_path / "a.parquet"))
    ids = read_corpus(config).corpus.ids
    assert export_without(config, {ids[1]}, tmp_path / "b.parquet") == 3
    source, cleaned = (pq.read_table(tmp_path / name) for name in ("a.parquet", "b.parquet"))
    assert cleaned.equals(source.take([0, 2, 3]), check_metadata=True)
    assert pq.ParquetFile(tmp_path / "b.parquet").metadata.row_group(0).column(0).compression == "GZIP"


def test_parquet_without_compression_stays_so(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one", "two", "three"]}), tmp_path / "a.parquet", compression="none")
    config = CorpusConfig(path=str(tmp_path / "a.parquet"))
    assert export_without(config, {read_corpus(config).corpus.ids[0]}, tmp_path / "b.parquet") == 2
    assert pq.ParquetFile(tmp_path / "b.parquet").metadata.row_group(0).column(0).compression == "UNCOMPRESSED"


def test_parquet_of_many_batches(tmp_path: Path) -> None:
    texts = [f"row {i}" for i in range(150_000)]  # batches have 65,536 rows
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    config = CorpusConfig(path=str(tmp_path / "a.parquet"))
    ids = read_corpus(config).corpus.ids
    export_without(config, ids[::3], tmp_path / "b.parquet")
    assert pq.read_table(tmp_path / "b.parquet")["text"].to_pylist() == [text for i, text in enumerate(texts) if i % 3]


@pytest.mark.parametrize("whole", [False, True])
def test_datasets_folder(tmp_path: Path, whole: bool) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "l": datasets.ClassLabel(names=["fair", "biased"])})
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "l": [1, 0, 1]}, features=features)
    (datasets.DatasetDict({"train": rows, "test": rows}) if whole else rows).save_to_disk(str(tmp_path / "saved"))
    config = CorpusConfig(path=str(tmp_path / "saved"))
    ids = read_corpus(config).corpus.ids
    assert export_without(config, {ids[1]}, tmp_path / "clean") == 2
    loaded = datasets.load_from_disk(str(tmp_path / "clean"))
    cleaned = loaded["train"] if whole else loaded
    assert cleaned.to_dict() == {"text": ["a", "c"], "l": [1, 1]}
    assert cleaned.features == features
    if whole:
        assert loaded["test"].to_dict() == rows.to_dict()


def test_truncated_rows_are_exported_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\na b c d\ne f g h\n")
    config = CorpusConfig(path=str(path), max_tokens=2, truncate=True)
    corpus = read_corpus(
        config, count_tokens=lambda texts: [len(t.split()) for t in texts], truncate_text=lambda t, n: t[: 2 * n - 1]
    ).corpus
    assert corpus[1].text == "e f"
    export_without(config, [corpus.ids[0]], tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text() == "text\ne f g h\n"


def test_refusals(tmp_path: Path) -> None:
    config = write(tmp_path, "a.csv", b"text\na\nb\n")
    with pytest.raises(DataError, match="2 id.* are not in .*e.g. 0000"):
        export_without(config, {"ffff", "0000"}, tmp_path / "b.csv")
    with pytest.raises(DataError, match="is there already"):
        export_without(config, (), tmp_path / "a.csv")
    with pytest.raises(DataError, match="no folder"):
        export_without(config, (), tmp_path / "none" / "b.csv")
    with pytest.raises(DataError, match=r"not the suffix '\.csv'"):
        export_without(config, (), tmp_path / "b.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def as_csv(rows: list[tuple[str, str]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("text", "other"), *rows])
    return out.getvalue().encode()


def from_csv(content: bytes) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in csv.reader(io.StringIO(content.decode(), newline=""))][1:]


def as_jsonl(rows: list[tuple[str, str]]) -> bytes:
    return "".join(json.dumps({"text": text, "other": other}, ensure_ascii=False) + "\n" for text, other in rows).encode()


def from_jsonl(content: bytes) -> list[tuple[str, str]]:
    return [(record["text"], record["other"]) for record in map(json.loads, content.decode().removesuffix("\n").split("\n"))]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@pytest.mark.parametrize(("name", "encode", "decode"), [("a.csv", as_csv, from_csv), ("a.jsonl", as_jsonl, from_jsonl)])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(TEXTS.filter(lambda t: bool(t.strip())), TEXTS), min_size=2, max_size=8), data=st.data())
def test_export_is_the_source_without_those_rows(
    tmp_path: Path, name: str, encode: Callable[..., bytes], decode: Callable[..., Any], rows: list[tuple[str, str]], data: st.DataObject
) -> None:
    config = write(tmp_path, name, encode(rows))
    gone = data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=len(rows) - 1))
    ids = read_corpus(config).corpus.ids
    target = tmp_path / f"clean{Path(name).suffix}"
    target.unlink(missing_ok=True)
    assert export_without(config, [ids[index] for index in gone], target) == len(rows) - len(gone)
    assert decode(target.read_bytes()) == [row for index, row in enumerate(rows) if index not in gone]


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_cells_that_a_spreadsheet_would_run(value: str) -> None:
    assert safe_cell(value) == "'" + value


@pytest.mark.parametrize("value", ["", "text", "1=1", " =1", "'=1"])
def test_other_cells_stay(value: str) -> None:
    assert safe_cell(value) == value
