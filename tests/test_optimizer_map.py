"""Optimizer maps by hand, and `adam` against what torch.optim.AdamW really does to the weights of a model."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from biasdiff_core.attribution.gradients import full_vectors
from biasdiff_core.attribution.optimizer_map import gradient_map
from biasdiff_core.config.gradients import OptimizerMap
from biasdiff_core.errors import NumericError
from biasdiff_core.model.checkpoint import OptimizerState
from biasdiff_core.model.lora import lora_parameters
from biasdiff_core.model.tokenise import collate
from tests.reference.gradients_slow import gradients_slow, map_slow
from tests.tiny_models import default_dtype, sequences, tiny_lora

KINDS: tuple[OptimizerMap, ...] = ("sgd", "rms", "less", "adam", "adam_own")

# One weight, one example: β1 = 0.5, β2 = 0.75, ε = 0.25, after t = 2 steps with m = 3, v = 0.4375; g = 2.
HAND = OptimizerState(
    step=2, beta1=0.5, beta2=0.75, epsilon=0.25, exp_avg={"w": torch.tensor([[3.0]])}, exp_avg_sq={"w": torch.tensor([[0.4375]])}
)
GRADIENT = torch.tensor([[2.0]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sgd", 2.0),
        # v̂ = 0.4375 / (1 − 0.75²) = 0.4375 / 0.4375 = 1;  2 / (1 + 0.25)
        ("rms", 1.6),
        # m′ = 0.5·3 + 0.5·2 = 2.5;  v′ = 0.75·0.4375 + 0.25·4 = 1.328125;  2.5 / √(1.328125 + 0.25)
        ("less", 2.5 / math.sqrt(1.578125)),
        # m̂′ = 2.5 / (1 − 0.5³) = 2.5 / 0.875;  v̂′ = 1.328125 / (1 − 0.75³) = 1.328125 / 0.578125
        ("adam", (2.5 / 0.875) / (math.sqrt(1.328125 / 0.578125) + 0.25)),
        # only (1 − β1)·g = 1 of m′
        ("adam_own", (1.0 / 0.875) / (math.sqrt(1.328125 / 0.578125) + 0.25)),
    ],
)
def test_each_map_by_hand(kind: OptimizerMap, expected: float) -> None:
    assert float(gradient_map(kind, HAND)("w", GRADIENT)) == pytest.approx(expected, rel=1e-6)


def random_state(model: Any, seed: int = 3) -> OptimizerState:
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: parameter.shape for name, parameter in lora_parameters(model).items()}
    return OptimizerState(
        step=3,
        beta1=0.9,
        beta2=0.99,
        epsilon=1e-6,
        exp_avg={n: torch.randn(s, generator=generator) * 0.1 for n, s in shapes.items()},
        exp_avg_sq={n: torch.rand(s, generator=generator) * 0.01 for n, s in shapes.items()},
    )


@pytest.mark.parametrize("kind", KINDS)
def test_maps_of_many_examples_equal_the_slow_twin(kind: OptimizerMap) -> None:
    with default_dtype(torch.float64):
        model = tiny_lora("llama", dtype=torch.float64)
        state, encoded = random_state(model), sequences(3)
        vectors, _ = full_vectors(model, collate(encoded, range(3), 0, torch.device("cpu")), gradient_map(kind, state))
        for row, example in enumerate(encoded):
            for name, g in gradients_slow(model, example)[1].items():
                slow = map_slow(kind, g, state.exp_avg[name], state.exp_avg_sq[name], 3, 0.9, 0.99, 1e-6)
                torch.testing.assert_close(vectors[name][row], slow, rtol=1e-9, atol=1e-12)


def trained(model: Any, steps: int, rate: float) -> torch.optim.AdamW:
    """AdamW after some real steps, each on the summed gradient of three examples."""
    parameters = lora_parameters(model)
    optimizer = torch.optim.AdamW(parameters.values(), lr=rate, betas=(0.9, 0.95), eps=1e-7, weight_decay=0.0)
    for step in range(steps):
        set_gradients(model, [gradients_slow(model, example)[1] for example in sequences(3, seed=100 + step)])
        optimizer.step()
    return optimizer


def set_gradients(model: Any, gradients: list[dict[str, Tensor]]) -> None:
    for name, parameter in lora_parameters(model).items():
        parameter.requires_grad_(True)
        parameter.grad = torch.stack([g[name] for g in gradients]).sum(0).reshape(parameter.shape)


def state_of(model: Any, optimizer: torch.optim.AdamW, step: int) -> OptimizerState:
    kept = {name: optimizer.state[parameter] for name, parameter in lora_parameters(model).items()}
    return OptimizerState(
        step=step,
        beta1=0.9,
        beta2=0.95,
        epsilon=1e-7,
        exp_avg={name: s["exp_avg"].clone() for name, s in kept.items()},
        exp_avg_sq={name: s["exp_avg_sq"].clone() for name, s in kept.items()},
    )


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
def test_adam_is_what_one_step_of_adamw_does(architecture: str, steps: int) -> None:
    """Δθ = −η Γ: from the state after `steps` steps, one step of torch.optim.AdamW on one example's gradient alone."""
    rate = 0.01
    with default_dtype(torch.float64):
        model = tiny_lora(architecture, dtype=torch.float64)
        optimizer = trained(model, steps, rate)
        state = state_of(model, optimizer, steps)
        model.requires_grad_(False)
        example = sequences(1, seed=9)
        vectors, _ = full_vectors(model, collate(example, [0], 0, torch.device("cpu")), gradient_map("adam", state))
        before = {name: parameter.detach().clone() for name, parameter in lora_parameters(model).items()}
        set_gradients(model, [gradients_slow(model, example[0])[1]])
        optimizer.step()
        for name, parameter in lora_parameters(model).items():
            change = (parameter.detach() - before[name]).flatten()
            torch.testing.assert_close(change, -rate * vectors[name][0], rtol=1e-8, atol=1e-13)


