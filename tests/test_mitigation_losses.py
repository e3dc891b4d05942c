"""The unlearning losses by hand arithmetic, their pull at and off the reference, and the min-norm weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from biasdiff_core.config import UnlearnConfig
from biasdiff_core.mitigation.losses import ascent, door, influence_weights, kl_divergence, min_norm_weights, preference, simnpo
from biasdiff_core.mitigation.unlearn import Frozen, forget_loss, kl_to, reference_log_probs
from biasdiff_core.model.lora import lora_parameters
from biasdiff_core.model.score import score
from biasdiff_core.model.tokenise import Encoded, collate
from biasdiff_core.model.train import ExampleLoss
from tests.tiny_models import default_dtype, sequences, tiny_lora
from tests.tiny_unlearning import CPU, loss_gradients


def slope(value: float, loss: object) -> float:
    """The derivative of `loss` at `value`."""
    x = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    loss(x).sum().backward()  # type: ignore[operator]
    assert x.grad is not None
    return float(x.grad)


def test_simnpo_by_hand() -> None:
    # β = 2, γ = 0.5, log p = −6 over 3 tokens: −(2/2)·log σ(−2·(−2) − 0.5) = ln(1 + e^−3.5).
    found = simnpo(torch.tensor([-6.0], dtype=torch.float64), torch.tensor([3]), 2.0, 0.5)
    assert float(found) == pytest.approx(math.log(1 + math.exp(-3.5)), rel=1e-9)
    # dL/d log p = (2/|y|)·σ(β·log p/|y| + γ) = (2/3)·σ(−3.5): short and likely texts are pulled at most.
    assert slope(-6.0, lambda x: simnpo(x, torch.tensor([3]), 2.0, 0.5)) == pytest.approx(2 / 3 / (1 + math.exp(3.5)), rel=1e-9)


def test_door_by_hand() -> None:
    # β = 0.5: of p = 1 and of p = e^−4: −4·log σ(0) = 4 ln 2 and −4·log σ(2) = 4·ln(1 + e^−2).
    found = door(torch.tensor([0.0, -4.0], dtype=torch.float64), 0.5)
    assert found.tolist() == pytest.approx([4 * math.log(2), 4 * math.log(1 + math.exp(-2))], rel=1e-9)
    # The pull is 2·p^β/(1 + p^β): 1 at p = 1, next to nothing on a sequence of 20 such tokens.
    for log_p in (0.0, -4.0, -80.0):
        pull = 2 * math.exp(0.5 * log_p) / (1 + math.exp(0.5 * log_p))
        assert slope(log_p, lambda x: door(x, 0.5)) == pytest.approx(pull, rel=1e-9)


def test_ascent_is_minus_the_mean_nll() -> None:
    assert ascent(torch.tensor([-6.0, -8.0]), torch.tensor([2, 4])).tolist() == [-3.0, -2.0]


def test_preference_by_hand() -> None:
    # β = 0.1: the twin gained 10 nats, the probe lost 20: −log σ(0.1·30) = ln(1 + e^−3). At the reference ln 2.
    found = preference(torch.tensor([10.0, 0.0]), torch.tensor([-20.0, 0.0]), 0.1)
    assert found.tolist() == pytest.approx([math.log(1 + math.exp(-3)), math.log(2)], rel=1e-6)


def test_kl_by_hand() -> None:
    # Origin (1/2, 1/2), model (1/4, 3/4): ½·ln(½/¼) + ½·ln(½/¾) = ½·ln(4/3). The other way round it is another number.
    logits, reference = torch.tensor([[1.0, 3.0]]).log(), torch.tensor([[5.0, 5.0]]).log()
    assert float(kl_divergence(logits, reference)) == pytest.approx(0.5 * math.log(4 / 3), rel=1e-6)
    assert float(kl_divergence(reference, logits)) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-6)


def test_the_same_losses_from_a_batch_one_sequence_at_a_time() -> None:
    """Padding, micro-batches and the sum over a row's tokens: each method's loss of a batch against plain loops."""
    model, encoded = tiny_lora(), sequences(6)
    config = UnlearnConfig(beta=0.7, gamma=0.2)
    reference = torch.linspace(-30, -20, 6)
    slow: dict[str, list[float]] = {"npo": [], "simnpo": [], "door": [], "ascent": [], "grad_diff": []}
    for row, example in enumerate(encoded):
        logs = torch.log_softmax(model(input_ids=torch.tensor([example.ids])).logits[0], -1)
        each = [float(logs[place - 1, example.ids[place]]) for place in range(example.loss_from, len(example.ids))]
        total, mean = sum(each), sum(each) / len(each)
        slow["npo"].append(2 / 0.7 * math.log(1 + math.exp(0.7 * (total - float(reference[row])))))
        slow["simnpo"].append(2 / 0.7 * math.log(1 + math.exp(0.7 * mean + 0.2)))
        slow["door"].append(sum(2 / 0.7 * math.log(1 + math.exp(0.7 * log_p)) for log_p in each))
        slow["ascent"].append(mean)
        slow["grad_diff"].append(mean)
    for rows in (range(6), [4, 1]):
        scored = score(model, collate(encoded, rows, 0, CPU))
        for method, expected in slow.items():
            found = forget_loss(method, config, reference)(scored)  # type: ignore[arg-type]
            assert found.tolist() == pytest.approx([expected[row] for row in rows], rel=1e-4)


def test_twins_at_the_reference_pull_the_twin_up_and_the_probe_down() -> None:
    """ln 2 a pair; gradient −(β/2)·(∇log p(twin) − ∇log p(probe))."""
    with default_dtype(torch.float64):
        model, encoded = tiny_lora(dtype=torch.float64), sequences(4)  # probe, twin, probe, twin
        reference = reference_log_probs(model, 0, encoded, 40)
        loss = forget_loss("twin", UnlearnConfig(beta=0.3), reference)
        values = loss(score(model, collate(encoded, range(4), 0, CPU)))
        torch.testing.assert_close(values, torch.full((2,), math.log(2)), rtol=1e-6, atol=0)
        signs = torch.tensor([-1.0, 1.0, -1.0, 1.0])
        expected = loss_gradients(model, encoded, lambda scored: -0.15 * signs * scored.log_prob)
        for name, found in loss_gradients(model, encoded, loss).items():
            torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-7)


def moved(model: object, by: float) -> None:
    with torch.no_grad():
        for parameter in lora_parameters(model).values():
            parameter += by


def test_kl_is_zero_at_the_origin_with_a_zero_gradient() -> None:
    with default_dtype(torch.float64):
        model, encoded = tiny_lora(dtype=torch.float64), sequences(4)
        loss = kl_to(Frozen(model))
        assert float(loss(score(model, collate(encoded, range(4), 0, CPU))).abs().max()) < 1e-12
        assert all(float(gradient.abs().max()) < 1e-9 for gradient in loss_gradients(model, encoded, loss).values())
        moved(model, 0.02)
        assert float(loss(score(model, collate(encoded, range(4), 0, CPU))).min()) > 1e-6
        assert any(float(gradient.abs().max()) > 1e-3 for gradient in loss_gradients(model, encoded, loss).values())


def test_kl_to_the_origin_token_by_token() -> None:
    model, encoded = tiny_lora(), sequences(4)
    origin, before = Frozen(model), tiny_lora()
    moved(model, 0.05)
    found = kl_to(origin)(score(model, collate(encoded, range(4), 0, CPU)))
    for row, example in enumerate(encoded):
        p, q = (torch.log_softmax(m(input_ids=torch.tensor([example.ids])).logits[0], -1) for m in (before, model))
        each = [float((p[t - 1].exp() * (p[t - 1] - q[t - 1])).sum()) for t in range(example.loss_from, len(example.ids))]
        assert float(found[row]) == pytest.approx(sum(each) / len(each), rel=1e-3)


def test_the_frozen_origin_has_neither_dropout_nor_gradient_and_leaves_the_model_as_it_is() -> None:
    model, encoded = tiny_lora(), sequences(3)
    batch = collate(encoded, range(3), 0, CPU)
    before = score(model, batch).logits
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    origin = Frozen(model)
    moved(model, 0.05)
    weights = {name: parameter.clone() for name, parameter in lora_parameters(model).items()}
    model.train().requires_grad_(True)
    logits = score(origin, batch).logits
    assert model.training and not logits.requires_grad
    torch.testing.assert_close(logits, before, rtol=0, atol=0)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in lora_parameters(model).items())


def short(first: list[float], second: list[float]) -> tuple[float, float]:
    return min_norm_weights([torch.tensor(first, dtype=torch.float64)], [torch.tensor(second, dtype=torch.float64)])


def test_min_norm_weights_by_hand() -> None:
    assert short([1.0, 0.0], [0.0, 1.0]) == (0.5, 0.5)
    # (2, 0) and (0, 1): γ = ((−2, 1)·(0, 1)) / |(−2, 1)|² = 1/5; the combination (0.4, 0.8) is at right angles to their difference.
    assert short([2.0, 0.0], [0.0, 1.0]) == pytest.approx((0.2, 0.8))
    assert short([3.0, 3.0], [1.0, 1.0]) == (0.0, 1.0)  # the shorter of two that point the same way
    assert short([-1.0, 0.0], [3.0, 0.0]) == pytest.approx((0.75, 0.25))  # against each other: nothing lowers both, the step is zero
    assert short([1.0], [1.0]) == (0.5, 0.5)


VECTORS = st.lists(st.floats(-5, 5, allow_nan=False), min_size=3, max_size=3)


@given(VECTORS, VECTORS)
def test_no_other_weights_are_shorter_and_both_losses_fall(first: list[float], second: list[float]) -> None:
    gamma, rest = short(first, second)
    assert 0 <= gamma <= 1 and gamma + rest == pytest.approx(1)
    a, b = (torch.tensor(vector, dtype=torch.float64) for vector in (first, second))
    combined = gamma * a + rest * b
    grid: Tensor = torch.stack([t * a + (1 - t) * b for t in torch.linspace(0, 1, 101, dtype=torch.float64)]).norm(dim=1)
    assert float(combined.norm()) <= float(grid.min()) + 1e-9
    # The min-norm point is no further along either gradient than itself, so a step against it lowers both.
    assert min(float(combined @ a), float(combined @ b)) >= float(combined @ combined) - 1e-6


def test_min_norm_weights_are_over_all_parameters_at_once() -> None:
    parts = [torch.tensor([2.0]), torch.tensor([[0.0]])], [torch.tensor([0.0]), torch.tensor([[1.0]])]
    assert min_norm_weights(*parts) == pytest.approx((0.2, 0.8))


def test_influence_weights_by_hand() -> None:
    # Positive parts 0, 0.2, 0, 0.6, 0: mean 0.16.
    weights = influence_weights([-0.3, 0.2, float("nan"), 0.6, 0.0])
    assert weights.tolist() == pytest.approx([0, 1.25, 0, 3.75, 0]) and float(weights.mean()) == pytest.approx(1)
    assert influence_weights([-1.0, 0.0]).tolist() == [0, 0]


@pytest.mark.parametrize("method", ["npo", "simnpo", "door", "ascent", "grad_diff"])
def test_every_forget_loss_pulls_the_likelihood_down(method: str) -> None:
    model, encoded = tiny_lora(), sequences(3)
    reference = reference_log_probs(model, 0, encoded, 40)
    loss: ExampleLoss = forget_loss(method, UnlearnConfig(), reference)  # type: ignore[arg-type]
    down = loss_gradients(model, encoded, lambda scored: scored.log_prob / scored.tokens)
    found = loss_gradients(model, encoded, loss)
    dot = sum(float((found[name] * down[name]).sum()) for name in found)
    assert dot > 0.5 * math.sqrt(sum(float((g * g).sum()) for g in found.values()) * sum(float((g * g).sum()) for g in down.values()))


def test_only_loss_tokens_count() -> None:
    """A context in front changes what is predicted, not what is summed over."""
    model = tiny_lora()
    reference = torch.zeros(2)
    encoded = [Encoded(ids=(5, 6, 7, 8), loss_from=3), Encoded(ids=(5, 6, 7, 8), loss_from=1)]
    scored = score(model, collate(encoded, range(2), 0, CPU))
    assert scored.tokens.tolist() == [1, 3]
    assert float(forget_loss("door", UnlearnConfig(), reference)(scored)[0]) == pytest.approx(float(door(scored.token_log_probs[:1], 0.1)))
