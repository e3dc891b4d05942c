"""Sentences under a causal model: what stands in front of them, which of their tokens are scored, and what a score is made of.

An instruction (the mitigation `prompt`) is context only: its tokens are conditioned on and never scored. Functions load torch, the
module does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from biasdiff_core.config.evaluation import Scoring
from biasdiff_core.errors import ConfigError, DataError
from biasdiff_core.results import ProgressCallback

Floats = NDArray[np.float64]
# Token sequences → ln p of tokens 1..L−1 of each given those before it, in the order given.
LogProbsOf = Callable[[Sequence[list[int]]], list[Floats]]

_START = "<|endoftext|>"


@dataclass(frozen=True, kw_only=True)
class ScoredSentences:
    """Of each sentence its scored tokens, `ids`, and their `log_probs` (ln p given all before); `given`: in words, what the first
    is given."""

    ids: list[list[int]]
    log_probs: list[Floats]
    given: str


def score_after_prefix(
    tokenizer: Any, sentences: Sequence[str], *, prefix: str, instruction: str, log_probs: LogProbsOf
) -> ScoredSentences:
    """Every sentence after the token that `prefix` names (`CrowsPairsConfig.prefix`), without other special tokens.

    With `none` and no instruction the first token is only conditioned on. Raises ConfigError for a token that the tokenizer has not,
    DataError for a sentence without tokens.
    """
    front, given = _prefix(tokenizer, prefix)
    context, gap = context_of(tokenizer, instruction, special=False)
    ids = encode_sentences(tokenizer, [gap + sentence for sentence in sentences], special=False)
    return _score([*front, *context], ids, given, log_probs)


def score_after_start(model: Any, tokenizer: Any, sentences: Sequence[str], *, instruction: str, log_probs: LogProbsOf) -> ScoredSentences:
    """As StereoSet's, bias-bench's and the paper's code: the first token from p(t0 | encode("<|endoftext|>")[0]), the others given the
    sentence without that start token, special tokens as the tokenizer adds them (OPT's is scored as the first token).

    An instruction takes the place of the start token. Raises DataError for a sentence without tokens.
    """
    from biasdiff_core.model.likelihood import next_token_log_probs

    start = tokenizer.encode(_START)[:1]
    given = tokenizer.convert_ids_to_tokens(start)[0]
    context, gap = context_of(tokenizer, instruction, special=True)
    if context:
        return _score(context, encode_sentences(tokenizer, [gap + s for s in sentences], special=False), given, log_probs)
    ids = encode_sentences(tokenizer, sentences, special=True)
    first = next_token_log_probs(model, start)
    logs = [np.concatenate([first[tokens[:1]], rest]) for tokens, rest in zip(ids, log_probs(ids), strict=True)]
    return ScoredSentences(ids=ids, log_probs=logs, given=given)


def whole_log_probs(model: Any, sequences: Sequence[list[int]], *, token_budget: int, progress: ProgressCallback) -> list[Floats]:
    """ln p of tokens 1..L−1 of each sequence. Equal ones are scored once, so that batching cannot part a tie."""
    from biasdiff_core.model.likelihood import token_log_probs

    unique = list(dict.fromkeys(tuple(sequence) for sequence in sequences))
    values = dict(zip(unique, token_log_probs(model, unique, token_budget=token_budget, progress=progress), strict=True))
    return [values[tuple(sequence)] for sequence in sequences]


def encode_sentences(tokenizer: Any, sentences: Sequence[str], *, special: bool) -> list[list[int]]:
    """Token ids, with the tokenizer's own special tokens or none. Raises DataError for a sentence without tokens."""
    encoded = cast(list[list[int]], tokenizer(list(sentences), add_special_tokens=special)["input_ids"])
    empty = next((sentence for sentence, ids in zip(sentences, encoded, strict=True) if not ids), None)
    if empty is not None:
        raise DataError(f"The tokenizer makes no token of the sentence {empty!r}.", "Remove it.")
    return encoded


def context_of(tokenizer: Any, instruction: str, *, special: bool) -> tuple[list[int], str]:
    """Tokens of an instruction (a blank one has none) and the white space at its end.

    The white space goes in front of each sentence instead, since tokenizers join a space to the word after it.
    """
    if not instruction.strip():
        return [], ""
    told = instruction.rstrip()
    return encode_sentences(tokenizer, [told], special=special)[0], instruction[len(told) :]


def pair_score(scoring: Scoring, more: tuple[list[int], Floats], less: tuple[list[int], Floats]) -> tuple[float, float]:
    """Scores of both sentences of a pair, each given as its scored tokens and their ln p; NaN where no token counts.

    `paper`: geometric mean probability; `sum`, `mean`: of ln p; `unmodified`: sum over the tokens that both share; `modified`: mean over
    those that differ (`shared_tokens`).
    """
    if scoring in ("unmodified", "modified"):
        shared = shared_tokens(more[0], less[0])
        kept = shared if scoring == "unmodified" else tuple(~mask for mask in shared)
        parts = [logs[mask] for (_, logs), mask in zip((more, less), kept, strict=True)]
    else:
        parts = [more[1], less[1]]
    if not all(map(len, parts)):
        return np.nan, np.nan
    totals = [float(part.sum() if scoring in ("sum", "unmodified") else part.mean()) for part in parts]
    first, second = np.exp(totals) if scoring == "paper" else totals
    return float(first), float(second)


def shared_tokens(first: Sequence[int], second: Sequence[int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which tokens of each are in the other too, in order: the equal blocks of difflib's SequenceMatcher (Nangia et al. 2020)."""
    in_first, in_second = np.zeros(len(first), dtype=bool), np.zeros(len(second), dtype=bool)
    for block in SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks():
        in_first[block.a : block.a + block.size] = True
        in_second[block.b : block.b + block.size] = True
    return in_first, in_second


def _score(context: list[int], ids: list[list[int]], given: str, log_probs: LogProbsOf) -> ScoredSentences:
    logs = log_probs([[*context, *tokens] for tokens in ids])
    begin = max(1, len(context))
    unscored = begin - len(context)
    return ScoredSentences(ids=[tokens[unscored:] for tokens in ids], log_probs=[values[begin - 1 :] for values in logs], given=given)


def _prefix(tokenizer: Any, prefix: str) -> tuple[list[int], str]:
    """The prefix as tokens, and in words."""
    from biasdiff_core.model.tokenise import prefix_token

    if prefix == "none":
        return [], "those before it, the first token only conditioned on"
    if prefix.isdigit():
        if int(prefix) >= len(tokenizer):
            raise ConfigError(f"crows_pairs.prefix is {prefix}, but the tokenizer has {len(tokenizer)} tokens.", "Name one of them.")
        token: int | None = int(prefix)
    else:
        token = tokenizer.eos_token_id if prefix == "eos" else prefix_token(tokenizer)
    if token is None:
        lacks = "no eos token" if prefix == "eos" else "neither a bos nor an eos token"
        raise ConfigError(f"The tokenizer has {lacks}, which crows_pairs.prefix asks for.", "Choose prefix none, or the scoring `paper`.")
    return [token], str(tokenizer.convert_ids_to_tokens(token))
