"""Log-probabilities of tokens under a causal language model, for evaluation, the NPO reference and the loss baseline.

Rows are sorted by length, batched under a budget of padded tokens and padded on the right, so that a batch is a pure
function of the lengths. Two sequences that share a prefix can be scored in one row (`shared_prefix_log_probs`), and so can
many continuations of a prompt (`continuation_log_probs`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from biasdiff_core.errors import ConfigError, DataError, NumericError
from biasdiff_core.model.tokenise import length_batches
from biasdiff_core.results import Progress, ProgressCallback, no_progress

LogProbs = NDArray[np.float64]
TokenPair = tuple[list[int], list[int]]

# Logits of this many positions are turned to float32 and exponentiated at a time: 13 MB for 49,152 tokens.
_SOFTMAX_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One row of a batch: prefix, then what follows it in the first sequence, then in the second (and further ones).

    `branch`: 0 prefix, 1 first, 2 second. A token sees those before it in the row that are of its branch or of the prefix.
    `sources[i]` is the position in the row whose logits predict `targets[i]`; the first `split` belong to the first sequence.
    """

    ids: list[int]
    positions: list[int]
    branch: list[int]
    sources: list[int]
    targets: list[int]
    split: int


def token_log_probs(
    model: Any, ids: Sequence[Sequence[int]], *, token_budget: int, progress: ProgressCallback = no_progress
) -> list[LogProbs]:
    """Natural log-probabilities of tokens 1..L−1 of each sequence given those before, float64 [L−1], in the order given.

    fp32 log-softmax whatever the model's dtype. `token_budget`: padded tokens a batch (a longer sequence has a batch of its own).
    Raises DataError for an empty sequence, NumericError when a value is not finite.
    """
    rows = [_plain_row(sequence) for sequence in ids]
    return _score_rows(model, rows, shared=False, token_budget=token_budget, progress=progress)


def shared_prefix_log_probs(
    model: Any, pairs: Sequence[TokenPair], *, token_budget: int, progress: ProgressCallback = no_progress
) -> list[tuple[LogProbs, LogProbs]]:
    """As `token_log_probs` for both sequences of each pair, with the prefix that they share computed once.

    A pair is one row, prefix + rest of the first + rest of the second, under a block attention mask and with the positions that
    the tokens have in their own sequence (a key-value cache of the prefixes proved slower than no sharing at all).
    Raises ConfigError for a model that cannot do it (see `shared_prefix_obstacle`).
    """
    obstacle = shared_prefix_obstacle(model, pairs)
    if obstacle is not None:
        raise ConfigError(f"A shared prefix cannot be scored once: {obstacle}.", "Score each sequence with token_log_probs.")
    rows = [_shared_row(first, second) for first, second in pairs]
    values = _score_rows(model, rows, shared=True, token_budget=token_budget, progress=progress)
    return [(value[: row.split], value[row.split :]) for row, value in zip(rows, values, strict=True)]


def continuation_log_probs(
    model: Any, prompts: torch.Tensor, continuations: Sequence[Sequence[Sequence[int]]], *, cache: Any, token_budget: int
) -> list[list[LogProbs]]:
    """Natural log-probabilities of all tokens of each continuation of each prompt: [prompts][continuations] of float64 [tokens].

    `prompts` [B, L]; `cache`: keys and values of all their tokens but the last, as in `model.generate.PromptBatch`, left as it
    was: the continuations of a prompt are then one row behind it, under a block mask. With None each is scored with its whole
    prompt, under `token_budget`. Raises DataError for a continuation without tokens.
    """
    if not all(tokens for options in continuations for tokens in options):
        raise DataError("A continuation to be scored has no tokens.", "Leave empty answers out.")
    if cache is None:
        whole = [[*prompt, *tokens] for prompt, options in zip(prompts.tolist(), continuations, strict=True) for tokens in options]
        logs = iter(token_log_probs(model, whole, token_budget=token_budget))
        return [[next(logs)[-len(tokens) :] for tokens in options] for options in continuations]
    rows = [_continued_row(prompt, options) for prompt, options in zip(prompts.tolist(), continuations, strict=True)]
    with evaluating(model):
        values = _score_batch(model, rows, shared=True, past=cache)
    cache.crop(-max(len(row.ids) for row in rows))
    ends = [np.cumsum([len(tokens) for tokens in options])[:-1] for options in continuations]
    return [np.split(value, end) for value, end in zip(values, ends, strict=True)]


