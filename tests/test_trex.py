"""T-REx cloze: what is asked and what is left out, answers and ranks against one query at a time, and figures by hand."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig

from biasdiff_core.config import ModelConfig
from biasdiff_core.config.evaluation import CrowsPairsConfig, EvaluationConfig, PerplexityConfig, TrexConfig
from biasdiff_core.errors import DataError
from biasdiff_core.evaluation import trex
from biasdiff_core.evaluation.items import compare_items
from biasdiff_core.evaluation.suites import ITEM_METRICS, ITEMS_FILE, Subject, evaluate
from biasdiff_core.evaluation.trex import GAP, PROMPT, Query, Selection, ask, figures, items, load_queries, normal_answer, select
from biasdiff_core.model.load import load_model
from biasdiff_core.results import MetricResult, Progress
from tests.reference.greedy_slow import greedy_slow
from tests.reference.likelihood_slow import token_log_probs_slow
from tests.tiny_audit import write_held_out, write_pairs
from tests.tiny_tokenizer import VOCABULARY, byte_tokenizer

DATA = Path(os.environ.get("BIASDIFF_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))
CONFIG = TrexConfig(path="queries.csv", candidates=3)


def query(sentence: str, answer: str) -> Query:
    """A query made by masking the answer, marked by [ ] in the sentence."""
    return Query(id=f"{sentence}|{answer}", text=sentence.replace(f"[{answer}]", GAP), answer=answer)


QUERIES = [
    query("Bern is the seat of the government of [Switzerland].", "Switzerland"),
    query("[Bern] is the seat of the government of Switzerland.", "Bern"),
    query("The Aare flows into the [Rhine] near Koblenz.", "Rhine"),
    query("The Aare flows into the Rhine near [Koblenz].", "Koblenz"),
    query("Loops are written in [Ruby], and Ruby is liked.", "Ruby"),
    query("He was born in [Rome], as the Romans say.", "Rome"),
    query("A lighthouse stands on the [Isle of May].", "Isle of May"),
]


def model() -> Any:
    """Random weights; 2,048 tokens of context, since a byte is a token here."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    made = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=VOCABULARY, **sizes, bos_token_id=257, eos_token_id=256)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    return made


def table(answers: list[str], targets: list[str], ranks: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"id": [str(n) for n in range(len(answers))], "query": GAP, "target": targets, "answer": answers, "rank": ranks})


def by_name(found: list[MetricResult]) -> dict[str, MetricResult]:
    return {metric.name: metric for metric in found}


# --- the queries


def test_queries_are_read_with_ids_of_their_content(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text(f'query,target\n"Bern, in {GAP}.",Switzerland\n{GAP} is NA.,NA\n"Bern, in {GAP}.",Switzerland\n', encoding="utf8")
    found = load_queries(str(path))
    assert [(q.text, q.answer, q.sentence) for q in found] == [
        (f"Bern, in {GAP}.", "Switzerland", "Bern, in Switzerland."),
        (f"{GAP} is NA.", "NA", "NA is NA."),
    ]
    path.write_text(f'query,target\n{GAP} is NA.,NA\n"Bern, in {GAP}.",Switzerland\n', encoding="utf8")
    assert {q.id for q in load_queries(str(path))} == {q.id for q in found}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("query,answer\na,b\n", "no column 'target'"),
        ("query,target\nno gap,b\n", "1 row without exactly one <extra_id_0>: line 2"),
        (f"query,target\n{GAP} and {GAP},b\n", "without exactly one"),
        (f"query,target\n{GAP} x,\n", "with an empty cell"),
    ],
)
def test_rows_that_are_no_queries_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "q.csv").write_text(content, encoding="utf8")
    with pytest.raises(DataError, match=message):
        load_queries(str(tmp_path / "q.csv"))


def test_sentences_trained_on_and_visible_answers_are_left_out() -> None:
    found = select(QUERIES, ["the AARE flows  into the Rhine, near Koblenz", "something else"], CONFIG)
    # 2 queries of the Aare sentence were trained on; Ruby still stands in its query, Rome does not stand in "Romans".
    assert (found.trained_on, found.visible) == (2, 1)
    asked = {q.answer for q in found.queries}
    assert {"Rome", "Isle of May"} < asked and len(asked & {"Switzerland", "Bern"}) == 1 and len(asked) == 3


