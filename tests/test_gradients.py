"""Batched per-example gradients against one example at a time by plain autograd, on five architectures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from biasdiff_core.attribution.gradients import Featurizer, GradientRows, full_vectors, probe_pass, visit_gradients
from biasdiff_core.attribution.optimizer_map import gradient_map
from biasdiff_core.attribution.projection import CountSketch
from biasdiff_core.config import LoraConfig
from biasdiff_core.errors import ConfigError, NumericError
from biasdiff_core.model.checkpoint import OptimizerState
from biasdiff_core.model.lora import add_lora, lora_parameters, require_trained
from biasdiff_core.model.tokenise import Batch, Encoded, collate
from biasdiff_core.model.vectors import mean_states
from tests.reference.gradients_slow import gradients_slow, map_slow, mean_direction, sketch_slow, whole
from tests.tiny_models import ARCHITECTURES, TARGETS, default_dtype, left_padded, put_lora, sequences, tiny_base, tiny_lora

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}  # relative, of the whole vector of one example
SGD = gradient_map("sgd", None)
DIM = 48


def batched(model: Any, batch: Batch) -> tuple[list[dict[str, Tensor]], Tensor]:
    """The gradients of every row by parameter name, and the losses."""
    vectors, losses = full_vectors(model, batch, SGD)
    return [{name: vector[row] for name, vector in vectors.items()} for row in range(len(batch.rows))], losses


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    error = (whole(found) - whole(expected)).norm() / whole(expected).norm()
    assert error < tolerance, f"relative error {error:.2e}"


@pytest.fixture(params=[torch.float32, torch.float64], ids=["fp32", "fp64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    with default_dtype(request.param):
        yield request.param


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_batched_gradients_equal_one_at_a_time(architecture: str, tied: bool, dtype: torch.dtype) -> None:
    model = tiny_lora(architecture, tied=tied, dtype=dtype)
    same_head = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert same_head == tied
    encoded = sequences(7)
    slow = [gradients_slow(model, example) for example in encoded]
    for batch in (collate(encoded, range(7), 0, CPU), left_padded(encoded)):
        gradients, losses = batched(model, batch)
        for row, (loss, expected) in enumerate(slow):
            assert all(part.dtype == dtype for part in gradients[row].values())
            assert_close(gradients[row], expected, TOLERANCE[dtype])
            assert float(losses[row]) == pytest.approx(loss, rel=TOLERANCE[dtype])


@pytest.mark.parametrize("head_alone", [False, True], ids=["all maps", "head alone"])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_any_linear_map_may_be_a_target(architecture: str, head_alone: bool) -> None:
    """The head too, which sees the labelled positions alone."""
    with default_dtype(torch.float64):
        base = tiny_base(architecture, dtype=torch.float64)
        maps = [name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]
        head = next(name for name, module in base.named_modules() if module is base.get_output_embeddings())
        targets = {head} if head_alone else {name.rpartition(".")[2] for name in maps}
        model, encoded = put_lora(base, sorted(targets)), sequences(4)
        gradients, _ = batched(model, collate(encoded, range(4), 0, CPU))
        assert len(gradients[0]) == 2 * (1 if head_alone else len(maps))  # lora_A and lora_B
        for row, example in enumerate(encoded):
            assert_close(gradients[row], gradients_slow(model, example)[1], 1e-10)


def test_every_lora_parameter_has_a_gradient_of_its_size() -> None:
    model = tiny_lora("llama")
    gradients, _ = batched(model, collate(sequences(3), range(3), 0, CPU))
    assert {name: len(part) for name, part in gradients[0].items()} == {n: p.numel() for n, p in lora_parameters(model).items()}
    assert len(gradients[0]) == 2 * 2 * len(TARGETS["llama"])  # lora_A and lora_B, 2 layers
    assert all(part.any() for part in gradients[0].values())


def test_neighbours_order_and_pad_token_do_not_matter() -> None:
    with default_dtype(torch.float64):
        model, encoded = tiny_lora("llama", dtype=torch.float64), sequences(8)
        alone, _ = batched(model, collate(encoded, [5], 0, CPU))
        for rows, pad in (([5, 1], 0), ([0, 7, 3, 5], 9), ([5, 5, 2], 256)):
            gradients, _ = batched(model, collate(encoded, rows, pad, CPU))
            assert_close(gradients[rows.index(5)], alone[0], 1e-12)


def test_a_context_without_loss_changes_what_is_learned() -> None:
    """Guards the twin's and the batch's reading of `loss_from`: with and without loss on the context are different gradients."""
    model = tiny_lora("llama")
    encoded = [Encoded(ids=(5, 6, 7, 8, 9), loss_from=1), Encoded(ids=(5, 6, 7, 8, 9), loss_from=3)]
    gradients, losses = batched(model, collate(encoded, [0, 1], 0, CPU))
    assert abs(float(losses[0] - losses[1])) > 1e-3
    assert torch.cosine_similarity(whole(gradients[0]), whole(gradients[1]), dim=0) < 0.99


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_no_summed_gradient_is_ever_formed(tied: bool) -> None:
    model = tiny_lora("llama", tied=tied)
    batched(model, collate(sequences(5), range(5), 0, CPU))
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is not None or parameter.requires_grad]


def test_hooks_are_gone_afterwards_even_after_an_error() -> None:
    model = tiny_lora("llama")
    batch = collate(sequences(3), range(3), 0, CPU)

    def fail(name: str, gradient: Tensor) -> None:
        raise ValueError("visitor")

    with pytest.raises(ValueError, match="visitor"):
        visit_gradients(model, batch, fail)
    assert not any(module._forward_hooks for module in model.modules())
    assert not model.get_input_embeddings()(batch.ids).requires_grad


def test_gradients_are_taken_under_no_grad_too() -> None:
    model, batch = tiny_lora("llama"), collate(sequences(3), range(3), 0, CPU)
    expected, _ = batched(model, batch)
    with torch.no_grad():
        found, _ = batched(model, batch)
    assert_close(found[1], expected[1], 1e-7)


def test_a_module_that_is_used_twice_is_refused() -> None:
    model = tiny_lora("llama")
    layers = model.base_model.model.model.layers
    layers[1].self_attn.q_proj = layers[0].self_attn.q_proj
    with pytest.raises(NumericError, match=r"layers\.0\.self_attn\.q_proj\.lora_[AB]\.weight is used more than once"):
        batched(model, collate(sequences(3), range(3), 0, CPU))


def test_maps_that_share_one_weight_are_refused() -> None:
    model = tiny_lora("llama")
    first, second = (layer.self_attn.q_proj.lora_A["default"] for layer in model.base_model.model.model.layers)
    second.weight = first.weight
    with pytest.raises(NumericError, match=r"layers\.1\.\S*lora_A\.weight is the same weight as \S*layers\.0\.\S*lora_A\.weight"):
        batched(model, collate(sequences(3), range(3), 0, CPU))


def test_an_untrained_adapter_and_a_bare_model_are_refused() -> None:
    base = tiny_base("llama")
    with pytest.raises(ConfigError, match="carries no LoRA"):
        lora_parameters(base)
    fresh = add_lora(base, LoraConfig(r=2, alpha=4), seed=0)
    with pytest.raises(NumericError, match="lora_B"):
        require_trained(fresh)
    with torch.no_grad():
        next(p for name, p in lora_parameters(fresh).items() if ".lora_B." in name)[0, 0] = 1e-6
    require_trained(fresh)


def adam_state(model: Any, step: int = 4, seed: int = 7) -> OptimizerState:
    """A state such as AdamW has after some steps: m of either sign, v ≥ 0."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: parameter.shape for name, parameter in lora_parameters(model).items()}
    return OptimizerState(
        step=step,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        exp_avg={name: torch.randn(shape, generator=generator) * 0.01 for name, shape in shapes.items()},
        exp_avg_sq={name: torch.rand(shape, generator=generator) * 1e-4 for name, shape in shapes.items()},
    )


