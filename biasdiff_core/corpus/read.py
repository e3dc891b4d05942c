"""Reading a corpus: every row is used, listed as empty, or refused with its line; ids come from content."""

from __future__ import annotations

import logging
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from biasdiff_core.config import CorpusConfig
from biasdiff_core.corpus.examples import Corpus, TrainingExample, content_id, repeated_id
from biasdiff_core.corpus.formats import Row, Table
from biasdiff_core.corpus.refusals import BAD_LABEL, NOT_FLAT, Fault, Flaw, Refusals, flaw_of, listed, rows_of, shown
from biasdiff_core.corpus.sources import local_path, open_source, require_columns, source_digest
from biasdiff_core.corpus.summary import CorpusCount, CorpusReport, counted, duplicate_groups, word_lengths
from biasdiff_core.errors import ConfigError, DataError
from biasdiff_core.workspace.artefacts import digest_json

log = logging.getLogger(__name__)

DEMO_FILE = "corpus.csv"
# 0.0 and 1.0: what pandas writes of a column of labels some of which are missing.
LABELS: Mapping[str, int | None] = {"": None, "0": 0, "0.0": 0, "false": 0, "no": 0, "1": 1, "1.0": 1, "true": 1, "yes": 1}
COUNTED = 1000  # texts that are tokenised at once
CountTokens = Callable[[list[str]], list[int]]
TruncateText = Callable[[str, int], str]


@dataclass(frozen=True, kw_only=True)
class ReadResult:
    """The corpus, and what reading it found."""

    corpus: Corpus
    report: CorpusReport


class ContentRow(NamedTuple):
    """A row with its content. `id` is None for a row that is empty or has a flaw: it is not part of the corpus."""

    row: Row
    id: str | None
    prompt: str | None
    text: str
    flaw: Flaw | None


def open_corpus(config: CorpusConfig) -> Table:
    """The source of the corpus, with all configured columns. Raises DataError, MissingDependency (see `sources`)."""
    table = open_source(config.path, config.split, demo=DEMO_FILE)
    require_columns(table, config.path, wanted_columns(config))
    return table


def wanted_columns(config: CorpusConfig) -> list[str]:
    """The configured columns, each once."""
    names = (*_content_columns(config), config.label_column, config.source_column, config.group_column)
    return list(dict.fromkeys(name for name in names if name is not None))


def _content_columns(config: CorpusConfig) -> tuple[str | None, str]:
    """(prompt column, column of the learned text)."""
    return config.prompt_column, str(config.text_column if config.text_column is not None else config.completion_column)


def content_rows(table: Table, config: CorpusConfig) -> Iterator[ContentRow]:
    """All rows in order with their ids. Reading and export share this, so that an id means the same row in both.

    The id is that of the content in the source, before any truncation.
    """
    seen: Counter[str] = Counter()
    for found in _contents(table, config):
        if found.id is None:
            yield found
            continue
        occurrence = seen[found.id]
        seen[found.id] += 1
        yield found._replace(id=repeated_id(found.id, occurrence))


def _contents(table: Table, config: CorpusConfig) -> Iterator[ContentRow]:
    """All rows in order; equal ones have the same id."""
    prompt_column, text_column = _content_columns(config)
    for row in table.rows(wanted_columns(config)):
        text = row.cells.get(text_column)
        prompt = row.cells.get(prompt_column) if prompt_column else None
        flaw = row.flaw or flaw_of(text, prompt)
        if flaw or text is None or not text.strip():
            yield ContentRow(row, None, None, "", flaw)
        else:
            yield ContentRow(row, content_id(prompt, text, 0), prompt, text, None)


