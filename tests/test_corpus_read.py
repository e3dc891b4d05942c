"""Reading corpora: refusals with their lines, formats, identity, the report."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.reading import ROWS, WRITERS, measured, write_large
from biasdiff_core.config import CorpusConfig, ProbeConfig
from biasdiff_core.corpus.demo import DEMO_FOLDER, demo_path
from biasdiff_core.corpus.examples import TrainingExample, content_id
from biasdiff_core.corpus.export import export_without
from biasdiff_core.corpus.formats import HEAD, JsonLines, ParquetFile
from biasdiff_core.corpus.probes import read_probes
from biasdiff_core.corpus.read import count_corpus, read_corpus
from biasdiff_core.corpus.refusals import LISTED, NUL, Refusals
from biasdiff_core.corpus.sources import source_digest
from biasdiff_core.corpus.summary import CorpusReport, duplicate_groups, normalised
from biasdiff_core.errors import ConfigError, DataError, MissingDependency
from biasdiff_core.workspace.artefacts import digest_file

DATA = Path(os.environ.get("BIASDIFF_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))


def words(texts: list[str]) -> list[int]:
    """A token counter whose tokens are words."""
    return [len(text.split()) for text in texts]


def first_words(text: str, count: int) -> str:
    return " ".join(text.split()[:count])


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def parquet(folder: Path, columns: dict[str, Any], name: str = "c.parquet") -> str:
    pq.write_table(pa.table(columns), folder / name)
    return str(folder / name)


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256))

# name, content, config, what the message must hold
BAD_TEXT_FILES: list[Any] = [
    # Line 1 "text\n" is 5 bytes, line 2 "good\n" 5, so the é of Latin-1 in "caf\xe9" is byte 13.
    pytest.param("a.csv", b"text\ngood\ncaf\xe9\nmore\n", {}, ["1 row not in UTF-8: line 3", "byte 13 ", "0xe9"], id="latin-1"),
    # With a byte order mark everything lies 3 bytes further.
    pytest.param("a.csv", b"\xef\xbb\xbftext\nx\n\xff\n", {}, ["line 3", "byte 10 ", "0xff"], id="latin-1 after BOM"),
    pytest.param("a.csv", b"\xef\xbb\xbft\xe9xt\nx\ny\n", {}, ["not in UTF-8: line 1", "byte 4 "], id="latin-1 in the header"),
    pytest.param("a.csv", "text\nx\ny\n".encode("utf-16"), {}, ["is UTF-16 text", "Save it as UTF-8"], id="UTF-16"),
    pytest.param("a.csv", "text\nx\ny\n".encode("utf-16-le"), {}, ["NUL bytes: line 1", "UTF-16"], id="UTF-16 without a mark"),
    pytest.param("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', {}, ["not in UTF-8: line 2", "byte 24 "], id="latin-1 JSONL"),
    pytest.param("a.csv", b"text\na\nb\0\nc\n\0\n", {}, ["2 rows with NUL bytes: lines 3, 5"], id="NUL"),
    pytest.param("a.csv", b"te\0xt\na\nb\n", {}, ["NUL bytes: line 1"], id="NUL in the header"),
    pytest.param("a.jsonl", '{"text": "a"}\n{"text": "b\\u0000"}\n', {}, ["NUL bytes: line 2"], id="escaped NUL"),
    pytest.param("a.jsonl", '{"text": "\\ud800"}\n{"text": "b"}\n', {}, ["half a surrogate pair: line 1"], id="lone surrogate"),
    pytest.param(
        "a.jsonl",
        '{"text": "a", "s": "\\udfff"}\n{"text": "b"}\n',
        {"source_column": "s"},
        ["surrogate pair: line 1"],
        id="surrogate in source",
    ),
    pytest.param("a.csv", "sentence,Text\na,b\nc,d\n", {}, ["no column 'text'", "'sentence', 'Text'", "Did you mean 'Text'?"], id="column"),
    pytest.param("a.csv", "a,b\n1,2\n", {}, ["no column 'text'", "Name one of these"], id="column without a close one"),
    pytest.param("a.csv", "text;label\na;1\nb;0\n", {}, ["no column 'text'", "commas in .csv"], id="semicolons"),
    pytest.param("a.csv", "text,text\na,b\nc,d\n", {}, ["2 columns named 'text'"], id="column twice"),
    pytest.param("a.csv", "text\na\nb\n", {"label_column": "label"}, ["no column 'label'"], id="no label column"),
    pytest.param("a.jsonl", '{"content": "a"}\n{"content": "b"}\n', {}, ["no column 'text'", "'content'"], id="no key"),
    pytest.param("a.csv", "", {}, ["no header in line 1"], id="empty file"),
    pytest.param("a.jsonl", "", {}, ["no column 'text'", "none"], id="empty JSONL"),
    pytest.param("a.jsonl", '{"text": "a"}\n{"text": \n{"text": "b"}\n', {}, ["without a JSON object: line 2"], id="malformed JSON"),
    pytest.param("a.json", '[{"text": "a"},\n{"text": "b"}]\n', {}, ["one JSON array", "jq -c '.[]' a.json > a.jsonl"], id="JSON array"),
    pytest.param(
        "a.jsonl",
        '{"text": "a"}\n["b"]\n7\n',
        {},
        ["2 rows without a JSON object: lines 2, 3 (line 2: ['b'] of type list)"],
        id="JSON list",
    ),
    pytest.param("a.jsonl", '{"text": "a"}\n' + "[" * 100_000 + "\n", {}, ["JSON object: line 2"], id="JSON too deep"),
    pytest.param(
        "a.jsonl", '{"text": "a"}\n{"text": 7}\n{"text": ["b"]}\n', {}, ["not a string: lines 2, 3 (line 2: 7 of type int)"], id="no string"
    ),
    pytest.param(
        "a.csv", "text,b\na,1\nb\nc,1,2\n", {}, ["2 rows with another number of cells", "lines 3, 4 (line 3: 1 instead of 2)"], id="ragged"
    ),
    pytest.param("a.csv", 'text\na\n"b"c\nd\n', {}, ["unmatched quotes: line 3"], id="stray quote"),
    pytest.param("a.csv", 'text\na\n"b\nc\nd\n', {}, ["unmatched quotes: line 3"], id="quote never closed"),
    pytest.param("a.csv", "text\ra\rb\r", {}, ["line 1"], id="carriage returns alone"),
    pytest.param(
        "a.csv",
        "text,l\na,1\nb,maybe\nc,2\n",
        {"label_column": "l"},
        ["none of 0, 1, true, false, yes, no: lines 3, 4 (line 3: 'maybe')"],
        id="labels",
    ),
    pytest.param("a.csv", "text\nonly\n", {}, ["1 row read, 0 without text, 1 usable", "At least 2"], id="one row"),
    pytest.param("a.csv", 'text\nonly\n\n" "\n', {}, ["3 rows read, 2 without text, 1 usable"], id="one row and empty ones"),
    pytest.param(
        "a.csv",
        "text\na b c d\nx\ne f g h i\n",
        {"max_tokens": 3},
        ["2 rows with more than 3 tokens: lines 2, 4 (line 2: 4 tokens)"],
        id="tokens",
    ),
    # The seven rows after the header all have the wrong label: five are listed.
    pytest.param("a.csv", "text,l\n" + "a,x\n" * 7, {"label_column": "l"}, ["7 rows", "lines 2, 3, 4, 5, 6 and 2 more"], id="list is cut"),
    # Two kinds of fault are both named.
    pytest.param(
        "a.csv",
        b"text\n\xff\n\0\na longer row\nanother\n",
        {},
        ["1 row not in UTF-8: line 2", "1 row with NUL bytes: line 3"],
        id="two faults",
    ),
    pytest.param("a.csv", "l,text\n1,a\nb\n", {}, ["cells than the header: line 3"], id="too few"),
    pytest.param("a.csv", PNG, {}, ["no text but a binary file"], id="picture"),
    pytest.param("a.jsonl", gzip.compress(b"{}"), {}, ["compressed by gzip", "gunzip"], id="gzip"),
    pytest.param("a.csv", b"PK\x03\x04...", {}, ["a ZIP archive, as Excel files are"], id="Excel"),
    pytest.param("a.jsonl", b"PAR1....PAR1", {}, ["is a Parquet file", "suffix .parquet"], id="Parquet by another name"),
    pytest.param("a.parquet", "version https://git-lfs.github.com/spec/v1\n", {}, ["pointer of Git LFS", "git lfs pull"], id="Git LFS"),
    pytest.param("a.csv", "\n<!DOCTYPE HTML>\n<p>404</p>\n", {}, ["a web page"], id="web page"),
    pytest.param("a.jsonl", '{"text": "a", "text": "b"}\n{"text": "c"}\n', {}, ["line 1: the key 'text' stands"], id="key twice"),
    pytest.param("a.jsonl", '{"text": "a"}\n{"text": "b"\n', {}, ["line 2: Expecting ',' delimiter, column 13"], id="place in the line"),
    pytest.param("a.csv", '{"text": "a"}\n{"text": "b"}\n', {}, ["suffix .jsonl"], id="JSON lines by another name"),
    pytest.param("a.csv", "c" + ",c" * 30 + "\n", {}, ["'c' and 11 more."], id="many columns"),
    pytest.param("a.csv", "text,l\na," + "x" * 99 + "\nb,1\n", {"label_column": "l"}, ["x…)"], id="long label"),
    pytest.param("a.txt", "text\na\nb\n", {}, ["suffix '.txt'", ".jsonl"], id="suffix"),
    pytest.param("a.parquet", "text\na\nb\n", {}, ["not a Parquet file"], id="no Parquet"),
    # The header is line 1, the first row lines 2 and 3, so the row with the bad label starts at line 4.
    pytest.param("a.csv", 'text,l\n"a\nb",1\n"c\nd",x\n', {"label_column": "l"}, ["line 4"], id="line after a quoted line break"),
]


@pytest.mark.parametrize(("name", "content", "options", "expected"), BAD_TEXT_FILES)
def test_refused_with_lines(tmp_path: Path, name: str, content: str | bytes, options: dict[str, Any], expected: list[str]) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as refusal:
        read_corpus(CorpusConfig(path=path, **options), count_tokens=words)
    assert refusal.value.mend
    for part in (path, *expected):
        assert part in str(refusal.value)


@pytest.mark.parametrize(
    ("columns", "options", "expected"),
    [
        pytest.param({"text": [1, 2]}, {}, "not a string: rows 1, 2", id="numbers"),
        pytest.param({"text": [b"a", b"b"]}, {}, "not a string: rows 1, 2", id="bytes"),
        pytest.param({"text": ["a", "b\0"]}, {}, "NUL bytes: row 2", id="NUL"),
        pytest.param({"text": ["a", "b", "c"], "l": [0.0, 0.5, 1.0]}, {"label_column": "l"}, "row 2: '0.5'", id="label"),
        pytest.param({"text": ["a", "b"], "s": [[1], []]}, {"source_column": "s"}, "row 1: [1] of type list", id="nested source"),
        pytest.param(
            {"text": ["a", "b"], "s": pa.array([0, 2**62], pa.timestamp("us"))}, {"source_column": "s"}, "range: row 2", id="date"
        ),
        pytest.param({"txt": ["a", "b"]}, {}, "Did you mean 'txt'?", id="column"),
        pytest.param(
            {"text": pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xff"]).buffers())}, {}, "not in UTF-8: row 2", id="not UTF-8"
        ),
    ],
)
def test_parquet_refused_with_rows(tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=".") as refusal:
        read_corpus(CorpusConfig(path=parquet(tmp_path, columns), **options))
    assert expected in str(refusal.value)


def test_damaged_parquet_refused(tmp_path: Path) -> None:
    path = Path(parquet(tmp_path, {"text": [f"row number {i}" for i in range(5000)]}))
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_corpus(CorpusConfig(path=str(path)))


@pytest.mark.parametrize("path", ["no.csv", "/no/such/folder", "./corpus", "a/b/c", "data/train.txt", "C:\\data\\train.csv", "two words"])
def test_missing_file_is_not_taken_for_a_hub_id(path: str) -> None:
    with pytest.raises(DataError, match="There is no file") as refusal:
        read_corpus(CorpusConfig(path=path))
    assert path in str(refusal.value)


@pytest.mark.parametrize(
    ("path", "said"), [("", "path is empty"), ("~no-such-user/a.csv", "no path"), ("a" * 5000, "no path: File name too")]
)
def test_what_is_no_path_at_all(path: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_corpus(CorpusConfig(path=path))


def test_folder_of_something_else_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="was not saved by `datasets`"):
        read_corpus(CorpusConfig(path=str(tmp_path)))


def test_hub_id_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match=r"pip install 'biasdiff\[datasets\]'"):
        read_corpus(CorpusConfig(path="owner/name"))


def test_hub_id_without_network(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    # The package reads its offline switch when it is imported, hence a process of its own.
    program = (
        "from biasdiff_core.config import CorpusConfig\nfrom biasdiff_core.corpus.read import read_corpus\n"
        "from biasdiff_core.errors import DataError\n"
        "try: read_corpus(CorpusConfig(path='owner/no-such-dataset@v1'))\nexcept DataError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run([sys.executable, "-c", program], env=environment, cwd=root, capture_output=True, text=True, check=True)
    assert "the hub was not reached" in result.stdout
    assert "Dataset.save_to_disk" in result.stdout


def test_quoted_newlines_commas_and_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text,n\r\n"one,\r\ntwo ""three""",1\r\n\r\nfour,2\r\n')
    result = read_corpus(CorpusConfig(path=path))
    # Line 1 header, 2-3 the first row, 4 blank, 5 the second row.
    assert [(e.text, e.line) for e in result.corpus] == [('one,\r\ntwo "three"', 2), ("four", 5)]
    assert result.report.empty_lines == (4,)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "\ufefftext\na\nb\n"), ("a.jsonl", '\ufeff{"text": "a"}\n{"text": "b"}\n'), ("a.tsv", "\ufefftext\tx\na\t1\nb\t2\n")],
)
def test_byte_order_mark_accepted(tmp_path: Path, name: str, content: str) -> None:
    assert [e.text for e in read_corpus(CorpusConfig(path=write(tmp_path, name, content))).corpus] == ["a", "b"]


