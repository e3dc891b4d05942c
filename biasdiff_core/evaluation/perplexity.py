"""Perplexity on held-out text: exp(total negative log-likelihood / total tokens), padding never counted.

The cost in capability that stands beside every bias figure. Only `perplexity` loads torch.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from biasdiff_core.config.evaluation import PerplexityConfig
from biasdiff_core.corpus.examples import content_id
from biasdiff_core.corpus.formats import DelimitedFile, Table
from biasdiff_core.corpus.refusals import NOT_UTF8, Fault, Flaw, Refusals, flaw_of
from biasdiff_core.corpus.sources import local_path, open_source, require_columns
from biasdiff_core.errors import ArtefactError, DataError
from biasdiff_core.evaluation.items import ItemMetric, item_frame
from biasdiff_core.evaluation.scoring import encode_sentences
from biasdiff_core.evaluation.statistics import bootstrap_ratio
from biasdiff_core.results import MetricResult, Progress, ProgressCallback, no_progress

LOSSES_FILE = "perplexity.parquet"
NATS = "perplexity_nats"
METRICS: Mapping[str, ItemMetric] = {
    NATS: ItemMetric(
        convention="held-out text: difference of the mean negative log-likelihood in nats per token, each text counted once "
        "(perplexity counts each token once); paired bootstrap over texts"
    )
}

_DEMO_FILE = "heldout.txt"
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_NUMBERED = re.compile(r"#\d+(\+#\d+)*")
_EMPTY = Fault("without text", "Remove them, or name another text column.")


@dataclass(frozen=True, kw_only=True)
class TextLosses:
    """Per text: `nll` [texts], summed negative log-likelihood in nats, and `tokens` [texts], how many it sums over."""

    nll: NDArray[np.float64]
    tokens: NDArray[np.int64]


def load_texts(config: PerplexityConfig) -> list[str]:
    """The first `config.limit` documents: lines of a .txt file (blank ones are skipped), or `text_column` of a table.

    A `text_column` like `#2+#3` joins columns of a .csv or .tsv without a header (AG News: class, title, description) by a space.

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
    instruction: str = "",
    progress: ProgressCallback = no_progress,
) -> tuple[MetricResult, TextLosses]:
    """Perplexity over all tokens of all texts with a bootstrap interval over texts, and what each text contributes.

    Texts are encoded as in training, with the tokenizer's own special tokens and no other prefix, so the first token is only
    conditioned on. A text longer than the model's context or `token_budget` is cut into windows of that length, each scored
    from its second token on. An `instruction` stands in front of every window; it changes neither the text's tokens nor which of
    them are scored. Raises DataError when no text has two tokens, or the instruction fills the model's context.
    """
    from biasdiff_core.model.likelihood import token_log_probs

    context = encode_sentences(tokenizer, [instruction], special=True)[0] if instruction.strip() else []
    window = min(getattr(model.config, "max_position_embeddings", token_budget + len(context)) - len(context), token_budget)
    if window < 2:
        raise DataError(f"The instruction of {len(context)} tokens leaves no room in the model's context.", "Shorten it.")
    encoded: list[list[int]] = tokenizer(list(texts))["input_ids"]
    windows = [(owner, ids[start : start + window]) for owner, ids in enumerate(encoded) for start in range(0, len(ids), window)]
    logs = token_log_probs(
        model,
        [_behind(context, ids, tokenizer.all_special_ids) for _, ids in windows],
        token_budget=token_budget,
        progress=lambda step: progress(_as_texts(step)),
    )
    scored = [values[len(values) - (len(ids) - 1) :] for (_, ids), values in zip(windows, logs, strict=True)]
    losses = _losses(windows, scored, len(texts))
    if not losses.tokens.sum():
        raise DataError("No held-out text has two tokens, so none can be predicted.", "Give perplexity.path longer texts.")
    return _result(losses, window, instruction, bootstrap=bootstrap, seed=seed), losses


def items(texts: Sequence[str], losses: TextLosses) -> pd.DataFrame:
    """Rows of `METRICS` for paired tests: mean nats per token of each text, NaN for one that has no scored token."""
    seen: Counter[str] = Counter()
    ids = []
    for text in texts:
        ids.append(content_id(None, text, seen[text]))
        seen[text] += 1
    nats = np.divide(losses.nll, losses.tokens, out=np.full(len(texts), np.nan), where=losses.tokens > 0)
    return item_frame(NATS, ids, list(nats))


def perplexity_ratio(after: TextLosses, before: TextLosses, *, bootstrap: int, seed: int) -> MetricResult:
    """Perplexity of one variant over another's on the same tokens, with a paired bootstrap interval over texts.

    exp(Σ (nll_after − nll_before) / Σ tokens). Raises ArtefactError when the texts or their tokens are not the same.
    """
    if list(after.tokens) != list(before.tokens):
        raise ArtefactError("The two perplexities were not measured on the same tokens.", "Evaluate both variants again.")
    change = bootstrap_ratio(after.nll - before.nll, after.tokens, draws=bootstrap, seed=seed)
    return MetricResult(
        name="perplexity_ratio",
        value=math.exp(change.value),
        low=math.exp(change.low),
        high=math.exp(change.high),
        n=int((after.tokens > 0).sum()),
        convention=(
            f"perplexity after / before over the same {int(after.tokens.sum())} tokens; paired bootstrap 95 % interval over texts, "
            f"{bootstrap} draws"
        ),
    )


