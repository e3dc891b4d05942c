"""Greedy decoding and continuations from a cached prompt, against one sequence at a time, on several tiny architectures."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, MistralConfig

from biasdiff_core.errors import DataError
from biasdiff_core.model.generate import PromptBatch, decode, greedy, prompt_batches
from biasdiff_core.model.likelihood import continuation_log_probs
from biasdiff_core.results import Progress
from tests.reference.greedy_slow import greedy_slow
from tests.reference.likelihood_slow import token_log_probs_slow
from tests.tiny_models import ARCHITECTURES, tiny_base, tiny_lora
from tests.tiny_tokenizer import VOCABULARY, byte_tokenizer

END = 256
START = "Some words stand in front of every prompt. "
APART = ["Aa", "Bb", "c", "Deed", "Ee is more", "Fs!", "Goes on and on", "c"]
TOGETHER = [START + text for text in APART]
OPTIONS = [
    [" yes", " no"],
    [" one", " two", "n"],
    [" x"],
    [" long answer", "!"],
    ["a", "b", "c", "d"],
    [" yes", " yes"],
    ["q"],
    ["r", "st"],
]


def special(name: str) -> Any:
    """Models that a cached start with a block mask does not suit: no position_ids; a window shorter than the prompts."""
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "bos_token_id": 257, "eos_token_id": END}
    if name == "bloom":
        config: Any = BloomConfig(**sizes, n_layer=2, n_head=4)
    else:
        config = MistralConfig(
            **sizes, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, sliding_window=8
        )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    return model


def made(name: str) -> Any:
    if name == "lora":
        return tiny_lora()
    return tiny_base(name) if name in ARCHITECTURES else special(name)


@pytest.fixture(scope="module", params=[*sorted(ARCHITECTURES), "lora", "bloom", "mistral"])
def model(request: pytest.FixtureRequest) -> Any:
    return made(request.param)


def ids_of(prompts: list[str]) -> list[list[int]]:
    tokenizer = byte_tokenizer()
    return [list(tokenizer(prompt)["input_ids"]) for prompt in prompts]


@pytest.mark.parametrize("prompts", [APART, TOGETHER], ids=["apart", "together"])
@pytest.mark.parametrize("token_budget", [16, 4096])
def test_decoding_equals_one_prompt_at_a_time(model: Any, prompts: list[str], token_budget: int) -> None:
    tokenizer, rows = byte_tokenizer(), ids_of(prompts)
    expected = [tokenizer.decode(greedy_slow(model, ids, 9, END), skip_special_tokens=True) for ids in rows]
    assert greedy(model, tokenizer, rows, max_new_tokens=9, token_budget=token_budget) == expected
    assert len(set(expected)) > 3  # the prompt matters


@pytest.mark.parametrize("prompts", [APART, TOGETHER], ids=["apart", "together"])
@pytest.mark.parametrize("token_budget", [16, 4096])
def test_continuations_equal_one_sequence_at_a_time(model: Any, prompts: list[str], token_budget: int) -> None:
    rows, options = ids_of(prompts), [ids_of(texts) for texts in OPTIONS]
    found: dict[int, list[np.ndarray]] = {}
    for batch in prompt_batches(model, rows, room=16, token_budget=token_budget):
        own = [options[place] for place in batch.places]
        logs = continuation_log_probs(model, batch.ids, own, cache=batch.cache, token_budget=token_budget)
        found |= dict(zip(batch.places, logs, strict=True))
    for place, prompt in enumerate(rows):
        for tokens, values in zip(options[place], found[place], strict=True):
            np.testing.assert_allclose(values, token_log_probs_slow(model, [*prompt, *tokens])[len(prompt) - 1 :], atol=1e-4)


def test_a_batch_can_be_scored_and_then_decoded() -> None:
    model, tokenizer = tiny_base(), byte_tokenizer()
    rows = ids_of(TOGETHER)
    written = [""] * len(rows)
    for batch in prompt_batches(model, rows, room=16, token_budget=256):
        for _ in range(2):  # scoring leaves the cache as it was
            continuation_log_probs(model, batch.ids, [ids_of([" yes", "n"])] * len(batch.places), cache=batch.cache, token_budget=256)
        for place, text in zip(batch.places, decode(model, tokenizer, batch, max_new_tokens=9), strict=True):
            written[place] = text
    assert written == greedy(model, tokenizer, rows, max_new_tokens=9, token_budget=256)


def batches(model: Any, prompts: list[str], token_budget: int = 64) -> list[PromptBatch]:
    return list(prompt_batches(model, ids_of(prompts), room=4, token_budget=token_budget))


def test_batches_hold_prompts_of_equal_length_and_the_shared_start_costs_nothing() -> None:
    found = batches(tiny_base(), TOGETHER, token_budget=8)
    assert [batch.places for batch in found] == [[2, 7], [0, 1], [5], [3], [4], [6]]  # of 1, 2, 3, 4, 10 and 14 tokens of their own
    for batch in found:
        assert batch.cache is not None and batch.cache.get_seq_length() == batch.ids.shape[1] - 1
    assert [batch.places for batch in batches(tiny_base(), TOGETHER, token_budget=1)][:2] == [[2], [7]]


def test_one_prompt_and_equal_prompts_are_shared_but_for_their_last_token() -> None:
    for prompts in (["A single prompt"], ["The same"] * 3):
        (batch,) = batches(tiny_base(), prompts)
        assert batch.places == list(range(len(prompts))) and batch.cache is not None
        assert batch.cache.get_seq_length() == batch.ids.shape[1] - 1
    assert batches(tiny_base(), []) == []


@pytest.mark.parametrize("name", ["bloom", "mistral"])
def test_a_model_that_cannot_continue_from_a_cache_is_named(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="biasdiff_core"):
        assert all(batch.cache is None for batch in batches(special(name), TOGETHER))
    assert "computed whole" in caplog.text


def test_stop_strings_end_the_text_before_them() -> None:
    model, tokenizer, rows = tiny_base(), byte_tokenizer(), ids_of(TOGETHER)
    whole = greedy(model, tokenizer, rows, max_new_tokens=20, token_budget=256)
    stop = [whole[0][2], whole[1][1:3]]
    cut = [min((text.find(mark) for mark in stop if mark in text), default=len(text)) for text in whole]
    assert min(cut) < 20 and greedy(model, tokenizer, rows, max_new_tokens=20, stop=stop, token_budget=256) == [
        text[:end] for text, end in zip(whole, cut, strict=True)
    ]


def test_an_end_token_of_model_or_tokenizer_ends_the_text() -> None:
    model, tokenizer, rows = tiny_base(), byte_tokenizer(), ids_of(TOGETHER[:1])
    tokens = greedy_slow(model, rows[0], 12, None)
    place = next(place for place in range(1, 12) if tokens[place] not in tokens[:place])
    model.generation_config.eos_token_id = [tokens[place], 300]
    expected = tokenizer.decode(tokens[:place])
    assert greedy(model, tokenizer, rows, max_new_tokens=12, token_budget=256) == [expected]
    model.generation_config.eos_token_id = None
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(tokens[place])
    assert greedy(model, tokenizer, rows, max_new_tokens=12, token_budget=256) == [expected]


def test_the_models_own_generation_settings_do_not_matter() -> None:
    model, tokenizer, rows = tiny_base(), byte_tokenizer(), ids_of(APART)
    before = greedy(model, tokenizer, rows, max_new_tokens=20, token_budget=256)
    settings = {"do_sample": True, "temperature": 3.0, "top_k": 3, "repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "num_beams": 3}
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    assert greedy(model, tokenizer, rows, max_new_tokens=20, token_budget=256) == before


def test_the_training_flag_is_put_back_and_dropout_is_off() -> None:
    model = tiny_lora().train()
    first = greedy(model, byte_tokenizer(), ids_of(APART), max_new_tokens=5, token_budget=64)
    assert model.training and first == greedy(model.eval(), byte_tokenizer(), ids_of(APART), max_new_tokens=5, token_budget=64)


def test_progress_counts_prompts() -> None:
    steps: list[Progress] = []
    greedy(tiny_base(), byte_tokenizer(), ids_of(APART), max_new_tokens=2, token_budget=8, progress=steps.append)
    assert [step.done for step in steps] == sorted({step.done for step in steps}) and steps[-1].done == steps[-1].total == len(APART)


def test_prompts_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(DataError, match="no tokens"):
        greedy(tiny_base(), byte_tokenizer(), [[1], []], max_new_tokens=2, token_budget=64)
    with pytest.raises(DataError, match="120 tokens and 9 more exceed the model's context of 128"):
        greedy(tiny_base(), byte_tokenizer(), [[1] * 120], max_new_tokens=9, token_budget=64)
    (batch,) = batches(tiny_base(), ["A"])
    with pytest.raises(DataError, match="no tokens"):
        continuation_log_probs(tiny_base(), batch.ids, [[[1], []]], cache=batch.cache, token_budget=64)