def test_adam_is_its_own_part_plus_the_shared_term() -> None:
    """Γ = Γ_own + β1·m / (1 − β1^(t+1)) / (√v̂′ + ε): the second term depends on the example only through v̂′."""
    generator = torch.Generator().manual_seed(0)
    m, v = torch.randn(50, generator=generator).double(), torch.rand(50, generator=generator).double()
    g = torch.randn(4, 50, generator=generator).double()
    state = OptimizerState(step=6, beta1=0.9, beta2=0.99, epsilon=1e-8, exp_avg={"w": m}, exp_avg_sq={"w": v})
    adam, own = (gradient_map(kind, state)("w", g) for kind in ("adam", "adam_own"))
    root = ((0.99 * v + 0.01 * g**2) / (1 - 0.99**7)).sqrt() + 1e-8
    torch.testing.assert_close(adam - own, 0.9 * m / (1 - 0.9**7) / root, rtol=1e-12, atol=1e-12)
    assert (own.sign() == g.sign()).all() and not (adam.sign() == g.sign()).all()


def test_moments_in_their_matrix_shape_are_read_row_by_row() -> None:
    """A parameter [2, 3] keeps its moments as [2, 3], its gradients come as [B, 6]: transposed moments would go unseen in a square one."""
    m, v = torch.arange(6.0).reshape(2, 3), torch.arange(1.0, 7.0).reshape(2, 3)
    state = replace(HAND, exp_avg={"w": m}, exp_avg_sq={"w": v})
    g = torch.ones(1, 6)
    for kind in KINDS[1:]:
        expected = map_slow(kind, g, m, v, 2, 0.5, 0.75, 0.25)
        torch.testing.assert_close(gradient_map(kind, state)("w", g)[0].double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_map_without_a_state_is_refused(kind: OptimizerMap) -> None:
    for state in (None, replace(HAND, step=0)):
        with pytest.raises(NumericError, match=f"'{kind}' needs AdamW's state"):
            gradient_map(kind, state)
    assert gradient_map("sgd", None)("w", GRADIENT) is GRADIENT
