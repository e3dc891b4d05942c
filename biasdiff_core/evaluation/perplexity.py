"""Perplexity on held-out text: exp(total negative log-likelihood / total tokens), padding never counted.

The cost in capability that stands beside every bias figure. Only `perplexity` loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biasdiff_core.config.evaluation import PerplexityConfig
from biasdiff_core.corpus.refusals import NOT_UTF8, Fault, Flaw, Refusals, flaw_of
from biasdiff_core.corpus.sources import local_path, open_source, require_columns
from biasdiff_core.errors import DataError
from biasdiff_core.evaluation.statistics import bootstrap_ratio
from biasdiff_core.results import MetricResult, Progress, ProgressCallback, no_progress

_DEMO_FILE = "heldout.txt"
_EMPTY = Fault("without text", "Remove them, or name another text column.")


@dataclass(frozen=True, kw_only=True)
class TextLosses:
    """Per text: `nll` [texts], summed negative log-likelihood in nats, and `tokens` [texts], how many it sums over."""

    nll: NDArray[np.float64]
    tokens: NDArray[np.int64]


def load_texts(config: PerplexityConfig) -> list[str]:
    """The first `config.limit` documents: lines of a .txt file (blank ones are skipped), or `text_column` of a table.

    Raises DataError for a file that cannot be read, rows without text (listed by line), or no text at all.
    """
    local = local_path(config.path, _DEMO_FILE)
    texts = _lines(local) if local is not None and local.suffix.lower() == ".txt" else _column(config)
    if not texts:
        raise DataError(f"{config.path} has no text to measure perplexity on.", "Name a file with one document a line.")
    return texts[: config.limit]


def refuse_training_rows(texts: Iterable[str], corpus_texts: Iterable[str]) -> None:
    """Raise DataError when held-out texts stand in the corpus (equal but for case and white space), naming how many."""
    trained = {_normal(text) for text in corpus_texts}
    held_out = list(texts)
    leaked = [text for text in held_out if _normal(text) in trained]
    if leaked:
        raise DataError(
            f"{len(leaked)} of the {len(held_out)} held-out texts are in the corpus, e.g. {leaked[0][:60]!r}.",
            "Give perplexity.path a file of texts that the model was not trained on.",
        )


def perplexity(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    token_budget: int,
    bootstrap: int,
    seed: int,
    progress: ProgressCallback = no_progress,
) -> tuple[MetricResult, TextLosses]:
    """Perplexity over all tokens of all texts with a bootstrap interval over texts, and what each text contributes.

    Texts are encoded as in training, with the tokenizer's own special tokens and no other prefix, so the first token is only
    conditioned on. A text longer than the model's context or `token_budget` is cut into windows of that length, each scored
    from its second token on. Raises DataError when no text has two tokens.
    """
    from biasdiff_core.model.likelihood import token_log_probs

    window = min(getattr(model.config, "max_position_embeddings", token_budget), token_budget)
    encoded: list[list[int]] = tokenizer(list(texts))["input_ids"]
    windows = [(owner, ids[start : start + window]) for owner, ids in enumerate(encoded) for start in range(0, len(ids), window)]
    logs = token_log_probs(
        model,
        [ids for _, ids in windows],
        token_budget=token_budget,
        progress=lambda step: progress(_as_texts(step)),
    )
    losses = _losses(windows, logs, len(texts))
    if not losses.tokens.sum():
        raise DataError("No held-out text has two tokens, so none can be predicted.", "Give perplexity.path longer texts.")
    return _result(losses, window, bootstrap=bootstrap, seed=seed), losses


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.", "Name a file that this user may read.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8 (byte {error.start}).", NOT_UTF8.mend) from error


def _column(config: PerplexityConfig) -> list[str]:
    table = open_source(config.path, "train", demo=_DEMO_FILE)
    require_columns(table, config.path, [config.text_column])
    refusals = Refusals(config.path, table.unit)
    texts: list[str] = []
    for row in table.rows([config.text_column]):
        text = row.cells.get(config.text_column)
        flaw = row.flaw or flaw_of(text) or _empty_flaw(text)
        if flaw:
            refusals.add(flaw, row.line)
        else:
            texts.append(str(text))
    refusals.raise_any()
    return texts


def _empty_flaw(text: str | None) -> Flaw | None:
    return None if text and text.strip() else (_EMPTY, "")


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()


def _as_texts(step: Progress) -> Progress:
    return replace(step, stage="evaluation", unit="texts", message="perplexity")


def _losses(windows: Sequence[tuple[int, list[int]]], logs: Sequence[NDArray[np.float64]], texts: int) -> TextLosses:
    owners = np.array([owner for owner, _ in windows], dtype=np.int64)
    nll, tokens = np.zeros(texts), np.zeros(texts, dtype=np.int64)
    np.add.at(nll, owners, [-values.sum() for values in logs])
    np.add.at(tokens, owners, [len(values) for values in logs])
    return TextLosses(nll=nll, tokens=tokens)


def _result(losses: TextLosses, window: int, *, bootstrap: int, seed: int) -> MetricResult:
    mean = bootstrap_ratio(losses.nll, losses.tokens, draws=bootstrap, seed=seed)
    return MetricResult(
        name="perplexity",
        value=math.exp(mean.value),
        low=math.exp(mean.low),
        high=math.exp(mean.high),
        n=len(losses.nll),
        convention=(
            f"exp(total NLL / total tokens) over {int(losses.tokens.sum())} tokens, the first token of each text given; windows of at most "
            f"{window} tokens; bootstrap 95 % interval over texts, {bootstrap} draws"
        ),
    )
