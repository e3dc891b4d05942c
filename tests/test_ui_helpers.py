"""What the pages show, computed without a page: words, tables, stored uploads."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.proto.Common_pb2 import FileURLs
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

from biasdiff_core.audit import Audit
from biasdiff_core.evaluation.crows_pairs import PairScores
from biasdiff_core.results import MetricResult, PairedTest
from biasdiff_core.workspace.artefacts import open_artefact
from biasdiff_ui.corpus_view import matching
from biasdiff_ui.data_source import store_upload
from biasdiff_ui.downloads import cleaned_corpus, decisions_csv, ranking_csv
from biasdiff_ui.format import count, duration, metric_help, metric_name, metric_text
from biasdiff_ui.format import test_words as words_of
from biasdiff_ui.methods import read_steps
from biasdiff_ui.notices import plain
from biasdiff_ui.removal_form import composition, nearest_types
from biasdiff_ui.results_view import flips


def test_a_metric_is_shown_with_interval_n_and_convention() -> None:
    metric = MetricResult(
        name="crows_pairs.sum.stereotype_score",
        value=54.417,
        low=51.69,
        high=57.12,
        n=400,
        not_scored=3,
        chance=50.0,
        convention="sum",
        unit="%",
    )
    assert metric_text(metric) == "54.4 % [51.7, 57.1], n = 400"
    assert metric_text(metric, with_n=False) == "54.4 % [51.7, 57.1]"
    assert metric_help(metric) == "sum; n = 400, 3 not scored; chance 50"
    assert metric_name(metric.name) == "CrowS-Pairs stereotype score (sum)"
    assert metric_name("crows_pairs.paper.stereotype_score.age") == "CrowS-Pairs stereotype score (paper, age)"
    undefined = MetricResult(name="perplexity", value=None, n=0, convention="none")
    assert metric_text(undefined) == "not defined, n = 0"
    assert metric_text(None) == "–"


def test_a_test_in_words_has_the_digits_of_its_unit() -> None:
    moved = PairedTest(
        metric="crows_pairs.sum.stereotype_score",
        variant="npo",
        reference="origin",
        difference=-3.14,
        low=-5.25,
        high=-1.04,
        n=9,
        p_value=0.01,
    )
    assert words_of(moved) == "lower by 3.1 [1.0, 5.2]"
    margin = PairedTest(
        metric="crows_pairs.sum.stereotype_margin", variant="a", reference="b", difference=0.0, low=-0.01, high=0.01, n=9, p_value=None
    )
    assert words_of(margin) == "cannot be told from no change (+0.000 [-0.010, 0.010])"


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (59, "59 s"), (540, "9 min"), (9000, "2.5 h")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_counts_have_a_plural() -> None:
    assert [count(n, "row") for n in (0, 1, 1508)] == ["0 rows", "1 row", "1,508 rows"]


@given(st.text())
def test_plain_text_keeps_every_word_and_leaves_no_markup(text: str) -> None:
    escaped = plain(text)
    assert re.sub(r"\\([^a-zA-Z0-9\s])", r"\1", escaped) == " ".join(text.split())
    assert not re.search(r"(?<!\\)(?:\\\\)*[*_`\[\]<>$:!~|#]", escaped)


def _upload(name: str, content: bytes) -> UploadedFile:
    return UploadedFile(UploadedFileRec(file_id="1", name=name, type="text/csv", data=content), FileURLs())


def test_uploads_are_kept_once_and_inside_the_folder(tmp_path: Path) -> None:
    content = b"text\none\ntwo\n"
    first = store_upload(tmp_path / "uploads", _upload("../../etc/my data.csv", content))
    again = store_upload(tmp_path / "uploads", _upload("my data.csv", content))
    # printf 'text\none\ntwo\n' | sha256sum | cut -c1-12
    assert first == again == tmp_path / "uploads" / "96ef5fe537ba-my_data.csv"
    assert first.read_bytes() == content
    assert len(list((tmp_path / "uploads").iterdir())) == 1


def test_composition_counts_before_and_after() -> None:
    values = pd.Series({"a": "women", "b": "women", "c": "men", "d": None})
    table = composition(values, ["a", "d"], "group").set_index("group")
    assert table.loc["women"].tolist() == [2, 1, 1, 50.0]
    assert table.loc["men"].tolist() == [1, 0, 1, 0.0]
    assert table.loc["unknown"].tolist() == [1, 1, 0, 100.0]


def _scores(rows: list[tuple[str, float, float]]) -> PairScores:
    frame = pd.DataFrame(rows, columns=["id", "more_sum", "less_sum"]).assign(
        bias_type="age", direction="stereo", tokens_more=1, tokens_less=1
    )
    return PairScores(frame=frame, conventions={"sum": "sum"})


def test_flips_are_the_pairs_that_changed_sides() -> None:
    before = _scores([("kept", -1.0, -2.0), ("small", -1.0, -2.0), ("large", -1.0, -2.0), ("tie", -1.0, -1.0)])
    after = _scores([("kept", -1.0, -1.5), ("small", -2.0, -1.9), ("large", -5.0, -1.0), ("tie", -1.0, -2.0)])
    found = flips(after, before, "sum")
    assert found["id"].tolist() == ["large", "small"]  # moved by 5 and by 1.1
    assert found["margin before"].tolist() == [1.0, 1.0]
    assert found["margin after"].tolist() == pytest.approx([-4.0, -0.1])


def test_search_is_literal_and_sees_prompts() -> None:
    corpus = pd.DataFrame({"text": ["A (b)", "c"], "prompt": [None, "Ask A"]})
    assert matching(corpus, "(B").index.tolist() == [0]
    assert matching(corpus, "a").index.tolist() == [0, 1]
    assert matching(corpus, "").index.tolist() == [0, 1]


def test_downloads_of_a_finished_audit(finished_audit: Audit) -> None:
    removal = open_artefact(finished_audit.folder.path, "removal", finished_audit.report().inputs["removal"])
    removed = removal.facts["candidates"] - removal.facts["false_positives"]
    assert len(cleaned_corpus(finished_audit, removal).decode().splitlines()) == 1 + 40 - removed
    assert len(decisions_csv(finished_audit).decode().splitlines()) == 1 + 24  # 60 % of 40 are decided
    assert ranking_csv(finished_audit).decode().splitlines()[0].startswith("rank,id,score,text")


def test_nearest_types_name_a_type_for_every_example(finished_audit: Audit) -> None:
    kinds = nearest_types(finished_audit)
    assert len(kinds) == 40
    assert set(kinds) <= {"gender", "age", "nationality"}


def test_steps_are_read_while_they_are_written(finished_audit: Audit, tmp_path: Path) -> None:
    assert read_steps(tmp_path) is None
    folder = next((finished_audit.folder.path / "mitigation").glob("*/steps.jsonl")).parent
    steps = read_steps(folder)
    assert steps is not None
    assert steps["step"].tolist() == list(range(1, len(steps) + 1))
