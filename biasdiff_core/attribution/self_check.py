"""Whether gradients taken in a dtype, many at once, are still those of one example at a time in fp32: a few examples are compared."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biasdiff_core.attribution.gradients import full_vectors
from biasdiff_core.attribution.optimizer_map import gradient_map
from biasdiff_core.config import ModelConfig
from biasdiff_core.corpus.examples import Corpus
from biasdiff_core.errors import DataError
from biasdiff_core.model.checkpoint import Checkpoint
from biasdiff_core.model.load import LoadedModel, load_model
from biasdiff_core.model.lora import attach_adapter, detach_adapter
from biasdiff_core.model.tokenise import Encoded, collate, encode

log = logging.getLogger(__name__)

CHECKED = 8  # examples whose gradients are compared
LEAST_COSINE = 0.999


def usable_examples(loaded: LoadedModel, corpus: Corpus) -> list[Encoded]:
    """The examples with a token to predict. Raises DataError where there is none."""
    usable = [example for example in encode(loaded.tokenizer, corpus) if example.loss_tokens]
    if not usable:
        raise DataError("No example of the corpus has a token to predict.", "Check its text column.")
    return usable


def exact_gradients(model: Any, pad_id: int, encoded: Sequence[Encoded]) -> Tensor:
    """Whole plain gradients [n, D] of the first examples, one at a time, in fp64 on the CPU. `model`: in fp32."""
    return torch.cat([_gradients(model, pad_id, [example]) for example in encoded[:CHECKED]])


def least_cosine(model: Any, pad_id: int, encoded: Sequence[Encoded], exact: Tensor) -> float:
    """Of the same examples' gradients by `model`, in one batch, to `exact`."""
    return float(torch.nn.functional.cosine_similarity(_gradients(model, pad_id, encoded[:CHECKED]), exact).min())


def _gradients(model: Any, pad_id: int, encoded: Sequence[Encoded]) -> Tensor:
    batch = collate(encoded, range(len(encoded)), pad_id, next(model.parameters()).device)
    parts, _ = full_vectors(model, batch, gradient_map("sgd", None))
    return torch.cat([part.double().cpu() for part in parts.values()], dim=1)


def self_check(loaded: LoadedModel, config: ModelConfig, workspace: Path, corpus: Corpus, checkpoint: Checkpoint) -> dict[str, Any]:
    """Compare `loaded`, the model of `config`, with the same in fp32, both with the adapter of `checkpoint`; for the manifest.

    A cosine below what is asked is logged and stands under `warning`. The model in fp32 is in memory beside `loaded` meanwhile. Raises
    DataError where the corpus has no token to predict.
    """
    encoded, pad_id = usable_examples(loaded, corpus), loaded.tokenizer.pad_token_id
    exact = exact_gradients(_adapted(load_model(replace(config, dtype="float32"), workspace), checkpoint), pad_id, encoded)
    model = _adapted(loaded, checkpoint)
    least = least_cosine(model, pad_id, encoded, exact)
    detach_adapter(model)
    warning = (
        ""
        if least >= LEAST_COSINE
        else (
            f"Gradients were taken in {config.dtype}: of {len(exact)} compared with one example at a time in fp32 the least cosine is "
            f"{least:.4f}, below {LEAST_COSINE}."
        )
    )
    if warning:
        log.warning("%s", warning)
    record = {"checkpoint": checkpoint.folder.name, "dtype": config.dtype, "examples": len(exact)}
    return record | {"least_cosine": least, "asked": LEAST_COSINE, "warning": warning}


def _adapted(loaded: LoadedModel, checkpoint: Checkpoint) -> Any:
    return attach_adapter(loaded.model, checkpoint.folder).requires_grad_(False)
