"""Which dtype and token budget take gradients quickest on this machine, by a short measurement before the first row.

Both enter the gradients' key, so they are settled once, in the audit's choices, and not anew by each worker. bfloat16 is chosen only
where its gradients are still those of one example at a time in fp32.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from biasdiff_core.attribution.gradients import visit_gradients
from biasdiff_core.attribution.self_check import LEAST_COSINE, exact_gradients, least_cosine, usable_examples
from biasdiff_core.config import LoraConfig, ModelConfig
from biasdiff_core.config.model import Dtype
from biasdiff_core.corpus.examples import Corpus
from biasdiff_core.errors import NumericError
from biasdiff_core.model.load import load_model
from biasdiff_core.model.lora import add_lora, lora_parameters
from biasdiff_core.model.tokenise import Encoded, collate, length_batches
from biasdiff_core.results import Progress, ProgressCallback, no_progress

BUDGETS: Mapping[str, tuple[int, ...]] = {"cpu": (128, 256, 512, 1024, 2048), "cuda": (2048, 4096, 8192, 16384, 32768)}
TOKENS = 2048  # that each budget is timed on, or its own number where that is larger
NEAR = 0.95  # of the greatest speed: what a smaller budget may cost, for it takes less memory
SEED = 0
SPREAD = 0.02  # of the random lora_B: with zeros, as peft begins, every gradient of lora_A would be zero


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting. `tokens_per_second`: tokens of the examples, without padding; 0 where the batch did not fit into memory.

    `least_cosine`: over a few examples, of the dtype's batched gradients to those of one example at a time in fp32.
    """

    dtype: Dtype
    token_budget: int
    tokens_per_second: float
    least_cosine: float

    @property
    def exact(self) -> bool:
        """Whether its gradients are near enough to those of one example at a time in fp32."""
        return self.least_cosine >= LEAST_COSINE


def measure(
    config: ModelConfig, lora: LoraConfig, corpus: Corpus, workspace: Path, progress: ProgressCallback = no_progress
) -> list[Trial]:
    """A trial for every dtype and budget, with plain gradients of the corpus's first examples.

    Raises DataError where the corpus has no token to predict.
    """
    trials: list[Trial] = []
    exact: Tensor | None = None
    for number, dtype in enumerate(get_args(Dtype)):
        loaded = load_model(replace(config, dtype=dtype), workspace)
        model, pad_id = _with_lora(loaded.model, lora), loaded.tokenizer.pad_token_id
        encoded = usable_examples(loaded, corpus)
        if exact is None:  # the first dtype is fp32
            exact = exact_gradients(model, pad_id, encoded)
        cosine = least_cosine(model, pad_id, encoded, exact)
        budgets, timing = BUDGETS[loaded.device.type], _Timing(model=model, pad_id=pad_id, device=loaded.device)
        for place, (budget, speed) in enumerate(timing.speeds(encoded, budgets)):
            trials.append(Trial(dtype=dtype, token_budget=budget, tokens_per_second=speed, least_cosine=cosine))
            done, total = number * len(budgets) + place + 1, len(get_args(Dtype)) * len(budgets)
            progress(Progress(stage="tune", done=done, total=total, message=f"{dtype}, {budget} tokens a batch"))
        del loaded, model, timing
    return trials


def choose(trials: Sequence[Trial]) -> Trial:
    """The smallest budget of nearly the greatest speed, among the dtypes whose gradients are exact enough.

    Raises NumericError where not even those of fp32 are, or none fits.
    """
    fit = [trial for trial in trials if trial.exact and trial.tokens_per_second > 0]
    if not fit:
        best = max(trial.least_cosine for trial in trials)
        raise NumericError(
            f"No setting fits into memory with gradients of cosine {LEAST_COSINE} to exact ones (the best has {best:.4f}).",
            "Use a smaller model or a GPU with more memory, or set max_tokens of the corpus lower.",
        )
    fastest = max(fit, key=lambda trial: trial.tokens_per_second)
    return next(t for t in fit if t.dtype == fastest.dtype and t.tokens_per_second >= NEAR * fastest.tokens_per_second)


def _with_lora(base: Any, lora: LoraConfig) -> Any:
    """The model with a random adapter, frozen."""
    model = add_lora(base, lora, SEED).requires_grad_(False).eval()
    for name, weight in lora_parameters(model).items():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=SPREAD)
    return model


@dataclass(frozen=True, kw_only=True)
class _Timing:
    """How quickly one model takes plain gradients."""

    model: Any
    pad_id: int
    device: torch.device

    def speeds(self, encoded: Sequence[Encoded], budgets: Sequence[int]) -> Iterator[tuple[int, float]]:
        """Each budget and the tokens a second that it reaches; from the first that does not fit into memory on, 0."""
        fits = True
        for budget in budgets:
            try:
                yield budget, self._speed(encoded, budget) if fits else 0.0
            except torch.OutOfMemoryError:
                fits = False
                torch.cuda.empty_cache()
                yield budget, 0.0

    def _speed(self, encoded: Sequence[Encoded], budget: int) -> float:
        sample = _first_tokens(encoded, max(TOKENS, budget))
        batches = length_batches([len(example.ids) for example in sample], budget)
        self._pass(sample, batches[-1:])  # the longest, so that what is set up at first use is not timed
        started = time.perf_counter()
        self._pass(sample, batches)
        return sum(len(example.ids) for example in sample) / (time.perf_counter() - started)

    def _pass(self, encoded: Sequence[Encoded], batches: Sequence[Sequence[int]]) -> None:
        for rows in batches:
            visit_gradients(self.model, collate(encoded, rows, self.pad_id, self.device), lambda name, gradient: None)
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _first_tokens(encoded: Sequence[Encoded], tokens: int) -> list[Encoded]:
    """The first examples with so many tokens between them, over and over where the corpus is smaller."""
    sample: list[Encoded] = []
    while tokens > 0:
        example = encoded[len(sample) % len(encoded)]
        sample.append(example)
        tokens -= len(example.ids)
    return sample
