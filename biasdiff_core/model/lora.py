"""LoRA adapters: put on, named canonically, saved and loaded as safetensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from biasdiff_core.config import LoraConfig
from biasdiff_core.errors import ArtefactError, ConfigError, NumericError, one_line

ADAPTER_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
ALL_LINEAR = "all-linear"  # peft's word for every linear map but the output head


def add_lora(model: Any, config: LoraConfig, seed: int) -> PeftModel:
    """Put a fresh LoRA on `model`, initialised from `seed`: A random, B zero. `target_modules` match as in peft.

    Raises ConfigError for a target that the model does not have or that is no linear map: its gradients would not be seen.
    """
    torch.manual_seed(seed)
    targets = list(config.target_modules)
    if targets != [ALL_LINEAR]:
        _require_linear(model, targets)
    settings = PeftLoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=ALL_LINEAR if targets == [ALL_LINEAR] else targets,
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, settings)


def _require_linear(model: Any, targets: Sequence[str]) -> None:
    modules = dict(model.named_modules())
    linear = {name for name, module in modules.items() if isinstance(module, nn.Linear | Conv1D)}
    mend = f"It has: {', '.join(sorted({name.rpartition('.')[2] for name in linear}))}; or {ALL_LINEAR}, alone."
    for target in targets:
        matched = [name for name in modules if name == target or name.endswith(f".{target}")]
        if not matched:
            raise ConfigError(f"The model has no module {target!r} for lora.target_modules.", mend)
        other = next((name for name in matched if name not in linear), None)
        if other:
            raise ConfigError(f"{other} of lora.target_modules is no linear map but {type(modules[other]).__name__}.", mend)


def canonical_name(name: str) -> str:
    """`base_model.model.X.lora_A.default.weight` → `X.lora_A.weight`, as peft writes it without its own prefix."""
    return name.removeprefix(PREFIX).replace(".default", "")


def lora_modules(model: Any) -> dict[str, nn.Linear]:
    """Every lora_A and lora_B linear map by canonical parameter name, in model order."""
    found = {
        canonical_name(f"{name}.weight"): module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (".lora_A." in name or ".lora_B." in name)
    }
    if not found:
        raise ConfigError("The model carries no LoRA.", "Put one on with `add_lora`, or give an adapter.")
    return found


def lora_parameters(model: Any) -> dict[str, nn.Parameter]:
    """Every LoRA weight by canonical name, in model order."""
    return {name: cast(nn.Parameter, module.weight) for name, module in lora_modules(model).items()}


def require_trained(model: Any) -> None:
    """Refuse an adapter whose lora_B is all zero: every gradient of lora_A would be zero. Raises NumericError."""
    if not any(bool(weight.any()) for name, weight in lora_parameters(model).items() if ".lora_B." in name):
        raise NumericError(
            "Every lora_B of the adapter is zero: it was never trained.", "Give one that was trained, or leave the warm-up to the audit."
        )


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter as peft does (safetensors), loadable by plain peft."""
    # Without the last setting peft asks the hub for the base model's vocabulary at every save.
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty card says nothing of this adapter
    # peft writes a set in the order of its hashes, which differs between processes: the same adapter would have two digests.
    config = folder / "adapter_config.json"
    settings = json.loads(config.read_text(encoding="utf8"))
    if isinstance(settings["target_modules"], list):  # a text is a pattern of names, of an adapter made elsewhere
        settings["target_modules"].sort()
    config.write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf8")


def attach_adapter(base: Any, folder: Path) -> PeftModel:
    """Put the adapter of `folder` on `base`, frozen, in eval mode. Raises ArtefactError when it does not fit."""
    if not (folder / ADAPTER_FILE).exists():
        raise ArtefactError(f"{folder} holds no {ADAPTER_FILE}.", "Pickled adapters are not loaded: save it as safetensors.")
    try:
        model = PeftModel.from_pretrained(base, str(folder), is_trainable=False).eval()
    except SafetensorError as error:
        raise ArtefactError(f"{folder / ADAPTER_FILE} cannot be read: {one_line(error)}.", "Copy the adapter again.") from error
    except (RuntimeError, ValueError, KeyError) as error:
        raise ArtefactError(
            f"The adapter in {folder} does not fit the model: {one_line(error)}.", "Use the model that it was made for."
        ) from error
    try:
        _require_same(folder, model)  # peft only warns of layers that the adapter has no weights for, or weights without a layer
    except ArtefactError:
        detach_adapter(model)
        raise
    return model


def load_weights(model: PeftModel, folder: Path) -> None:
    """Copy the adapter weights of `folder` into `model`. Raises ArtefactError naming the parameters that differ."""
    stored, current = _require_same(folder, model), lora_parameters(model)
    with torch.no_grad():
        for name, parameter in current.items():
            parameter.copy_(stored[name])


def _require_same(folder: Path, model: Any) -> dict[str, Tensor]:
    stored = {canonical_name(name): tensor for name, tensor in load_file(folder / ADAPTER_FILE).items()}
    current = {name: tuple(parameter.shape) for name, parameter in lora_parameters(model).items()}
    check_same("adapter", {name: tuple(tensor.shape) for name, tensor in stored.items()}, current)
    return stored


def detach_adapter(model: PeftModel) -> Any:
    """Take the adapter off again and give back the untouched base model."""
    base = model.unload()
    if hasattr(base, "peft_config"):
        del base.peft_config
    return base.requires_grad_(False)


def check_same(what: str, stored: dict[str, tuple[int, ...]], current: dict[str, tuple[int, ...]]) -> None:
    """Raise ArtefactError naming the first parameter whose name or shape differs between the two."""
    if stored == current:
        return
    for name in sorted(stored.keys() | current.keys()):
        if stored.get(name) != current.get(name):
            raise ArtefactError(
                f"The {what} does not fit the model at {name}: stored {stored.get(name, 'absent')}, model {current.get(name, 'absent')}.",
                "Use the base model and LoRA settings that it was made with.",
            )
