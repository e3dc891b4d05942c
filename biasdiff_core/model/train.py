"""The one training loop that warm-up, retraining and unlearning share.

A loss is a sum of weighted terms; each term turns what the model says of an example's tokens into that example's loss. The
first term sets what an epoch is: one shuffled pass over its examples. An optimizer step takes `batch_size` examples of every
term, cut into length-bucketed micro-batches. Each epoch ends in a checkpoint and starts from a seed of its own, so a killed
training resumes at the last epoch with the same result.
"""

from __future__ import annotations

import json
import logging
import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from biasdiff_core.config import TrainingConfig
from biasdiff_core.errors import DataError, NumericError
from biasdiff_core.model.checkpoint import Checkpoint, list_checkpoints, load_optimizer_state, save_checkpoint
from biasdiff_core.model.lora import load_weights, lora_parameters
from biasdiff_core.model.score import Scored, score
from biasdiff_core.model.tokenise import Encoded, collate, length_batches
from biasdiff_core.results import Progress, ProgressCallback, no_progress
from biasdiff_core.workspace.artefacts import write_atomic

log = logging.getLogger(__name__)

LOG_FILE = "steps.jsonl"

ExampleLoss = Callable[[Scored], Tensor]  # a batch of B rows -> loss [B]; of a term of pairs [B / 2]
StopRule = Callable[[Checkpoint], bool]
Gradients = Mapping[str, Sequence[Tensor]]  # of each term's loss by every LoRA weight, in model order
Weigh = Callable[[Gradients], Mapping[str, float]]  # weights of terms, found anew at every step


@dataclass(frozen=True, kw_only=True)
class Term:
    """One weighted term of the loss over its own examples; terms over the same list take the same rows at every step.

    A term of weight 0 is logged without a gradient, as are `measures`, by name, of the same rows. `together`: how many consecutive
    examples make one row: 2 where the loss is of pairs.
    """

    name: str
    examples: Sequence[Encoded]
    loss: ExampleLoss
    weight: float = 1.0
    together: int = 1
    measures: Mapping[str, ExampleLoss] = field(default_factory=dict)

    def members(self, row: int) -> range:
        """Indices of the examples of one row."""
        return range(row * self.together, (row + 1) * self.together)

    def learnable(self) -> list[int]:
        """Rows whose examples all have a token to learn."""
        rows = range(len(self.examples) // self.together)
        return [row for row in rows if all(self.examples[member].loss_tokens for member in self.members(row))]

    def padded_tokens(self, row: int) -> int:
        """Tokens of one row, its examples padded to the longest of them."""
        return self.together * max(len(self.examples[member].ids) for member in self.members(row))


def mean_nll(scored: Scored) -> Tensor:
    """Each example's own mean token loss [B], in nats: the loss whose gradient influence is about."""
    return -scored.log_prob / scored.tokens


def learning_rate_at(step: int, total: int, config: TrainingConfig) -> float:
    """Linear warm-up, then cosine to zero, counted in optimizer steps (`step` from 0)."""
    warmup = math.ceil(total * config.warmup_ratio)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def train(
    model: PeftModel,
    pad_id: int,
    terms: Sequence[Term],
    config: TrainingConfig,
    folder: Path,
    *,
    stage: str,
    weigh: Weigh | None = None,
    stop: StopRule | None = None,
    progress: ProgressCallback = no_progress,
) -> list[Checkpoint]:
    """Train the LoRA weights of `model`; checkpoints `epoch-<k>` and a log of every step go into `folder`.

    Resumes after the last complete checkpoint in `folder`. `weigh` takes the place of the weights of the terms that it names;
    `stop(checkpoint)` may end training before a further epoch. Raises DataError for a term without examples, NumericError when a
    loss is not finite.
    """
    for term in terms:
        if not term.learnable():
            raise DataError(f"The training term {term.name!r} has no example with a token to learn.", "Check the removal set and corpus.")
    parameters = lora_parameters(model)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        list(parameters.values()),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )
    done = list_checkpoints(folder)
    if done:
        _restore(model, optimizer, done[-1])
        log.info("%s resumes after epoch %d", stage, done[-1].epoch)
    steps = math.ceil(len(terms[0].learnable()) / config.batch_size)
    run = _Run(model=model, pad_id=pad_id, terms=terms, config=config, optimizer=optimizer, weigh=weigh, total=steps * config.epochs)
    for epoch in range(done[-1].epoch + 1 if done else 1, config.epochs + 1):
        # Asked before an epoch rather than after one, so that a run that was killed once it had stopped does not go on.
        if stop is not None and epoch > 1 and stop(list_checkpoints(folder)[-1]):
            break
        rate = run.epoch(epoch, folder / LOG_FILE, lambda step: progress(Progress(stage=stage, done=step, total=run.total)))
        save_checkpoint(model, optimizer, folder / f"epoch-{epoch:02d}", epoch=epoch, step=steps * epoch, learning_rate=rate)
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    model.eval()
    return list_checkpoints(folder)


