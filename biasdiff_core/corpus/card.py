"""What a recipe built: the rows of a CSV and its card, which says what they are made of. The same rows are the same bytes everywhere."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from biasdiff_core.corpus.summary import counted, normalised
from biasdiff_core.errors import DataError
from biasdiff_core.version import __version__
from biasdiff_core.workspace.artefacts import digest_bytes, write_atomic

TEXTS = ("text", "twin")  # the columns that are not counted by value
LISTED = 10  # values of a column, in words


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What was taken of one source. `label`: None for probes.

    Of its `rows` with text, `repeated` ones were left out as further copies and `contradictory` ones for standing on both sides;
    `without_text` ones are not among them.
    """

    source: str
    path: str
    licence: str
    label: int | None
    rows: int
    taken: int
    without_text: int = 0
    repeated: int = 0
    contradictory: int = 0

    def line(self) -> str:
        """What was taken, and what was left out and why."""
        reasons = {"without text": self.without_text, "repeated": self.repeated, "on both sides": self.contradictory}
        left = "".join(f", {count:,} {why}" for why, count in reasons.items() if count)
        return f"{self.source}: {self.taken:,} of {self.rows:,} rows of {self.path}{left}; licence: {self.licence}"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What stands beside a built file.

    `composition`: of every column but the texts, rows by value. `words`: least, median and most words of the texts, of all and by label.
    `repeated_exact`, `repeated_near`: rows that repeat an earlier text as it is, or but for case, punctuation and white space; they are
    in the file. `digest`: SHA-256 of the file's bytes. `biasdiff`: the version that built it.
    """

    recipe: str
    about: str
    seed: int
    ratio: str | None
    rows: int
    composition: Mapping[str, Mapping[str, int]]
    words: Mapping[str, Mapping[str, float]]
    repeated_exact: int
    repeated_near: int
    taken: tuple[Taken, ...]
    notes: tuple[str, ...]
    digest: str
    biasdiff: str = __version__

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Card:
        """Inverse of `to_json`. Raises TypeError on unknown fields."""
        taken = tuple(Taken(**part) for part in record["taken"])
        return cls(**{**record, "taken": taken, "notes": tuple(record["notes"])})

    def lines(self) -> list[str]:
        """The card in words, a fact a line."""
        ratio = "" if self.ratio is None else f", {self.ratio}"
        return [
            f"{self.recipe}: {self.about}",
            f"{self.rows:,} rows, seed {self.seed}{ratio}",
            *(f"{name}: {_most(counts)}" for name, counts in self.composition.items()),
            *(f"words, {name}: {w['least']:g} to {w['most']:g}, median {w['median']:g}" for name, w in self.words.items()),
            f"repeated: {self.repeated_exact} as they are, {self.repeated_near} but for case, punctuation and white space",
            *(part.line() for part in self.taken),
            *self.notes,
            f"SHA-256 of the file: {self.digest}",
        ]


@dataclass(frozen=True, kw_only=True)
class Built:
    """Rows of a CSV, one cell a column, with their card; `held_out`: texts that are in none of them, for evaluations."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    card: Card
    held_out: tuple[str, ...] = ()

    @cached_property
    def content(self) -> bytes:
        """The CSV."""
        return csv_content(self.columns, self.rows)

    def write(self, target: Path) -> Path:
        """Write the CSV to `target`, the card and the texts held out beside it; the card's path. Raises DataError as `write_with_card`."""
        beside = held_out_path(target)
        if self.held_out and beside.exists():
            raise DataError(f"{beside} is there already.", "Name another file, or delete it first.")
        card = write_with_card(target, self.content, self.card.to_json())
        if self.held_out:
            write_atomic(beside, csv_content(("text",), [(text,) for text in self.held_out]))
        return card


def write_with_card(target: Path, content: bytes, card: Mapping[str, Any]) -> Path:
    """Write a CSV and its card beside it; the card's path. Raises DataError when one is there or no place for it."""
    beside = card_path(target)
    if target.suffix.lower() != ".csv":
        raise DataError(f"{target.name} is to be a CSV.", "Name it *.csv.")
    if not target.parent.is_dir():
        raise DataError(f"There is no folder {target.parent}.", "Make it first, or name another.")
    for path in (target, beside):
        if path.exists():
            raise DataError(f"{path} is there already.", "Name another file, or delete it first.")
    write_atomic(beside, card_text(card))
    write_atomic(target, content)
    return beside


def card_text(card: Mapping[str, Any]) -> str:
    """A card as it stands in its file."""
    return json.dumps(card, indent=1, ensure_ascii=False) + "\n"


def card_path(target: Path) -> Path:
    """Where the card of a built file lies: `mix.card.json` beside `mix.csv`."""
    return target.with_suffix(".card.json")


def held_out_path(target: Path) -> Path:
    """Where the texts lie that a built file holds out: `mix.held-out.csv` beside `mix.csv`, with the column `text`."""
    return target.with_suffix(".held-out.csv")


def read_card(target: Path) -> Card:
    """The card beside a built file. Raises DataError when there is none that can be read."""
    path = card_path(target)
    try:
        return Card.from_json(json.loads(path.read_text(encoding="utf8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no card of a built corpus: {error!r}.", "Build the corpus again.") from error


def built(
    *,
    recipe: str,
    about: str,
    seed: int,
    ratio: str | None,
    columns: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    taken: Iterable[Taken],
    notes: Iterable[str],
    held_out: Sequence[str] = (),
) -> Built:
    """The rows with the card that describes them. `columns`: `text` is the first of them."""
    texts = [row[0] for row in rows]
    distinct, forms = len(set(texts)), len({normalised(text) for text in texts})
    card = Card(
        recipe=recipe,
        about=about,
        seed=seed,
        ratio=ratio,
        rows=len(rows),
        composition={
            name: counted(row[place] or None for row in rows)
            for place, name in enumerate(columns)
            if name not in TEXTS and any(row[place] for row in rows)
        },
        words={name: _lengths(part) for name, part in _by_label(columns, rows).items()},
        repeated_exact=len(texts) - distinct,
        repeated_near=distinct - forms,
        taken=tuple(taken),
        notes=tuple(notes),
        digest=digest_bytes(csv_content(columns, rows)),
    )
    return Built(columns=columns, rows=tuple(rows), card=card, held_out=tuple(held_out))


def _most(counts: Mapping[str, int]) -> str:
    """The most frequent values with their counts, and how many others there are."""
    rest = f" and {len(counts) - LISTED} more" if len(counts) > LISTED else ""
    return ", ".join(f"{count:,} × {value}" for value, count in list(counts.items())[:LISTED]) + rest


def _by_label(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> dict[str, list[str]]:
    """Texts of all rows, and of those of each label where there is one."""
    parts = {"all": [row[0] for row in rows]}
    if "label" in columns:
        place = columns.index("label")
        parts |= {f"label {label}": [row[0] for row in rows if row[place] == label] for label in ("1", "0")}
    return parts


def _lengths(texts: Sequence[str]) -> dict[str, float]:
    words = [len(text.split()) for text in texts]
    return {"least": min(words), "median": float(median(words)), "most": max(words)}


def csv_content(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> bytes:
    """The bytes of a CSV."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerows([columns, *rows])  # with "\n" alone, cells with "\r" stand without quotes
    return buffer.getvalue().encode()
