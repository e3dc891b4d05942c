"""NPO: value and gradient at and off the reference, the cached reference, and what forgetting does."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from biasdiff_core.config import NPOConfig, TrainingConfig
from biasdiff_core.mitigation.controls import random_removal
from biasdiff_core.mitigation.npo import npo_loss, reference_log_probs, unlearn
from biasdiff_core.mitigation.retrain import retrain_without
from biasdiff_core.model.finetune import finetune
from biasdiff_core.model.lora import ADAPTER_FILE, attach_adapter, lora_parameters
from biasdiff_core.model.tokenise import Encoded, collate, encode, sequence_log_probs
from biasdiff_core.model.train import read_steps
from biasdiff_core.results import no_progress
from tests.tiny_gradients import LORA, PROBES, TRAINING, tiny_corpus
from tests.tiny_models import default_dtype, sequences, tiny_loaded, tiny_lora

CPU = torch.device("cpu")
BETA = 0.1


def gradients(model: Any, encoded: list[Encoded], loss_of: Any) -> dict[str, Tensor]:
    """The gradient of the sum over rows of `loss_of(log p [B], tokens [B], rows [B])`."""
    parameters = lora_parameters(model)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    batch = collate(encoded, range(len(encoded)), 0, CPU)
    loss = loss_of(*sequence_log_probs(model, batch), batch.rows).sum()
    found = torch.autograd.grad(loss, list(parameters.values()))
    model.requires_grad_(False)
    return dict(zip(parameters, found, strict=True))


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_at_the_reference_the_loss_is_2_over_beta_ln_2_and_its_gradient_that_of_ascent(beta: float) -> None:
    with default_dtype(torch.float64):
        model, encoded = tiny_lora(dtype=torch.float64), sequences(5)
        reference = reference_log_probs(model, 0, encoded, 40)
        log_prob, tokens = sequence_log_probs(model, collate(encoded, range(5), 0, CPU))
        loss = npo_loss(beta, reference)(log_prob, tokens, torch.arange(5))
        torch.testing.assert_close(loss, torch.full((5,), 2 / beta * math.log(2)), rtol=1e-6, atol=0)
        ascent = gradients(model, encoded, lambda log_prob, tokens, rows: log_prob)  # minimising log p, summed over the sequence
        for name, found in gradients(model, encoded, npo_loss(beta, reference)).items():
            torch.testing.assert_close(found, ascent[name], rtol=1e-5, atol=1e-7)


def test_off_the_reference_by_hand() -> None:
    # β = 0.5; log ratios 2 and −2: −(2/0.5)·log σ(∓1) = 4·ln(1 + e^±1).
    loss = npo_loss(0.5, torch.tensor([-7.0, -3.0, -5.0]))
    found = loss(torch.tensor([-3.0, -5.0]), torch.tensor([2, 2]), torch.tensor([2, 1]))  # −3 − (−5) = 2; −5 − (−3) = −2
    assert found.tolist() == pytest.approx([4 * math.log(1 + math.e), 4 * math.log(1 + 1 / math.e)], rel=1e-6)


def test_what_is_forgotten_pulls_less_the_further_it_is() -> None:
    """dL/d log p = 2σ(β·(log p − log p_ref)): 1 at the reference, towards 0 below it (no collapse), towards 2 above."""
    ratio = torch.tensor([0.0, -100.0, 100.0], dtype=torch.float64, requires_grad=True)
    npo_loss(BETA, torch.zeros(3).double())(ratio, torch.ones(3), torch.arange(3)).sum().backward()
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


CORPUS = tiny_corpus(*(stereotype for stereotype, _, _ in PROBES))
FORGET, RETAIN = list(CORPUS)[-len(PROBES) :], list(CORPUS)[: -len(PROBES)]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin")
    return finetune(tiny_loaded(), list(CORPUS), LORA, TRAINING, folder, stage="warmup", progress=no_progress)[-1].folder


def config(**changes: Any) -> NPOConfig:
    training = {"epochs": 4, "learning_rate": 1e-2, "batch_size": 4, "epsilon": 1e-4} | changes.pop("training", {})
    return NPOConfig(**({"beta": BETA, "forget_weight": 0.3, "training": TrainingConfig(**training)} | changes))


def log_probs(adapter: Path, examples: list[Any]) -> np.ndarray:
    loaded = tiny_loaded()
    model = attach_adapter(loaded.model, adapter)
    return reference_log_probs(model, 0, encode(loaded.tokenizer, examples), 400).numpy()


def repaired(origin: Path, folder: Path, settings: NPOConfig) -> Path:
    """Unlearn the six stereotypes of the corpus; the last adapter."""
    folder.mkdir(exist_ok=True)
    loaded = tiny_loaded()
    last = unlearn(loaded, origin, FORGET, RETAIN, settings, folder, progress=no_progress)[-1]
    assert not any("lora" in name for name, _ in loaded.model.named_parameters())
    return last.folder


def test_forgetting_lowers_what_is_forgotten_while_the_rest_holds(origin: Path, tmp_path: Path) -> None:
    settings = config(training={"epochs": 8})
    adapter = repaired(origin, tmp_path / "npo", settings)
    before, after = ([log_probs(a, rows) for rows in (FORGET, RETAIN)] for a in (origin, adapter))
    lengths = [np.array([len(e.text) - 1 for e in rows]) for rows in (FORGET, RETAIN)]
    fell = [((b - a) / n).mean() for b, a, n in zip(before, after, lengths, strict=True)]  # nats a token
    assert fell[0] > 0.02
    assert fell[1] < fell[0] / 2
    # Without the retain term the rest falls further.
    careless = repaired(origin, tmp_path / "careless", replace(settings, retain_weight=0.0))
    assert ((before[1] - log_probs(careless, RETAIN)) / lengths[1]).mean() > fell[1] + 0.02


def test_the_reference_does_not_drift(origin: Path, tmp_path: Path) -> None:
    """The first step's loss is (2/β) ln 2, later ones less: were the reference taken from the moving model, all would be equal."""
    repaired(origin, tmp_path / "npo", config())
    losses = [step["npo"] for step in read_steps(tmp_path / "npo")]
    start = 2 / BETA * math.log(2)
    assert losses[0] == pytest.approx(start, rel=1e-5)
    assert max(losses[1:]) < start * (1 - 1e-4) and losses[-1] < losses[1]


