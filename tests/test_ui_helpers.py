"""What the pages show, computed without a page: words, tables, stored uploads."""

from __future__ import annotations

import html
import re
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.proto.Common_pb2 import FileURLs
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

from biasdiff_core.audit import Audit
from biasdiff_core.config import METHODS
from biasdiff_core.config.audit import ReviewConfig
from biasdiff_core.evaluation.crows_pairs import PairScores
from biasdiff_core.evaluation.pairs import Pair
from biasdiff_core.guide import guide_of
from biasdiff_core.pipeline import Pipeline
from biasdiff_core.results import MetricResult
from biasdiff_core.review.removal import load_removal
from biasdiff_core.workspace.artefacts import open_artefact
from biasdiff_ui.charts import inert, margins, training
from biasdiff_ui.corpus_view import matching
from biasdiff_ui.data_source import store_upload
from biasdiff_ui.downloads import cleaned_corpus, decisions_csv, ranking_csv
from biasdiff_ui.format import count, duration, metric_help, metric_text
from biasdiff_ui.methods import GROUPS, WHAT, method_costs, obstacle_to, read_steps
from biasdiff_ui.notices import plain
from biasdiff_ui.pairs_view import flips, pair_changes, with_texts
from biasdiff_ui.removal_form import composition, predicted_words


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
    assert metric_help(metric) == f"{guide_of(metric.name).words()} sum; n = 400, 3 not scored; chance 50"
    undefined = MetricResult(name="perplexity", value=None, n=0, convention="none")
    assert metric_text(undefined) == "not defined, n = 0"
    assert metric_text(None) == "–"


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
    changes = pair_changes(after, before, "sum")
    assert changes["flipped"].tolist() == [False, True, True, False]
    found = flips(changes)
    assert found["id"].tolist() == ["large", "small"]  # moved by 5 and by 1.1
    assert found["margin before"].tolist() == [1.0, 1.0]
    assert found["margin after"].tolist() == pytest.approx([-4.0, -0.1])


HOSTILE = "<a href='https://example.org'>x</a> & <b>y</b>"


def test_the_chart_of_pairs_shows_flips_apart_and_texts_inert() -> None:
    before, after = _scores([("a", -1.0, -2.0), ("b", -1.0, -2.0)]), _scores([("a", -1.0, -1.5), ("b", -3.0, -2.0)])
    pair = Pair(id="b", sent_more=HOSTILE, sent_less="less", direction="stereo", bias_type="age")
    rows = with_texts(pair_changes(after, before, "sum"), {"b": pair})
    assert rows["text"].tolist() == [" / ", f"{HOSTILE} / less"]
    same, flipped, line = margins(rows, "origin", "NPO", "nats", "title", "subtitle").data
    assert (list(same.x), list(same.y), list(flipped.x), list(flipped.y)) == ([1.0], [0.5], [1.0], [-1.0])
    assert (same.marker.symbol, same.marker.color) != (flipped.marker.symbol, flipped.marker.color)
    assert list(line.x) == list(line.y) == [-1.0, 1.0]
    assert flipped.hoverinfo == "text"  # no template, into which values would be put
    assert flipped.hovertext[0].startswith("+1.000 → -1.000<br>&lt;a href='https://example.org'&gt;")
    assert "<a" not in flipped.hovertext[0] and "<b>" not in flipped.hovertext[0]


@given(st.text())
def test_inert_text_has_no_tag_but_its_own_line_breaks(text: str) -> None:
    assert "<" not in inert(text).replace("<br>", "")
    assert html.unescape(inert(text).replace("<br>", "")).split() == "".join(textwrap.wrap(text, 72)).split()


def test_training_shows_every_term_its_weight_and_the_gradient_norm() -> None:
    steps = pd.DataFrame(
        {
            "epoch": [1, 1],
            "step": [1, 2],
            "learning_rate": [0.1, 0.1],
            "npo": [13.0, 12.0],
            "retain_nll": [2.0, 2.1],
            "retain_kl": [0.0, 0.1],
            "weight:npo": [0.05, 0.05],
            "weight:retain_nll": [1.0, 1.0],
            "weight:retain_kl": [0.5, 0.5],
            "gradient_norm": [0.3, 0.4],
        }
    )
    figure = training(steps, "NPO")
    lines = {(trace.name, trace.yaxis): list(trace.y) for trace in figure.data}
    assert lines[("NPO term", "y")] == [13.0, 12.0]
    assert lines[("loss on the others", "y")] == [2.0, 2.1]
    assert lines[("KL to origin on the others", "y")] == [0.0, 0.1]
    assert lines[("gradient norm", "y2")] == [0.3, 0.4]
    assert lines[("NPO term", "y3")] == [0.05, 0.05]
    assert len(lines) == 7
    logged = {(trace.name, trace.yaxis) for trace in training(steps.drop(columns="weight:retain_kl"), "NPO").data}
    assert logged == {*lines} - {(kl := "KL to origin on the others", "y"), (kl, "y3")} | {(f"{kl} (logged only)", "y")}
    alone = training(steps[["step", "npo", "weight:npo", "gradient_norm"]], "NPO")
    assert {trace.yaxis for trace in alone.data} == {"y", "y2"}  # one term's weight says nothing


def test_every_method_has_a_card_in_one_group() -> None:
    assert sorted(method for _, methods, _ in GROUPS for method in methods) == sorted(METHODS)
    assert set(WHAT) == set(METHODS)


def test_what_a_method_needs_is_said_where_it_is_missing(finished_audit: Audit, tmp_path: Path) -> None:
    assert not any(obstacle_to(finished_audit, method) for method in METHODS if method != "minilm")
    config = finished_audit.config
    bare = Audit.from_config(
        replace(
            config,
            name="bare",
            corpus=replace(config.corpus, label_column=None),
            probes=replace(config.probes, twin_column=None),
            review=ReviewConfig(),
        ),
        tmp_path,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Pipeline(bare.folder).analyse(until="probes")
    assert "known label" in obstacle_to(bare, "oracle")
    assert "no anti-stereotype twins" in obstacle_to(bare, "twin")
    assert not obstacle_to(bare, "retrain")


def test_each_method_costs_what_its_variants_cost(finished_audit: Audit) -> None:
    removal = load_removal(open_artefact(finished_audit.folder.path, "removal", finished_audit.report().inputs["removal"]))
    costs = method_costs(finished_audit, removal)
    assert costs.measured
    assert all(seconds > 0 for seconds in costs.seconds.values())
    assert min(costs.seconds, key=costs.seconds.__getitem__) == "prompt"  # it trains nothing
    assert costs.seconds["retrain"] == pytest.approx(costs.seconds["length"])


def test_the_predicted_change_stands_beside_that_of_a_random_removal() -> None:
    ranking = pd.DataFrame({"id": ["a", "b", "c", "d"], "score": [0.5, 0.25, 0.25, 0.0]})
    # −(0.5 + 0.25); at random 2 · 0.25 are taken out on average
    assert "-0.75 (in units of one cosine), -0.50 for as many" in predicted_words(ranking, ["a", "b"])


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


def test_steps_are_read_while_they_are_written(finished_audit: Audit, tmp_path: Path) -> None:
    assert read_steps(tmp_path) is None
    folder = next((finished_audit.folder.path / "mitigation").glob("*/steps.jsonl")).parent
    steps = read_steps(folder)
    assert steps is not None
    assert steps["step"].tolist() == list(range(1, len(steps) + 1))