@dataclass(kw_only=True)
class _Run:
    """What stays the same over the steps of one training."""

    model: PeftModel
    pad_id: int
    terms: Sequence[Term]
    config: TrainingConfig
    optimizer: torch.optim.AdamW
    weigh: Weigh | None
    total: int

    def epoch(self, epoch: int, log_path: Path, report: Callable[[int], None]) -> float:
        """One pass over the first term; returns the mean learning rate of its steps."""
        self.model.train()
        torch.manual_seed(self.config.seed * 1_000_003 + epoch)  # dropout; makes a resumed epoch equal to an unbroken one
        batches = _epoch_batches(self.terms, self.config, epoch)
        rates = []
        lines = _lines_before(log_path, epoch)
        for index, rows_by_term in enumerate(batches):
            step = (epoch - 1) * len(batches) + index
            rates.append(learning_rate_at(step, self.total, self.config))
            record = self._step(rows_by_term, rates[-1])
            lines.append(json.dumps({"epoch": epoch, "step": step + 1, "learning_rate": rates[-1], **record}))
            report(step + 1)
        write_atomic(log_path, "\n".join(lines) + "\n")
        return sum(rates) / len(rates)

    def _step(self, rows_by_term: Sequence[list[int]], rate: float) -> dict[str, float]:
        parameters = self.optimizer.param_groups[0]["params"]
        losses: dict[str, float] = {}
        gradients = {}
        for term, rows in zip(self.terms, rows_by_term, strict=True):
            self.optimizer.zero_grad()
            losses |= self._accumulate(term, rows)
            if term.weight:
                gradients[term.name] = [parameter.grad for parameter in parameters]
        weights = {term.name: term.weight for term in self.terms if term.weight} | dict(self.weigh(gradients) if self.weigh else {})
        for place, parameter in enumerate(parameters):
            parameter.grad = torch.stack([weight * gradients[name][place] for name, weight in weights.items()]).sum(0)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm))
        if not math.isfinite(norm) or not all(math.isfinite(value) for value in losses.values()):
            raise NumericError(f"Training left the finite numbers: losses {losses}, gradient norm {norm}.", "Lower training.learning_rate.")
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        return {**losses, **{f"weight:{name}": weight for name, weight in weights.items()}, "gradient_norm": norm}

    def _accumulate(self, term: Term, rows: list[int]) -> Mapping[str, float]:
        """Backward of the term's mean over `rows` in micro-batches; returns that mean and those of what it measures, by name."""
        means: defaultdict[str, float] = defaultdict(float)
        device = next(iter(lora_parameters(self.model).values())).device
        for micro in length_batches([term.padded_tokens(row) for row in rows], self.config.token_budget):
            members = [member for place in micro for member in term.members(rows[place])]
            batch = collate(term.examples, members, self.pad_id, device)
            with torch.set_grad_enabled(bool(term.weight)):
                scored = score(self.model, batch)
                loss = term.loss(scored).sum() / len(rows)
            if term.weight:
                torch.autograd.backward(loss)
            means[term.name] += loss.item()
            with torch.no_grad():
                for name, measure in term.measures.items():
                    means[name] += measure(scored).sum().item() / len(rows)
        return means


def _epoch_batches(terms: Sequence[Term], config: TrainingConfig, epoch: int) -> list[list[list[int]]]:
    """Rows of every term for every step of one epoch: the first term once over, the others as often as needed."""
    shuffled = []
    needed = len(terms[0].learnable())
    for term in terms:
        rows = term.learnable()
        number = next(place for place, other in enumerate(terms) if other.examples is term.examples)
        source = random.Random(f"{config.seed}:{epoch}:{number}")
        stream: list[int] = []
        while len(stream) < needed:
            stream += source.sample(rows, len(rows))
        shuffled.append(stream[:needed])
    size = config.batch_size
    return [[stream[start : start + size] for stream in shuffled] for start in range(0, needed, size)]


def _lines_before(path: Path, epoch: int) -> list[str]:
    """Log lines of the epochs before this one: a killed epoch's lines are written again, not twice."""
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf8").splitlines() if json.loads(line)["epoch"] < epoch]


def _restore(model: PeftModel, optimizer: torch.optim.AdamW, checkpoint: Checkpoint) -> None:
    load_weights(model, checkpoint.folder)
    state = load_optimizer_state(checkpoint.folder, model)
    for name, parameter in lora_parameters(model).items():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(checkpoint.step)),
            "exp_avg": state.exp_avg[name].clone(),
            "exp_avg_sq": state.exp_avg_sq[name].clone(),
        }


def read_steps(folder: Path) -> list[dict[str, Any]]:
    """The log of every step of a training folder."""
    return [json.loads(line) for line in (folder / LOG_FILE).read_text(encoding="utf8").splitlines()]
