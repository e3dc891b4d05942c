"""What a corpus consists of: counts, lengths, duplicates; the figures of the corpus page."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from biasdiff_core.corpus.examples import TrainingExample, content_id

Groups = tuple[tuple[str, ...], ...]
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class CorpusReport:
    """How reading went and what was read.

    `digest`: SHA-256 of the source (of the ids, for a dataset of the hub). `empty_lines`: rows left out for having no text.
    `truncated_lines`: rows cut to the token limit. `unprompted_lines`: rows whose prompt is empty. `duplicate_groups`: ids of
    equal content. `near_duplicate_groups`: ids that are equal but for case, punctuation and white space, where the content is
    not all the same. `labels`, `sources`, `groups`: examples by value, `unknown` where the cell is empty, nothing where there
    is no column. `words_*`: length of the learned text in words.
    """

    source: str
    digest: str
    rows_read: int
    rows_used: int
    empty_lines: tuple[int, ...]
    truncated_lines: tuple[int, ...]
    duplicate_groups: Groups
    near_duplicate_groups: Groups
    labels: Mapping[str, int]
    sources: Mapping[str, int]
    groups: Mapping[str, int]
    words_min: int
    words_median: float
    words_max: int
    unprompted_lines: tuple[int, ...] = ()  # came later: older reports have none

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> CorpusReport:
        """Inverse of `to_json`. Raises TypeError on unknown fields."""
        lines = {name: tuple(record.get(name, ())) for name in ("empty_lines", "truncated_lines", "unprompted_lines")}
        groups = {name: tuple(map(tuple, record[name])) for name in ("duplicate_groups", "near_duplicate_groups")}
        return cls(**{**record, **lines, **groups})


@dataclass(frozen=True, kw_only=True)
class CorpusCount:
    """How many rows were read, used, left out for having no text, and learned without a prompt; `repeated`: groups of equal content."""

    rows_read: int
    rows_used: int
    empty: int
    unprompted: int
    repeated: int
    labels: Mapping[str, int]


class _Spaces(dict[int, str]):
    """Translation table, filled as characters come: separators, control characters and punctuation become spaces."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = " " if unicodedata.category(char)[0] in "PZC" else char
        return self[code]


_SPACES = _Spaces()


def normalised(text: str) -> str:
    """`text` without case, punctuation and white space but single spaces; a text of punctuation alone stays as it is."""
    return " ".join(text.casefold().translate(_SPACES).split()) or text


def duplicate_groups(examples: Iterable[TrainingExample]) -> tuple[Groups, Groups]:
    """(exact, near): ids of examples with the same prompt and text; and with the same ones once normalised, unless all are exact."""
    exact: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for example in examples:
        exact[example.prompt or "", example.text].append(example.id)
    near: defaultdict[str, list[list[str]]] = defaultdict(list)  # by a digest, for the normalised texts are as large as the corpus
    for (prompt, text), ids in exact.items():
        near[content_id(normalised(prompt), normalised(text), 0)].append(ids)
    return (
        tuple(tuple(ids) for ids in exact.values() if len(ids) > 1),
        tuple(tuple(id_ for ids in group for id_ in ids) for group in near.values() if len(group) > 1),
    )


def counted(values: Iterable[str | int | None]) -> dict[str, int]:
    """Number of examples by value, the most frequent first, then by name."""
    counts = Counter(UNKNOWN if value is None else str(value) for value in values)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def word_lengths(examples: Sequence[TrainingExample]) -> dict[str, Any]:
    """`words_min`, `words_median`, `words_max` of the learned texts."""
    lengths = [len(example.text.split()) for example in examples]
    return {"words_min": min(lengths), "words_median": float(median(lengths)), "words_max": max(lengths)}
