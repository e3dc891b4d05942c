"""Shares of token positions, a position at a time: the outer product of each position is formed whole, scaled and dotted."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from biasdiff_core.config.gradients import OptimizerMap
from biasdiff_core.model.checkpoint import OptimizerState
from biasdiff_core.model.lora import lora_modules
from biasdiff_core.model.tokenise import Encoded


def scale_slow(kind: OptimizerMap, g: Tensor, v: Tensor, state: OptimizerState) -> Tensor:
    """What a gradient is multiplied with, written out for each map."""
    if kind == "sgd":
        return torch.ones_like(g)
    if kind == "rms":
        return 1 / (torch.sqrt(v / (1 - state.beta2**state.step)) + state.epsilon)
    later = state.beta2 * v + (1 - state.beta2) * g * g
    if kind == "less":
        return (1 - state.beta1) / torch.sqrt(later + state.epsilon)
    step = state.step + 1
    return (1 - state.beta1) / (1 - state.beta1**step) / (torch.sqrt(later / (1 - state.beta2**step)) + state.epsilon)


def position_shares_slow(
    model: Any, example: Encoded, kind: OptimizerMap, state: OptimizerState, direction: dict[str, Tensor]
) -> tuple[list[float], list[float]]:
    """s_t times the norm of the example's vector, and the loss of each token from 1 on: a loop over maps and positions."""
    modules = lora_modules(model)
    read: dict[str, Tensor] = {}
    written: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            read[name] = inputs[0].detach().reshape(len(example.ids), -1)
            output.retain_grad()
            written[name] = output

        return hook

    for module in modules.values():
        module.weight.requires_grad_(True)
    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    ids = torch.tensor([example.ids])
    log_probs = model(input_ids=ids).logits[0].log_softmax(-1)
    losses = [-log_probs[t - 1, example.ids[t]] for t in range(1, len(example.ids))]
    counted = losses[example.loss_from - 1 :]
    (torch.stack(counted).sum() / len(counted)).backward()
    for handle in handles:
        handle.remove()
    shares = [0.0] * len(example.ids)
    for name, module in modules.items():
        g = written[name].grad.reshape(len(example.ids), -1)  # type: ignore[union-attr]
        whole = module.weight.grad
        assert whole is not None
        scale = scale_slow(kind, whole, state.exp_avg_sq[name], state)
        for t in range(len(example.ids)):
            shares[t] += float((scale * torch.outer(g[t], read[name][t]) * direction[name].view_as(whole)).sum())
        module.weight.grad = None
        module.weight.requires_grad_(False)
    return shares, [float(loss.detach()) if t + 1 >= example.loss_from else math.nan for t, loss in enumerate(losses)]