def write_losses(losses: TextLosses, path: Path) -> None:
    """One Parquet file with the columns nll, tokens."""
    pd.DataFrame({"nll": losses.nll, "tokens": losses.tokens}).to_parquet(path, index=False)


def read_losses(path: Path) -> TextLosses:
    """Inverse of `write_losses`. Raises ArtefactError for a file that is not such a table."""
    try:
        table = pd.read_parquet(path, columns=["nll", "tokens"])
    except (OSError, pa.ArrowException) as error:
        raise ArtefactError(f"{path.name} holds no losses of texts ({error}).", "Evaluate the variant again.") from error
    return TextLosses(nll=table["nll"].to_numpy(dtype=np.float64), tokens=table["tokens"].to_numpy(dtype=np.int64))


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.", "Name a file that this user may read.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8 (byte {error.start}).", NOT_UTF8.mend) from error
    refusals = Refusals(str(path), "line")
    for number, line in enumerate(lines, start=1):
        if flaw := flaw_of(line):
            refusals.add(flaw, number)
    refusals.raise_any()
    return [line for line in lines if line.strip()]


def _column(config: PerplexityConfig) -> list[str]:
    table, columns = _table(config)
    refusals = Refusals(config.path, table.unit)
    texts: list[str] = []
    for row in table.rows(columns):
        cells = [row.cells.get(column) for column in columns]
        flaw = row.flaw or flaw_of(*cells) or _empty_flaw(cells)
        if flaw:
            refusals.add(flaw, row.line)
        else:
            texts.append(" ".join(map(str, cells)))
    refusals.raise_any()
    return texts


def _table(config: PerplexityConfig) -> tuple[Table, list[str]]:
    """The table and the columns whose cells make a text."""
    local = local_path(config.path, _DEMO_FILE)
    delimiter = None if local is None else _DELIMITERS.get(local.suffix.lower())
    if _NUMBERED.fullmatch(config.text_column):
        if local is None or delimiter is None:
            raise DataError(f"perplexity.text_column is {config.text_column!r}, but {config.path} names its columns.", "Name one of them.")
        headless, columns = DelimitedFile(local, delimiter, has_header=False), config.text_column.split("+")
        require_columns(headless, config.path, columns)
        return headless, columns
    table = open_source(config.path, "train", demo=_DEMO_FILE)
    try:
        require_columns(table, config.path, [config.text_column])
    except DataError as error:
        if delimiter is None:
            raise
        hint = "If it has no header, number the columns instead: text_column '#2', or '#2+#3' to join two."
        raise DataError(error.what, f"{error.mend} {hint}") from error
    return table, [config.text_column]


def _empty_flaw(cells: Sequence[str | None]) -> Flaw | None:
    return None if all(text and text.strip() for text in cells) else (_EMPTY, "")


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()


def _as_texts(step: Progress) -> Progress:
    return replace(step, stage="evaluation", unit="texts", message="perplexity")


def _behind(context: Sequence[int], ids: Sequence[int], special: Sequence[int]) -> list[int]:
    """A window behind the context, which has the special token in front already."""
    return [*context, *(ids[1:] if ids[0] in special else ids)] if context else list(ids)


def _losses(windows: Sequence[tuple[int, list[int]]], logs: Sequence[NDArray[np.float64]], texts: int) -> TextLosses:
    owners = np.array([owner for owner, _ in windows], dtype=np.int64)
    nll, tokens = np.zeros(texts), np.zeros(texts, dtype=np.int64)
    np.add.at(nll, owners, [-values.sum() for values in logs])
    np.add.at(tokens, owners, [len(values) for values in logs])
    return TextLosses(nll=nll, tokens=tokens)


def _result(losses: TextLosses, window: int, instruction: str, *, bootstrap: int, seed: int) -> MetricResult:
    mean = bootstrap_ratio(losses.nll, losses.tokens, draws=bootstrap, seed=seed)
    told = f", each after the instruction {instruction!r}" if instruction.strip() else ""
    return MetricResult(
        name="perplexity",
        value=math.exp(mean.value),
        low=math.exp(mean.low),
        high=math.exp(mean.high),
        n=int((losses.tokens > 0).sum()),
        not_scored=int((losses.tokens == 0).sum()),
        convention=(
            f"exp(total NLL / total tokens) over {int(losses.tokens.sum())} tokens, the first token of each text given; windows of at most "
            f"{window} tokens{told}; bootstrap 95 % interval over texts, {bootstrap} draws"
        ),
    )
