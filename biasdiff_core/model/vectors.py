"""Sentence vectors of a language model or sentence encoder, for what compares representations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


@contextmanager
def mean_states(model: Any, depths: Sequence[float]) -> Iterator[Callable[[Batch], torch.Tensor]]:
    """Inside, a function that gives the mean hidden states of the batch that `model` has just read, unit vectors [rows, depths, width].

    A mean is over a row's loss tokens, in fp32, of what the layer at that share of the depth gives (1: the last, before the final norm).
    Raises NumericError for a model whose layers are not found.
    """
    layers: Sequence[torch.nn.Module] = [*decoder_layers(model)] if depths else []
    states: dict[int, torch.Tensor] = {}

    def keep(place: int) -> Callable[[Any, Any, Any], None]:
        def hook(_layer: Any, _inputs: Any, output: Any) -> None:
            states[place] = (output[0] if isinstance(output, tuple) else output).detach()

        return hook

    chosen = [layers[max(1, round(depth * len(layers))) - 1] for depth in depths]
    handles = [layer.register_forward_hook(keep(place)) for place, layer in enumerate(chosen)]
    try:
        yield lambda batch: _unit_means([states[place] for place in range(len(chosen))], batch)
    finally:
        for handle in handles:
            handle.remove()


def _unit_means(states: Sequence[torch.Tensor], batch: Batch) -> torch.Tensor:
    if not states:
        return torch.zeros((len(batch.ids), 0, 0))
    return torch.stack([torch.nn.functional.normalize(_pooled(found.float(), batch, "mean")) for found in states], dim=1)


def decoder_layers(model: Any) -> torch.nn.ModuleList:
    """The layers of a language model, first to last. Raises NumericError when there is not one list of as many as its config says."""
    count = model.config.get_text_config().num_hidden_layers
    found = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList) and len(module) == count]
    if len(found) != 1:
        raise NumericError(
            f"{type(model).__name__} has {len(found)} lists of {count} layers, so its hidden states are not found.",
            "Set gradients.hidden_depths to [].",
        )
    return found[0]


def _pooled(states: torch.Tensor, batch: Batch, pooling: Literal["mean", "last"]) -> torch.Tensor:
    """[rows, width] from states [rows, tokens, width]."""
    if pooling == "last":
        return states[torch.arange(len(states)), batch.attention.sum(1) - 1]
    chosen = batch.loss_mask[..., None].float()
    return (states * chosen).sum(1) / chosen.sum(1)
