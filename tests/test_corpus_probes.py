"""Reading the probing set: columns, twins, duplicates, samples, refusals; leakage into corpus and evaluation."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biasdiff_core.config import ProbeConfig
from biasdiff_core.corpus.demo import DEMO_FOLDER
from biasdiff_core.corpus.examples import Corpus, Probe, ProbeSet, TrainingExample, content_id
from biasdiff_core.corpus.probes import LeakageReport, leakage, read_probes
from biasdiff_core.corpus.table import read_probes_table, write_probes
from biasdiff_core.errors import ArtefactError, DataError

DATA = Path(os.environ.get("BIASDIFF_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))
PAIRS = {"text_column": "more", "twin_column": "less", "bias_type_column": "type"}


def probes_csv(folder: Path, content: str | bytes, **options: Any) -> ProbeConfig:
    path = folder / "probes.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return ProbeConfig(path=str(path), **options)


def test_text_twin_and_bias_type(tmp_path: Path) -> None:
    config = probes_csv(tmp_path, "more,less,type\na,b,age\nc,d,gender\ne,f, \n", **PAIRS)
    probes, notes = read_probes(config)
    assert [(p.text, p.twin, p.bias_type) for p in probes] == [("a", "b", "age"), ("c", "d", "gender"), ("e", "f", "all")]
    assert [p.id for p in probes] == [content_id(None, text, 0) for text in "ace"]
    assert probes.has_twins
    assert notes == ["1 row without a bias type counted as `all`: line 4."]


def test_text_alone(tmp_path: Path) -> None:
    probes, notes = read_probes(probes_csv(tmp_path, "text,twin\na,b\n"))
    assert [(p.text, p.twin, p.bias_type) for p in probes] == [("a", None, "all")]
    assert notes == []


def test_duplicates_and_empty_rows_are_left_out_and_noted(tmp_path: Path) -> None:
    config = probes_csv(tmp_path, "more,less,type\na,b,x\n,b,x\na,c,y\nd,,x\n\na,b,x\n", **PAIRS)
    probes, notes = read_probes(config)
    assert [(p.text, p.twin) for p in probes] == [("a", "b"), ("d", None)]
    assert notes == [
        "2 rows without text left out: lines 3, 6.",
        "2 rows repeating the text of an earlier probe left out: lines 4, 7.",
        "1 row without a twin kept: line 5.",
    ]


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        pytest.param("more,less,type\na,b,x\nc, c ,x\nd,d,x\n", PAIRS, "2 rows with a twin equal to the probe: lines 3, 4", id="same twin"),
        pytest.param("more,less\na,b\n", PAIRS, "no column 'type'", id="column"),
        pytest.param(b"text\na\n\xe9\n", {}, "not in UTF-8: line 3", id="not UTF-8"),
        pytest.param("text\na\nb\0\n", {}, "NUL bytes: line 3", id="NUL"),
        pytest.param("more,less,type\na,b,x\nc\n", PAIRS, "number of cells than the header: line 3", id="ragged"),
        pytest.param("text\n\n \n", {}, "holds no probe", id="no text"),
    ],
)
def test_refused_with_lines(tmp_path: Path, content: str | bytes, options: dict[str, Any], expected: str) -> None:
    config = probes_csv(tmp_path, content, **options)
    with pytest.raises(DataError) as refusal:
        read_probes(config)
    assert expected in str(refusal.value)
    assert config.path in str(refusal.value)


def test_twin_that_is_no_string(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"text": "a", "twin": "b"}\n{"text": "c", "twin": 1}\n')
    with pytest.raises(DataError, match="not a string: line 2"):
        read_probes(ProbeConfig(path=str(path), twin_column="twin"))


def test_sample_is_seeded_and_keeps_order(tmp_path: Path) -> None:
    config = probes_csv(tmp_path, "text\n" + "".join(f"probe {i}\n" for i in range(40)), limit=10)
    probes, notes = read_probes(config)
    texts = [p.text for p in probes]
    assert len(texts) == 10
    assert texts == sorted(texts, key=lambda text: int(text.split()[1]))
    assert notes == ["A sample of 10 of 40 probes, seed 0."]
    assert read_probes(config)[0] == probes
    assert read_probes(replace(config, seed=1))[0] != probes
    smaller = {p.id for p in read_probes(replace(config, limit=4))[0]}
    assert smaller < {p.id for p in probes}  # samples of one seed are nested
    assert read_probes(replace(config, limit=40))[1] == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(order=st.permutations(range(12)), limit=st.integers(1, 12))
def test_sample_does_not_depend_on_row_order(tmp_path: Path, order: list[int], limit: int) -> None:
    chosen = []
    for numbers in (range(12), order):
        config = probes_csv(tmp_path, "text\n" + "".join(f"probe {i}\n" for i in numbers), limit=limit, seed=3)
        chosen.append({p.id for p in read_probes(config)[0]})
    assert chosen[0] == chosen[1]


def corpus_of(*texts: str, prompts: tuple[str | None, ...] = ()) -> Corpus:
    pairs = zip(texts, prompts or (None,) * len(texts), strict=True)
    return Corpus(TrainingExample(id=f"e{i}", text=text, prompt=prompt) for i, (text, prompt) in enumerate(pairs))


def test_leakage() -> None:
    probes = ProbeSet(
        probes=(Probe(id="p0", text="A, cat."), Probe(id="p1", text="dog", twin="fox"), Probe(id="p2", text="owl", twin="hen"))
    )
    report = leakage(probes, corpus_of("a CAT", "Fox!", "a  cat", "a cat and more"), ["OWL", "Hen.", "Hen.", "hen", "owls"])
    assert [(leak.probe, leak.part, leak.found) for leak in report.in_corpus] == [
        ("p0", "text", "e0"),
        ("p0", "text", "e2"),
        ("p1", "twin", "e1"),
    ]
    assert [(leak.probe, leak.part, leak.found) for leak in report.in_evaluation] == [
        ("p2", "text", "OWL"),
        ("p2", "twin", "Hen."),
        ("p2", "twin", "hen"),
    ]


def test_leakage_sees_prompt_and_completion() -> None:
    probes = ProbeSet(probes=(Probe(id="p0", text="nurses are women"), Probe(id="p1", text="women")))
    report = leakage(probes, corpus_of("women", "men", prompts=("Nurses are", None)))
    assert [(leak.probe, leak.found) for leak in report.in_corpus] == [("p0", "e0"), ("p1", "e0")]


def test_no_leakage() -> None:
    report = leakage(ProbeSet(probes=(Probe(id="p", text="a"),)), corpus_of("b", "c"))
    assert report == LeakageReport(in_corpus=(), in_evaluation=())


def test_table_round_trip(tmp_path: Path) -> None:
    probes = ProbeSet(probes=(Probe(id="1", text="a", twin="b", bias_type="age"), Probe(id="2", text="ü\n")))
    write_probes(probes, tmp_path / "probes.parquet")
    assert read_probes_table(tmp_path / "probes.parquet") == probes
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_probes_table(tmp_path / "none.parquet")


def test_demo() -> None:
    if not (DEMO_FOLDER / "probes.csv").exists():
        pytest.skip("the demo probes are not written yet")
    probes, notes = read_probes(ProbeConfig(twin_column="twin", bias_type_column="bias_type"))
    assert probes.has_twins
    assert len(probes.bias_types) == 9
    assert notes == []


def test_real_pairs() -> None:
    path = DATA / "trex_mix" / "probe_pairs.csv"
    if not path.exists():
        pytest.skip("needs trex_mix/probe_pairs.csv under BIASDIFF_DATA")
    config = ProbeConfig(path=str(path), text_column="sent_more", twin_column="sent_less", bias_type_column="bias_type", limit=150)
    probes, notes = read_probes(config)
    assert len(probes) == 150
    assert probes.has_twins
    assert "A sample of 150" in notes[-1]
