"""Language models built in code: random weights so wide that context matters, and a LoRA whose lora_B is not zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, OPTConfig, PreTrainedConfig, Qwen2Config

from biasdiff_core.config import LoraConfig
from biasdiff_core.model.load import LoadedModel
from biasdiff_core.model.lora import add_lora, lora_parameters
from biasdiff_core.model.source import ModelSource
from biasdiff_core.model.tokenise import Batch, Encoded
from tests.tiny_tokenizer import VOCABULARY, byte_tokenizer

LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 257,
    "eos_token_id": 256,
}
_ENDS = {"bos_token_id": 257, "eos_token_id": 256}

ARCHITECTURES: dict[str, Callable[[bool], PreTrainedConfig]] = {
    "llama": lambda tied: LlamaConfig(**LLAMA, tie_word_embeddings=tied),
    "qwen2": lambda tied: Qwen2Config(**LLAMA, tie_word_embeddings=tied),
    "opt": lambda tied: OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        word_embed_proj_dim=32,
        tie_word_embeddings=tied,
        **_ENDS,
    ),
    "gpt2": lambda tied: GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, tie_word_embeddings=tied, **_ENDS
    ),
    "gpt_neox": lambda tied: GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        **_ENDS,
    ),
}
# Maps of unlike input and output widths too; GPT-2's are Conv1D, GPT-NeoX's and GPT-2's hold query, key and value in one.
TARGETS = {
    "llama": ("q_proj", "v_proj", "down_proj"),
    "qwen2": ("q_proj", "v_proj"),
    "opt": ("q_proj", "v_proj", "fc1"),
    "gpt2": ("c_attn",),
    "gpt_neox": ("query_key_value",),
}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Tensors made inside are of `dtype` unless they say otherwise."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def tiny_base(architecture: str = "llama", *, tied: bool = False, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A frozen model in eval mode, about 20,000 weights."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[architecture](tied), dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
    return model.to(dtype).eval().requires_grad_(False)


def put_lora(base: Any, targets: Sequence[str], *, r: int = 3, seed: int = 1) -> PeftModel:
    """LoRA with random, non-zero lora_A and lora_B, frozen, in eval mode."""
    config = LoraConfig(r=r, alpha=2 * r, dropout=0.0, target_modules=tuple(targets))
    model = add_lora(base, config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lora_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval().requires_grad_(False)


def tiny_lora(architecture: str = "llama", *, tied: bool = False, dtype: torch.dtype = torch.float32, seed: int = 0) -> PeftModel:
    """A tiny model with a LoRA on it, as after a warm-up."""
    return put_lora(tiny_base(architecture, tied=tied, dtype=dtype, seed=seed), TARGETS[architecture], seed=seed + 1)


def tiny_loaded(architecture: str = "llama", seed: int = 0) -> LoadedModel:
    """A tiny base model and a byte tokenizer, as `load_model` gives them."""
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    source = ModelSource(name="tiny", kind="folder", path=None, digest="d" * 64)
    return LoadedModel(model=tiny_base(architecture, seed=seed), tokenizer=tokenizer, source=source)


def sequences(count: int, seed: int = 0, longest: int = 14) -> list[Encoded]:
    """Random token rows of many lengths; every third has a context that carries no loss."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        length = int(generator.integers(3, longest + 1))
        ids = tuple(int(token) for token in generator.integers(0, VOCABULARY - 2, size=length))
        rows.append(Encoded(ids=ids, loss_from=2 if number % 3 == 0 else 1))
    return rows


def left_padded(encoded: Sequence[Encoded], pad_id: int = 0) -> Batch:
    """All rows in one batch with the padding in front; `collate` puts it behind."""
    width = max(len(example.ids) for example in encoded)
    gaps = [width - len(example.ids) for example in encoded]
    rows = list(zip(encoded, gaps, strict=True))
    return Batch(
        rows=torch.arange(len(encoded)),
        ids=torch.tensor([[pad_id] * gap + list(example.ids) for example, gap in rows]),
        attention=torch.tensor([[0] * gap + [1] * len(example.ids) for example, gap in rows]),
        positions=torch.tensor([[0] * gap + list(range(len(example.ids))) for example, gap in rows]),
        loss_mask=torch.tensor([[place >= gap + example.loss_from for place in range(width)] for example, gap in rows]),
    )
