"""Encoding and batching: where loss begins, what truncation keeps, and that batches are the cheapest cut of the sorted lengths."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from biasdiff_core.corpus.examples import TrainingExample
from biasdiff_core.model.tokenise import (
    CALL_COST,
    collate,
    count_tokens,
    encode,
    encode_texts,
    length_batches,
    tokenizer_digest,
    truncate_text,
)
from tests.tiny_tokenizer import byte_tokenizer


def cheapest_by_trying_all(lengths: list[int], budget: int) -> int:
    """Least cost over every cut of the sorted lengths into consecutive batches."""
    ordered, costs = sorted(lengths), []
    for size in range(len(ordered)):
        for inner in combinations(range(1, len(ordered)), size):
            bounds = [0, *inner, len(ordered)]
            parts = [ordered[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
            if all(len(part) == 1 or len(part) * part[-1] <= budget for part in parts):
                costs.append(sum(len(part) * part[-1] + CALL_COST for part in parts))
    return min(costs)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(1, 200))
def test_batches_partition_the_rows_at_the_least_cost(lengths: list[int], budget: int) -> None:
    batches = length_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    padded = [len(batch) * max(lengths[row] for row in batch) for batch in batches]
    assert all(cost <= budget or len(batch) == 1 for cost, batch in zip(padded, batches, strict=True))
    assert sum(padded) + CALL_COST * len(batches) == cheapest_by_trying_all(lengths, budget)


def test_no_rows_give_no_batches() -> None:
    assert length_batches([], 100) == []


def test_a_plain_text_has_no_loss_at_its_first_token() -> None:
    encoded = encode_texts(byte_tokenizer(), ["abc"])[0]
    assert (len(encoded.ids), encoded.loss_from, encoded.loss_tokens) == (3, 1, 2)


def test_with_a_prompt_only_the_completion_carries_loss() -> None:
    example = TrainingExample(id="x", prompt="abcd", text="xyz")
    encoded = encode(byte_tokenizer(), [example, TrainingExample(id="y", text="xyz")])
    assert (len(encoded[0].ids), encoded[0].loss_from, encoded[0].loss_tokens) == (7, 4, 3)
    assert encoded[0].ids[4:] == encoded[1].ids


def test_padding_carries_neither_attention_nor_loss() -> None:
    batch = collate(encode_texts(byte_tokenizer(), ["abc", "abcdef"]), [1, 0], 0, torch.device("cpu"))
    assert batch.rows.tolist() == [1, 0]
    assert batch.attention.sum(1).tolist() == [6, 3] and batch.loss_mask.sum(1).tolist() == [5, 2]


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_truncation_keeps_a_prefix_of_the_characters(limit: int) -> None:
    text = "aé漢b"
    cut = truncate_text(byte_tokenizer(), text, limit)
    assert text.startswith(cut) and (cut == text or count_tokens(byte_tokenizer(), [cut])[0] >= limit)


def test_a_tokenizers_digest_is_of_its_rules_not_of_its_last_call() -> None:
    tokenizer, other = byte_tokenizer(), byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    before = tokenizer_digest(tokenizer)
    tokenizer(["abc", "a"], padding=True, truncation=True, max_length=2)
    assert tokenizer_digest(tokenizer) == before == tokenizer_digest(other)
    other.add_tokens(["abc"])
    assert tokenizer_digest(other) != before