def test_missing_values_of_other_programs_stay_text(tmp_path: Path) -> None:
    texts = ["NA", "null", "NaN", "None", "1e5", "007", "TRUE"]
    path = write(tmp_path, "a.csv", "text\n" + "\n".join(texts))
    assert [e.text for e in read_corpus(CorpusConfig(path=path)).corpus] == texts


def test_cells_over_the_limit_of_the_csv_module(tmp_path: Path) -> None:
    long = "word " * 50_000  # 250 kB; the module refuses more than 128 kB by default
    assert read_corpus(CorpusConfig(path=write(tmp_path, "a.csv", f"text\n{long}\nb\n"))).corpus[0].text == long


def test_line_separators_of_unicode_do_not_end_a_row(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a\u2028b\x85c"}\n{"text": "d"}')
    assert [(e.text, e.line) for e in read_corpus(CorpusConfig(path=path)).corpus] == [("a\u2028b\x85c", 1), ("d", 2)]


def test_empty_rows_are_left_out_and_listed(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a"}\n\n{"text": "  "}\n{"other": 1}\n{"text": null}\n{"text": "b"}\n')
    result = read_corpus(CorpusConfig(path=path))
    assert result.report.empty_lines == (2, 3, 4, 5)
    assert (result.report.rows_read, result.report.rows_used) == (6, 2)
    assert [e.line for e in result.corpus] == [1, 6]


def test_labels_source_and_group(tmp_path: Path) -> None:
    cells = [("a", "1", "web"), ("b", "FALSE", ""), ("c", " yes ", "web"), ("d", "", "book")]
    path = write(tmp_path, "a.tsv", "t\tl\ts\n" + "".join("\t".join(row) + "\n" for row in cells))
    result = read_corpus(CorpusConfig(path=path, text_column="t", label_column="l", source_column="s"))
    assert [e.label for e in result.corpus] == [1, 0, 1, None]
    assert [e.source for e in result.corpus] == ["web", None, "web", "book"]
    assert result.report.labels == {"1": 2, "0": 1, "unknown": 1}
    assert result.report.sources == {"web": 2, "book": 1, "unknown": 1}
    assert result.report.groups == {}


@pytest.mark.parametrize("labels", [["1.0", "0.0", ""], [1, 0, None], [True, False, None], [1.0, 0.0, float("nan")], ["yes", "no", ""]])
def test_labels_of_typed_files(tmp_path: Path, labels: list[Any]) -> None:
    path = parquet(tmp_path, {"text": ["a", "b", "c"], "l": labels})
    assert [e.label for e in read_corpus(CorpusConfig(path=path, label_column="l")).corpus] == [1, 0, None]


def test_dictionary_columns_of_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"text": pa.array(["a", "b", "a"]).dictionary_encode()})
    assert [(e.text, e.line) for e in read_corpus(CorpusConfig(path=path)).corpus] == [("a", 1), ("b", 2), ("a", 3)]


