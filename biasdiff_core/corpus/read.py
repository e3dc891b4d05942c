"""Reading a corpus: every row is used, listed as empty, or refused with its line; ids come from content."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from biasdiff_core.config import CorpusConfig
from biasdiff_core.corpus.examples import Corpus, TrainingExample, content_id
from biasdiff_core.corpus.formats import Row, Table
from biasdiff_core.corpus.refusals import BAD_LABEL, Fault, Flaw, Refusals, flaw_of, rows_of
from biasdiff_core.corpus.sources import local_path, open_source, require_columns, source_digest
from biasdiff_core.corpus.summary import CorpusReport, counted, duplicate_groups, word_lengths
from biasdiff_core.errors import ConfigError, DataError
from biasdiff_core.workspace.artefacts import digest_json

log = logging.getLogger(__name__)

DEMO_FILE = "corpus.csv"
LABELS: Mapping[str, int | None] = {"": None, "0": 0, "false": 0, "no": 0, "1": 1, "true": 1, "yes": 1}
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
    prompt_column, text_column = _content_columns(config)
    seen: Counter[str] = Counter()
    for row in table.rows(wanted_columns(config)):
        text = row.cells.get(text_column)
        prompt = row.cells.get(prompt_column) if prompt_column else None
        flaw = row.flaw or flaw_of(text, prompt)
        if flaw or text is None or not text.strip():
            yield ContentRow(row, None, None, "", flaw)
            continue
        first_id = content_id(prompt, text, 0)
        occurrence = seen[first_id]
        seen[first_id] += 1
        yield ContentRow(row, content_id(prompt, text, occurrence) if occurrence else first_id, prompt, text, None)


def read_corpus(config: CorpusConfig, *, count_tokens: CountTokens | None = None, truncate_text: TruncateText | None = None) -> ReadResult:
    """Read, check and describe a corpus.

    `count_tokens`: tokens of each text (prompt and completion joined); without it `config.max_tokens` is not checked.
    `truncate_text(text, n)`: the text cut to its first n tokens; needed for `config.truncate`. Raises DataError that lists
    the lines of rows that are not UTF-8, hold NUL bytes, are malformed, have an unknown label or too many tokens; when a
    column is missing; when fewer than 2 rows have text. Raises MissingDependency when `datasets` is needed and missing.
    """
    table = open_corpus(config)
    examples, empty_lines = _examples(table, config)
    rows_read = len(examples) + len(empty_lines)
    if len(examples) < 2:
        raise DataError(
            f"{config.path}: {rows_of(rows_read)} read, {len(empty_lines)} without text, {len(examples)} usable.",
            "At least 2 usable rows are needed to rank them.",
        )
    truncated_lines: list[int] = []
    if count_tokens is not None:
        examples, truncated_lines = _within_limit(examples, table, config, count_tokens, truncate_text)
    corpus = Corpus(examples)
    report = _report(corpus, config, rows_read=rows_read, empty_lines=tuple(empty_lines), truncated_lines=tuple(truncated_lines))
    log.info("read %d of %d rows of %s", len(corpus), rows_read, config.path)
    return ReadResult(corpus=corpus, report=report)


def _examples(table: Table, config: CorpusConfig) -> tuple[list[TrainingExample], list[int]]:
    """(examples, lines of the empty rows). Raises DataError listing every faulty row."""
    refusals = Refusals(config.path, table.unit)
    examples: list[TrainingExample] = []
    empty_lines: list[int] = []
    for found in content_rows(table, config):
        flaw = found.flaw or _tag_flaw(found.row, config)
        if flaw:
            refusals.add(flaw, found.row.line)
        elif found.id is None:
            empty_lines.append(found.row.line)
        else:
            examples.append(_example(found, found.id, config))
    refusals.raise_any()
    return examples, empty_lines


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
        return BAD_LABEL, repr(_tag(row.cells, config.label_column))
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
    for example, tokens in zip(examples, count_tokens([(e.prompt or "") + e.text for e in examples]), strict=True):
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


def _report(corpus: Corpus, config: CorpusConfig, **counts: Any) -> CorpusReport:
    exact, near = duplicate_groups(corpus)
    is_local = local_path(config.path, DEMO_FILE) is not None
    return CorpusReport(
        source=config.path,
        digest=source_digest(config.path, demo=DEMO_FILE) if is_local else digest_json(list(corpus.ids)),
        rows_used=len(corpus),
        duplicate_groups=exact,
        near_duplicate_groups=near,
        labels=counted(e.label for e in corpus) if config.label_column else {},
        sources=counted(e.source for e in corpus) if config.source_column else {},
        groups=counted(e.group for e in corpus) if config.group_column else {},
        **word_lengths(corpus),
        **counts,
    )
