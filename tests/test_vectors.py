"""Sentence vectors against one sentence at a time, for several architectures, an adapter, and any batch."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch

from biasdiff_core.errors import NumericError
from biasdiff_core.model.tokenise import Encoded, collate
from biasdiff_core.model.vectors import decoder_layers, mean_states, sentence_vectors
from tests.reference.seat_slow import sentence_vector_slow
from tests.tiny_models import ARCHITECTURES, sequences, tiny_base, tiny_lora

ROWS = [Encoded(ids=row.ids, loss_from=number % 3) for number, row in enumerate(sequences(9))]


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("make", [tiny_base, tiny_lora])
def test_vectors_equal_one_sentence_at_a_time(make: Any, architecture: str, pooling: Literal["mean", "last"]) -> None:
    model = make(architecture, dtype=torch.float64)
    expected = np.array([sentence_vector_slow(model, row.ids, row.loss_from, last=pooling == "last") for row in ROWS])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for token_budget in (1, 40, 4096):
        found = sentence_vectors(model, ROWS, pooling, token_budget=token_budget)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0)


def test_the_training_flag_is_put_back_and_no_gradient_is_kept() -> None:
    model = tiny_base().train()
    sentence_vectors(model, ROWS, "mean", token_budget=64)
    assert model.training


def test_vectors_that_are_not_finite_are_refused() -> None:
    model = tiny_base()
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(NumericError, match="not finite"):
        sentence_vectors(model, ROWS, "mean", token_budget=64)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("make", [tiny_base, tiny_lora])
def test_mean_states_equal_those_of_each_row_alone(make: Any, architecture: str) -> None:
    model = make(architecture, dtype=torch.float64)
    layers = len(decoder_layers(model))
    depths = [number / layers for number in range(1, layers)]  # what transformers calls the last is after the final norm
    batch = collate(ROWS, range(len(ROWS)), 0, model.device)
    with mean_states(model, depths) as found, torch.no_grad():
        model(input_ids=batch.ids, attention_mask=batch.attention, position_ids=batch.positions)
        states = found(batch).numpy()
    assert states.shape == (len(ROWS), layers - 1, model.config.hidden_size)
    for row, sentence in enumerate(ROWS):
        with torch.no_grad():
            alone = model(torch.tensor([sentence.ids]), output_hidden_states=True).hidden_states
        for place in range(layers - 1):
            mean = alone[place + 1][0, sentence.loss_from :].mean(0).numpy()
            np.testing.assert_allclose(states[row, place], mean / np.linalg.norm(mean), atol=1e-6)


def test_depths_name_layers_from_the_first_to_the_last() -> None:
    model = tiny_base()
    read: list[torch.Tensor] = []
    model.model.norm.register_forward_pre_hook(lambda _norm, inputs: read.append(inputs[0]))
    batch = collate(ROWS, [1], 0, model.device)
    with mean_states(model, (0.0, 1.0)) as found, torch.no_grad():
        first = model(input_ids=batch.ids, output_hidden_states=True).hidden_states[1]
        states = found(batch)[0]
    for state, whole in zip(states, (first, read[0]), strict=True):
        torch.testing.assert_close(state, torch.nn.functional.normalize(whole[0, ROWS[1].loss_from :].mean(0), dim=0))


def test_nothing_is_kept_without_depths_and_no_hook_stays() -> None:
    model = tiny_base()
    batch = collate(ROWS, [0, 1], 0, model.device)
    with mean_states(model, ()) as found:
        assert found(batch).shape == (2, 0, 0)
    with mean_states(model, (1.0,)):
        pass
    assert not any(layer._forward_hooks for layer in decoder_layers(model))


def test_a_model_whose_layers_are_not_found_is_refused() -> None:
    model = tiny_base()
    model.model.more = torch.nn.ModuleList(model.model.layers)
    with pytest.raises(NumericError, match="has 2 lists of"):
        decoder_layers(model)