def mapped_slow(model: Any, encoded: list[Encoded], kind: str, state: OptimizerState) -> list[dict[str, Tensor]]:
    return [
        {
            name: map_slow(kind, g, state.exp_avg[name], state.exp_avg_sq[name], state.step, state.beta1, state.beta2, state.epsilon)
            for name, g in gradients_slow(model, example)[1].items()
        }
        for example in encoded
    ]


def featurizer(model: Any, kind: str, state: OptimizerState, directions: Any, token_budget: int = 40) -> Featurizer:
    return Featurizer(model, 0, gradient_map(kind, state), CountSketch(DIM, 3), directions, token_budget)  # type: ignore[arg-type]


KINDS = ["b", "a", "b", "b", "a"]


@pytest.mark.parametrize(("train", "probe"), [("adam", "sgd"), ("rms", "rms"), ("less", "sgd"), ("adam_own", "adam_own")])
def test_rows_equal_the_slow_twin(train: str, probe: str, dtype: torch.dtype) -> None:
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-9}[dtype]
    model = tiny_lora("llama", dtype=dtype)
    state, encoded, probes = adam_state(model), sequences(9, seed=1), sequences(len(KINDS), seed=2)
    directions, probe_rows = probe_pass(model, 0, gradient_map(probe, state), CountSketch(DIM, 3), probes, KINDS, 40)  # type: ignore[arg-type]
    rows = featurizer(model, train, state, directions).rows(encoded)
    slow_probes, slow_rows = mapped_slow(model, probes, probe, state), mapped_slow(model, encoded, train, state)

    assert directions.names == ("a", "b")
    for number, kind in enumerate(directions.names):
        mean = mean_direction([v for v, k in zip(slow_probes, KINDS, strict=True) if k == kind])
        found = whole({name: part[number] for name, part in directions.parts.items()})
        assert (found - mean).norm() / mean.norm() < tolerance
        for row, parts in enumerate(slow_rows):
            assert rows.cosine[row, number] == pytest.approx(float(whole(parts) @ mean / whole(parts).norm()), abs=tolerance)
    for kept, slow in ((rows, slow_rows), (probe_rows, slow_probes)):
        for row, parts in enumerate(slow):
            assert kept.norm[row] == pytest.approx(float(whole(parts).norm()), rel=tolerance)
            np.testing.assert_allclose(kept.sketch[row], sketch_slow(parts, 3, DIM).numpy(), atol=1e-5)
    for row, example in enumerate(encoded):
        assert rows.loss[row] == pytest.approx(gradients_slow(model, example)[0], rel=1e-5)
        assert rows.tokens[row] == example.loss_tokens


