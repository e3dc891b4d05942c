"""Negative Preference Optimization (Zhang et al. 2024, paper Eq. 7) on the removal set, with an NLL term on the retain set.

L_NPO = −(2/β) · mean log σ(−β · (log π_θ(y) − log π_ref(y))), log-probabilities summed over the sequence. The paper's Eq. 7
prints 1/β; the method's own code uses 2/β, and so do we. At θ = ref the loss is (2/β) ln 2 and its gradient that of ascent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biasdiff_core.config import NPOConfig
from biasdiff_core.corpus.examples import TrainingExample
from biasdiff_core.model.checkpoint import Checkpoint
from biasdiff_core.model.load import LoadedModel
from biasdiff_core.model.lora import attach_adapter, detach_adapter
from biasdiff_core.model.tokenise import Encoded, collate, encode, length_batches, sequence_log_probs
from biasdiff_core.model.train import ExampleLoss, Term, mean_nll, train
from biasdiff_core.results import ProgressCallback


def npo_loss(beta: float, reference: Tensor) -> ExampleLoss:
    """The per-example loss; `reference` [n]: the frozen origin model's summed log-probability of each forget example, in nats."""

    def loss(log_prob: Tensor, tokens: Tensor, rows: Tensor) -> Tensor:
        return -(2 / beta) * torch.nn.functional.logsigmoid(-beta * (log_prob - reference[rows]))

    return loss


def reference_log_probs(model: Any, pad_id: int, encoded: Sequence[Encoded], token_budget: int) -> Tensor:
    """Summed log-probabilities [n] under `model` as it stands: computed once and kept, so no second model is in memory."""
    device = next(model.parameters()).device
    reference = torch.zeros(len(encoded), device=device)
    with torch.inference_mode():
        for rows in length_batches([len(example.ids) for example in encoded], token_budget):
            reference[rows] = sequence_log_probs(model, collate(encoded, rows, pad_id, device))[0]
    return reference.clone()  # out of inference mode, so that autograd may save it


def unlearn(
    loaded: LoadedModel,
    origin: Path,
    forget: Sequence[TrainingExample],
    retain: Sequence[TrainingExample],
    config: NPOConfig,
    folder: Path,
    *,
    progress: ProgressCallback,
) -> list[Checkpoint]:
    """Train the origin's adapter on to forget `forget`: forget_weight · NPO + retain_weight · NLL of as many retain examples."""
    model = attach_adapter(loaded.model, origin)
    pad_id = loaded.tokenizer.pad_token_id
    forget_rows, retain_rows = encode(loaded.tokenizer, forget), encode(loaded.tokenizer, retain)
    reference = reference_log_probs(model, pad_id, forget_rows, config.training.token_budget)
    terms = [Term(name="npo", examples=forget_rows, loss=npo_loss(config.beta, reference), weight=config.forget_weight)]
    if config.retain_weight:
        terms.append(Term(name="retain_nll", examples=retain_rows, loss=mean_nll, weight=config.retain_weight))
    checkpoints = train(model, pad_id, terms, config.training, folder, stage="npo", progress=progress)
    detach_adapter(model)
    return checkpoints
