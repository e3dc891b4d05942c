"""Load a causal language model and its tokenizer: the bundled one, a folder, or a Hugging Face id."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from biasdiff_core.config import ModelConfig
from biasdiff_core.errors import DataError, one_line
from biasdiff_core.model import onednn
from biasdiff_core.model.source import ModelSource, locate

log = logging.getLogger(__name__)

# What transformers and safetensors raise on folders that are no whole model.
UNLOADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError)
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
    tokenizer = load_tokenizer(config, workspace)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            place,
            revision=config.revision,
            dtype=DTYPES[config.dtype],
            attn_implementation=attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            use_safetensors=True if source.kind == "folder" else None,  # pickled weights are not in the folder's digest
            trust_remote_code=False,  # else it asks on the terminal, which a job does not have
        )
    except UNLOADABLE as error:
        raise DataError(_load_failure(source, error), _load_mend(source)) from error
    _require_weights(source, found)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # only a filler: padding is masked everywhere
    model.requires_grad_(False)
    if device == "cpu" and onednn.is_faster():
        onednn.use_onednn(model)
    return LoadedModel(model=model.to(device).eval(), tokenizer=tokenizer, source=source)


def load_tokenizer(config: ModelConfig, workspace: Path) -> Any:
    """The tokenizer alone, without reading the weights (except to make the bundled cache)."""
    source = locate(config)
    place = str(_bundled_cache(source, workspace) if source.kind == "bundled" else source.path or config.name)
    try:
        return AutoTokenizer.from_pretrained(place, revision=config.revision, trust_remote_code=False)
    except UNLOADABLE as error:
        raise DataError(_load_failure(source, error), _load_mend(source)) from error


def _require_weights(source: ModelSource, found: Mapping[str, Any]) -> None:
    """Raise DataError when weights are not in the files or of another shape: transformers would fill them with random numbers."""
    absent = sorted(found["missing_keys"])
    other = sorted(name for name, *_ in found["mismatched_keys"])
    if absent or other:
        what = f"{len(absent)} weights are not in its files" if absent else f"{len(other)} weights have another shape in its files"
        raise DataError(f"The model {source.name!r} cannot be loaded: {what}, e.g. {(absent or other)[0]}.", _load_mend(source))


def _bundled_cache(source: ModelSource, workspace: Path) -> Path:
    assert source.path is not None
    target = workspace / "models" / f"smollm2-135m-{source.digest[:12]}"
    if (target / "config.json").exists():
        return target
    log.info("dequantising %s once into %s", source.path.name, target)
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)  # of a process of this number that was killed
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
    if source.kind == "hub":
        return f"The model {source.name!r} is neither a folder here nor to be had from the Hugging Face hub: {one_line(error)}."
    why = "it comes with code of its own, which is not run" if "custom code" in str(error) else one_line(error)
    return f"The model {source.name!r} cannot be loaded: {why}."


def _load_mend(source: ModelSource) -> str:
    if source.kind == "hub":
        return "Check the id and the network, or download it elsewhere and give the folder; bundled:smollm2-135m works offline."
    return (
        "Check that the folder was written by `save_pretrained` from a model that transformers knows, and holds config.json, weights as "
        "safetensors, and tokenizer as whole files (`git lfs pull` fetches those that are pointers)."
    )
