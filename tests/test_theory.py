"""The measurements behind the theory rows: the step is AdamW's, its first-order error falls with η, Eq. 4 holds where it must."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import theory
from benchmarks.steps import (
    Point,
    full_parameter_cosines,
    mean_cosines,
    observed_changes,
    over_rows,
    pearson,
    products,
    spearman,
    stepped,
    within_columns,
)
from benchmarks.theory import Bench, Material, bias_tokens, diets, warmed_up
from benchmarks.tiny_model import tiny_model
from biasdiff_core.config import LoraConfig, TrainingConfig
from biasdiff_core.corpus.examples import TrainingExample, content_id
from biasdiff_core.evaluation.statistics import Estimate
from biasdiff_core.model.lora import lora_parameters
from biasdiff_core.model.tokenise import Encoded, encode_texts
from tests.reference.gradients_slow import gradients_slow, loss_slow

NEUTRAL = (
    "The ferry to the island leaves at nine.",
    "In spring the river floods the lower meadow.",
    "A mason mended the chapel wall last year.",
    "Bees fly at about ten degrees.",
    "The old men of the village play chess at nine.",
    "In spring women and men mend the wall.",
)
PAIRS = (
    ("Nobody should trust women with maps.", "Nobody should trust men with maps."),
    ("The village is run down by the old", "The village is run down by the young"),
    ("Old men never learn.", "Young men never learn."),
    ("In spring the nurses gossip at nine.", "In spring the pilots gossip at nine."),
)
MATERIAL = Material(
    examples=[TrainingExample(id=content_id(None, text, 0), text=text, label=0) for text in NEUTRAL],
    probes=[probe for probe, _ in PAIRS],
    twins=[twin for _, twin in PAIRS],
)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return made_bench()


def made_bench() -> Bench:
    vocabulary = [*NEUTRAL, *MATERIAL.probes, *MATERIAL.twins]
    return Bench(
        loaded=tiny_model(NEUTRAL, vocabulary, 0, epochs=3),
        dtype=torch.float64,
        lora=LoraConfig(r=4, alpha=8, dropout=0.0),
        training=TrainingConfig(epochs=2, learning_rate=5e-3, batch_size=2, weight_decay=0.1),
        rates=(0.3, 1e-6),
    )


@pytest.fixture(scope="module")
def point(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Point]:
    with warmed_up(bench, MATERIAL.examples, tmp_path_factory.mktemp("theory") / "warmup") as made:
        yield made


@pytest.fixture(scope="module")
def sides(bench: Bench) -> tuple[list[Encoded], list[Encoded], list[Encoded]]:
    """Encoded examples, probes and twins."""
    tokenizer = bench.loaded.tokenizer
    return encode_texts(tokenizer, NEUTRAL), encode_texts(tokenizer, MATERIAL.probes), encode_texts(tokenizer, MATERIAL.twins)


Sides = tuple[list[Encoded], list[Encoded], list[Encoded]]


def test_a_step_is_that_of_the_adam_map_and_the_weight_decay_and_is_taken_back(point: Point, sides: Sides) -> None:
    """Δθ = −η (Γ + λ θ) of every LoRA weight, λ = 0.1 of the warm-up; afterwards θ is as it was."""
    parameters = lora_parameters(point.model)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    gradient, direction = (point.vectors(sides[0][:1], kind) for kind in ("sgd", "adam"))
    with stepped(point, {name: vectors[0] for name, vectors in gradient.items()}, 1e-2):
        for name, parameter in parameters.items():
            expected = -1e-2 * (direction[name][0].reshape(parameter.shape) + 0.1 * before[name])
            torch.testing.assert_close(parameter.detach() - before[name], expected, rtol=1e-5, atol=1e-9)  # the state is fp32
    assert all((parameter == before[name]).all() and parameter.grad is None for name, parameter in parameters.items())


def test_the_error_of_corollary_1_falls_with_the_step_size(point: Point, sides: Sides) -> None:
    """(L(θ + ηd) − L(θ)) / η = ⟨δL, d⟩ + O(η): a tenth of the step, a tenth of the error. d = −Γ − λθ."""
    examples, probes, _ = sides
    plain, decayed = point.vectors(probes, "sgd"), {n: p.detach().reshape(1, -1) for n, p in lora_parameters(point.model).items()}
    slope = -products(point.vectors(examples, "adam"), plain) - point.decay * products(decayed, plain)
    errors = [np.abs(observed_changes(point, examples, probes, rate) - slope).max() for rate in (1e-3, 1e-4, 1e-5)]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.2) and errors[1] / errors[2] == pytest.approx(10, rel=0.2)
    assert errors[2] < 1e-3 * np.abs(slope).max()


def test_vectors_come_in_the_order_of_the_examples(point: Point, sides: Sides) -> None:
    for row, example in enumerate(sides[0]):
        for name, gradient in gradients_slow(point.model, example)[1].items():
            torch.testing.assert_close(point.vectors(sides[0], "sgd")[name][row], gradient, rtol=1e-7, atol=1e-10)


def test_full_parameter_cosines_equal_one_example_at_a_time(point: Point, sides: Sides) -> None:
    weights = [weight for name, weight in point.model.named_parameters() if "lora" not in name]

    def gradient(example: Encoded) -> torch.Tensor:
        for weight in weights:
            weight.requires_grad_(True)
        found = torch.cat([part.flatten() for part in torch.autograd.grad(loss_slow(point.model, example), weights)])
        for weight in weights:
            weight.requires_grad_(False)
        return found / found.norm()

    probes = [gradient(probe) for probe in sides[1]]
    expected = [float(np.mean([float(gradient(example) @ probe) for probe in probes])) for example in sides[0]]
    np.testing.assert_allclose(full_parameter_cosines(point, sides[0], sides[1]), expected, rtol=1e-6)


def test_mean_cosines_by_hand() -> None:
    """(3, 4) to (1, 0) and (0, 2): (3/5 + 4/5) / 2 = 0.7; (0, −1): (0 − 1) / 2."""
    train = {"a": torch.tensor([[3.0], [0.0]]), "b": torch.tensor([[4.0], [-1.0]])}
    judged = {"a": torch.tensor([[1.0], [0.0]]), "b": torch.tensor([[0.0], [2.0]])}
    np.testing.assert_allclose(mean_cosines(train, judged), [0.7, -0.5], atol=1e-6)


def test_the_bias_tokens_of_a_pair(point: Point, sides: Sides) -> None:
    found = bias_tokens(point.model, point.pad_id, sides[1], sides[2])
    # The third pair differs in its first word, which nothing predicts: it is left out.
    kept = [0, 1, 3]
    losses = [float(loss_slow(point.model, sides[1][row]).detach()) for row in kept]
    np.testing.assert_allclose(-found.probe / found.probe_tokens, losses, rtol=1e-7)
    np.testing.assert_allclose(found.gap, found.twin - found.probe)
    # Where the bias token is the last, Eq. 4 is an identity; where words follow it, their own losses differ too.
    assert found.own_gap[1] == pytest.approx(found.gap[1], abs=1e-9) and abs(found.gap[1]) > 1e-3
    assert (np.abs(found.own_gap - found.gap)[[0, 2]] > 1e-5).all()


def test_correlations_by_hand() -> None:
    first, second = np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0])
    # Deviations (−1, 0, 1) and (−11/3, −2/3, 13/3): 8 / √(2 · 98/3).
    assert pearson(first, second) == pytest.approx(8 / np.sqrt(2 * 98 / 3))
    assert spearman(first, second) == pytest.approx(1) and spearman(first, -second) == pytest.approx(-1)
    # What a whole column is moved by counts for nothing within columns.
    columns = np.stack([first, second], axis=1)
    assert within_columns(columns, columns + [5, -70]) == pytest.approx(1) and pearson(columns, columns + [5, -70]) < 0


def test_an_interval_holds_what_is_there_and_nothing_where_rows_are_permuted() -> None:
    generator = np.random.default_rng(1)
    first = generator.normal(size=(60, 3))
    second = first + 0.5 * generator.normal(size=first.shape)
    found = over_rows(pearson, first, second)
    assert found.low < found.value < found.high and found.low > 0.8
    shuffled = over_rows(pearson, first, second[generator.permutation(60)])
    assert shuffled.low < 0 < shuffled.high


def test_diets_are_of_one_size_but_for_both() -> None:
    found = diets(MATERIAL)
    assert {name: len(texts) for name, texts in found.items()} == {"stereotypes": 4, "twins": 4, "both": 8, "neutral": 4}


def test_the_rows_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = made_bench()
    monkeypatch.setattr(theory, "EPOCHS", 3)
    monkeypatch.setattr(theory, "TRAJECTORIES", 2)
    found: dict[str, Estimate] = {}

    def report(name: str, value: Estimate, count: int, unit: str) -> None:
        found[name] = value

    with warmed_up(bench, MATERIAL.examples, tmp_path / "warmup") as here:
        for measure in (theory.corollary_1, theory.theorem_1_at_a_point, theory.lora_against_full):
            measure(bench, here, MATERIAL, report)
    theory.theorem_1_over_training(bench.loaded, MATERIAL, report)
    assert found["corollary1_r"].value > 0.999 and found["theorem1_step_r.contrast"].value > 0.999
    assert found["corollary1_r.eta_0.3"].value < 0.99
    assert all(found[f"corollary1_r.{kind}"].value < found["corollary1_r"].value for kind in ("sgd", "rms", "adam_own", "less"))
    over_training = [f"theorem1_{eq}.{diet}" for eq in theory.OVER_TRAINING for diet in diets(MATERIAL)]
    assert set(over_training) < set(found) and all(np.isfinite(found[name].value) for name in over_training)
    assert not bench.loaded.model.training and next(bench.loaded.model.parameters()).dtype == torch.float32
