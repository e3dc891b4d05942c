"""Load a causal language model and its tokenizer: the bundled one, a folder, or a Hugging Face id."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from biasdiff_core.config import ModelConfig
from biasdiff_core.errors import DataError
from biasdiff_core.model.source import ModelSource, locate

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A frozen base model in eval mode, its tokenizer, and where they came from."""

    model: Any
    tokenizer: Any
    source: ModelSource

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def load_model(config: ModelConfig, workspace: Path) -> LoadedModel:
    """Load the base model on the GPU where there is one, else on the CPU.

    The bundled model is dequantised once from its 4-bit GGUF file into a safetensors cache under `<workspace>/models`.
    Raises DataError when the files cannot be read or the hub cannot be reached.
    """
    source = locate(config)
    place = str(_bundled_cache(source, workspace) if source.kind == "bundled" else source.path or config.name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # In bf16 on a CPU the fused kernel costs a quarter of a training step on short sentences; in fp32 eager attention is not the same
    # to the last bit from run to run (docs/log.md, 2026-11-26).
    attention = "eager" if device == "cpu" and config.dtype == "bfloat16" else None
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, revision=config.revision)
        model = AutoModelForCausalLM.from_pretrained(
            place, revision=config.revision, dtype=DTYPES[config.dtype], attn_implementation=attention
        )
    except (OSError, ValueError) as error:
        raise DataError(_load_failure(source, error), _load_mend(source)) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # only a filler: padding is masked everywhere
    model.requires_grad_(False)
    return LoadedModel(model=model.to(device).eval(), tokenizer=tokenizer, source=source)


def load_tokenizer(config: ModelConfig, workspace: Path) -> Any:
    """The tokenizer alone, without reading the weights (except to make the bundled cache)."""
    source = locate(config)
    place = str(_bundled_cache(source, workspace) if source.kind == "bundled" else source.path or config.name)
    try:
        return AutoTokenizer.from_pretrained(place, revision=config.revision)
    except (OSError, ValueError) as error:
        raise DataError(_load_failure(source, error), _load_mend(source)) from error


def _bundled_cache(source: ModelSource, workspace: Path) -> Path:
    assert source.path is not None
    target = workspace / "models" / f"smollm2-135m-{source.digest[:12]}"
    if (target / "config.json").exists():
        return target
    log.info("dequantising %s once into %s", source.path.name, target)
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    folder, name = str(source.path.parent), source.path.name
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(partial)
    quantised = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # transformers still takes the dequantised model for a quantised one and would not write it: copy it into a plain one.
    settings = type(quantised.config).from_dict({k: v for k, v in quantised.config.to_dict().items() if k != "quantization_config"})
    plain = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    plain.load_state_dict(quantised.state_dict())
    plain.save_pretrained(partial)
    try:
        os.replace(partial, target)
    except OSError:  # another process made the same cache first
        shutil.rmtree(partial)
    return target


def _load_failure(source: ModelSource, error: Exception) -> str:
    first_line = str(error).strip().splitlines()[0]
    if source.kind == "hub":
        return f"The model {source.name!r} is neither a folder here nor to be had from the Hugging Face hub: {first_line}"
    return f"The model {source.name!r} cannot be loaded: {first_line}"


def _load_mend(source: ModelSource) -> str:
    if source.kind == "hub":
        return "Check the id and the network, or download it elsewhere and give the folder; bundled:smollm2-135m works offline."
    return "Check that the folder was written by `save_pretrained` and holds weights and tokenizer."
