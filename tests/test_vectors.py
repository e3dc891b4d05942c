"""Sentence vectors against one sentence at a time, for several architectures, an adapter, and any batch."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch

from biasdiff_core.errors import NumericError
from biasdiff_core.model.tokenise import Encoded
from biasdiff_core.model.vectors import sentence_vectors
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
