"""Models of a published shape with random weights: what a pass costs does not depend on what was learned."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, Qwen2Config

from biasdiff_core.config import ModelConfig
from biasdiff_core.model.load import DTYPES, LoadedModel, load_tokenizer
from biasdiff_core.model.source import ModelSource
from biasdiff_core.workspace.audits import default_workspace

SHAPES: Mapping[str, PreTrainedConfig] = {
    "qwen2.5-1.5b": Qwen2Config(
        vocab_size=151_936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
}


def shaped(name: str, dtype: str) -> LoadedModel:
    """The shape `name` on the GPU where there is one, frozen, in eval mode; with the bundled tokenizer, whose ids it has too."""
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(SHAPES[name], dtype=DTYPES[dtype])
    source = ModelSource(name=f"{name}, random weights", kind="folder", path=None, digest="")
    return LoadedModel(
        model=model.eval().requires_grad_(False), tokenizer=load_tokenizer(ModelConfig(), default_workspace()), source=source
    )