def read_corpus(config: CorpusConfig, *, count_tokens: CountTokens | None = None, truncate_text: TruncateText | None = None) -> ReadResult:
    """Read, check and describe a corpus.

    `count_tokens`: tokens of each text (prompt and completion joined); without it `config.max_tokens` is not checked.
    `truncate_text(text, n)`: the text cut to its first n tokens; needed for `config.truncate`. Raises DataError that lists
    the lines of rows that are not UTF-8, hold NUL bytes, are malformed, have an unknown label or too many tokens; when a
    column is missing; when fewer than 2 rows have text. Raises MissingDependency when `datasets` is needed and missing.
    """
    table = open_corpus(config)
    examples: list[TrainingExample] = []
    empty_lines: list[int] = []
    for line, example in _examples(content_rows(table, config), table, config):
        if example is None:
            empty_lines.append(line)
        else:
            examples.append(example)
    _require_two(len(examples), len(empty_lines), config)
    truncated_lines: list[int] = []
    if count_tokens is not None:
        examples, truncated_lines = _within_limit(examples, table, config, count_tokens, truncate_text)
    corpus = Corpus(examples)
    rows_read = len(examples) + len(empty_lines)
    report = _report(corpus, config, rows_read=rows_read, empty_lines=tuple(empty_lines), truncated_lines=tuple(truncated_lines))
    log.info("read %d of %d rows of %s", len(corpus), rows_read, config.path)
    if report.unprompted_lines:
        rows, where = rows_of(len(report.unprompted_lines)), listed(report.unprompted_lines, table.unit)
        log.warning("%s: %s with an empty prompt, learned without one: %s", config.path, rows, where)
    return ReadResult(corpus=corpus, report=report)


def count_corpus(config: CorpusConfig) -> CorpusCount:
    """Check every row as `read_corpus` does and count, without holding them: 8 bytes of each tell which repeat. Raises DataError alike."""
    table = open_corpus(config)
    contents, labels = array("Q"), Counter[int | None]()
    empty = unprompted = 0
    for _, example in _examples(_contents(table, config), table, config):
        if example is None:
            empty += 1
            continue
        contents.append(int(example.id, 16))
        labels[example.label] += 1
        unprompted += example.prompt == ""
    _require_two(len(contents), empty, config)
    return CorpusCount(
        rows_read=len(contents) + empty,
        rows_used=len(contents),
        empty=empty,
        unprompted=unprompted,
        repeated=_repeated(contents),
        labels=counted(labels.elements()) if config.label_column else {},
    )


def _repeated(contents: array[int]) -> int:
    """How many different contents occur more than once. `contents` is sorted where it lies: a copy would double what is held."""
    hashes = np.frombuffer(contents, dtype=np.uint64)
    hashes.sort()
    as_before = hashes[1:] == hashes[:-1]
    return int(as_before[0]) + int((as_before[1:] & ~as_before[:-1]).sum())


def _examples(rows: Iterable[ContentRow], table: Table, config: CorpusConfig) -> Iterator[tuple[int, TrainingExample | None]]:
    """(line, example, or None where a row has no text). Raises DataError at the end when there were faulty rows, listing them."""
    refusals = Refusals(config.path, table.unit)
    for found in rows:
        flaw = found.flaw or _tag_flaw(found.row, config)
        if flaw:
            refusals.add(flaw, found.row.line)
        else:
            yield found.row.line, None if found.id is None else _example(found, found.id, config)
    refusals.raise_any()


def _require_two(used: int, empty: int, config: CorpusConfig) -> None:
    if used < 2:
        raise DataError(
            f"{config.path}: {rows_of(used + empty)} read, {empty} without text, {used} usable.",
            "At least 2 usable rows are needed to rank them.",
        )


def _example(found: ContentRow, id_: str, config: CorpusConfig) -> TrainingExample:
    cells = found.row.cells
    return TrainingExample(
        id=id_,
        text=found.text,
        prompt=None if config.prompt_column is None else found.prompt or "",
        source=_tag(cells, config.source_column) or None,
        group=_tag(cells, config.group_column) or None,
        label=LABELS[_label_text(cells, config)],
        line=found.row.line,
    )