def test_a_resumed_run_keeps_the_origins_reference(origin: Path, tmp_path: Path) -> None:
    whole = repaired(origin, tmp_path / "whole", config())
    broken = tmp_path / "broken"
    repaired(origin, broken, config())
    for epoch in (3, 4):
        shutil.rmtree(broken / f"epoch-0{epoch}")
    again = repaired(origin, broken, config())
    assert (again / ADAPTER_FILE).read_bytes() == (whole / ADAPTER_FILE).read_bytes()


def test_the_token_budget_changes_nothing(origin: Path, tmp_path: Path) -> None:
    results = []
    for budget in (1, 512):
        adapter = repaired(origin, tmp_path / str(budget), config(training={"token_budget": budget}))
        results.append(log_probs(adapter, list(CORPUS)))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3)


def test_both_terms_are_logged_and_take_as_many_rows(origin: Path, tmp_path: Path) -> None:
    repaired(origin, tmp_path / "npo", config(training={"epochs": 1}))
    steps = read_steps(tmp_path / "npo")
    assert len(steps) == 2  # 6 rows to forget, 4 a step
    assert all({"npo", "retain_nll", "gradient_norm"} <= step.keys() for step in steps)


def test_retraining_starts_from_the_base_and_never_sees_what_was_removed(tmp_path: Path) -> None:
    """The corpus without the removed rows and a corpus that never held them give the same weights."""
    corpus = tiny_corpus()
    removed = list(corpus.ids[:4])
    rest = type(corpus)(corpus[4:])
    for name, data, ids in (("a", corpus, removed), ("b", rest, [])):
        (tmp_path / name).mkdir()
        retrain_without(tiny_loaded(), data, ids, LORA, TRAINING, tmp_path / name, stage="retrain", progress=no_progress)
    one, other = ((tmp_path / name / "epoch-02" / ADAPTER_FILE).read_bytes() for name in "ab")
    assert one == other


def test_random_removal_is_seeded_and_does_not_depend_on_the_order() -> None:
    ids = [f"id{n}" for n in range(40)]
    chosen = random_removal(ids, 10, seed=1)
    assert chosen == random_removal(ids[::-1], 10, seed=1) == sorted(set(chosen)) and len(chosen) == 10
    assert chosen != random_removal(ids, 10, seed=2)
    # Each id is drawn in a quarter of the draws: 250 ± 13.7 of 1,000.
    counts = [sum(i in random_removal(ids, 10, seed=s) for s in range(1000)) for i in ids[:3]]
    assert all(abs(count - 250) < 4.5 * 13.7 for count in counts)