@pytest.fixture(scope="module")
def many() -> tuple[Callable[[int], Featurizer], list[Encoded], GradientRows]:
    model = tiny_lora("qwen2")
    state = adam_state(model)
    directions, _ = probe_pass(model, 0, SGD, CountSketch(DIM, 3), sequences(4, seed=2), ["a", "a", "b", "b"], 40)
    encoded = sequences(21, seed=5)

    def make(token_budget: int) -> Featurizer:
        return featurizer(model, "adam", state, directions, token_budget)

    return make, encoded, make(10_000).rows(encoded)


def assert_rows_equal(found: GradientRows, expected: GradientRows, at: slice) -> None:
    np.testing.assert_allclose(found.sketch, expected.sketch[at], atol=2e-5)
    np.testing.assert_allclose(found.norm, expected.norm[at], rtol=2e-5)
    np.testing.assert_allclose(found.loss, expected.loss[at], rtol=2e-5)
    np.testing.assert_allclose(found.cosine, expected.cosine[at], atol=2e-5)
    assert (found.tokens == expected.tokens[at]).all()


@pytest.mark.parametrize("token_budget", [1, 30, 100])
def test_the_token_budget_changes_nothing(many: Any, token_budget: int) -> None:
    make, encoded, whole_batch = many
    assert_rows_equal(make(token_budget).rows(encoded), whole_batch, slice(None))


def test_the_shard_size_changes_nothing(many: Any) -> None:
    make, encoded, whole_batch = many
    for size in (1, 4, 20):
        for start in range(0, len(encoded), size):
            at = slice(start, start + size)
            assert_rows_equal(make(50).rows(encoded[at]), whole_batch, at)


def test_equal_input_gives_equal_bytes(many: Any) -> None:
    make, encoded, _ = many
    first, second = make(50).rows(encoded), make(50).rows(encoded)
    for name in ("sketch", "norm", "loss", "tokens", "cosine"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_vectors_are_of_unit_length_and_progress_counts_rows_once(many: Any) -> None:
    make, encoded, _ = many
    done: list[int] = []
    rows = make(30).rows(encoded, done.append)
    np.testing.assert_allclose(np.linalg.norm(rows.sketch, axis=1), 1, atol=1e-6)
    assert done == sorted(set(done)) and done[-1] == len(encoded) and len(done) > 1


@pytest.mark.parametrize("token_budget", [1, 60, 10_000])
def test_a_block_has_the_gradient_of_its_mean_token_loss(dtype: torch.dtype, token_budget: int) -> None:
    """Blocks of 3 of 8 rows, one of them without a loss: what autograd gives for the loss of all their tokens together."""
    model = tiny_lora("llama", dtype=dtype)
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-9}[dtype]
    encoded = sequences(8, seed=4)
    encoded[2] = Encoded(ids=encoded[2].ids, loss_from=len(encoded[2].ids))
    directions, _ = probe_pass(model, 0, SGD, CountSketch(DIM, 3), sequences(2, seed=2), ["a", "b"], 40)
    rows = Featurizer(model, 0, SGD, CountSketch(DIM, 3), directions, token_budget, block_size=3).rows(encoded)
    for block in ([0, 1, 3], [4, 5, 6], [7]):
        tokens = sum(encoded[row].loss_tokens for row in block)
        parts: dict[str, Tensor] = {}
        for row in block:
            for name, gradient in gradients_slow(model, encoded[row])[1].items():
                parts[name] = parts.get(name, 0) + gradient * encoded[row].loss_tokens / tokens
        for row in block:
            assert rows.norm[row] == pytest.approx(float(whole(parts).norm()), rel=tolerance)
            np.testing.assert_allclose(rows.sketch[row], sketch_slow(parts, 3, DIM).numpy(), atol=1e-5)
            means = [float(whole(parts) @ whole({n: p[k] for n, p in directions.parts.items()})) for k in (0, 1)]
            np.testing.assert_allclose(rows.cosine[row], np.array(means) / float(whole(parts).norm()), atol=tolerance)
            assert rows.loss[row] == pytest.approx(gradients_slow(model, encoded[row])[0], rel=tolerance)  # each example's own
    assert np.isnan(rows.norm[2]) and not rows.sketch[2].any()