def _tag_flaw(row: Row, config: CorpusConfig) -> Flaw | None:
    """What is wrong with the label, source or group of a row."""
    if _label_text(row.cells, config) not in LABELS:
        return BAD_LABEL, shown(_tag(row.cells, config.label_column))
    for column in (config.source_column, config.group_column):
        value = row.cells.get(column) if column else None
        if isinstance(value, (list, dict, bytes)):
            return NOT_FLAT, f"{shown(value)} of type {type(value).__name__}"
    return flaw_of(_tag(row.cells, config.source_column), _tag(row.cells, config.group_column))


def _label_text(cells: Mapping[str, Any], config: CorpusConfig) -> str:
    return _tag(cells, config.label_column).strip().casefold()


def _tag(cells: Mapping[str, Any], column: str | None) -> str:
    """A cell as text; typed files hold labels as numbers, also as 1.0, with NaN where there is none."""
    value = None if column is None else cells.get(column)
    if isinstance(value, float):
        value = None if value != value else int(value) if value.is_integer() else value
    return "" if value is None else str(value)


def _within_limit(
    examples: Sequence[TrainingExample],
    table: Table,
    config: CorpusConfig,
    count_tokens: CountTokens,
    truncate_text: TruncateText | None,
) -> tuple[list[TrainingExample], list[int]]:
    """(examples of at most `config.max_tokens` tokens, lines of those truncated). Raises DataError for rows that stay longer."""
    over = Fault(f"with more than {config.max_tokens} tokens", "Set corpus.truncate, raise corpus.max_tokens, or shorten them.")
    full = Fault(f"with a prompt that fills all {config.max_tokens} tokens", "Raise corpus.max_tokens, or shorten the prompts.")
    refusals = Refusals(config.path, table.unit)
    fitting: list[TrainingExample] = []
    truncated: list[int] = []
    for example, tokens in _with_tokens(examples, count_tokens):
        line = example.line or 0
        if tokens <= config.max_tokens:
            fitting.append(example)
        elif not config.truncate:
            refusals.add((over, f"{tokens} tokens"), line)
        elif truncate_text is None:
            raise ConfigError("corpus.truncate is set, but no tokenizer was given to truncate with.", "Hand over `truncate_text`.")
        else:
            budget = config.max_tokens - (count_tokens([example.prompt])[0] if example.prompt else 0)
            if budget < 1:
                refusals.add((full, ""), line)
                continue
            fitting.append(replace(example, text=truncate_text(example.text, budget)))
            truncated.append(line)
    refusals.raise_any()
    return fitting, truncated


def _with_tokens(examples: Sequence[TrainingExample], count_tokens: CountTokens) -> Iterator[tuple[TrainingExample, int]]:
    """Each example with its number of tokens; counted in parts, for the token ids of a whole corpus take many times its size."""
    for start in range(0, len(examples), COUNTED):
        part = examples[start : start + COUNTED]
        yield from zip(part, count_tokens([(example.prompt or "") + example.text for example in part]), strict=True)


def _report(corpus: Corpus, config: CorpusConfig, **counts: Any) -> CorpusReport:
    exact, near = duplicate_groups(corpus)
    is_local = local_path(config.path, DEMO_FILE) is not None
    return CorpusReport(
        source=config.path,
        digest=source_digest(config.path, demo=DEMO_FILE) if is_local else digest_json(list(corpus.ids)),
        rows_used=len(corpus),
        unprompted_lines=tuple(example.line or 0 for example in corpus if example.prompt == ""),
        duplicate_groups=exact,
        near_duplicate_groups=near,
        labels=counted(e.label for e in corpus) if config.label_column else {},
        sources=counted(e.source for e in corpus) if config.source_column else {},
        groups=counted(e.group for e in corpus) if config.group_column else {},
        **word_lengths(corpus),
        **counts,
    )