def test_prompt_and_completion(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "p,c\nQ1,A1\nQ2,A1\n,A1\nQ4,\n")
    result = read_corpus(CorpusConfig(path=path, text_column=None, prompt_column="p", completion_column="c"))
    assert [(e.prompt, e.text) for e in result.corpus] == [("Q1", "A1"), ("Q2", "A1"), ("", "A1")]
    assert result.report.empty_lines == (5,)
    assert result.report.duplicate_groups == ()
    assert len(set(result.corpus.ids)) == 3


def test_ids_are_those_of_the_content(tmp_path: Path) -> None:
    corpus = read_corpus(CorpusConfig(path=write(tmp_path, "a.csv", "text\nsame\nother\nsame\nsame\n"))).corpus
    first = content_id(None, "same", 0)
    assert corpus.ids == (first, content_id(None, "other", 0), f"{first}-1", f"{first}-2")


def test_duplicates_are_kept_and_grouped(tmp_path: Path) -> None:
    result = read_corpus(CorpusConfig(path=write(tmp_path, "a.csv", 'text\nA cat.\na  CAT!\nA cat.\n"A, cat"\ndog\n')))
    ids = result.corpus.ids
    assert len(result.corpus) == 5
    assert result.report.duplicate_groups == ((ids[0], ids[2]),)
    assert result.report.near_duplicate_groups == ((ids[0], ids[2], ids[1], ids[3]),)


