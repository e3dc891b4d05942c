"""Perplexity against the definition one text at a time, reading held-out text, and the refusal of training rows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from biasdiff_core.config.evaluation import PerplexityConfig
from biasdiff_core.errors import DataError
from biasdiff_core.evaluation.perplexity import load_texts, perplexity, refuse_training_rows
from biasdiff_core.results import Progress
from tests.reference.likelihood_slow import token_log_probs_slow
from tests.test_crows_pairs import llama
from tests.tiny_tokenizer import byte_tokenizer

TEXTS = ["A short one.", "A text that is a good deal longer than the first.", "x", "Neither long nor short."]


@pytest.mark.parametrize("token_budget", [64, 4096])
def test_perplexity_is_total_loss_over_total_tokens(token_budget: int) -> None:
    model, tokenizer = llama(), byte_tokenizer()
    found, losses = perplexity(model, tokenizer, TEXTS, token_budget=token_budget, bootstrap=200, seed=0)
    expected = [-token_log_probs_slow(model, tokenizer(text)["input_ids"]).sum() for text in TEXTS]
    np.testing.assert_allclose(losses.nll, expected, atol=1e-3)
    assert list(losses.tokens) == [len(text) - 1 for text in TEXTS]  # a byte a token; the first has nothing before it
    assert found.value == pytest.approx(math.exp(sum(expected) / (sum(map(len, TEXTS)) - len(TEXTS))), rel=1e-4)
    assert found.low is not None and found.high is not None and found.low <= found.value <= found.high
    assert found.n == 4 and "81 tokens" in found.convention and "first token of each text given" in found.convention


def test_a_model_that_knows_nothing_has_the_perplexity_of_the_vocabulary() -> None:
    model = llama()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    found, _ = perplexity(model, byte_tokenizer(), TEXTS, token_budget=128, bootstrap=50, seed=0)
    assert (found.value, found.low, found.high) == pytest.approx((258.0, 258.0, 258.0), rel=1e-4)


def test_a_long_text_is_cut_into_windows() -> None:
    model, tokenizer = llama(), byte_tokenizer()
    text = "abcdefghijklmnopqrstuvw"  # 23 tokens in windows of 10: 10 + 10 + 3, each scored from its second token on
    found, losses = perplexity(model, tokenizer, [text], token_budget=10, bootstrap=10, seed=0)
    windows = [text[:10], text[10:20], text[20:]]
    expected = -sum(token_log_probs_slow(model, tokenizer(part)["input_ids"]).sum() for part in windows)
    assert losses.nll[0] == pytest.approx(expected, abs=1e-3) and losses.tokens[0] == 20
    assert "at most 10 tokens" in found.convention


def test_texts_of_one_token_alone_are_refused() -> None:
    with pytest.raises(DataError, match="two tokens"):
        perplexity(llama(), byte_tokenizer(), ["x", "y"], token_budget=128, bootstrap=10, seed=0)


def test_progress_counts_texts() -> None:
    steps: list[Progress] = []
    perplexity(llama(), byte_tokenizer(), TEXTS, token_budget=64, bootstrap=10, seed=0, progress=steps.append)
    assert (steps[-1].done, steps[-1].total, steps[-1].stage) == (4, 4, "evaluation")


def test_lines_columns_and_the_limit(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one\n\ntwo é\nthree\n", encoding="utf8")
    (tmp_path / "t.csv").write_text('id,body\n1,"one, two"\n2,three\n', encoding="utf8")
    (tmp_path / "t.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf8")
    assert load_texts(PerplexityConfig(path=str(tmp_path / "t.txt"))) == ["one", "two é", "three"]
    assert load_texts(PerplexityConfig(path=str(tmp_path / "t.txt"), limit=2)) == ["one", "two é"]
    assert load_texts(PerplexityConfig(path=str(tmp_path / "t.txt"), limit=None)) == ["one", "two é", "three"]
    assert load_texts(PerplexityConfig(path=str(tmp_path / "t.csv"), text_column="body")) == ["one, two", "three"]
    assert load_texts(PerplexityConfig(path=str(tmp_path / "t.jsonl"))) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", b"\n \n", "no text"),
        ("t.txt", b"caf\xe9\n", "not in UTF-8"),
        ("t.csv", b"body\na\n", "no column 'text'"),
        ("t.csv", b"id,text\n1,a\n2, \n3,\n", "lines 3, 4"),
        ("t.jsonl", b'{"text": 3}\n', "not a string"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_texts(PerplexityConfig(path=str(tmp_path / name)))


def test_training_rows_are_counted_and_refused() -> None:
    refuse_training_rows(["held out"], ["trained on", "held out too"])
    with pytest.raises(DataError, match="2 of the 3 held-out texts are in the corpus, e.g. 'Trained  on'"):
        refuse_training_rows(["Trained  on", "new", "also trained"], ["trained on", "also trained"])
