"""Perplexity against the definition one text at a time, ratios by hand, reading held-out text, and the refusal of training rows."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from biasdiff_core.config.evaluation import PerplexityConfig
from biasdiff_core.errors import ArtefactError, DataError
from biasdiff_core.evaluation.items import compare_items
from biasdiff_core.evaluation.perplexity import (
    METRICS,
    TextLosses,
    items,
    load_texts,
    perplexity,
    perplexity_ratio,
    read_losses,
    refuse_training_rows,
    write_losses,
)
from biasdiff_core.results import Progress
from tests.reference.likelihood_slow import token_log_probs_slow
from tests.test_crows_pairs import llama
from tests.tiny_tokenizer import byte_tokenizer

DATA = Path(os.environ.get("BIASDIFF_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))
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
    assert (found.n, found.not_scored) == (3, 1)  # one text is a single byte: nothing of it is scored
    assert "81 tokens" in found.convention and "first token of each text given" in found.convention


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


@pytest.mark.parametrize("starts_with_bos", [False, True])
@pytest.mark.parametrize("token_budget", [16, 4096])
def test_an_instruction_is_context_of_the_same_tokens(starts_with_bos: bool, token_budget: int) -> None:
    model, tokenizer, told = llama(), byte_tokenizer(starts_with_bos=starts_with_bos), "Be fair. "
    settings = {"token_budget": token_budget, "bootstrap": 50, "seed": 0}
    plain, before = perplexity(model, tokenizer, TEXTS, **settings)
    found, losses = perplexity(model, tokenizer, TEXTS, instruction=told, **settings)
    assert list(losses.tokens) == list(before.tokens)
    front = tokenizer(told)["input_ids"]
    for text, nll in zip(TEXTS, losses.nll, strict=True):
        ids, expected = tokenizer(text)["input_ids"], 0.0
        for start in range(0, len(ids), token_budget):
            window = ids[start : start + token_budget]
            own = window[1:] if window[0] == tokenizer.bos_token_id else window
            expected -= token_log_probs_slow(model, [*front, *own])[len(front) + len(own) - len(window) :].sum()
        assert nll == pytest.approx(expected, abs=1e-3)
    assert "after the instruction 'Be fair. '" in found.convention and "instruction" not in plain.convention
    _, blank = perplexity(model, tokenizer, TEXTS, instruction=" ", **settings)
    np.testing.assert_array_equal(blank.nll, before.nll)


def test_an_instruction_longer_than_the_context_is_refused() -> None:
    model = llama()
    model.config.max_position_embeddings = 20
    with pytest.raises(DataError, match="instruction of 19 tokens leaves no room"):
        perplexity(model, byte_tokenizer(), TEXTS, instruction="x" * 19, token_budget=64, bootstrap=10, seed=0)


# --- rows, ratio, record


def losses(nll: list[float], tokens: list[int]) -> TextLosses:
    return TextLosses(nll=np.array(nll), tokens=np.array(tokens))


def test_rows_are_mean_nats_of_each_text_and_named_by_content() -> None:
    rows = items(["a", "b", "a", "c"], losses([6.0, 8.0, 9.0, 0.0], [2, 4, 3, 0]))
    assert list(rows["value"][:3]) == [3.0, 2.0, 3.0] and math.isnan(rows["value"][3])
    assert len(set(rows["item"])) == 4 and set(rows["metric"]) == set(METRICS)
    assert list(items(["b"], losses([1.0], [1]))["item"]) == [rows["item"][1]]


def test_paired_test_of_rows_by_hand() -> None:
    texts = ["a", "b", "c", "d"]
    after, before = items(texts, losses([6.0, 8.0, 9.0, 0.0], [2, 4, 3, 0])), items(texts, losses([5.0, 8.0, 6.0, 0.0], [2, 4, 3, 0]))
    (test,) = compare_items(after, before, METRICS, "npo", "origin", bootstrap=200, seed=0)
    # Mean nats (3 + 2 + 3) / 3 after, (2.5 + 2 + 2) / 3 before; the text without a scored token is left out.
    assert test.difference == pytest.approx(0.5) and test.n == 3 and test.p_value is None
    assert "each text counted once" in test.convention


def test_ratio_by_hand() -> None:
    # Σ nll 24 after and 20 before over 10 tokens: exp(2.4 − 2.0).
    found = perplexity_ratio(losses([6.0, 18.0, 0.0], [3, 7, 0]), losses([6.0, 14.0, 0.0], [3, 7, 0]), bootstrap=500, seed=0)
    assert found.name == "perplexity_ratio" and found.value == pytest.approx(math.exp(0.4)) and found.n == 2
    # Draws hold texts 1 and 2 in turn; the extreme ones give exp(0) and exp(4/7).
    assert found.low == pytest.approx(1.0) and found.high == pytest.approx(math.exp(4 / 7))
    assert "10 tokens" in found.convention and "paired" in found.convention


@given(st.lists(st.tuples(st.floats(0.1, 50), st.floats(0.1, 50), st.integers(1, 20)), min_size=2, max_size=12))
def test_ratio_is_that_of_the_perplexities_and_its_inverse_swaps(rows: list[tuple[float, float, int]]) -> None:
    first, second, tokens = (list(column) for column in zip(*rows, strict=True))
    there = perplexity_ratio(losses(first, tokens), losses(second, tokens), bootstrap=20, seed=1)
    back = perplexity_ratio(losses(second, tokens), losses(first, tokens), bootstrap=20, seed=1)
    expected = math.exp(sum(first) / sum(tokens)) / math.exp(sum(second) / sum(tokens))
    assert there.value == pytest.approx(expected) and back.value == pytest.approx(1 / expected)
    assert there.low is not None and back.high is not None and there.low == pytest.approx(1 / back.high)


def test_a_change_that_all_texts_share_has_no_width() -> None:
    before = losses([3.0, 40.0, 11.0], [3, 20, 7])
    found = perplexity_ratio(TextLosses(nll=before.nll + 0.1 * before.tokens, tokens=before.tokens), before, bootstrap=50, seed=0)
    assert (found.value, found.low, found.high) == pytest.approx((math.exp(0.1),) * 3)


def test_ratio_of_other_texts_is_refused() -> None:
    with pytest.raises(ArtefactError, match="same tokens"):
        perplexity_ratio(losses([1.0, 2.0], [3, 4]), losses([1.0, 2.0], [4, 3]), bootstrap=10, seed=0)


def test_losses_survive_the_disk(tmp_path: Path) -> None:
    made = losses([1.5, 0.0], [3, 0])
    write_losses(made, tmp_path / "perplexity.parquet")
    found = read_losses(tmp_path / "perplexity.parquet")
    np.testing.assert_array_equal(found.nll, made.nll)
    np.testing.assert_array_equal(found.tokens, made.tokens)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no table", encoding="utf8")
    for name in ("other", "text", "missing"):
        with pytest.raises(ArtefactError, match="holds no losses"):
            read_losses(tmp_path / f"{name}.parquet")


# --- reading


def test_columns_of_a_file_without_header_go_by_number(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('"3","A title","A text, so ""long""."\n"1","Other","More."\n', encoding="utf8")
    (tmp_path / "t.tsv").write_text("1\tone\n2\ttwo\n", encoding="utf8")
    path = str(tmp_path / "t.csv")
    assert load_texts(PerplexityConfig(path=path, text_column="#2+#3")) == ['A title A text, so "long".', "Other More."]
    assert load_texts(PerplexityConfig(path=path, text_column="#2", limit=1)) == ["A title"]
    assert load_texts(PerplexityConfig(path=str(tmp_path / "t.tsv"), text_column="#2")) == ["one", "two"]
    with pytest.raises(DataError, match=r"no column 'text'.*If it has no header, number the columns.*'#2\+#3'"):
        load_texts(PerplexityConfig(path=path))
    with pytest.raises(DataError, match="no column '#4'. Its columns: '#1', '#2', '#3'"):
        load_texts(PerplexityConfig(path=path, text_column="#4"))
    (tmp_path / "t.csv").write_text('"3","A title","A text"\n"1","Other",""\n1,2\n', encoding="utf8")
    with pytest.raises(DataError, match="1 row without text: line 2.*1 row with another number of cells than the header: line 3"):
        load_texts(PerplexityConfig(path=path, text_column="#2+#3"))
    (tmp_path / "t.jsonl").write_text('{"text": "one"}\n', encoding="utf8")
    with pytest.raises(DataError, match="'#2', but .* names its columns"):
        load_texts(PerplexityConfig(path=str(tmp_path / "t.jsonl"), text_column="#2"))


def test_ag_news_is_held_out_text() -> None:
    path = DATA / "ag_news" / "test.csv"
    if not path.exists():
        pytest.skip("needs ag_news/test.csv under BIASDIFF_DATA")
    texts = load_texts(PerplexityConfig(path=str(path), text_column="#2+#3", limit=None))
    assert len(texts) == 7600 and min(map(len, texts)) > 50


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