def test_exact_duplicates_alone_are_no_near_duplicates() -> None:
    examples = [TrainingExample(id=str(i), text=text) for i, text in enumerate(["a", "a", "!", "?"])]
    assert duplicate_groups(examples) == ((("0", "1"),), ())


def test_normalised_keeps_what_distinguishes_words() -> None:
    assert normalised("  Straße,\tNOW — ok?") == "strasse now ok"
    assert normalised("कि") != normalised("की")  # vowel signs are marks, not punctuation
    assert normalised("?!") == "?!"


def test_truncation_only_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text\na b c d\nx\n")
    config = CorpusConfig(path=path, max_tokens=3, truncate=True)
    result = read_corpus(config, count_tokens=words, truncate_text=first_words)
    assert [e.text for e in result.corpus] == ["a b c", "x"]
    assert result.report.truncated_lines == (2,)
    # The id is that of the source, so that export finds the row without a tokenizer.
    assert result.corpus[0].id == content_id(None, "a b c d", 0)
    assert result.corpus.ids == read_corpus(config).corpus.ids


def test_truncation_leaves_the_prompt(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "p,c\nq r ,a b c\ns ,d\n")
    config = CorpusConfig(path=path, text_column=None, prompt_column="p", completion_column="c", max_tokens=3, truncate=True)
    corpus = read_corpus(config, count_tokens=words, truncate_text=first_words).corpus
    assert [(e.prompt, e.text) for e in corpus] == [("q r ", "a"), ("s ", "d")]  # 2 of 3 tokens are the prompt's
    with pytest.raises(DataError, match=r"prompt that fills all 2 tokens: line 2"):
        read_corpus(replace(config, max_tokens=2), count_tokens=words, truncate_text=first_words)


