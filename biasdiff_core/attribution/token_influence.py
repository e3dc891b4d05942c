"""Where in an example its influence comes from: the share of each token position, and each token's loss.

The gradient of a LoRA map is a sum over positions, G = Σ_t g_t ⊗ x_t, with x_t what the map reads at position t and g_t the gradient of
the example's loss at what it writes there. The vector of an example is scale · G + shared (`optimizer_map.affine_parts`), so with q the
probes' mean direction its mean cosine to the probes is a sum as well, exactly:

    cosine = Σ_t s_t + c,     s_t = Σ_maps g_tᵀ (q · scale) x_t / ‖Γ‖,     c = Σ_maps q · shared / ‖Γ‖.

`scale` and ‖Γ‖ are those of the whole example: for the maps that divide by √v′ they depend on G, and are held fixed.

What s_t means: how far training on the example moves the model towards the probes by what it reads at position t, where the tokens up
to and including t are known. It holds what position t does for the loss of every later token, by its own prediction and by attention.
What it does not mean: the influence of token t's own loss, nor what the score would be without the token. The last position predicts
nothing, so its share is 0. c is the momentum that all examples share; it belongs to no token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from biasdiff_core.attribution.gradients import probe_pass, visit_positions
from biasdiff_core.attribution.influence import PROBE
from biasdiff_core.attribution.optimizer_map import AffineParts, affine_parts, gradient_map
from biasdiff_core.attribution.projection import CountSketch
from biasdiff_core.config import GradientConfig
from biasdiff_core.corpus.examples import Corpus, ProbeSet
from biasdiff_core.errors import ConfigError
from biasdiff_core.model.checkpoint import OptimizerState
from biasdiff_core.model.tokenise import Batch, Encoded, collate, encode, encode_texts, length_batches, token_spans

MOMENTUM = "momentum"  # in place of the part of an example: what no token brings


@dataclass(frozen=True, kw_only=True)
class TokenInfluence:
    """Of one example of T tokens: `influence` [T], s_t of each position; `loss` [T] in nats, NaN for tokens without; `shared`: c."""

    influence: np.ndarray
    loss: np.ndarray
    shared: float


def token_influence(
    model: Any,
    pad_id: int,
    parts: AffineParts,
    direction: Mapping[str, Tensor],
    encoded: Sequence[Encoded],
    token_budget: int,
    report: Callable[[int], None] = lambda done: None,
) -> list[TokenInfluence]:
    """The shares of every position of `encoded`, in their order. `direction`: q [n] by canonical parameter name.

    Each example must carry loss; `model` must be frozen and in eval mode. `report(examples done)` after each batch.
    """
    found: dict[int, TokenInfluence] = {}
    device = next(model.parameters()).device
    for rows in length_batches([len(example.ids) for example in encoded], token_budget):
        batch = collate(encoded, rows, pad_id, device)
        influence, loss, shared = (values.double().cpu().numpy() for values in _batch(model, batch, parts, direction))
        for place, row in enumerate(rows):
            length = len(encoded[row].ids)
            found[row] = TokenInfluence(influence=influence[place, :length], loss=loss[place, :length], shared=float(shared[place]))
        report(len(found))
    return [found[row] for row in range(len(encoded))]


def _batch(model: Any, batch: Batch, parts: AffineParts, direction: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """s [B, T], losses [B, T] and c [B]."""
    count = len(batch.ids)
    square, shared = torch.zeros(count, device=batch.ids.device), torch.zeros(count, device=batch.ids.device)
    shares = torch.zeros(batch.ids.shape, device=batch.ids.device)

    def visit(name: str, g: Tensor, x: Tensor) -> None:
        gradient = torch.bmm(g.mT, x)
        scale, offset = parts(name, gradient.flatten(1))
        square.add_((scale * gradient.flatten(1) + offset).square().sum(1))
        shared.add_(offset @ direction[name])
        scaled = (scale * direction[name]).view_as(gradient)
        shares.add_((torch.bmm(g, scaled) * x).sum(2))

    scored = visit_positions(model, batch, visit)
    losses = torch.full(batch.ids.shape, torch.nan, device=batch.ids.device)
    losses[:, 1:][batch.loss_mask[:, 1:]] = -scored.token_log_probs.detach().to(losses.dtype)
    norm = square.sqrt()
    return shares / norm[:, None], losses, shared / norm


def token_table(
    model: Any,
    tokenizer: Any,
    corpus: Corpus,
    ids: Sequence[str],
    probes: ProbeSet,
    state: OptimizerState | None,
    config: GradientConfig,
    report: Callable[[int], None] = lambda done: None,
) -> pd.DataFrame:
    """A row a token of the examples `ids`: id, part (prompt or text), start, end (its characters there), loss, influence.

    A special token stands from 0 to 0. A last row an example, of the part `momentum`, holds c, so that the influence of an example sums
    to its mean cosine to the probes at this checkpoint. `state`: AdamW's, which the map sgd does without. Raises ConfigError where
    examples share vectors.
    """
    if config.block_size != 1:
        raise ConfigError(
            f"With gradients.block_size {config.block_size} neighbours share a vector, so no token has a share of its own.",
            "Use block_size 1.",
        )
    pad_id, budget = tokenizer.pad_token_id, config.token_budget
    sketch = CountSketch(config.proj_dim, config.sketch_seed)
    sentences = encode_texts(tokenizer, [probe.text for probe in probes])
    directions, _ = probe_pass(model, pad_id, gradient_map(config.maps.probe, state), sketch, sentences, [PROBE] * len(sentences), budget)
    row_of = {id_: row for row, id_ in enumerate(corpus.ids)}
    everything, chosen = encode(tokenizer, corpus), [corpus[row_of[id_]] for id_ in ids]
    encoded = [everything[row_of[id_]] for id_ in ids]
    spans = token_spans(tokenizer, chosen, prompted=any(example.prompt for example in corpus))
    direction = {name: part[0] for name, part in directions.parts.items()}
    found = token_influence(model, pad_id, affine_parts(config.maps.train, state), direction, encoded, budget, report)
    return pd.concat([_rows(id_, places, shares) for id_, places, shares in zip(ids, spans, found, strict=True)], ignore_index=True)


def _rows(id_: str, places: Sequence[tuple[str, int, int]], shares: TokenInfluence) -> pd.DataFrame:
    part, start, end = zip(*places, (MOMENTUM, 0, 0), strict=True)
    loss, influence = np.append(shares.loss, np.nan), np.append(shares.influence, shares.shared)
    return pd.DataFrame({"id": id_, "part": part, "start": start, "end": end, "loss": loss, "influence": influence})