def test_the_sample_is_seeded_and_one_a_sentence() -> None:
    several = [query(f"Sentence {n} has [word{n}] and more.", f"word{n}") for n in range(30)]
    doubled = several + [query(f"Sentence {n} has word{n} and [more].", "more") for n in range(30)]
    first, again, other = (select(doubled, [], replace(CONFIG, limit=20, seed=seed)) for seed in (1, 1, 2))
    assert first == again and first.queries != other.queries
    assert len({q.sentence for q in first.queries}) == len(first.queries) == 20
    assert len(select(doubled, [], replace(CONFIG, limit=None)).queries) == 30


def test_candidates_begin_with_the_right_answer_and_differ() -> None:
    made = [*QUERIES, query("This, too, is about the [rome] of old.", "rome"), query("Once more [The Rhine].", "The Rhine")]
    for seed in range(5):
        found = select(made, [], replace(CONFIG, candidates=4, seed=seed))
        for q, candidates in zip(found.queries, found.candidates, strict=True):
            assert candidates[0] == q.answer and len({normal_answer(c) for c in candidates}) == len(candidates) == 4
            assert {normal_answer(c) for c in candidates} <= {normal_answer(other.answer) for other in made}
    assert select(made, [], replace(CONFIG, candidates=0)).candidates == ()


def test_nothing_to_ask_is_an_error_that_says_why() -> None:
    with pytest.raises(
        DataError, match="None of the 2 T-REx queries can be asked: 1 are of sentences that the model was trained on, 1 show"
    ):
        select([QUERIES[0], QUERIES[4]], [QUERIES[0].sentence], CONFIG)
    with pytest.raises(DataError, match="have 5 different answers, not 20"):
        select([*QUERIES[:4], QUERIES[6]], [], replace(CONFIG, candidates=20))


def test_the_published_queries_all_come_from_training_sentences() -> None:
    if not (DATA / "trex" / "cloze_queries.csv").exists():
        pytest.skip("needs trex/cloze_queries.csv and trex_mix/trex_mix.csv under BIASDIFF_DATA")
    queries = load_queries(str(DATA / "trex" / "cloze_queries.csv"))
    texts = pd.read_csv(DATA / "trex_mix" / "trex_mix.csv", keep_default_na=False)["text"].tolist()
    with pytest.raises(DataError, match="20000 are of sentences that the model was trained on"):
        select(queries, texts, CONFIG)
    some = select(queries, texts[::2], TrexConfig(path=""))
    assert len(some.queries) == 500 and 0 < some.trained_on < 20000 and some.visible > 0
    assert all(len(candidates) == 20 for candidates in some.candidates)


# --- asking


def ask_slow(made: Any, tokenizer: Any, selection: Selection, instruction: str) -> tuple[list[str], list[float]]:
    """One query, one candidate, one token at a time."""
    answers, ranks = [], []
    for q, candidates in zip(selection.queries, selection.candidates, strict=True):
        prompt = tokenizer(instruction + PROMPT.format(query=q.text))["input_ids"]
        answers.append(tokenizer.decode(greedy_slow(made, prompt, 6, 256), skip_special_tokens=True).split("\n")[0].strip())
        tokens = [tokenizer(f" {candidate}")["input_ids"] for candidate in candidates]
        means = [token_log_probs_slow(made, [*prompt, *t])[-len(t) :].mean() for t in tokens]
        ranks.append(float(sum(mean >= means[0] for mean in means)))
    return answers, ranks


@pytest.mark.parametrize("instruction", ["", "Be fair. "])
@pytest.mark.parametrize("token_budget", [64, 4096])
def test_asking_equals_one_query_at_a_time(instruction: str, token_budget: int) -> None:
    made, tokenizer = model(), byte_tokenizer()
    selection = select(QUERIES, [], replace(CONFIG, candidates=5))
    found = ask(made, tokenizer, selection, instruction=instruction, max_new_tokens=6, token_budget=token_budget)
    answers, ranks = ask_slow(made, tokenizer, selection, instruction)
    assert list(found["answer"]) == answers and list(found["rank"]) == ranks and len(set(ranks)) > 1
    assert list(found["id"]) == [q.id for q in selection.queries] and list(found["target"]) == [q.answer for q in selection.queries]