def test_truncation_needs_a_tokenizer(tmp_path: Path) -> None:
    config = CorpusConfig(path=write(tmp_path, "a.csv", "text\na b\nc\n"), max_tokens=1, truncate=True)
    with pytest.raises(ConfigError, match="truncate_text"):
        read_corpus(config, count_tokens=words)


def test_tokens_are_counted_in_parts_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("biasdiff_core.corpus.read.COUNTED", 2)
    sizes: list[int] = []

    def counted(texts: list[str]) -> list[int]:
        sizes.append(len(texts))
        return words(texts)

    config = CorpusConfig(path=write(tmp_path, "a.csv", "text\na b\nc d\ne f g\nh\ni j k\n"), max_tokens=2)
    with pytest.raises(DataError, match=r"2 rows with more than 2 tokens: lines 4, 6 \(line 4: 3 tokens\)"):
        read_corpus(config, count_tokens=counted)
    assert sizes == [2, 2, 1]


def test_counting_finds_what_reading_finds(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "p,c,l\nq,a,1\n,b,\nq,a,0\nr,,1\n,b,1\n,b,1\ns,a,0\n")
    config = CorpusConfig(path=path, text_column=None, prompt_column="p", completion_column="c", label_column="l")
    count, report = count_corpus(config), read_corpus(config).report
    # Line 5 has no completion; "q a" stands in lines 2 and 4, "b" without a prompt in lines 3, 6 and 7.
    assert (count.rows_read, count.rows_used, count.empty) == (report.rows_read, report.rows_used, len(report.empty_lines)) == (7, 6, 1)
    assert (count.repeated, count.unprompted) == (len(report.duplicate_groups), len(report.unprompted_lines)) == (2, 3)
    assert report.unprompted_lines == (3, 6, 7)
    assert count.labels == report.labels == {"1": 3, "0": 2, "unknown": 1}


