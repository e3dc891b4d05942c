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

from collections.abc import Callable

from torch import Tensor

from biasdiff_core.config.gradients import OptimizerMap
from biasdiff_core.errors import NumericError
from biasdiff_core.model.checkpoint import OptimizerState

GradientMap = Callable[[str, Tensor], Tensor]  # (canonical parameter name, gradients [B, n]) -> vectors [B, n]


def gradient_map(kind: OptimizerMap, state: OptimizerState | None) -> GradientMap:
    """The map `kind` at a checkpoint. Raises NumericError when it needs an optimizer state and there is none."""
    if kind == "sgd":
        return lambda name, gradient: gradient
    if state is None or state.step < 1:
        raise NumericError(
            f"The map {kind!r} needs AdamW's state after at least one step.", "Use the map sgd, or give the optimizer state."
        )
    return {"rms": _rms, "less": _less, "adam": _adam, "adam_own": _adam_own}[kind](state)


def _rms(state: OptimizerState) -> GradientMap:
    correction = 1 - state.beta2**state.step
    scales = {name: (v / correction).sqrt().add(state.epsilon).reciprocal().flatten() for name, v in state.exp_avg_sq.items()}
    return lambda name, gradient: gradient * scales[name]


def _less(state: OptimizerState) -> GradientMap:
    def apply(name: str, gradient: Tensor) -> Tensor:
        moment, square = _next_moments(state, name, gradient)
        return moment / (square + state.epsilon).sqrt()

    return apply


def _adam(state: OptimizerState) -> GradientMap:
    def apply(name: str, gradient: Tensor) -> Tensor:
        moment, square = _next_moments(state, name, gradient)
        return _corrected(state, moment, square)

    return apply


def _adam_own(state: OptimizerState) -> GradientMap:
    def apply(name: str, gradient: Tensor) -> Tensor:
        _, square = _next_moments(state, name, gradient)
        return _corrected(state, (1 - state.beta1) * gradient, square)

    return apply


def _next_moments(state: OptimizerState, name: str, gradient: Tensor) -> tuple[Tensor, Tensor]:
    moment = state.beta1 * state.exp_avg[name].flatten() + (1 - state.beta1) * gradient
    square = state.beta2 * state.exp_avg_sq[name].flatten() + (1 - state.beta2) * gradient.square()
    return moment, square


def _corrected(state: OptimizerState, moment: Tensor, square: Tensor) -> Tensor:
    step = state.step + 1
    return (moment / (1 - state.beta1**step)) / ((square / (1 - state.beta2**step)).sqrt() + state.epsilon)
