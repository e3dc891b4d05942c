"""Checkpoints: adapter, AdamW state, step and learning rate; ours, or those of `transformers.Trainer`."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from biasdiff_core.config import LoraConfig
from biasdiff_core.errors import ArtefactError, ConfigError, one_line
from biasdiff_core.model.lora import attach_adapter, check_same, detach_adapter, lora_parameters, require_trained, save_adapter
from biasdiff_core.model.source import lora_settings
from biasdiff_core.workspace.artefacts import write_atomic

OPTIMIZER_FILE = "optimizer.safetensors"
TRAINING_FILE = "training.json"


@dataclass(frozen=True, kw_only=True)
class OptimizerState:
    """AdamW's state by canonical parameter name: first and second moments, steps taken, and the constants that it ran with."""

    step: int
    beta1: float
    beta2: float
    epsilon: float
    exp_avg: Mapping[str, Tensor]
    exp_avg_sq: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """End of an epoch. `learning_rate`: mean over the epoch's steps (η̄_t of Eq. 5)."""

    folder: Path
    epoch: int
    step: int
    learning_rate: float


def save_checkpoint(model: PeftModel, optimizer: torch.optim.AdamW, target: Path, *, epoch: int, step: int, learning_rate: float) -> None:
    """Write a checkpoint folder whole or not at all."""
    partial = target.with_name(target.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_adapter(model, partial)
    tensors = {
        f"{moment}:{name}": optimizer.state[parameter][moment].contiguous().cpu()
        for name, parameter in lora_parameters(model).items()
        for moment in ("exp_avg", "exp_avg_sq")
    }
    save_file(tensors, partial / OPTIMIZER_FILE)
    group = optimizer.param_groups[0]
    record = {
        "epoch": epoch,
        "step": step,
        "learning_rate": learning_rate,
        "beta1": group["betas"][0],
        "beta2": group["betas"][1],
        "epsilon": group["eps"],
    }
    write_atomic(partial / TRAINING_FILE, json.dumps(record, indent=1))
    os.replace(partial, target)


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """The complete checkpoints `epoch-<k>` of a training folder, in order."""
    found = []
    for place in folder.glob("epoch-*"):
        if not place.name.endswith(".tmp"):
            record = json.loads((place / TRAINING_FILE).read_text(encoding="utf8"))
            found.append(Checkpoint(folder=place, epoch=record["epoch"], step=record["step"], learning_rate=record["learning_rate"]))
    return sorted(found, key=lambda checkpoint: checkpoint.epoch)


def load_optimizer_state(folder: Path, model: PeftModel) -> OptimizerState:
    """AdamW's state of a checkpoint, matched to `model` by name and shape.

    Reads our `optimizer.safetensors`, or the `optimizer.pt` of a `transformers.Trainer` checkpoint (tensors only).
    Raises ArtefactError when there is none or it does not fit.
    """
    if (folder / OPTIMIZER_FILE).exists():
        return _own_state(folder, model)
    if (folder / "optimizer.pt").exists():
        return _trainer_state(folder, model)
    raise ArtefactError(
        f"{folder} holds no optimizer state (optimizer.safetensors or optimizer.pt).",
        "Use gradients.maps sgd for corpus and probes, or give a checkpoint saved with its optimizer.",
    )


def _own_state(folder: Path, model: PeftModel) -> OptimizerState:
    record = json.loads((folder / TRAINING_FILE).read_text(encoding="utf8"))
    moments: dict[str, dict[str, Tensor]] = {"exp_avg": {}, "exp_avg_sq": {}}
    for key, tensor in load_file(folder / OPTIMIZER_FILE).items():
        moment, _, name = key.partition(":")
        moments[moment][name] = tensor
    return _matched(model, moments, step=record["step"], beta1=record["beta1"], beta2=record["beta2"], epsilon=record["epsilon"])


def _trainer_state(folder: Path, model: PeftModel) -> OptimizerState:
    # weights_only: torch's restricted reader builds tensors and plain containers and runs no code of the file
    # (docs/decisions/trainer-checkpoints.md).
    path = folder / "optimizer.pt"
    try:
        stored: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        # What torch says of it advises to run the file's code.
        raise ArtefactError(f"{path} holds something else than tensors, or is damaged.", "Save the checkpoint again.") from error
    # Trainer makes a group with and one without weight decay, each in model order; LoRA weights all decay, the other is empty.
    whole = isinstance(stored, dict) and {"state", "param_groups"} <= stored.keys()
    groups = [group for group in stored["param_groups"] if group["params"]] if whole else []
    if len(groups) != 1 or "exp_avg" not in next(iter(stored["state"].values()), {}):
        raise ArtefactError(f"{path} is not the state of one AdamW group.", "Train the LoRA weights alone, with AdamW.")
    names = list(lora_parameters(model))
    group, order = groups[0], groups[0]["params"]
    if len(order) != len(names):
        raise ArtefactError(
            f"{path} has state for {len(order)} parameters, the adapter has {len(names)}.",
            "Only the LoRA weights may have been trained.",
        )
    states = [stored["state"][index] for index in order]
    moments = {m: {name: state[m] for name, state in zip(names, states, strict=True)} for m in ("exp_avg", "exp_avg_sq")}
    step = int(states[0]["step"])
    return _matched(model, moments, step=step, beta1=group["betas"][0], beta2=group["betas"][1], epsilon=group["eps"])


def _matched(model: PeftModel, moments: dict[str, dict[str, Tensor]], **constants: Any) -> OptimizerState:
    parameters = lora_parameters(model)
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    for moment, tensors in moments.items():
        check_same(f"optimizer state {moment}", {name: tuple(t.shape) for name, t in tensors.items()}, shapes)
    device = next(iter(parameters.values())).device
    placed = {m: {name: t.float().to(device) for name, t in tensors.items()} for m, tensors in moments.items()}
    return OptimizerState(exp_avg=placed["exp_avg"], exp_avg_sq=placed["exp_avg_sq"], **constants)


def import_checkpoint(base: Any, source: Path, lora: LoraConfig, target: Path) -> None:
    """Take over a peft adapter, or a `transformers.Trainer` checkpoint of one, as `target`/epoch-01.

    Adapter weights must be safetensors; an `optimizer.pt` becomes our `optimizer.safetensors`, so the audit holds no pickle.
    Raises ArtefactError when it does not fit the model, ConfigError when its LoRA settings are not the audit's, NumericError when it was
    never trained.
    """
    found = lora_settings(source)
    if found != lora:
        raise ConfigError(f"The adapter in {source} has {found}, the audit {lora}.", "Set the audit's lora to the adapter's.")
    model = attach_adapter(base, source)
    require_trained(model)
    folder = target / "epoch-01"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_adapter(model, folder)
    step, rate = trainer_learning_rate(source)
    record: dict[str, Any] = {"epoch": 1, "step": step, "learning_rate": rate}
    if (source / "optimizer.pt").exists() or (source / OPTIMIZER_FILE).exists():
        state = load_optimizer_state(source, model)
        moments = {f"exp_avg:{n}": t for n, t in state.exp_avg.items()} | {f"exp_avg_sq:{n}": t for n, t in state.exp_avg_sq.items()}
        save_file({name: tensor.contiguous().cpu() for name, tensor in moments.items()}, folder / OPTIMIZER_FILE)
        record |= {"step": state.step, "beta1": state.beta1, "beta2": state.beta2, "epsilon": state.epsilon}
    write_atomic(folder / TRAINING_FILE, json.dumps(record, indent=1))
    detach_adapter(model)


def trainer_learning_rate(folder: Path) -> tuple[int, float]:
    """Steps taken and mean logged learning rate of a Trainer checkpoint (`trainer_state.json`); 0 and 1.0 where it has none."""
    path = folder / "trainer_state.json"
    if not path.exists():
        return 0, 1.0
    try:
        record = json.loads(path.read_text(encoding="utf8"))
        # A log of the last step alone says 0: no weight for Eq. 5, which for one checkpoint is 1 whatever it was.
        rates = [entry["learning_rate"] for entry in record.get("log_history", []) if entry.get("learning_rate")]
        return int(record.get("global_step", 0)), sum(rates) / len(rates) if rates else 1.0
    except (ValueError, TypeError, AttributeError) as error:
        raise ArtefactError(
            f"{path} is no state of a Trainer: {one_line(error)}.", "Save the checkpoint again, or delete that file."
        ) from error
