"""Which rows of a corpus mention which groups: identity terms by bias type, found as whole words.

A mention is no stereotype: the counts say whom a corpus speaks of, and whether a removal takes a group out of it.
Our list holds neither pronouns nor slurs, and words of other use only in phrases (`black people`, not `black`).
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from biasdiff_core.corpus.demo import DEMO_FOLDER
from biasdiff_core.corpus.refusals import listed
from biasdiff_core.errors import DataError

LEXICON = DEMO_FOLDER.parent / "lexicon.csv"
COLUMNS = ["bias_type", "group", "terms"]
SEPARATOR = "|"

_Key = tuple[str, str | None]  # bias type and group, None for any group of the type
_PHRASE = re.compile(r"[\w\s'’‑-]+")
_WORD = re.compile(r"[^\W_]+")


def lexicon_path(workspace: Path) -> Path:
    """The workspace's own lexicon.csv where there is one, else the project's."""
    own = workspace / LEXICON.name
    return own if own.exists() else LEXICON


class Group(NamedTuple):
    """A group and the bias type that it belongs to."""

    bias_type: str
    name: str


class Lexicon:
    """Terms of groups. A term is one or more words; written with a capital it is found only so (`Polish`), else in any case."""

    def __init__(self, terms: Mapping[Group, Iterable[str]]) -> None:
        self.groups = tuple(terms)
        self._terms: defaultdict[tuple[str, ...], list[tuple[tuple[str, ...] | None, Group]]] = defaultdict(list)
        for group, written in terms.items():
            for term in written:
                words = tuple(_WORD.findall(term))
                exact = words if term != term.casefold() else None
                self._terms[_folded(words)].append((exact, group))
        self._longest = max(map(len, self._terms))

    def mentioned(self, text: str) -> set[Group]:
        """The groups that a text mentions. A term never reaches over punctuation other than a hyphen or an apostrophe."""
        found: set[Group] = set()
        for phrase in _PHRASE.findall(text):
            words = tuple(_WORD.findall(phrase))
            folded = _folded(words)
            for start in range(len(words)):
                for end in range(start + 1, min(start + self._longest, len(words)) + 1):
                    terms = self._terms.get(folded[start:end], ())
                    found.update(group for exact, group in terms if exact is None or exact == words[start:end])
        return found


def _folded(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.casefold() for word in words)


def read_lexicon(path: Path = LEXICON) -> Lexicon:
    """A CSV with the columns bias_type, group, terms (separated by `|`); ours, unless another is named.

    Raises DataError for a file that cannot be read, has other columns, or lacks a cell.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, strict=True)
            if reader.fieldnames != COLUMNS:
                raise DataError(f"{path} has the columns {reader.fieldnames}, not {COLUMNS}.", "Write them in the first line.")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}.", f"Give a CSV in UTF-8 such as {LEXICON}.") from error
    terms: defaultdict[Group, list[str]] = defaultdict(list)
    incomplete = []
    for line, row in enumerate(rows, start=2):
        written = [term for term in (row["terms"] or "").split(SEPARATOR) if _WORD.search(term)]
        if not (row["bias_type"] or "").strip() or not (row["group"] or "").strip() or not written:
            incomplete.append(line)
        else:
            terms[Group(row["bias_type"].strip(), row["group"].strip())] += written
    if incomplete or not terms:
        where = listed(incomplete, "row") if incomplete else "no row at all"
        raise DataError(f"{path} lacks a bias type, a group or its terms: {where}.", "Fill the three cells of every row.")
    return Lexicon(terms)


@dataclass(frozen=True, kw_only=True)
class Mentions:
    """How many rows mention a group (`group` None: any group of the type), `before` and `after` a removal."""

    bias_type: str
    group: str | None
    before: int
    after: int


def mentions(texts: Mapping[str, str], lexicon: Lexicon, removed: Collection[str] = ()) -> list[Mentions]:
    """Rows that mention each type and each of its groups, in the lexicon's order. `texts`: by id; `removed`: ids taken out.

    A row counts once for each group that it mentions, and once for each type. Raises DataError for an id that is not among the texts.
    """
    gone = set(removed)
    if unknown := gone - texts.keys():
        raise DataError(f"{len(unknown)} removed id(s) are not in the corpus, e.g. {min(unknown)}.", "Use ids of this audit's ranking.")
    before, after = Counter[_Key](), Counter[_Key]()
    for id_, text in texts.items():
        found = lexicon.mentioned(text)
        keys = {*found, *((group.bias_type, None) for group in found)}
        before.update(keys)
        if id_ not in gone:
            after.update(keys)
    return [Mentions(bias_type=key[0], group=key[1], before=before[key], after=after[key]) for key in _keys(lexicon.groups)]


def _keys(groups: Iterable[Group]) -> Iterator[_Key]:
    """Each bias type, followed by its groups."""
    by_type: defaultdict[str, list[Group]] = defaultdict(list)
    for group in groups:
        by_type[group.bias_type].append(group)
    for bias_type, members in by_type.items():
        yield bias_type, None
        yield from members
