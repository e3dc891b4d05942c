"""Log-probabilities of tokens from the states before a linear head, without the logits of all tokens at once.

A frozen head's gradient needs no second look at the logits: with logits z = W h + b, ∂ ln p(y) / ∂h = Wᵀ (onehot(y) − softmax(z)) does not
depend on what comes after, so it is formed chunk by chunk in the forward pass, [N, H] instead of [N, vocabulary].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 1024  # tokens: 0.6 GB of fp32 logits for a vocabulary of 151,936


def linear_log_probs(hidden: Tensor, head: torch.nn.Linear, targets: Tensor, chunk: int = CHUNK) -> Tensor:
    """Natural-log probabilities [N] of `targets` [N] from `hidden` [N, H], at fp32 or better; differentiable in `hidden` alone."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    found: Tensor = _LinearLogProbs.apply(hidden, head.weight, head.bias, targets, chunk, wide)  # type: ignore[no-untyped-call]
    return found


class _LinearLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk: int, wide: torch.dtype) -> Tensor:
        log_probs = hidden.new_empty(len(hidden), dtype=wide)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), chunk):
            part, chosen = slice(start, start + chunk), targets[start : start + chunk, None]
            logits = torch.nn.functional.linear(hidden[part], weight, bias).to(wide)
            normaliser = logits.logsumexp(-1, keepdim=True)
            log_probs[part] = (logits.gather(1, chosen) - normaliser).squeeze(1)
            if gradient is not None:
                towards = logits.sub_(normaliser).exp_().neg_()
                towards.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=wide))
                gradient[part] = towards.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return log_probs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype)[:, None], None, None, None, None, None
