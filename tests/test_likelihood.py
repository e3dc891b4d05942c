"""Token log-probabilities in batches and with shared prefixes, against one sequence at a time, on several tiny architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from biasdiff_core.errors import ConfigError, DataError, NumericError
from biasdiff_core.model.likelihood import next_token_log_probs, shared_prefix_log_probs, shared_prefix_obstacle, token_log_probs
from biasdiff_core.results import Progress
from tests.reference.likelihood_slow import token_log_probs_slow

VOCABULARY = 61
TOLERANCE = 1e-4

_LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
ARCHITECTURES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_LLAMA),
    "llama_tied": lambda: LlamaConfig(**_LLAMA, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**_LLAMA),
    "mistral": lambda: MistralConfig(**_LLAMA, sliding_window=16),
    # OPT's positions are learned, start at 2 and come from the attention mask unless they are given.
    "opt": lambda: OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=32,
    ),
    "gpt2": lambda: GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=1),
    "gpt_neox": lambda: GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64
    ),
}


def build(config: PreTrainedConfig, attention: str | None = None) -> Any:
    """A model with random weights, spread so widely that positions and context matter."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25)
    return model


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def model(request: pytest.FixtureRequest) -> Any:
    return build(ARCHITECTURES[request.param]())


def sequences(count: int, seed: int = 0, longest: int = 15) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, VOCABULARY, size=generator.integers(1, longest + 1)).tolist() for _ in range(count)]


def prefixed_pairs(seed: int = 1) -> list[tuple[list[int], list[int]]]:
    """Prefixes of 0 to 6 tokens; equal sentences; one that goes on where the other ends; single tokens."""
    generator = np.random.default_rng(seed)

    def some(n: int) -> list[int]:
        return [int(token) for token in generator.integers(0, VOCABULARY, size=n)]

    pairs = [(head + some(1 + n % 5), head + some(1 + n % 7)) for n in range(12) for head in [some(n % 7)]]
    same = some(6)
    return [*pairs, (same, list(same)), (same, [*same, 5, 6]), ([*same, 5, 6], same), ([3], [3]), ([3], [4]), ([3], [3, 9])]


@pytest.mark.parametrize("token_budget", [1, 40, 4096])
def test_batches_equal_one_at_a_time(model: Any, token_budget: int) -> None:
    ids = sequences(17)
    for found, sequence in zip(token_log_probs(model, ids, token_budget=token_budget), ids, strict=True):
        expected = token_log_probs_slow(model, sequence)
        assert found.dtype == np.float64 and found.shape == expected.shape == (len(sequence) - 1,)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_padding_on_the_left_gives_the_same(model: Any) -> None:
    ids = [sequence for sequence in sequences(9) if len(sequence) > 1]
    width = max(map(len, ids))
    padded = torch.tensor([[0] * (width - len(sequence)) + sequence for sequence in ids])
    mask = torch.tensor([[0] * (width - len(sequence)) + [1] * len(sequence) for sequence in ids])
    with torch.no_grad():
        logits = model(padded, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits.log_softmax(-1)
    for row, (found, sequence) in enumerate(zip(token_log_probs(model, ids, token_budget=64), ids, strict=True)):
        start = width - len(sequence)
        expected = [logits[row, start + place, token].item() for place, token in enumerate(sequence[1:])]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@pytest.mark.parametrize("token_budget", [1, 60, 4096])
def test_shared_prefix_equals_one_at_a_time(model: Any, token_budget: int) -> None:
    pairs = prefixed_pairs()
    assert shared_prefix_obstacle(model, pairs) is None
    for pair, found in zip(pairs, shared_prefix_log_probs(model, pairs, token_budget=token_budget), strict=True):
        for sequence, values in zip(pair, found, strict=True):
            np.testing.assert_allclose(values, token_log_probs_slow(model, sequence), atol=TOLERANCE)


def test_shared_prefix_with_eager_attention() -> None:
    model, pairs = build(ARCHITECTURES["opt"](), attention="eager"), prefixed_pairs()
    for pair, found in zip(pairs, shared_prefix_log_probs(model, pairs, token_budget=60), strict=True):
        for sequence, values in zip(pair, found, strict=True):
            np.testing.assert_allclose(values, token_log_probs_slow(model, sequence), atol=TOLERANCE)


def test_the_prefix_and_equal_sentences_get_equal_values(model: Any) -> None:
    (first, second), (same, again) = shared_prefix_log_probs(
        model, [([1, 2, 3, 4], [1, 2, 3, 5, 6]), ([7, 8, 9], [7, 8, 9])], token_budget=64
    )
    assert (first[:2] == second[:2]).all()
    assert (same == again).all()


def test_order_and_neighbours_do_not_matter(model: Any) -> None:
    ids = sequences(12, seed=3)
    found = token_log_probs(model, ids, token_budget=50)
    turned = token_log_probs(model, ids[::-1], token_budget=50)[::-1]
    for one, other in zip(found, turned, strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            FalconConfig(
                vocab_size=VOCABULARY,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                alibi=True,
                new_decoder_architecture=False,
            ),
            "Falcon",  # takes position_ids, but its positions come from a 2-D mask
        ),
        (BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4), "takes no position_ids"),
        (MistralConfig(**_LLAMA, sliding_window=5), "exceeds the attention window of 5"),
    ],
)
def test_models_that_cannot_share_a_prefix_say_so_and_score_the_plain_way(config: PreTrainedConfig, reason: str) -> None:
    model, pairs = build(config), prefixed_pairs()
    assert reason in str(shared_prefix_obstacle(model, pairs))
    with pytest.raises(ConfigError, match="token_log_probs"):
        shared_prefix_log_probs(model, pairs, token_budget=64)
    ids = sequences(6)
    for found, sequence in zip(token_log_probs(model, ids, token_budget=64), ids, strict=True):
        np.testing.assert_allclose(found, token_log_probs_slow(model, sequence), atol=TOLERANCE)


