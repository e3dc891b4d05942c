"""NPO: value and gradient at and off the reference, the cached reference, and what forgetting does."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from biasdiff_core.config import UnlearnConfig
from biasdiff_core.mitigation.losses import npo
from biasdiff_core.mitigation.unlearn import Material, forget_loss, reference_log_probs, unlearn
from biasdiff_core.model.lora import ADAPTER_FILE
from biasdiff_core.model.score import score
from biasdiff_core.model.tokenise import collate
from biasdiff_core.model.train import read_steps
from biasdiff_core.results import no_progress
from tests.tiny_models import default_dtype, sequences, tiny_loaded, tiny_lora
from tests.tiny_unlearning import BETA, CORPUS, CPU, FORGET, RETAIN, log_probs, loss_gradients, settings, train_origin


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_at_the_reference_the_loss_is_2_over_beta_ln_2_and_its_gradient_that_of_ascent(beta: float) -> None:
    with default_dtype(torch.float64):
        model, encoded = tiny_lora(dtype=torch.float64), sequences(5)
        reference = reference_log_probs(model, 0, encoded, 40)
        scored_loss = forget_loss("npo", UnlearnConfig(beta=beta), reference)
        loss = scored_loss(score(model, collate(encoded, range(5), 0, CPU)))
        torch.testing.assert_close(loss, torch.full((5,), 2 / beta * math.log(2)), rtol=1e-6, atol=0)
        ascent = loss_gradients(model, encoded, lambda scored: scored.log_prob)  # minimising log p, summed over the sequence
        for name, found in loss_gradients(model, encoded, scored_loss).items():
            torch.testing.assert_close(found, ascent[name], rtol=1e-5, atol=1e-7)


def test_off_the_reference_by_hand() -> None:
    # β = 0.5; log ratios 2 and −2: −(2/0.5)·log σ(∓1) = 4·ln(1 + e^±1).
    found = npo(torch.tensor([-3.0, -5.0]), torch.tensor([-5.0, -3.0]), 0.5)  # −3 − (−5) = 2; −5 − (−3) = −2
    assert found.tolist() == pytest.approx([4 * math.log(1 + math.e), 4 * math.log(1 + 1 / math.e)], rel=1e-6)


def test_what_is_forgotten_pulls_less_the_further_it_is() -> None:
    """dL/d log p = 2σ(β·(log p − log p_ref)): 1 at the reference, towards 0 below it (no collapse), towards 2 above."""
    ratio = torch.tensor([0.0, -100.0, 100.0], dtype=torch.float64, requires_grad=True)
    npo(ratio, torch.zeros(3).double(), BETA).sum().backward()
    assert ratio.grad is not None
    sigma = [0.5, 1 / (1 + math.exp(10)), 1 / (1 + math.exp(-10))]
    assert ratio.grad.tolist() == pytest.approx([2 * s for s in sigma], rel=1e-9)


def test_the_reference_is_the_sum_over_the_sequence_whatever_the_batches() -> None:
    model, encoded = tiny_lora(), sequences(9)
    slow = []
    for example in encoded:
        log_probs = torch.log_softmax(model(input_ids=torch.tensor([example.ids])).logits[0], -1)
        slow.append(sum(float(log_probs[place - 1, example.ids[place]]) for place in range(example.loss_from, len(example.ids))))
    for budget in (1, 30, 4096):
        reference = reference_log_probs(model, 0, encoded, budget)
        np.testing.assert_allclose(reference.numpy(), slow, rtol=1e-5)
        assert not reference.requires_grad and not reference.is_inference()


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_origin(tmp_path_factory.mktemp("origin"))


def repaired(origin: Path, folder: Path, config: UnlearnConfig) -> Path:
    """Unlearn the six stereotypes of the corpus; the last adapter."""
    folder.mkdir(exist_ok=True)
    loaded = tiny_loaded()
    done = unlearn(loaded, origin, "npo", Material(forget=FORGET, retain=RETAIN), config, folder, progress=no_progress)
    assert not any("lora" in name for name, _ in loaded.model.named_parameters())
    assert done.epoch == config.training.epochs and done.judged == ()
    return done.adapter


def test_forgetting_lowers_what_is_forgotten_while_the_rest_holds(origin: Path, tmp_path: Path) -> None:
    chosen = settings(training={"epochs": 8})
    adapter = repaired(origin, tmp_path / "npo", chosen)
    before, after = ([log_probs(a, rows) for rows in (FORGET, RETAIN)] for a in (origin, adapter))
    lengths = [np.array([len(e.text) - 1 for e in rows]) for rows in (FORGET, RETAIN)]
    fell = [((b - a) / n).mean() for b, a, n in zip(before, after, lengths, strict=True)]  # nats a token
    assert fell[0] > 0.02
    assert fell[1] < fell[0] / 2
    # Without the retain term the rest falls further.
    careless = repaired(origin, tmp_path / "careless", replace(chosen, retain_weight=0.0))
    assert ((before[1] - log_probs(careless, RETAIN)) / lengths[1]).mean() > fell[1] + 0.02


def test_the_reference_does_not_drift(origin: Path, tmp_path: Path) -> None:
    """The first step's loss is (2/β) ln 2, later ones less: were the reference taken from the moving model, all would be equal."""
    repaired(origin, tmp_path / "npo", settings())
    losses = [step["npo"] for step in read_steps(tmp_path / "npo")]
    start = 2 / BETA * math.log(2)
    assert losses[0] == pytest.approx(start, rel=1e-5)
    assert max(losses[1:]) < start * (1 - 1e-4) and losses[-1] < losses[1]


def test_a_resumed_run_keeps_the_origins_reference(origin: Path, tmp_path: Path) -> None:
    whole = repaired(origin, tmp_path / "whole", settings())
    broken = tmp_path / "broken"
    repaired(origin, broken, settings())
    for epoch in (3, 4):
        shutil.rmtree(broken / f"epoch-0{epoch}")
    again = repaired(origin, broken, settings())
    assert (again / ADAPTER_FILE).read_bytes() == (whole / ADAPTER_FILE).read_bytes()


def test_the_token_budget_changes_nothing(origin: Path, tmp_path: Path) -> None:
    results = []
    for budget in (1, 512):
        adapter = repaired(origin, tmp_path / str(budget), settings(training={"token_budget": budget}))
        results.append(log_probs(adapter, list(CORPUS)))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3)


def test_both_terms_are_logged_and_take_as_many_rows(origin: Path, tmp_path: Path) -> None:
    repaired(origin, tmp_path / "npo", settings(training={"epochs": 1}))
    steps = read_steps(tmp_path / "npo")
    assert len(steps) == 2  # 6 rows to forget, 4 a step
    assert all({"npo", "retain_nll", "gradient_norm"} <= step.keys() for step in steps)
    assert all((step["weight:npo"], step["weight:retain_nll"]) == (0.3, 1.0) for step in steps)