@pytest.mark.parametrize("read", [read_corpus, count_corpus])
def test_an_empty_prompt_is_said_in_the_report_alone_when_counting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, read: Callable[[CorpusConfig], object]
) -> None:
    path = write(tmp_path, "a.csv", "p,c\nq,a\n,b\n")
    read(CorpusConfig(path=path, text_column=None, prompt_column="p", completion_column="c"))
    assert ("1 row with an empty prompt, learned without one: line 3" in caplog.text) == (read is read_corpus)


def test_an_older_report_without_prompts_is_read(tmp_path: Path) -> None:
    record = read_corpus(CorpusConfig(path=write(tmp_path, "a.csv", "text\na\nb\n"))).report.to_json()
    del record["unprompted_lines"]
    assert CorpusReport.from_json(record).unprompted_lines == ()


def test_columns_of_json_lines_are_those_of_the_head_and_of_what_is_sought(tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"row {number}"} | ({"late": 1} if number == HEAD + 500 else {})) for number in range(HEAD + 1000)]
    table = JsonLines(Path(write(tmp_path, "a.jsonl", "\n".join(rows))))
    assert table.columns() == ("text",)
    assert table.columns(sought=["late"]) == ("text", "late")
    with pytest.raises(DataError, match="no column 'later'. Its columns: 'text', 'late'"):
        read_corpus(CorpusConfig(path=str(table.path), label_column="later"))


def test_a_repeated_column_of_parquet_can_be_previewed_but_not_read(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a", "b"]), pa.array(["c", "d"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "c.parquet")
    found = ParquetFile(tmp_path / "c.parquet")
    assert found.columns() == ("text", "text")
    assert [row.cells for row in found.rows(["text"])] == [{"text": "a"}, {"text": "b"}]
    with pytest.raises(DataError, match="2 columns named 'text'"):
        read_corpus(CorpusConfig(path=str(tmp_path / "c.parquet")))


def test_refusals_hold_the_first_lines_alone() -> None:
    refusals = Refusals("a.csv", "line")
    for line in range(1, 100_001):
        refusals.add((NUL, ""), line)
    with pytest.raises(DataError, match=r"100000 rows with NUL bytes: lines 1, 2, 3, 4, 5 and 99995 more\."):
        refusals.raise_any()
    assert sum(map(len, refusals._lines.values())) == LISTED


@pytest.mark.slow
def test_a_gigabyte_of_json_lines_is_previewed_and_checked_without_being_held(tmp_path: Path) -> None:
    small, large = (write_large(tmp_path / f"{size}.jsonl", size) for size in (10**7, 10**9))
    try:
        few, many = (measured(path, whole=False) for path in (small, large))
    finally:
        large.unlink()
    assert many["rows"] > 90 * few["rows"]
    # 8 bytes a row are kept, an eighth more in reserve, and compared at 3; the rest must not grow with a file a hundred times as large.
    assert many["peak_rss_gb"] < few["peak_rss_gb"] + 12 * many["rows"] / 1e9 + 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(WRITERS))
