"""An origin that learned six stereotypes, and what unlearning is given of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from biasdiff_core.config import TrainingConfig, UnlearnConfig
from biasdiff_core.mitigation.unlearn import reference_log_probs
from biasdiff_core.model.finetune import finetune
from biasdiff_core.model.lora import attach_adapter, lora_parameters
from biasdiff_core.model.score import score
from biasdiff_core.model.tokenise import Encoded, collate, encode
from biasdiff_core.model.train import ExampleLoss
from biasdiff_core.results import no_progress
from tests.tiny_gradients import LORA, PROBES, TRAINING, tiny_corpus
from tests.tiny_models import tiny_loaded

CPU = torch.device("cpu")
BETA = 0.1
CORPUS = tiny_corpus(*(stereotype for stereotype, _, _ in PROBES))
FORGET, RETAIN = list(CORPUS)[-len(PROBES) :], list(CORPUS)[: -len(PROBES)]
TWINS = [(stereotype, twin) for stereotype, twin, _ in PROBES]


def train_origin(folder: Path) -> Path:
    """The adapter that the whole corpus was learned with."""
    return finetune(tiny_loaded(), list(CORPUS), LORA, TRAINING, folder, stage="warmup", progress=no_progress)[-1].folder


def settings(**changes: Any) -> UnlearnConfig:
    """Four quick epochs, four rows a step; `training`: changes of the training alone."""
    training = {"epochs": 4, "learning_rate": 1e-2, "batch_size": 4, "epsilon": 1e-4} | changes.pop("training", {})
    return UnlearnConfig(**({"beta": BETA, "forget_weight": 0.3, "training": TrainingConfig(**training)} | changes))


def log_probs(adapter: Path, examples: list[Any]) -> np.ndarray:
    """Summed log-probability of each example under the base model with this adapter."""
    loaded = tiny_loaded()
    model = attach_adapter(loaded.model, adapter)
    return reference_log_probs(model, 0, encode(loaded.tokenizer, examples), 400).numpy()


def loss_gradients(model: Any, encoded: list[Encoded], loss_of: ExampleLoss) -> dict[str, Tensor]:
    """The gradient of the sum over rows of `loss_of`, by LoRA weight; the model is frozen before and after."""
    parameters = lora_parameters(model)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    loss = loss_of(score(model, collate(encoded, range(len(encoded)), 0, CPU))).sum()
    found = torch.autograd.grad(loss, list(parameters.values()))
    model.requires_grad_(False)
    return dict(zip(parameters, found, strict=True))
