"""Recipes for the paper's other probing sets (appendices C and G): CrowS-Pairs, SEAT and Winogender in place of D_diff.

A probing set that was made of a benchmark must not be judged by that benchmark: hence the paper's cross-validation.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biasdiff_core.corpus.card import Built, Taken, built
from biasdiff_core.corpus.catalogue import SPLIT, published_file
from biasdiff_core.corpus.refusals import Refusals, flaw_of
from biasdiff_core.corpus.sources import DEMO, open_source, require_columns
from biasdiff_core.errors import DataError

COLUMNS = ("text", "twin", "bias_type", "source")
ProbeRow = tuple[str, str, str]  # text, its twin or "", bias type

# The tests of social groups over which evaluations of SEAT are averaged, by the bias types of CrowS-Pairs.
SEAT_TESTS: Mapping[str, tuple[str, ...]] = {
    "gender": ("weat6", "weat6b", "weat7", "weat7b", "weat8", "weat8b"),
    "race-color": (
        *("weat3", "weat3b", "weat4", "weat5", "weat5b"),
        *("angry_black_woman_stereotype", "angry_black_woman_stereotype_b"),
    ),
    "religion": ("religion1", "religion1b", "religion2", "religion2b"),
}


@dataclass(frozen=True, kw_only=True)
class Indicator:
    """A probing set. `read(folder or file, generator)` gives its rows; `path`, `what` and `licence` are as of a `Source`."""

    about: str
    path: str
    what: str
    licence: str
    read: Callable[[Path, random.Random], Iterator[ProbeRow]]
    notes: tuple[str, ...] = ()


def indicate(name: str, recipe: Indicator, *, seed: int, data: Path | None) -> Built:
    """The probing set of a recipe, shuffled: columns text, twin, bias_type, source; of rows with the same text the first is kept.

    Raises DataError when its data are missing or cannot be read.
    """
    generator = random.Random(seed)
    found = list(recipe.read(published_file(recipe.path, recipe.what, data), generator))
    distinct: dict[str, ProbeRow] = {}
    for row in found:
        distinct.setdefault(row[0], row)
    rows = [(*row, name) for row in distinct.values()]
    generator.shuffle(rows)
    taken = Taken(
        source=name,
        path=recipe.path,
        licence=recipe.licence,
        label=None,
        rows=len(found),
        repeated=len(found) - len(rows),
        taken=len(rows),
    )
    return built(recipe=name, about=recipe.about, seed=seed, ratio=None, columns=COLUMNS, rows=rows, taken=[taken], notes=recipe.notes)


def _crows_pairs(path: Path, _: random.Random) -> Iterator[ProbeRow]:
    for row in _records(path, ("sent_more", "sent_less", "bias_type")):
        yield row["sent_more"], row["sent_less"], row["bias_type"]


def _winogender(folder: Path, _: random.Random) -> Iterator[ProbeRow]:
    """Of each sentence whose pronoun means the occupation (answer 0), the form in its usual gender, with the other as twin."""
    statistics = _records(folder / "occupations-stats.tsv", ("occupation", "bls_pct_female"))
    usual = {row["occupation"]: "female" if float(row["bls_pct_female"]) > 50 else "male" for row in statistics}
    sentences = {row["sentid"]: row["sentence"] for row in _records(folder / "all_sentences.tsv", ("sentid", "sentence"))}
    for name, sentence in sentences.items():
        occupation, participant, answer, gender, _ = name.split(".")
        if answer == "0" and gender == usual[occupation]:
            other = "male" if gender == "female" else "female"
            yield sentence, sentences[f"{occupation}.{participant}.0.{other}.txt"], "gender"


def _seat(folder: Path, generator: random.Random) -> Iterator[ProbeRow]:
    """Each sentence of a test's second target (the stereotyped one) with a drawn sentence of its second attribute."""
    for bias_type, names in SEAT_TESTS.items():
        for name in names:
            targets, attributes = _second_sets(folder / f"sent-{name}.jsonl")
            for target in targets:
                yield f"{target} {generator.choice(attributes)}", "", bias_type


def _second_sets(path: Path) -> tuple[list[str], list[str]]:
    try:
        test = json.loads(path.read_text(encoding="utf8"))
        return test["targ2"]["examples"], test["attr2"]["examples"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} is no test of SEAT ({error}).", "Put the files sent-*.jsonl of W4ngatang/sent-bias there.") from error


def _records(path: Path, columns: tuple[str, ...]) -> list[Mapping[str, Any]]:
    table = open_source(str(path), SPLIT, demo=DEMO)
    require_columns(table, str(path), columns)
    refusals = Refusals(str(path), table.unit)
    records = []
    for row in table.rows(columns):
        if flaw := row.flaw or flaw_of(*row.cells.values()):
            refusals.add(flaw, row.line)
        elif row.cells:
            records.append(row.cells)
    refusals.raise_any()
    return records


INDICATORS: Mapping[str, Indicator] = {
    "wino": Indicator(
        about="Winogender: the pronoun that most people of an occupation have, the other as its twin",
        path="winogender",
        what="all_sentences.tsv and occupations-stats.tsv of rudinger/winogender-schemas",
        licence="MIT",
        read=_winogender,
        notes=(
            "Of the 720 sentences only those whose pronoun means the occupation, in its usual gender by the US statistics that come with "
            "them (bls_pct_female over 50: female): the paper does not say which it took, but its examples are of this kind.",
        ),
    ),
    "crows": Indicator(
        about="CrowS-Pairs: sent_more, the more stereotyping sentence, with sent_less as its twin",
        path="crows_pairs/crows_pairs_anonymized.csv",
        what="crows_pairs_anonymized.csv of nyu-mll/crows-pairs",
        licence="CC BY-SA 4.0",
        read=_crows_pairs,
        notes=("Do not evaluate on CrowS-Pairs what was found with these probes.",),
    ),
    "seat": Indicator(
        about="SEAT: a sentence of the stereotyped group with one of what is held against it",
        path="seat",
        what="the files sent-*.jsonl of W4ngatang/sent-bias, with those of bias-bench for religion",
        licence="CC BY-NC 4.0",
        read=_seat,
        notes=(
            "A sentence of the second target and one, drawn by the seed, of the second attribute of each test, as in the paper's examples.",
            "Do not evaluate on SEAT what was found with these probes.",
        ),
    ),
}
