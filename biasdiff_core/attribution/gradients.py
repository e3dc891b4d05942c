"""Per-example gradients of the LoRA parameters, a batch at a time, without ever forming a summed gradient.

Everything is frozen; the outputs of the first lora_A maps require grad, so the backward pass carries activations only and
ends there. At each lora_A and lora_B map the input x [B, T, in] and the gradient g [B, T, out] of its output give the gradients
of all examples at once: G = gᵀx [B, out, in]. A visitor sees them a parameter at a time, so the matrix [N, D] never exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from biasdiff_core.attribution.optimizer_map import GradientMap
from biasdiff_core.attribution.projection import Projection, blank_sketch
from biasdiff_core.errors import NumericError
from biasdiff_core.model.lora import lora_modules
from biasdiff_core.model.score import Scored, score
from biasdiff_core.model.tokenise import Batch, Encoded, collate, length_batches
from biasdiff_core.model.vectors import mean_states

Visitor = Callable[[str, Tensor], None]  # (canonical parameter name, gradients [B, n])
PositionVisitor = Callable[[str, Tensor, Tensor], None]  # (canonical parameter name, gradients g [B, T, out], inputs x [B, T, in])


def visit_gradients(model: Any, batch: Batch, visit: Visitor) -> Tensor:
    """Call `visit` with every LoRA parameter's per-example gradients [B, n] of each row's own mean token loss.

    Returns the losses [B] in nats. `model` must be frozen and in eval mode. Raises NumericError when a LoRA map is used
    twice in one pass (its gradients would have to be added before anything is done with them).
    """
    scored = visit_positions(model, batch, lambda name, g, x: visit(name, torch.bmm(g.mT, x).flatten(1)))
    return (-scored.log_prob / scored.tokens).detach()


def visit_positions(model: Any, batch: Batch, visit: PositionVisitor) -> Scored:
    """As `visit_gradients`, but `visit` sees what each gradient is a sum of: over positions t, the products of g_t and x_t.

    Returns what the model says of the loss tokens. Raises NumericError as `visit_gradients`.
    """
    seen: set[str] = set()

    def visit_once(name: str, g: Tensor, x: Tensor) -> None:
        if name in seen:
            raise NumericError(f"The module of {name} is used more than once in one pass.", "Leave it out of lora.target_modules.")
        seen.add(name)
        visit(name, g, x)

    with torch.enable_grad(), _hooked(model, batch.loss_mask, visit_once):
        scored = score(model, batch)
        losses = -scored.log_prob / scored.tokens
        # Summed over rows: rows do not interact, so each row's activations receive the gradient of its own loss alone.
        torch.autograd.backward(losses.sum())
    return scored


@contextmanager
def _hooked(model: Any, loss_mask: Tensor, visit: PositionVisitor) -> Iterator[None]:
    def at_module(name: str) -> Callable[[Any, tuple[Tensor, ...], Tensor], None]:
        def forward(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = _at_positions(inputs[0].detach(), loss_mask)
            if not output.requires_grad:  # it reads what no LoRA map has touched: the graph begins here
                output.requires_grad_(True)

            def backward(gradient: Tensor) -> None:
                visit(name, _at_positions(gradient, loss_mask).to(x.dtype), x)

            output.register_hook(backward)  # type: ignore[no-untyped-call]

        return forward

    handles = [module.register_forward_hook(at_module(name)) for name, module in _own_modules(model).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _own_modules(model: Any) -> dict[str, torch.nn.Linear]:
    """The LoRA maps by parameter name. Raises NumericError when two of them share one weight."""
    modules = lora_modules(model)
    name_of: dict[Tensor, str] = {}
    for name, module in modules.items():
        first = name_of.setdefault(module.weight, name)
        if first != name:
            raise NumericError(f"{name} is the same weight as {first}.", "Leave one of the two out of lora.target_modules.")
    return modules


def _at_positions(values: Tensor, loss_mask: Tensor) -> Tensor:
    """[B, T, n] of what a map sees; the output head sees no other positions than those that predict a loss token (`score`)."""
    if values.shape[:-1].numel() == loss_mask.numel():
        return values.reshape(*loss_mask.shape, -1)
    placed = values.new_zeros(*loss_mask.shape, values.shape[-1])
    placed[:, :-1][loss_mask[:, 1:]] = values
    return placed


@dataclass(frozen=True, kw_only=True)
class GradientRows:
    """What is kept of n examples: `sketch` [n, dim] unit vectors, `norm` [n] before projection, `loss` [n] in nats,
    `tokens` [n], `cosine` [n, k] to each direction, exact in the full gradient space, and `hidden` [n, depths, width], unit mean hidden
    states. Rows without a loss are NaN, their vectors zero."""

    sketch: np.ndarray
    norm: np.ndarray
    loss: np.ndarray
    tokens: np.ndarray
    cosine: np.ndarray
    hidden: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Directions:
    """k named directions of the full gradient space by parameter name: [k, n]."""

    names: tuple[str, ...]
    parts: Mapping[str, Tensor]


@dataclass
class Featurizer:
    """Turns encoded examples into `GradientRows`: optimizer map, norm, sketch and exact dot products inside the hook.

    `block_size` above 1: so many neighbours share one vector, that of the gradient of their mean token loss, as a training batch
    has it (paper, Tables 3 and 10). `hidden_depths`: where hidden states are kept (`model.vectors.mean_states`).
    """

    model: Any
    pad_id: int
    map: GradientMap
    sketch: Projection
    directions: Directions | None
    token_budget: int
    block_size: int = 1
    hidden_depths: Sequence[float] = ()

    def rows(self, encoded: Sequence[Encoded], report: Callable[[int], None] = lambda done: None) -> GradientRows:
        """The rows of `encoded`, in their order; batches are a pure function of it. `report(rows done)` after each batch."""
        count, width = len(encoded), len(self.directions.names) if self.directions else 0
        tokens = np.array([example.loss_tokens for example in encoded], dtype=np.int64)
        sketch, cosine = np.zeros((count, self.sketch.dim), np.float32), np.full((count, width), np.nan)
        norm, loss = np.full(count, np.nan), np.full(count, np.nan)
        device = next(self.model.parameters()).device
        usable = np.flatnonzero(tokens).tolist()
        blocks = [usable[start : start + self.block_size] for start in range(0, len(usable), self.block_size)]
        longest = [len(block) * max(len(encoded[row].ids) for row in block) for block in blocks]
        made: list[tuple[np.ndarray, np.ndarray, Tensor]] = []
        states: list[tuple[np.ndarray, np.ndarray]] = []
        done = 0
        with mean_states(self.model, self.hidden_depths) as hidden_of:
            for chosen in length_batches(longest, self.token_budget):
                batch = collate(encoded, [row for i in chosen for row in blocks[i]], self.pad_id, device)
                owner = np.repeat(np.arange(len(chosen)), [len(blocks[i]) for i in chosen])
                at = batch.rows.numpy()
                loss[at], norm_of, cosine_of, projected = self._batch(batch, self._shares(owner, tokens[at]), width)
                states.append((at, hidden_of(batch).cpu().numpy()))
                norm[at], cosine[at] = norm_of[owner], cosine_of[owner]
                made.append((at, owner, projected))
                done += len(at)
                report(done)
        self.sketch.flush()
        for at, owner, projected in made:
            sketch[at] = torch.nn.functional.normalize(projected).cpu().numpy()[owner]
        bad = next((row for row in usable if not (np.isfinite(norm[row]) and norm[row] > 0)), None)
        if bad is not None:
            raise NumericError(f"The gradient of example {bad} of this shard has norm {norm[bad]}.", "Check the warm-up's learning rate.")
        return GradientRows(sketch=sketch, norm=norm, loss=loss, tokens=tokens, cosine=cosine, hidden=_gathered(states, count))

    def _shares(self, owner: np.ndarray, tokens: np.ndarray) -> Tensor | None:
        """Each example's share [blocks, examples] of its block's loss tokens; None for blocks of one."""
        if self.block_size == 1:
            return None
        member = owner == np.arange(owner[-1] + 1)[:, None]
        return torch.from_numpy(member * tokens / (member * tokens).sum(1, keepdims=True))

    def _batch(self, batch: Batch, shares: Tensor | None, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]:
        """Losses [examples]; norm, cosines and sketch of each block, the last as `Projection.add` leaves it."""
        count, device = len(batch.rows) if shares is None else len(shares), batch.ids.device
        sketch = blank_sketch(count, self.sketch.dim, device)
        square = torch.zeros(count, device=device)
        dots = torch.zeros((count, width), device=device)

        def visit(name: str, gradient: Tensor) -> None:
            vectors = self.map(name, gradient if shares is None else shares.to(gradient) @ gradient)
            square.add_(torch.linalg.vector_norm(vectors, dim=1).square())
            self.sketch.add(sketch, name, vectors)
            if self.directions is not None:
                dots.addmm_(vectors, self.directions.parts[name].T)

        loss = visit_gradients(self.model, batch, visit)
        norm = square.sqrt()
        return loss.cpu().numpy(), norm.cpu().numpy(), (dots / norm[:, None]).cpu().numpy(), sketch


def _gathered(states: Sequence[tuple[Sequence[int] | np.ndarray, np.ndarray]], count: int) -> np.ndarray:
    """The hidden states of batches, each with its rows, in the order of the rows: [count, depths, width]."""
    whole = np.zeros((count, *(states[0][1].shape[1:] if states else (0, 0))), np.float32)
    for rows, found in states:
        whole[rows] = found
    return whole


def probe_pass(
    model: Any,
    pad_id: int,
    gradient_map: GradientMap,
    sketch: Projection,
    encoded: Sequence[Encoded],
    kinds: Sequence[str],
    token_budget: int,
    hidden_depths: Sequence[float] = (),
) -> tuple[Directions, GradientRows]:
    """One pass over the probes: for each kind the mean of its unit vectors, and every probe's row of the store.

    `kinds`: the direction that each example belongs to. A dot product with such a mean is a mean cosine (Eq. 5).
    """
    names = tuple(sorted(set(kinds)))
    number = torch.tensor([names.index(kind) for kind in kinds])
    sums: dict[str, Tensor] = {}
    device = next(model.parameters()).device
    vectors_of, made = np.zeros((len(encoded), sketch.dim), np.float32), []
    states: list[tuple[list[int], np.ndarray]] = []
    norm_of, loss_of = np.full(len(encoded), np.nan), np.full(len(encoded), np.nan)
    with mean_states(model, hidden_depths) as hidden_of:
        for rows in length_batches([len(example.ids) for example in encoded], token_budget):
            batch = collate(encoded, rows, pad_id, device)
            vectors, losses = full_vectors(model, batch, gradient_map)
            states.append((rows, hidden_of(batch).cpu().numpy()))
            norm = torch.stack([v.square().sum(1) for v in vectors.values()]).sum(0).sqrt()
            projected = blank_sketch(len(rows), sketch.dim, device)
            for name, vector in vectors.items():
                sketch.add(projected, name, vector)
                total = sums.setdefault(name, torch.zeros((len(names), vector.shape[1]), device=device))
                total.index_add_(0, number[rows].to(device), vector / norm[:, None])
            made.append((rows, projected))
            norm_of[rows], loss_of[rows] = norm.cpu().numpy(), losses.cpu().numpy()
    sketch.flush()
    for rows, projected in made:
        vectors_of[rows] = torch.nn.functional.normalize(projected).cpu().numpy()
    if not np.isfinite(norm_of).all():
        raise NumericError(
            f"The gradient of probe {int(np.flatnonzero(~np.isfinite(norm_of))[0])} is not finite.", "Check the probing set."
        )
    counts = torch.bincount(number, minlength=len(names)).to(device)
    directions = Directions(names=names, parts={name: total / counts[:, None] for name, total in sums.items()})
    tokens = np.array([example.loss_tokens for example in encoded])
    cosine, hidden = np.empty((len(encoded), 0)), _gathered(states, len(encoded))
    return directions, GradientRows(sketch=vectors_of, norm=norm_of, loss=loss_of, tokens=tokens, cosine=cosine, hidden=hidden)


def full_vectors(model: Any, batch: Batch, gradient_map: GradientMap) -> tuple[dict[str, Tensor], Tensor]:
    """Mapped per-example gradients by parameter name, whole ([B, n] each), and the losses [B]. For few examples only."""
    vectors: dict[str, Tensor] = {}
    losses = visit_gradients(model, batch, lambda name, gradient: vectors.__setitem__(name, gradient_map(name, gradient)))
    return vectors, losses