def test_the_prompt_is_the_papers_with_the_query_in_its_place() -> None:
    assert PROMPT.count("Missing word(s):") == 3 and PROMPT.endswith("Context: {query}\n\nMissing word(s):")
    assert PROMPT.format(query="x").count(GAP) == 2


def test_without_candidates_there_are_no_ranks() -> None:
    selection = select(QUERIES, [], replace(CONFIG, candidates=0))
    steps: list[Progress] = []
    found = ask(model(), byte_tokenizer(), selection, max_new_tokens=2, token_budget=512, progress=steps.append)
    assert found["rank"].isna().all() and [frame["metric"].iloc[0] for frame in items(found)] == ["trex.exact_match"]
    assert [metric.name for metric in figures(found, selection, replace(CONFIG, candidates=0), bootstrap=50, seed=0)] == [
        "trex.exact_match"
    ]
    assert (steps[-1].done, steps[-1].total, steps[-1].unit) == (len(found), len(found), "queries")


def test_a_model_that_knows_nothing_ties_and_ties_count_against_it() -> None:
    made = model()
    with torch.no_grad():
        made.lm_head.weight.zero_()
    found = ask(made, byte_tokenizer(), select(QUERIES, [], CONFIG), max_new_tokens=2, token_budget=512)
    assert set(found["rank"]) == {3.0}


@pytest.mark.slow
def test_the_bundled_model_knows_some_capitals(tmp_path: Path) -> None:
    loaded = load_model(ModelConfig(), tmp_path)
    pairs = {
        "France": "Paris",
        "Italy": "Rome",
        "Japan": "Tokyo",
        "Spain": "Madrid",
        "Egypt": "Cairo",
        "Russia": "Moscow",
        "Cuba": "Havana",
    }
    made = [query(f"The capital of {land} is [{city}].", city) for land, city in pairs.items()]
    config = TrexConfig(path="", candidates=7)
    selection = select(made, [], config)
    found = by_name(
        figures(
            ask(loaded.model, loaded.tokenizer, selection, max_new_tokens=8, token_budget=512), selection, config, bootstrap=200, seed=0
        )
    )
    first = found["trex.answer_rank"]
    assert first.value is not None and first.low is not None and first.chance is not None and first.low > first.chance


# --- figures


def test_figures_by_hand() -> None:
    made = table(["Rome", " the  rome.", "", "Oslo"], ["Rome", "Rome", "Rome", "Bergen"], [1.0, 2.0, 4.0, 1.0])
    selection = Selection(queries=(), candidates=(), trained_on=5, visible=2)
    found = by_name(figures(made, selection, TrexConfig(path=""), bootstrap=500, seed=0))
    exact, first, reciprocal = (found[f"trex.{name}"] for name in ("exact_match", "answer_rank", "mean_reciprocal_rank"))
    # Exact: the first two of 4. First: 2 of 4. Reciprocal: (1 + 1/2 + 1/4 + 1) / 4 = 2.75 / 4.
    assert (exact.value, first.value, reciprocal.value) == pytest.approx((50.0, 50.0, 0.6875))
    # Wilson, 2 of 4: centre 0.5, half-width 1.96 √(0.25/4 + 1.96²/64) / (1 + 1.96²/4) = 0.34996.
    assert exact.low == pytest.approx(15.004, abs=0.01) and exact.high == pytest.approx(84.996, abs=0.01)
    assert reciprocal.low is not None and reciprocal.high is not None and 0.25 <= reciprocal.low < 0.6875 < reciprocal.high <= 1
    # Chance: 0, 1 in 20, and the mean of 1/1 … 1/20 = 3.59774 / 20.
    assert (exact.chance, first.chance, reciprocal.chance) == pytest.approx((0.0, 5.0, 0.179887), abs=1e-6)
    for metric in found.values():
        assert (metric.n, metric.not_scored) == (4, 7)
        assert "5 of sentences trained on, 2 whose answer is visible" in metric.convention
    assert exact.unit == first.unit == "%" and "after the instruction" not in exact.convention
    told = figures(made, selection, TrexConfig(path=""), instruction="Be fair.", bootstrap=50, seed=0)
    assert all("after the instruction 'Be fair.'" in metric.convention for metric in told)