def next_token_log_probs(model: Any, context: Sequence[int]) -> LogProbs:
    """Natural log-probability of every token after `context`, float64 [vocabulary]."""
    with evaluating(model):
        logits = model(input_ids=torch.tensor([list(context)], device=model.device), use_cache=False).logits[0, -1]
        return np.asarray(logits.float().log_softmax(-1).cpu(), dtype=np.float64)


def shared_prefix_obstacle(model: Any, pairs: Sequence[TokenPair]) -> str | None:
    """Why `shared_prefix_log_probs` cannot be used on these pairs, or None where it can.

    The model must take position_ids and a 4-D mask, attend to all of the longest sequence, and give, on a small made pair, the
    same values as `token_log_probs` (which finds models whose positions or state do not come from position_ids and mask).
    """
    if not takes(model, "position_ids"):
        return f"{type(model).__name__} takes no position_ids"
    attention = model.config._attn_implementation
    if attention not in ("eager", "sdpa"):
        return f"attention {attention!r} takes no 4-D mask"
    window = getattr(model.config, "sliding_window", None)
    longest = max((len(sequence) for pair in pairs for sequence in pair), default=0)
    if window is not None and longest > window:
        return f"a sequence of {longest} tokens exceeds the attention window of {window}"
    return _made_pair_obstacle(model)


def _made_pair_obstacle(model: Any) -> str | None:
    vocabulary = model.config.vocab_size
    first, second = ([token % vocabulary for token in tokens] for tokens in ([3, 4, 5, 6, 7, 8], [3, 4, 5, 9, 10, 11, 12]))
    row = _shared_row(first, second)
    try:
        shared = _score_rows(model, [row], shared=True, token_budget=64)[0]
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        return f"{type(model).__name__} takes no 4-D mask ({error})"
    whole = np.concatenate(token_log_probs(model, [first, second], token_budget=64))
    worst = float(np.abs(shared - whole).max())
    tolerance = max(1e-3, 30 * torch.finfo(model.dtype).eps)
    return None if worst <= tolerance else f"{type(model).__name__} gives other values that way (off by {worst:.2g} on a made pair)"


def _plain_row(ids: Sequence[int]) -> _Row:
    if not ids:
        raise DataError("A sequence to be scored has no tokens.", "Leave empty texts out.")
    inputs = list(ids[:-1])
    places = list(range(len(inputs)))
    return _Row(ids=inputs, positions=places, branch=[0] * len(inputs), sources=places, targets=list(ids[1:]), split=len(inputs))


def _shared_row(first: Sequence[int], second: Sequence[int]) -> _Row:
    if not first or not second:
        raise DataError("A sequence to be scored has no tokens.", "Leave empty texts out.")
    # At least one token of each is left after the prefix, whose logits predict it; the last token of each is never an input.
    limit = min(len(first), len(second)) - 1
    prefix = next((place for place in range(limit) if first[place] != second[place]), limit)
    rests = [sequence[prefix:-1] for sequence in (first, second)]
    shift = len(rests[0])
    return _Row(
        ids=[*first[:prefix], *rests[0], *rests[1]],
        positions=[*range(prefix + shift), *range(prefix, prefix + len(rests[1]))],
        branch=[0] * prefix + [1] * shift + [2] * len(rests[1]),
        sources=[*range(len(first) - 1), *(place if place < prefix else place + shift for place in range(len(second) - 1))],
        targets=[*first[1:], *second[1:]],
        split=len(first) - 1,
    )


