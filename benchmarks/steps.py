"""What one step of AdamW from a checkpoint does to losses, what the gradients there say of it, and how the two go together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from biasdiff_core.attribution.gradients import full_vectors
from biasdiff_core.attribution.optimizer_map import gradient_map
from biasdiff_core.config.gradients import OptimizerMap
from biasdiff_core.evaluation.statistics import Estimate
from biasdiff_core.model.checkpoint import OptimizerState
from biasdiff_core.model.lora import lora_parameters
from biasdiff_core.model.score import sequence_log_probs
from biasdiff_core.model.tokenise import Batch, Encoded, collate, length_batches

Floats = NDArray[np.float64]
TOKEN_BUDGET = 512
DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Point:
    """A checkpoint: the model with its adapter, frozen, and AdamW's state. `decay`: the warm-up's weight decay."""

    model: Any
    state: OptimizerState
    pad_id: int
    decay: float

    def batches(self, encoded: Sequence[Encoded]) -> list[Batch]:
        """All of them, under the token budget."""
        device = next(self.model.parameters()).device
        chosen = length_batches([len(example.ids) for example in encoded], TOKEN_BUDGET)
        return [collate(encoded, rows, self.pad_id, device) for rows in chosen]

    def vectors(self, encoded: Sequence[Encoded], kind: OptimizerMap) -> dict[str, Tensor]:
        """Mapped gradients of the LoRA weights by name, [examples, n] each, in the order given."""
        parts: list[dict[str, Tensor]] = []
        order: list[int] = []
        for batch in self.batches(encoded):
            parts.append(full_vectors(self.model, batch, gradient_map(kind, self.state))[0])
            order += batch.rows.tolist()
        back = torch.tensor(order).argsort()
        return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}


@contextmanager
def stepped(point: Point, gradient: Mapping[str, Tensor], rate: float) -> Iterator[None]:
    """The model after one step of `torch.optim.AdamW` from the checkpoint's state on one gradient; afterwards as before."""
    parameters, state = lora_parameters(point.model), point.state
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    betas = (state.beta1, state.beta2)
    optimizer = torch.optim.AdamW(list(parameters.values()), lr=rate, betas=betas, eps=state.epsilon, weight_decay=point.decay)
    for name, parameter in parameters.items():
        moments = {"exp_avg": state.exp_avg[name], "exp_avg_sq": state.exp_avg_sq[name]}
        copies = {moment: tensor.to(parameter.dtype, copy=True) for moment, tensor in moments.items()}
        optimizer.state[parameter] = {"step": torch.tensor(float(state.step)), **copies}
        parameter.grad = gradient[name].reshape(parameter.shape)
    try:
        optimizer.step()
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data.copy_(before[name])
            parameter.grad = None


def mean_losses(model: Any, batches: Sequence[Batch]) -> Floats:
    """Each row's mean token loss in nats, in the order of the rows' numbers."""
    losses = np.empty(sum(len(batch.rows) for batch in batches))
    for batch in batches:
        with torch.no_grad():
            log_prob, tokens = sequence_log_probs(model, batch)
        losses[batch.rows.numpy()] = (-log_prob / tokens).cpu().numpy()
    return losses


def observed_changes(point: Point, examples: Sequence[Encoded], judged: Sequence[Encoded], rate: float) -> Floats:
    """Change of the loss of each of `judged` by a step of size `rate` on each example, over `rate`: [examples, judged]."""
    batches = point.batches(judged)
    before, gradients = mean_losses(point.model, batches), point.vectors(examples, "sgd")
    changes = np.empty((len(examples), len(judged)))
    for row in range(len(examples)):
        with stepped(point, {name: vectors[row] for name, vectors in gradients.items()}, rate):
            changes[row] = (mean_losses(point.model, batches) - before) / rate
    return changes


def products(train: Mapping[str, Tensor], judged: Mapping[str, Tensor]) -> Floats:
    """⟨judged, train⟩ over all parameters: [examples, judged]."""
    return torch.stack([train[name] @ judged[name].T for name in train]).sum(0).double().cpu().numpy()


def mean_cosines(train: Mapping[str, Tensor], judged: Mapping[str, Tensor]) -> Floats:
    """Mean cosine of each example to all of `judged` (Eq. 5 at one checkpoint): [examples]."""
    lengths = [np.sqrt(sum(v.square().sum(1).double().cpu().numpy() for v in side.values())) for side in (train, judged)]
    return (products(train, judged) / np.outer(*lengths)).mean(1)


def full_parameter_cosines(point: Point, examples: Sequence[Encoded], judged: Sequence[Encoded]) -> Floats:
    """As `mean_cosines` of plain gradients, by every weight of the base model instead of the LoRA's: one example at a time."""
    weights = [weight for name, weight in point.model.named_parameters() if ".lora_" not in name]

    def unit(example: Encoded) -> list[Tensor]:
        (batch,) = point.batches([example])
        with torch.enable_grad():
            log_prob, tokens = sequence_log_probs(point.model, batch)
            gradients = torch.autograd.grad((-log_prob / tokens).sum(), weights)
        length = torch.stack([gradient.double().square().sum() for gradient in gradients]).sum().sqrt()
        return [gradient.div_(length) for gradient in gradients]

    for weight in weights:
        weight.requires_grad_(True)
    direction = unit(judged[0])
    for example in judged[1:]:
        for total, gradient in zip(direction, unit(example), strict=True):
            total.add_(gradient)
    found = [sum(float((g * d).sum()) for g, d in zip(unit(example), direction, strict=True)) for example in examples]
    for weight in weights:
        weight.requires_grad_(False)
    return np.array(found) / len(judged)


def pearson(first: Floats, second: Floats) -> float:
    """Over all cells."""
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def within_columns(first: Floats, second: Floats) -> float:
    """Mean over the columns: over examples for each probe, so that what all examples do to a probe alike counts for nothing."""
    a, b = first - first.mean(0), second - second.mean(0)
    return float(np.mean((a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))))


def spearman(first: Floats, second: Floats) -> float:
    """Of ranks, ties at their middle."""
    return pearson(rankdata(first), rankdata(second))


def over_rows(statistic: Callable[[Floats, Floats], float], first: Floats, second: Floats) -> Estimate:
    """`statistic` of two arrays with a row an item, and its 95 % percentile interval: rows drawn with replacement."""
    generator = np.random.default_rng(0)
    draws = (generator.integers(0, len(first), len(first)) for _ in range(DRAWS))
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw of one row over and over has no correlation: it is left out
        low, high = np.nanquantile([statistic(first[rows], second[rows]) for rows in draws], [0.025, 0.975])
    return Estimate(value=statistic(first, second), low=float(low), high=float(high))