def test_an_adapter_is_looked_through() -> None:
    model = get_peft_model(build(ARCHITECTURES["opt"]()), LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM"))
    pairs = prefixed_pairs()
    for pair, found in zip(pairs, shared_prefix_log_probs(model, pairs, token_budget=60), strict=True):
        for sequence, values in zip(pair, found, strict=True):
            np.testing.assert_allclose(values, token_log_probs_slow(model.eval(), sequence), atol=TOLERANCE)


def test_next_token_is_a_distribution(model: Any) -> None:
    found = next_token_log_probs(model, [5, 6])
    assert found.shape == (VOCABULARY,) and np.exp(found).sum() == pytest.approx(1.0, abs=1e-5)
    assert found[7] == pytest.approx(token_log_probs_slow(model, [5, 6, 7])[1], abs=TOLERANCE)


def test_the_training_flag_is_put_back_and_dropout_is_off() -> None:
    config = LlamaConfig(**_LLAMA, attention_dropout=0.5)
    model = build(config).train()
    first, second = (token_log_probs(model, [[1, 2, 3, 4]], token_budget=8)[0] for _ in range(2))
    assert model.training and (first == second).all()


def test_progress_counts_every_sequence_once() -> None:
    steps: list[Progress] = []
    token_log_probs(build(ARCHITECTURES["llama"]()), sequences(17), token_budget=40, progress=steps.append)
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done == steps[-1].total == 17 and len(steps) > 1


def test_no_tokens_and_broken_models_are_refused() -> None:
    model = build(ARCHITECTURES["llama"]())
    with pytest.raises(DataError):
        token_log_probs(model, [[1, 2], []], token_budget=8)
    assert token_log_probs(model, [], token_budget=8) == []
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(NumericError):
        token_log_probs(model, [[1, 2, 3]], token_budget=8)


def test_half_precision_models_keep_a_float32_softmax() -> None:
    model = build(ARCHITECTURES["llama"]()).bfloat16()
    ids = [1, 2, 3, 4]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    expected = [logits[place, token].item() for place, token in enumerate(ids[1:])]
    np.testing.assert_allclose(token_log_probs(model, [ids], token_budget=8)[0], expected, atol=1e-5)
    assert shared_prefix_obstacle(model, []) is None
