"""The table that stages read: whatever text a source holds arrives in it unchanged, under ids that do not depend on order."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biasdiff_core.config import CorpusConfig
from biasdiff_core.corpus.examples import Corpus, TrainingExample
from biasdiff_core.corpus.read import read_corpus
from biasdiff_core.corpus.table import read_corpus_table, write_corpus
from biasdiff_core.errors import ArtefactError


def config_of(folder: Path, name: str, content: bytes, source_column: str | None = None) -> CorpusConfig:
    (folder / name).write_bytes(content)
    return CorpusConfig(path=str(folder / name), source_column=source_column)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
USABLE = TEXTS.filter(lambda text: bool(text.strip()))
ROWS = st.lists(st.tuples(USABLE, TEXTS), min_size=2, max_size=8)


def as_csv(rows: list[tuple[str, str]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("text", "source"), *rows])
    return out.getvalue().encode()


def as_jsonl(rows: list[tuple[str, str]]) -> bytes:
    return "".join(json.dumps({"text": text, "source": source}) + "\n" for text, source in rows).encode()


def as_parquet(rows: list[tuple[str, str]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": [row[0] for row in rows], "source": [row[1] for row in rows]}), out)
    return out.getvalue()


@pytest.mark.parametrize(("name", "encode"), [("a.csv", as_csv), ("a.jsonl", as_jsonl), ("a.parquet", as_parquet)])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(rows=ROWS)
def test_any_text_survives(tmp_path: Path, name: str, encode: Any, rows: list[tuple[str, str]]) -> None:
    config = config_of(tmp_path, name, encode(rows), "source")
    corpus = read_corpus(config).corpus
    assert [(e.text, e.source or "") for e in corpus] == rows
    write_corpus(corpus, tmp_path / "table.parquet")
    assert list(read_corpus_table(tmp_path / "table.parquet")) == list(corpus)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(rows=ROWS, data=st.data())
def test_ids_do_not_depend_on_row_order(tmp_path: Path, rows: list[tuple[str, str]], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(rows))
    ids = [read_corpus(config_of(tmp_path, "a.jsonl", as_jsonl(order))).corpus.ids for order in (rows, shuffled)]
    # As a set; which of several equal rows is the k-th is a matter of order.
    assert set(ids[0]) == set(ids[1])


def test_table_is_the_same_bytes_for_the_same_corpus(tmp_path: Path) -> None:
    corpus = Corpus([TrainingExample(id=str(i), text="t" * i, label=i % 2, prompt="p" if i else None, line=i) for i in range(5)])
    for name in ("one", "two"):
        write_corpus(corpus, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_table_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("text")
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "other")
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_corpus_table(tmp_path / "broken")
    with pytest.raises(ArtefactError, match="has the columns"):
        read_corpus_table(tmp_path / "other")
