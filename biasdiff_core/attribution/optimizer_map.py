"""Optimizer maps: which vector stands for an example's gradient g, given AdamW's state (m, v, t) at a checkpoint.

sgd       g
rms       g / (√v̂ + ε),              v̂ = v / (1 − β2^t)                       symmetric use as TrackStar (2410.17413)
less      m′ / √(v′ + ε)              no bias correction, ε inside the root     as LESS (2402.04333) and the paper run
adam      m̂′ / (√v̂′ + ε)             bias-corrected at step t + 1              as torch.optim.AdamW steps
adam_own  (m̂′ without β1·m) / (√v̂′ + ε)   the example's own part of that step

with m′ = β1·m + (1 − β1)·g and v′ = β2·v + (1 − β2)·g². The term β1·m is the same for every training example: it pulls all
vectors together, and `adam_own` leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from biasdiff_core.config.gradients import OptimizerMap
from biasdiff_core.errors import NumericError
from biasdiff_core.model.checkpoint import OptimizerState

GradientMap = Callable[[str, Tensor], Tensor]  # (canonical parameter name, gradients [B, n]) -> vectors [B, n]
AffineParts = Callable[[str, Tensor], tuple[Tensor, Tensor]]  # (name, gradients [B, n]) -> scale [B, n], shared [B, n]


def gradient_map(kind: OptimizerMap, state: OptimizerState | None) -> GradientMap:
    """The map `kind` at a checkpoint. Raises NumericError when it needs an optimizer state and there is none."""
    if kind == "sgd":
        return lambda name, gradient: gradient
    if state is None or state.step < 1:
        raise NumericError(
            f"The map {kind!r} needs AdamW's state after at least one step.", "Use the map sgd, or give the optimizer state."
        )
    if kind == "rms":
        return _rms(state)
    return _next_step(kind, state).vectors


def affine_parts(kind: OptimizerMap, state: OptimizerState | None) -> AffineParts:
    """The map `kind` taken apart: vector = scale · g + shared, elementwise, with the denominators that each example's own g gives.

    `shared` is what β1·m brings, which belongs to no example: zero for all but `less` and `adam`. Raises NumericError as `gradient_map`.
    """
    apply = gradient_map(kind, state)
    if state is None or kind in ("sgd", "rms"):
        return lambda name, gradient: (apply(name, torch.ones_like(gradient)), torch.zeros_like(gradient))
    step = _next_step(kind, state)

    def parts(name: str, gradient: Tensor) -> tuple[Tensor, Tensor]:
        roots = step.roots(name, gradient)
        shared = step.moments[name] / roots if step.moments else torch.zeros_like(gradient)
        return step.own / roots, shared

    return parts


def _rms(state: OptimizerState) -> GradientMap:
    correction = 1 - state.beta2**state.step
    scales = {name: (v / correction).sqrt().add(state.epsilon).reciprocal().flatten() for name, v in state.exp_avg_sq.items()}
    return lambda name, gradient: gradient * scales[name]


@dataclass(frozen=True, kw_only=True)
class _NextStep:
    """Γ = (moments + own · g) / (√(squares + weight · g²) + outside): what no example changes is worked out once a parameter.

    `moments` is empty where the shared term is left out. In place where that is possible, for the vectors are as large as all gradients
    of a batch and each pass over them counts.
    """

    moments: Mapping[str, Tensor]
    own: float
    squares: Mapping[str, Tensor]
    weight: float
    outside: float

    def roots(self, name: str, gradient: Tensor) -> Tensor:
        roots = torch.addcmul(self.squares[name].to(gradient), gradient, gradient, value=self.weight).sqrt_()
        return roots.add_(self.outside) if self.outside else roots

    def vectors(self, name: str, gradient: Tensor) -> Tensor:
        moved = torch.add(self.moments[name].to(gradient), gradient, alpha=self.own) if self.moments else gradient * self.own
        return moved.div_(self.roots(name, gradient))


def _next_step(kind: OptimizerMap, state: OptimizerState) -> _NextStep:
    raw = kind == "less"
    first, second = (1.0 if raw else 1 - beta ** (state.step + 1) for beta in (state.beta1, state.beta2))
    inside, outside = (state.epsilon, 0.0) if raw else (0.0, state.epsilon)
    return _NextStep(
        moments={} if kind == "adam_own" else {name: (state.beta1 / first * m).flatten() for name, m in state.exp_avg.items()},
        own=(1 - state.beta1) / first,
        squares={name: (state.beta2 / second * v + inside).flatten() for name, v in state.exp_avg_sq.items()},
        weight=(1 - state.beta2) / second,
        outside=outside,
    )
