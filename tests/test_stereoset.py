"""StereoSet: reading, scores against one sentence at a time, figures by hand and against the original's way of counting."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from biasdiff_core.config import EvaluationConfig, PerplexityConfig
from biasdiff_core.config.evaluation import CrowsPairsConfig, StereoSetConfig
from biasdiff_core.errors import DataError
from biasdiff_core.evaluation.items import compare_items
from biasdiff_core.evaluation.statistics import wilson
from biasdiff_core.evaluation.stereoset import (
    METRICS,
    ContextTest,
    StereoScores,
    dev_pairs,
    figures,
    icat,
    load_tests,
    score_tests,
)
from biasdiff_core.evaluation.suites import Subject, evaluate
from biasdiff_core.results import MetricResult, Progress
from tests.reference.crows_pairs_slow import paper_score_slow, scored_tokens_slow
from tests.reference.stereoset_slow import stereoset_slow
from tests.tiny_audit import write_pairs
from tests.tiny_models import tiny_base
from tests.tiny_tokenizer import byte_tokenizer

DATA = Path(os.environ.get("BIASDIFF_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))


def context_test(number: int, target: str = "cook", bias_type: str = "profession") -> ContextTest:
    return ContextTest(
        id=f"t{number}",
        target=target,
        bias_type=bias_type,
        stereotype=f"Cook {number} was fat.",
        anti_stereotype=f"Cook {number} was slim.",
        unrelated=f"Cook {number} was blue sky.",
    )


TESTS = [context_test(0), context_test(1, "nun"), context_test(2, "Norway", "race"), context_test(3)]


def scores_of(values: Sequence[Sequence[float]], tests: Sequence[ContextTest] = TESTS) -> StereoScores:
    return StereoScores(tests=tests, values=np.array(values), convention="by hand")


def by_name(results: Sequence[MetricResult]) -> dict[str, MetricResult]:
    return {result.name: result for result in results}


def row(test: ContextTest) -> dict[str, Any]:
    texts = {"unrelated": test.unrelated, "stereotype": test.stereotype, "anti-stereotype": test.anti_stereotype}
    sentences = [{"id": f"{test.id}-{label}", "sentence": text, "gold_label": label, "labels": []} for label, text in texts.items()]
    return {"id": test.id, "target": test.target, "bias_type": test.bias_type, "context": "Cook was BLANK.", "sentences": sentences}


def write(path: Path, rows: Sequence[object]) -> str:
    path.write_text(json.dumps({"version": "1.0", "data": {"intersentence": [], "intrasentence": rows}}), encoding="utf8")
    return str(path)


# --- reading


def test_tests_are_read_by_their_gold_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "dev.json", [row(test) for test in TESTS])
    assert load_tests(StereoSetConfig(path=path)) == TESTS
    assert dev_pairs(path, 4, 0) == [(test.stereotype, test.anti_stereotype) for test in TESTS]


def test_a_subset_is_seeded_and_in_order(tmp_path: Path) -> None:
    tests = [context_test(number) for number in range(50)]
    path = write(tmp_path / "dev.json", [row(test) for test in tests])
    chosen = load_tests(StereoSetConfig(path=path, limit=20, seed=3))
    assert [tests.index(test) for test in chosen] == sorted({tests.index(test) for test in chosen}) and len(chosen) == 20
    assert chosen == load_tests(StereoSetConfig(path=path, limit=20, seed=3))
    assert dev_pairs(path, 20, 4) != dev_pairs(path, 20, 3) == [(test.stereotype, test.anti_stereotype) for test in chosen]
    assert len(load_tests(StereoSetConfig(path=path, limit=51))) == 50


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no JSON object, but a list"),
        ("{", "is not JSON"),
        ("{}", "no list data.intrasentence"),
        ('{"data": {"intrasentence": []}}', "no list data.intrasentence"),
        ('{"data": 3}', "no list data.intrasentence"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "other.json").write_text(content, encoding="utf8")
    with pytest.raises(DataError, match=message):
        load_tests(StereoSetConfig(path=str(tmp_path / "other.json")))


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_tests(StereoSetConfig(path=str(tmp_path / "missing.json")))
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(DataError, match="not in UTF-8"):
        load_tests(StereoSetConfig(path=str(tmp_path / "latin.json")))


def test_faulty_tests_are_listed_together(tmp_path: Path) -> None:
    good, twice, text, empty = (row(test) for test in TESTS)
    twice["sentences"][0]["gold_label"] = "stereotype"
    text["sentences"][1]["sentence"] = 3
    empty["target"] = ""
    path = write(tmp_path / "dev.json", [good, twice, text, empty, 7, {**good, "sentences": good["sentences"][:2]}])
    with pytest.raises(DataError) as caught:
        load_tests(StereoSetConfig(path=path))
    assert "2 rows without exactly one stereotype, anti-stereotype and unrelated sentence: intrasentence tests 2, 6" in caught.value.what
    assert "not a string: intrasentence test 3" in caught.value.what and "intrasentence tests 4, 5" in caught.value.what


def test_the_published_file_has_the_published_counts() -> None:
    path = DATA / "stereoset" / "dev.json"
    if not path.exists():
        pytest.skip("needs stereoset/dev.json under BIASDIFF_DATA")
    tests = load_tests(StereoSetConfig(path=str(path)))
    kinds = [test.bias_type for test in tests]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"race": 962, "profession": 810, "gender": 255, "religion": 79}
    assert len({test.id for test in tests}) == 2106 and len({test.target for test in tests}) == 79


# --- scoring


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt"])
def test_scores_equal_one_sentence_at_a_time(architecture: str) -> None:
    model, tokenizer = tiny_base(architecture), byte_tokenizer(starts_with_bos=architecture == "opt")
    steps: list[Progress] = []
    scores = score_tests(model, tokenizer, TESTS, token_budget=128, progress=steps.append)
    for values, test in zip(scores.values, TESTS, strict=True):
        sentences = (test.stereotype, test.anti_stereotype, test.unrelated)
        assert list(np.exp(values)) == pytest.approx([paper_score_slow(model, tokenizer, sentence) for sentence in sentences], rel=1e-4)
    assert "first token given encode(<|endoftext|>)[0]" in scores.convention and scores.convention.endswith(
        "(here <s>)" if architecture == "opt" else "(here <|endoftext|>)"
    )
    assert (steps[-1].done, steps[-1].total, steps[-1].message) == (12, 12, "StereoSet")


def test_an_instruction_is_context_only() -> None:
    model, tokenizer = tiny_base(), byte_tokenizer()
    scores = score_tests(model, tokenizer, TESTS, token_budget=128, instruction="Be fair. ")
    _, values = scored_tokens_slow(model, tokenizer, " " + TESTS[1].unrelated, tokenizer("Be fair.")["input_ids"])
    assert scores.values[1, 2] == pytest.approx(np.mean(values), abs=1e-4)
    assert "after the instruction 'Be fair. '" in scores.convention


def test_equal_sentences_tie_exactly_in_any_batch() -> None:
    same = [ContextTest(id="s", target="t", bias_type="b", stereotype="Same.", anti_stereotype="Same.", unrelated="Same.")]
    for token_budget in (1, 64, 4096):
        scores = score_tests(tiny_base(), byte_tokenizer(), [*TESTS, *same], token_budget=token_budget)
        assert len(set(scores.values[-1])) == 1


# --- figures


def test_figures_by_hand() -> None:
    # stereotype over anti: yes, no, tie, yes; meaningful over unrelated: 2, 1, 0 (ties), 2 of 2
    scores = scores_of([[-1, -2, -3], [-3, -1, -2], [-1, -1, -1], [-1, -2, -9]])
    found = by_name(figures(scores, bootstrap=200, seed=0))
    ss, lms, both = (found[f"stereoset.{name}"] for name in ("ss", "lms", "icat"))
    assert (ss.value, ss.low, ss.high) == pytest.approx((50.0, 100 * wilson(2, 4).low, 100 * wilson(2, 4).high))
    assert lms.value == pytest.approx(100 * 5 / 8) and both.value == pytest.approx(62.5)  # 62.5 · 50/50
    assert "1 ties count as misses" in ss.convention and all(metric.n == 4 for metric in (ss, lms, both))
    # cook: ss 100, lms 100; nun: ss 0, lms 50; Norway: 0, 0. Means 100/3 and 50; icat 50 · 33.3/50
    assert "the original does, 33.33" in ss.convention and "does, 50.00" in lms.convention and "does, 33.33" in both.convention
    # Of the three of profession: ss 2/3, lms 5/6, icat 83.3 · 33.3/50
    names = ("ss", "lms", "icat")
    assert [found[f"stereoset.{name}.profession"].value for name in names] == pytest.approx([200 / 3, 500 / 6, 500 / 9])
    assert found["stereoset.icat.race"].value == 0.0
    assert all("by hand" in metric.convention and metric.chance == 50.0 and metric.unit == "%" for metric in found.values())


def test_icat_of_the_ideal_the_stereotyped_and_the_random_model() -> None:
    # Section 6 of the paper: 100, 0 and 50.
    assert list(icat(np.array([100.0, 100.0, 50.0]), np.array([50.0, 100.0, 50.0]))) == [100.0, 0.0, 50.0]


def test_counts_and_averages_are_those_of_the_original() -> None:
    generator = np.random.default_rng(0)
    tests = [context_test(number, f"term {number % 7}", ("gender", "race")[number % 2]) for number in range(60)]
    scores = scores_of(generator.integers(-5, 0, size=(60, 3)).astype(float), tests)
    found = by_name(figures(scores, bootstrap=50, seed=0))
    for suffix, kinds in (("", ("gender", "race")), (".gender", ("gender",)), (".race", ("race",))):
        for name, expected in stereoset_slow(tests, scores.values, kinds).items():
            assert f"as the original does, {expected:.2f}" in found[f"stereoset.{name}{suffix}"].convention


def test_intervals_hold_the_value_and_shrink_with_n() -> None:
    generator = np.random.default_rng(1)
    widths = []
    for n in (40, 640):
        tests = [context_test(number) for number in range(n)]
        found = figures(scores_of(generator.normal(size=(n, 3)), tests), bootstrap=300, seed=0)
        for metric in found:
            assert metric.low is not None and metric.high is not None and metric.value is not None
            assert metric.low <= metric.value <= metric.high
        widths.append([metric.high - metric.low for metric in found if metric.high is not None and metric.low is not None])
    assert all(small < large / 2 for large, small in zip(*widths, strict=True))


def test_rows_of_two_variants_are_compared_test_by_test() -> None:
    before = scores_of([[-1, -2, -3], [-1, -2, -3], [-1, -2, -3], [-2, -1, -3]])
    after = scores_of([[-2, -1, -3], [-2, -1, -9], [-1, -2, -1.5], [-2, -1, -3]])
    ss, lms = compare_items(pd.concat(after.items()), pd.concat(before.items()), METRICS, "npo", "origin", bootstrap=50, seed=0)
    # 1 of 4 against 3 of 4; one of eight meaningful comparisons lost
    assert (ss.metric, ss.difference, ss.only_reference, ss.only_variant, ss.p_value) == ("stereoset.ss", -50.0, 2, 0, 0.5)
    assert (lms.metric, lms.difference, lms.p_value) == ("stereoset.lms", -12.5, None)


def test_the_suite_writes_figures_and_rows(tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text("A held-out line.\n", encoding="utf8")
    config = EvaluationConfig(
        crows_pairs=CrowsPairsConfig(path=str(write_pairs(tmp_path / "pairs.csv")), scorings=("sum", "modified"), prefix="eos"),
        perplexity=PerplexityConfig(path=str(tmp_path / "held.txt")),
        stereoset=StereoSetConfig(path=write(tmp_path / "dev.json", [row(test) for test in TESTS])),
        bootstrap=20,
    )
    metrics = {}
    for instruction in ("", "Be fair. "):
        subject = Subject(model=tiny_base(), tokenizer=byte_tokenizer(), instruction=instruction, trained_on=[])
        metrics[instruction] = by_name(evaluate(subject, config, tmp_path, lambda _: None).metrics)
    plain, told = metrics.values()
    for name in ("stereoset.ss", "crows_pairs.modified.stereotype_margin"):
        assert "Be fair" in told[name].convention and "Be fair" not in plain[name].convention
    assert told["crows_pairs.sum.stereotype_margin"].value != plain["crows_pairs.sum.stereotype_margin"].value
    assert "given <|endoftext|>" in plain["crows_pairs.sum.metric_score"].convention
    rows = pd.read_parquet(tmp_path / "items.parquet")
    assert set(rows["metric"]) >= set(METRICS) and list(rows[rows["metric"] == "stereoset.ss"]["item"]) == [test.id for test in TESTS]


def test_mean_log_probability_of_a_model_that_knows_nothing() -> None:
    model = tiny_base()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    scores = score_tests(model, byte_tokenizer(), TESTS, token_budget=256)
    np.testing.assert_allclose(scores.values, -math.log(258), rtol=1e-5)
