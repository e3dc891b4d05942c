"""Sentence vectors of a language model or sentence encoder, for what compares representations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from biasdiff_core.errors import NumericError
from biasdiff_core.model.likelihood import evaluating
from biasdiff_core.model.tokenise import Batch, Encoded, collate, length_batches
from biasdiff_core.results import Progress, ProgressCallback, no_progress


def sentence_vectors(
    model: Any,
    sentences: Sequence[Encoded],
    pooling: Literal["mean", "last"],
    *,
    token_budget: int,
    progress: ProgressCallback = no_progress,
) -> NDArray[np.float64]:
    """Unit vectors [sentences, width]: the last layer (after its final norm) averaged over the tokens from `loss_from` on, or of the last.

    Tokens before `loss_from` are context only. Batched by length, padded on the right, pooled in fp32. Raises NumericError for a vector
    that is not finite or of length zero.
    """
    body = (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model
    found: dict[int, NDArray[np.float64]] = {}
    with evaluating(model):
        for rows in length_batches([len(sentence.ids) for sentence in sentences], token_budget):
            batch = collate(sentences, rows, 0, model.device)
            states = body(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False).last_hidden_state
            found |= zip(rows, _pooled(states.float(), batch, pooling).double().cpu().numpy(), strict=True)
            progress(Progress(stage="vectors", done=len(found), total=len(sentences), unit="sentences"))
    vectors = np.stack([found[row] for row in range(len(sentences))])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise NumericError("The model gives sentence vectors that are not finite or are zero.", "Load it in float32.")
    return vectors / lengths


def _pooled(states: torch.Tensor, batch: Batch, pooling: Literal["mean", "last"]) -> torch.Tensor:
    """[rows, width] from states [rows, tokens, width]."""
    if pooling == "last":
        return states[torch.arange(len(states)), batch.attention.sum(1) - 1]
    chosen = batch.loss_mask[..., None].float()
    return (states * chosen).sum(1) / chosen.sum(1)