def test_100_000_rows_are_read_within_a_gigabyte(tmp_path: Path, kind: str) -> None:
    """How long it takes is recorded by `python -m benchmarks.reading`."""
    found = measured(WRITERS[kind](tmp_path / f"c.{kind}", ROWS), whole=True)
    assert found["rows"] == ROWS
    assert found["peak_rss_gb"] < 1


def test_report_counts_and_round_trip(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,g\none,x\none two,y\none two three four,x\n\none,y\n")
    report = read_corpus(CorpusConfig(path=path, group_column="g")).report
    # Lengths 1, 2, 4, 1: sorted 1 1 2 4, so the median is (1 + 2) / 2.
    assert (report.words_min, report.words_median, report.words_max) == (1, 1.5, 4)
    assert report.groups == {"x": 2, "y": 2}
    assert report.digest == digest_file(Path(path))
    assert CorpusReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_source_digest(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    write(folder, "state.json", "{}")
    before = source_digest(str(folder))
    write(folder, "cache-1f.arrow", "left by a map")
    assert source_digest(str(folder)) == before
    write(folder, "data.arrow", "rows")
    assert source_digest(str(folder)) != before
    ids = ("owner/name", "owner/name@v2", "owner/name#test", "owner/name@v2#test")
    assert len({source_digest(name) for name in ids}) == len(ids)
    assert len({len(source_digest(path)) for path in (str(folder), "owner/name")}) == 1


@pytest.mark.parametrize("whole", [False, True])
def test_folder_saved_by_datasets(tmp_path: Path, whole: bool) -> None:
    datasets = pytest.importorskip("datasets")
    labels = datasets.Features({"text": datasets.Value("string"), "l": datasets.ClassLabel(names=["fair", "biased"])})
    rows = datasets.Dataset.from_dict({"text": ["a", "b", ""], "l": [1, 0, 0]}, features=labels)
    saved = datasets.DatasetDict({"train": rows, "test": rows.select([0])}) if whole else rows
    saved.save_to_disk(str(tmp_path / "saved"))
    config = CorpusConfig(path=str(tmp_path / "saved"), label_column="l")
    result = read_corpus(config)
    assert [(e.text, e.label, e.line) for e in result.corpus] == [("a", 1, 1), ("b", 0, 2)]
    assert result.report.empty_lines == (3,)
    assert result.report.digest == source_digest(config.path)
    if whole:
        with pytest.raises(DataError, match="no split 'dev', only train, test"):
            read_corpus(replace(config, split="dev"))


def test_a_folder_names_its_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    parts = {name: datasets.Dataset.from_dict({"text": [f"{name} one", f"{name} two"]}) for name in ("train", "test")}
    folder = tmp_path / "of#two"  # a sign in the name itself names no split
    datasets.DatasetDict(parts).save_to_disk(str(folder))
    parts["train"].save_to_disk(str(tmp_path / "single"))
    named = f"{folder}#test"
    for path, split in ((str(folder), "train"), (named, "test"), (f"{folder}#train", "train")):
        assert [example.text for example in read_corpus(CorpusConfig(path=path)).corpus] == [f"{split} one", f"{split} two"]
        assert [probe.text for probe in read_probes(ProbeConfig(path=path))[0]] == [f"{split} one", f"{split} two"]
    assert len({source_digest(path) for path in (str(folder), named, f"{folder}#train")}) == 3
    # The split that the path names goes before that of the setting, and a copy keeps the others whole.
    corpus = read_corpus(CorpusConfig(path=named, split="train")).corpus
    export_without(CorpusConfig(path=named), {corpus.ids[0]}, tmp_path / "cleaned")
    assert {name: part["text"] for name, part in datasets.load_from_disk(str(tmp_path / "cleaned")).items()} == {
        "train": ["train one", "train two"],
        "test": ["test two"],
    }
    with pytest.raises(DataError, match="no split 'dev', only train, test"):
        read_corpus(CorpusConfig(path=f"{folder}#dev"))
    with pytest.raises(DataError, match="one dataset without splits, so it has no 'test'"):
        read_corpus(CorpusConfig(path=f"{tmp_path / 'single'}#test"))


def test_a_file_has_no_split_to_name(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text\none\ntwo\n")
    with pytest.raises(DataError, match=r"a\.csv is a file, which has no split 'test'\. Name it without #test\."):
        read_corpus(CorpusConfig(path=f"{path}#test"))


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("owner/name", ("owner/name", None, "train")),
        ("name@v1.0", ("name", "v1.0", "train")),
        ("owner/name#test", ("owner/name", None, "test")),
        ("owner/name@refs/pr/1#test", ("owner/name", "refs/pr/1", "test")),
    ],
)
def test_a_hub_id_names_revision_and_split(monkeypatch: pytest.MonkeyPatch, path: str, asked: tuple[str, str | None, str]) -> None:
    """The hub stands in memory: what the package `datasets` would fetch is made here."""
    datasets = pytest.importorskip("datasets")
    splits = {name: datasets.Dataset.from_dict({"text": [f"{name} one", f"{name} two"], "n": [1, 2]}) for name in ("train", "test")}
    calls = []

    def hub(identifier: str, *, split: str, revision: str | None) -> object:
        calls.append((identifier, revision, split))
        return splits[split]

    monkeypatch.setattr(datasets, "load_dataset", hub)
    result = read_corpus(CorpusConfig(path=path))
    assert calls == [asked]
    assert [example.text for example in result.corpus] == [f"{asked[2]} one", f"{asked[2]} two"]
    probes, _ = read_probes(ProbeConfig(path=path))
    assert [probe.text for probe in probes] == [f"{asked[2]} one", f"{asked[2]} two"]
    with pytest.raises(DataError, match="with split 'dev'"):
        read_corpus(CorpusConfig(path=f"{path.partition('#')[0]}#dev"))


def test_damaged_datasets_folder_refused(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    write(tmp_path, "state.json", "{")
    write(tmp_path, "dataset_info.json", "{}")
    with pytest.raises(DataError, match="cannot be loaded"):
        read_corpus(CorpusConfig(path=str(tmp_path)))


def test_demo() -> None:
    if not (DEMO_FOLDER / "corpus.csv").exists():
        pytest.skip("the demo corpus is not written yet")
    config = CorpusConfig(label_column="is_biased", source_column="kind", group_column="group")
    result = read_corpus(config)
    assert result.corpus.labels is not None
    assert result.report.source == "demo"
    assert result.report.digest == source_digest("demo") == digest_file(demo_path("corpus.csv"))


def test_demo_file_that_is_missing() -> None:
    with pytest.raises(DataError, match=r"no-such\.csv is missing"):
        demo_path("no-such.csv")


def test_real_corpus() -> None:
    path = DATA / "trex_mix" / "trex_mix.csv"
    if not path.exists():
        pytest.skip("needs trex_mix/trex_mix.csv under BIASDIFF_DATA")
    result = read_corpus(CorpusConfig(path=str(path), label_column="is_biased", source_column="source"))
    with path.open(encoding="utf8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [e.text for e in result.corpus] == [row["text"] for row in rows]
    assert result.report.labels == {"0": 6325, "1": 2614}


def test_reading_loads_neither_torch_nor_datasets(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text\na\nb\n")
    program = (
        "import sys\nfrom biasdiff_core.config import CorpusConfig\nfrom biasdiff_core.corpus import export, probes, read, table\n"
        f"read.read_corpus(CorpusConfig(path={path!r}))\nprint({{'torch', 'transformers', 'datasets'}} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