@pytest.mark.parametrize("block_size", [1, 3])
def test_hidden_states_stand_in_the_rows_of_their_examples(block_size: int) -> None:
    model, depths = tiny_lora("llama"), (0.5, 1.0)
    encoded = sequences(8, seed=4)
    encoded[2] = Encoded(ids=encoded[2].ids, loss_from=len(encoded[2].ids))
    alone = []
    for row in range(len(encoded)):
        batch = collate(encoded, [row], 0, torch.device("cpu"))
        with mean_states(model, depths) as found, torch.no_grad():
            model(input_ids=batch.ids, attention_mask=batch.attention, position_ids=batch.positions)
            alone.append(found(batch)[0].numpy() if row != 2 else np.zeros((2, model.config.hidden_size)))
    for budget in (1, 30, 10_000):
        rows = Featurizer(model, 0, SGD, CountSketch(DIM, 3), None, budget, block_size, depths).rows(encoded)
        np.testing.assert_allclose(rows.hidden, alone, atol=1e-5)
        usable = [example for row, example in enumerate(encoded) if row != 2]
        _, probes = probe_pass(model, 0, SGD, CountSketch(DIM, 3), usable, ["a"] * len(usable), budget, depths)
        np.testing.assert_allclose(probes.hidden, np.delete(alone, 2, axis=0), atol=1e-5)


def test_rows_without_a_loss_token_are_left_out() -> None:
    model = tiny_lora("llama")
    directions, _ = probe_pass(model, 0, SGD, CountSketch(DIM, 3), sequences(2), ["a", "a"], 40)
    encoded = sequences(5)
    one, context_only, nothing = (Encoded(ids=ids, loss_from=start) for ids, start in (((7,), 1), ((7, 8), 2), ((), 1)))
    with_empty = [one, *encoded[:2], context_only, *encoded[2:], nothing]
    rows = Featurizer(model, 0, SGD, CountSketch(DIM, 3), directions, 40).rows(with_empty)
    empty = np.array([True, False, False, True, False, False, False, True])
    assert (rows.tokens == 0).tolist() == empty.tolist()
    for values in (rows.norm, rows.loss, rows.cosine[:, 0]):
        assert (np.isnan(values) == empty).all()
    assert not rows.sketch[empty].any()
    full = Featurizer(model, 0, SGD, CountSketch(DIM, 3), directions, 40).rows(encoded)
    np.testing.assert_allclose(rows.norm[~empty], full.norm, rtol=1e-5)
    np.testing.assert_allclose(rows.sketch[~empty], full.sketch, atol=1e-5)


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    model = tiny_lora("llama")
    with torch.no_grad():
        next(iter(lora_parameters(model).values()))[0, 0] = float("nan")
    with pytest.raises(NumericError, match="has norm nan"):
        Featurizer(model, 0, SGD, CountSketch(DIM, 3), None, 40).rows(sequences(3))
    with pytest.raises(NumericError, match="probe 0 is not finite"):
        probe_pass(model, 0, SGD, CountSketch(DIM, 3), sequences(2), ["a", "a"], 40)


def test_bfloat16_weights_with_float32_lora_stay_close() -> None:
    full, encoded = tiny_lora("llama"), sequences(6)
    half = tiny_lora("llama", dtype=torch.bfloat16)
    assert {p.dtype for p in lora_parameters(half).values()} == {torch.float32}
    one, other = (Featurizer(m, 0, SGD, CountSketch(DIM, 3), None, 40).rows(encoded) for m in (full, half))
    assert (np.sum(one.sketch * other.sketch, axis=1) > 0.99).all()