def test_paired_tests_by_hand() -> None:
    before = table(["a", "a", "b", "b"], ["a", "a", "a", "a"], [1.0, 1.0, 2.0, 2.0])
    after = table(["a", "b", "b", "b"], ["a", "a", "a", "a"], [1.0, 2.0, 2.0, 1.0])
    sides = [pd.concat(items(side)) for side in (after, before)]
    tests = {test.metric: test for test in compare_items(*sides, trex.METRICS, "npo", "origin", bootstrap=200, seed=0)}
    exact, first, reciprocal = (tests[f"trex.{name}"] for name in ("exact_match", "answer_rank", "mean_reciprocal_rank"))
    # Exact: 1 of 4 after, 2 of 4 before. First: 2 and 2, one gained and one lost. Reciprocal: 3/4 both times.
    assert (exact.difference, exact.only_variant, exact.only_reference, exact.p_value) == (-25.0, 0, 1, 1.0)
    assert (first.difference, first.only_variant, first.only_reference) == (0.0, 1, 1)
    assert reciprocal.difference == pytest.approx(0.0) and reciprocal.p_value is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Germany", "germany"),
        ("  the  Lake\tSevan. ", "lake sevan"),
        ("“An Apple”!", "apple"),
        ("A", "a"),
        ("The", "the"),
        ("Theodor", "theodor"),
        ("...", ""),
        ("U.S.", "u.s"),
        ("Saint-Denis", "saint-denis"),
    ],
)
def test_answers_are_normalised(text: str, expected: str) -> None:
    assert normal_answer(text) == expected


@given(st.text())
def test_normalising_ignores_case_and_space_at_the_ends(text: str) -> None:
    assert normal_answer(f"  {text}\n") == normal_answer(text)


def test_an_empty_answer_is_wrong_even_to_an_empty_target() -> None:
    selection = Selection(queries=(), candidates=(), trained_on=0, visible=0)
    found = figures(table(["", "!"], ["?", "."], [1.0, 1.0]), selection, replace(CONFIG, candidates=0), bootstrap=50, seed=0)
    assert found[0].value == 0.0


# --- within an evaluation


def test_an_evaluation_writes_answers_and_rows(tmp_path: Path) -> None:
    lines = "\n".join(f'"{q.text}",{q.answer}' for q in QUERIES)
    (tmp_path / "q.csv").write_text(f"query,target\n{lines}\n", encoding="utf8")
    config = EvaluationConfig(
        crows_pairs=CrowsPairsConfig(path=str(write_pairs(tmp_path / "pairs.csv")), scorings=("sum",)),
        perplexity=PerplexityConfig(path=str(write_held_out(tmp_path / "held.txt"))),
        trex=TrexConfig(path=str(tmp_path / "q.csv"), candidates=3, max_new_tokens=2),
        bootstrap=50,
    )
    subject = Subject(model=model(), tokenizer=byte_tokenizer(), instruction="", trained_on=[QUERIES[2].sentence])
    found = by_name(evaluate(subject, config, tmp_path, lambda step: None).metrics)
    assert found["trex.exact_match"].n == 3 and found["trex.exact_match"].not_scored == 3
    rows = pd.read_parquet(tmp_path / ITEMS_FILE)
    assert set(trex.METRICS) < set(rows["metric"]) <= set(ITEM_METRICS)
    saved = pd.read_parquet(tmp_path / "trex.parquet")
    exact = rows[rows["metric"] == "trex.exact_match"]
    assert list(exact["item"]) == list(saved["id"]) and math.isclose(100 * np.mean(exact["value"]), found["trex.exact_match"].value or 0.0)
