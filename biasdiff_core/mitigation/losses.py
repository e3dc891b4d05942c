"""What unlearning minimises: a loss for each example, natural logs throughout, and the weights that combine two of them.

B rows, N loss tokens, V words of the vocabulary. `mitigation.unlearn` puts them to work.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import kl_div, logsigmoid


def npo(log_prob: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Negative Preference Optimization: −(2/β) log σ(−β (log π(y) − log π_ref(y))) [B].

    `log_prob`, `reference` [B]: summed over the sequence, under the model and under the frozen origin (Zhang et al. 2024;
    the paper's Eq. 7 prints 1/β, the method's own code has 2/β). At π = π_ref it is (2/β) ln 2 with the gradient of `log_prob`.
    """
    return -(2 / beta) * logsigmoid(-beta * (log_prob - reference))


def simnpo(log_prob: Tensor, tokens: Tensor, beta: float, gamma: float) -> Tensor:
    """SimNPO: −(2/β) log σ(−(β/|y|) log π(y) − γ) [B]; no reference, the mean over tokens instead (Fan et al. 2024)."""
    return -(2 / beta) * logsigmoid(-beta * log_prob / tokens - gamma)


def door(token_log_probs: Tensor, beta: float) -> Tensor:
    """The second term of the paper's Eq. 8: −(2/β) log σ(−β log π(y_t | y_<t)) [N], which is then summed over a row's tokens.

    Without a reference it pulls by 2 p^β / (1 + p^β): on whole sequences, whose p is next to 0, hardly at all.
    """
    return -(2 / beta) * logsigmoid(-beta * token_log_probs)


def ascent(log_prob: Tensor, tokens: Tensor) -> Tensor:
    """Gradient ascent: the mean token log-probability [B], minus the NLL. The forget term of gradient difference too (Liu et al. 2022)."""
    return log_prob / tokens


def preference(preferred: Tensor, other: Tensor, beta: float) -> Tensor:
    """DPO: −log σ(β (preferred − other)) [B] (Rafailov et al. 2023, Eq. 7).

    `preferred`, `other` [B]: log π − log π_ref, summed over the sequence, of the twin and of the probe.
    """
    return -logsigmoid(beta * (preferred - other))


def kl_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(π_ref ‖ π) over the whole vocabulary at each token [N]; `logits`, `reference` [N, V]. 0 with a zero gradient where equal."""
    return kl_div(logits.log_softmax(-1), reference.log_softmax(-1), reduction="none", log_target=True).sum(-1)


def min_norm_weights(first: Sequence[Tensor], second: Sequence[Tensor]) -> tuple[float, float]:
    """Weights γ, 1 − γ in [0, 1] that make γ·first + (1 − γ)·second as short as can be (Sener & Koltun 2018, Algorithm 1).

    `first`, `second`: gradients of two losses by parameter. A step against the combination lowers both losses, or it is zero.
    """
    difference = [b - a for a, b in zip(first, second, strict=True)]
    length = sum(float((d * d).sum()) for d in difference)
    if length == 0:
        return 0.5, 0.5
    gamma = sum(float((d * b).sum()) for d, b in zip(difference, second, strict=True)) / length
    gamma = min(1.0, max(0.0, gamma))
    return gamma, 1 - gamma


def influence_weights(scores: Sequence[float]) -> Tensor:
    """Weights ∝ max(score, 0) with mean 1, [n]; a score of NaN counts as 0. All zero where no score is above 0."""
    positive = torch.tensor(scores, dtype=torch.float64).nan_to_num(0.0).clamp(min=0)
    return (positive / positive.mean() if positive.any() else positive).to(torch.get_default_dtype())
