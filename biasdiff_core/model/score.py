"""What a model says of the loss tokens of a batch: logits and log-probabilities, formed for these tokens alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from biasdiff_core.model.cross_entropy import linear_log_probs
from biasdiff_core.model.tokenise import Batch

log = logging.getLogger(__name__)

# Types of device on which the logits of a batch are never whole: for 8,192 tokens and a vocabulary of 151,936 they would be 5 GB in fp32,
# and their gradient as much again. On a CPU batches are small.
CHUNKED_ON = {"cuda"}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a model says of the N loss tokens of a batch of B rows, row after row, at fp32 or better.

    `token_log_probs` [N] are the natural logs of the tokens' probabilities, `owner` [N]: the row of the batch that each belongs to.
    `form_logits`: see `logits`.
    """

    batch: Batch
    token_log_probs: Tensor
    owner: Tensor
    form_logits: Callable[[], Tensor]

    @property
    def logits(self) -> Tensor:
        """Logits [N, vocabulary] that predict the tokens; where they were taken in chunks, they are formed when asked for."""
        return self.form_logits()

    def per_row(self, values: Tensor) -> Tensor:
        """Sum [B] over each row's tokens of `values` [N]."""
        return torch.zeros(len(self.batch.ids), device=values.device, dtype=values.dtype).index_add(0, self.owner, values)

    @property
    def rows(self) -> Tensor:
        """Indices [B] into the encoded list."""
        return self.batch.rows

    @property
    def tokens(self) -> Tensor:
        """Loss tokens of each row [B]."""
        return self.batch.loss_mask[:, 1:].sum(1)

    @property
    def log_prob(self) -> Tensor:
        """Summed natural-log probability of each row's loss tokens [B]."""
        return self.per_row(self.token_log_probs)


def score(model: Any, batch: Batch) -> Scored:
    """Run `model` on a batch; fp32, or fp64 of an fp64 model."""
    mask = batch.loss_mask[:, 1:]
    targets = batch.ids[:, 1:][mask]
    owner = torch.arange(mask.shape[0], device=mask.device)[:, None].expand_as(mask)[mask]
    head = model.get_output_embeddings()
    if batch.ids.device.type in CHUNKED_ON and _frozen_linear(head):
        hidden = _states_before_head(model, head, batch, mask)
        if hidden is not None:
            log_probs = linear_log_probs(hidden, head, targets)
            return Scored(batch=batch, token_log_probs=log_probs, owner=owner, form_logits=lambda: _wide(head(hidden)))
    # The head sees only the hidden states that predict a loss token: the logits of the others are never formed.
    with _before(head, lambda states: states[:, :-1][mask]):
        logits = _wide(_run(model, batch))
    log_probs = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return Scored(batch=batch, token_log_probs=log_probs, owner=owner, form_logits=lambda: logits)


def sequence_log_probs(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Summed natural-log probability of each row's loss tokens [B] (fp32, or fp64 of an fp64 model) and their number [B]."""
    scored = score(model, batch)
    return scored.log_prob, scored.tokens


def _states_before_head(model: Any, head: Any, batch: Batch, mask: Tensor) -> Tensor | None:
    """States [N, H] that the head would turn into the logits of the loss tokens; None where the model does more to its head's logits.

    Such a model (a cap or a scale on them) gives other logits than its head, and is run again with whole ones.
    """
    states: list[Tensor] = []
    outputs: list[Tensor] = []

    def none_of(found: Tensor) -> Tensor:
        states.append(found[:, :-1][mask])
        return states[0][:0]

    kept = head.register_forward_hook(lambda _head, _inputs, output: outputs.append(output))
    try:
        with _before(head, none_of):
            logits = _run(model, batch)
    finally:
        kept.remove()
    if logits is outputs[0]:
        return states[0]
    log.info("%s changes the logits of its head, so they are formed whole.", type(model).__name__)
    return None


@contextmanager
def _before(head: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    handle = head.register_forward_pre_hook(lambda _head, inputs: (change(inputs[0]),))
    try:
        yield
    finally:
        handle.remove()


def _run(model: Any, batch: Batch) -> Tensor:
    logits: Tensor = model(input_ids=batch.ids, attention_mask=batch.attention, position_ids=batch.positions, use_cache=False).logits
    return logits


def _frozen_linear(head: Any) -> bool:
    """Whether nothing but the states needs a gradient: a plain linear map that is not trained."""
    return type(head) is torch.nn.Linear and not any(parameter.requires_grad for parameter in head.parameters())


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