def _continued_row(prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> _Row:
    """The prompt's last token, then what each continuation feeds in: all its tokens but the last."""
    rests = [tokens[:-1] for tokens in continuations]
    starts = np.cumsum([1, *(len(rest) for rest in rests)])
    place = len(prompt) - 1
    return _Row(
        ids=[prompt[-1], *(token for rest in rests for token in rest)],
        positions=[place, *(place + 1 + step for rest in rests for step in range(len(rest)))],
        branch=[0, *(number for number, rest in enumerate(rests, 1) for _ in rest)],
        sources=[source for start, rest in zip(starts, rests, strict=False) for source in (0, *range(start, start + len(rest)))],
        targets=[token for tokens in continuations for token in tokens],
        split=len(continuations[0]),
    )


def _score_rows(
    model: Any, rows: Sequence[_Row], *, shared: bool, token_budget: int, progress: ProgressCallback = no_progress
) -> list[LogProbs]:
    values: list[LogProbs] = [np.empty(0)] * len(rows)
    scored = [place for place, row in enumerate(rows) if row.targets]
    done = len(rows) - len(scored)
    with evaluating(model):
        for batch in length_batches([len(rows[place].ids) for place in scored], token_budget):
            places = [scored[index] for index in batch]
            for place, value in zip(places, _score_batch(model, [rows[place] for place in places], shared=shared), strict=True):
                values[place] = value
            done += len(batch)
            progress(Progress(stage="likelihood", done=done, total=len(rows), unit="sequences"))
    return values


def _score_batch(model: Any, rows: Sequence[_Row], *, shared: bool, past: Any = None) -> list[LogProbs]:
    """`past`: a key-value cache of what stands before the rows and is seen by all their tokens; it takes the rows up."""
    width, device = max(len(row.ids) for row in rows), model.device
    branch = _padded([row.branch for row in rows], width, fill=-1, device=device)
    behind = 0 if past is None else past.get_seq_length()
    inputs = {
        "input_ids": _padded([row.ids for row in rows], width, fill=0, device=device),
        "attention_mask": _block_mask(branch, model.dtype, behind=behind) if shared else (branch >= 0).long(),
        "use_cache": past is not None,
    }
    if past is not None:
        inputs["past_key_values"] = past
    if takes(model, "position_ids"):
        inputs["position_ids"] = _padded([row.positions for row in rows], width, fill=0, device=device)
    logits = model(**inputs).logits
    normaliser = torch.cat([part.float().logsumexp(-1) for part in logits.flatten(0, 1).split(_SOFTMAX_ROWS)]).view(len(rows), width)
    owner = torch.tensor([place for place, row in enumerate(rows) for _ in row.targets], device=device)
    source = torch.tensor([place for row in rows for place in row.sources], device=device)
    target = torch.tensor([token for row in rows for token in row.targets], device=device)
    values = (logits[owner, source, target].float() - normaliser[owner, source]).cpu().numpy().astype(np.float64)
    if not np.isfinite(values).all():
        raise NumericError("The model gives log-probabilities that are not finite.", "Load it in float32; its training may have diverged.")
    return np.split(values, np.cumsum([len(row.targets) for row in rows])[:-1])


def _padded(lists: Sequence[list[int]], width: int, *, fill: int, device: torch.device) -> torch.Tensor:
    """int64 [rows, width], padded on the right."""
    return torch.tensor([values + [fill] * (width - len(values)) for values in lists], device=device)


def _block_mask(branch: torch.Tensor, dtype: torch.dtype, *, behind: int) -> torch.Tensor:
    """Additive mask [rows, 1, query, `behind` + key] from `branch` [rows, width]; the `behind` keys before the row are seen by all.

    Padding (−1) sees itself, so that no row of the mask is empty.
    """
    query, key = branch[:, :, None], branch[:, None, :]
    causal = torch.ones(branch.shape[1], branch.shape[1], dtype=torch.bool, device=branch.device).tril()
    allowed = torch.nn.functional.pad(causal & ((key == 0) | (key == query)), (behind, 0), value=True)
    return torch.zeros(allowed.shape, dtype=dtype, device=branch.device).masked_fill(~allowed, torch.finfo(dtype).min)[:, None]


def takes(model: Any, argument: str) -> bool:
    """Whether the architecture's forward names this argument (an adapter's wrapper is looked through)."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return argument in inspect.signature(base.forward).parameters


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Without dropout and gradients; the training flag is put back."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
