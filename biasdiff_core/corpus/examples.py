"""Training examples and the corpus: identity is content, order is kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from biasdiff_core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class TrainingExample:
    """One row of the corpus. `text` is learned; with a `prompt`, it is the completion and only it carries loss.

    `id`: 16 hex digits of the hash of prompt and text, `-k` appended for the k-th repetition: never a row number.
    `label`: 1 biased, 0 not, None unknown. `line`: where it stood in the source, for messages only.
    """

    id: str
    text: str
    prompt: str | None = None
    source: str | None = None
    group: str | None = None
    label: int | None = None
    line: int | None = None


def content_id(prompt: str | None, text: str, occurrence: int) -> str:
    """The id of the `occurrence`-th row (from 0) with this content."""
    return repeated_id(hashlib.sha256("\x1f".join(["" if prompt is None else prompt, text]).encode()).hexdigest()[:16], occurrence)


def repeated_id(first: str, occurrence: int) -> str:
    """The id of the `occurrence`-th row (from 0) with the content whose first row has the id `first`."""
    return first if occurrence == 0 else f"{first}-{occurrence}"


class Corpus(Sequence[TrainingExample]):
    """Training examples in stable order with unique ids. Raises DataError when an id repeats or fewer than 2 rows are given."""

    def __init__(self, examples: Iterable[TrainingExample]) -> None:
        self._examples = tuple(examples)
        repeated = [key for key, count in Counter(example.id for example in self._examples).items() if count > 1]
        if repeated:
            raise DataError(f"The id {repeated[0]} occurs more than once in the corpus.", "Build the corpus with `corpus.read`.")
        if len(self._examples) < 2:
            raise DataError(f"The corpus has {len(self._examples)} example(s).", "At least 2 are needed to rank.")

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[TrainingExample]:
        return iter(self._examples)

    def __getitem__(self, index: Any) -> Any:
        return self._examples[index]

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(example.id for example in self._examples)

    @cached_property
    def labels(self) -> list[int] | None:
        """Known labels in corpus order, or None unless every example has one."""
        labels = [example.label for example in self._examples]
        return None if any(label is None for label in labels) else [int(label or 0) for label in labels]

    def without(self, ids: Collection[str]) -> Corpus:
        """The corpus less the examples with these ids. Raises DataError for an id that is not in it."""
        unknown = set(ids) - set(self.ids)
        if unknown:
            raise DataError(f"{len(unknown)} id(s) are not in the corpus, e.g. {sorted(unknown)[0]}.", "Use ids of this audit's ranking.")
        return Corpus(example for example in self._examples if example.id not in set(ids))


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A stereotyped sentence of the probing set D_diff and, where there is one, its anti-stereotype twin (D_anti-diff)."""

    id: str
    text: str
    twin: str | None = None
    bias_type: str = "all"


@dataclass(frozen=True, kw_only=True)
class ProbeSet:
    """The probing set. Raises DataError when it is empty."""

    probes: tuple[Probe, ...]

    def __post_init__(self) -> None:
        if not self.probes:
            raise DataError("The probing set is empty.", "Give at least one stereotyped sentence.")

    def __len__(self) -> int:
        return len(self.probes)

    def __iter__(self) -> Iterator[Probe]:
        return iter(self.probes)

    @property
    def bias_types(self) -> tuple[str, ...]:
        """The bias types that occur, sorted."""
        return tuple(sorted({probe.bias_type for probe in self.probes}))

    @property
    def has_twins(self) -> bool:
        """Whether every probe has a twin."""
        return all(probe.twin for probe in self.probes)
