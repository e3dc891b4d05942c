"""Prompts in a model's key-value cache, and greedy decoding from there.

A batch holds prompts of equal length, so nothing is padded, and the start that all prompts share (a few-shot prompt, a chat
template) is computed once for all of them. The same batch serves `likelihood.continuation_log_probs`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, StoppingCriteria, StoppingCriteriaList

from biasdiff_core.errors import DataError
from biasdiff_core.model.likelihood import evaluating, shared_prefix_obstacle, takes
from biasdiff_core.results import Progress, ProgressCallback, no_progress

log = logging.getLogger(__name__)

# Said in full, since what is left open is filled from the model's own generation settings.
_GREEDY = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 50,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_new_tokens": 0,
}


@dataclass(frozen=True, kw_only=True)
class PromptBatch:
    """Prompts of equal length: their `places` [B] in the list they came from, `ids` [B, L] int64.

    `cache`: keys and values of all their tokens but the last; None for a model that cannot continue from it (the prompts are then
    computed whole wherever they are used).
    """

    places: list[int]
    ids: torch.Tensor
    cache: DynamicCache | None


def prompt_batches(model: Any, prompts: Sequence[Sequence[int]], *, room: int, token_budget: int) -> Iterator[PromptBatch]:
    """The prompts in batches by ascending length (ties by place), each made when it is asked for.

    `room`: how many tokens may follow a prompt; `token_budget`: tokens a batch, without the start that all prompts share.
    Raises DataError for a prompt without tokens, and for one that with `room` exceeds the model's context.
    """
    if not all(prompts):
        raise DataError("A prompt has no tokens.", "Leave empty prompts out.")
    longest = [*max(prompts, key=len, default=[]), *[0] * room]
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and len(longest) > limit:
        raise DataError(
            f"A prompt of {len(longest) - room} tokens and {room} more exceed the model's context of {limit}.",
            "Shorten it or leave it out.",
        )
    obstacle = shared_prefix_obstacle(model, [(longest, longest)]) if prompts else None
    if obstacle is not None:
        log.warning("Every prompt is computed whole, since they cannot continue from a cache: %s.", obstacle)
    start = _common_start(prompts) if obstacle is None else 0
    with evaluating(model):
        shared = _extend(model, None, torch.tensor([list(prompts[0][:start])], device=model.device)) if start else None
    for places in _equal_lengths([len(prompt) for prompt in prompts], start, token_budget):
        ids = torch.tensor([list(prompts[place]) for place in places], device=model.device)
        with evaluating(model):
            cache = _extend(model, _repeated(shared, len(places)), ids[:, start:-1]) if obstacle is None else None
        yield PromptBatch(places=places, ids=ids, cache=cache)


def decode(model: Any, tokenizer: Any, batch: PromptBatch, *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
    """What the model writes after each prompt, taking the likeliest token each time: texts [B] without special tokens.

    Ends at an end token of the model or tokenizer, before the first `stop` string, or after `max_new_tokens`. Uses up the cache.
    """
    ends = _end_tokens(model, tokenizer)
    filler = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    settings = GenerationConfig(**_GREEDY, max_new_tokens=max_new_tokens, eos_token_id=ends or None, pad_token_id=filler)
    width = batch.ids.shape[1]
    with evaluating(model):
        written = model.generate(
            input_ids=batch.ids,
            attention_mask=torch.ones_like(batch.ids),
            cache=batch.cache,
            generation_config=settings,
            stopping_criteria=StoppingCriteriaList([_StopStrings(tokenizer, width, stop)] if stop else []),
        )[:, width:].tolist()
    own = [list(takewhile(lambda token: token not in ends, tokens)) for tokens in written]
    return [_before(text, stop) for text in tokenizer.batch_decode(own, skip_special_tokens=True)]


def greedy(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    token_budget: int,
    progress: ProgressCallback = no_progress,
) -> list[str]:
    """`decode` for prompts (token ids) of any length, in the order given."""
    texts = [""] * len(prompts)
    done = 0
    for batch in prompt_batches(model, prompts, room=max_new_tokens, token_budget=token_budget):
        written = decode(model, tokenizer, batch, max_new_tokens=max_new_tokens, stop=stop)
        for place, text in zip(batch.places, written, strict=True):
            texts[place] = text
        done += len(batch.places)
        progress(Progress(stage="generate", done=done, total=len(prompts), unit="prompts"))
    return texts


class _StopStrings(StoppingCriteria):
    """Ends each row whose text after `width` tokens holds a stop string."""

    def __init__(self, tokenizer: Any, width: int, stop: Sequence[str]) -> None:
        self._tokenizer, self._width, self._stop = tokenizer, width, stop

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        texts = self._tokenizer.batch_decode(input_ids[:, self._width :], skip_special_tokens=True)
        return torch.tensor([any(mark in text for mark in self._stop) for text in texts], device=input_ids.device)


def _before(text: str, stop: Sequence[str]) -> str:
    return text[: min((text.index(mark) for mark in stop if mark in text), default=len(text))]


def _common_start(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts start with in common, so that each keeps one of its own."""
    limit = min((len(prompt) for prompt in prompts), default=1) - 1
    return next((place for place in range(limit) if len({prompt[place] for prompt in prompts}) > 1), limit)


def _equal_lengths(lengths: Sequence[int], start: int, token_budget: int) -> Iterator[list[int]]:
    order = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
    for length, group in groupby(order, key=lambda place: lengths[place]):
        places, size = list(group), max(1, token_budget // (length - start))
        yield from (places[first : first + size] for first in range(0, len(places), size))


def _extend(model: Any, cache: DynamicCache | None, ids: torch.Tensor) -> DynamicCache | None:
    """The cache with `ids` [B, T] behind what it holds (None holds nothing)."""
    if not ids.shape[1]:
        return cache
    few = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
    found = model(input_ids=ids, past_key_values=cache, use_cache=True, **few).past_key_values
    return found if isinstance(found, DynamicCache) else None


def _repeated(cache: DynamicCache | None, rows: int) -> DynamicCache | None:
    """A copy of a cache of one row for so many rows."""
    if cache is None:
        return None
    copied = copy.deepcopy(cache)
    copied.batch_repeat_interleave(rows)
    return copied


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    own = model.generation_config.eos_token_id
    return sorted({*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id} - {None})
