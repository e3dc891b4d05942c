"""Our own probing sets keep what their datasheet says: composition, one differing span, no repeats, apart from corpus and evaluation."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from biasdiff_core.config import CorpusConfig, CrowsPairsConfig, ProbeConfig
from biasdiff_core.config.generation import BIAS_TYPES, PairRules
from biasdiff_core.corpus.demo import DEMO_FOLDER
from biasdiff_core.corpus.examples import ProbeSet
from biasdiff_core.corpus.generation.judge import Judge, Rejection
from biasdiff_core.corpus.generation.parse import Candidate
from biasdiff_core.corpus.probe_texts import GROUP_WORDS, ngram_overlap, word_spans, words_of
from biasdiff_core.corpus.probes import LeakageReport, leakage, read_probes
from biasdiff_core.corpus.read import read_corpus
from biasdiff_core.corpus.summary import normalised
from biasdiff_core.evaluation.pairs import pair_texts

DATA = Path(os.environ.get("BIASDIFF_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))
FOLDER = DEMO_FOLDER.parent / "probes"
PER_TYPE = {"en": 50, "es": 5, "zh": 5}
RULES = PairRules(min_words=6, max_words=25, max_overlap=0.5)
# The second holds the revision of 2022 and 210 pairs more.
CROWS_PAIRS = ("crows_pairs/crows_pairs_anonymized.csv", "crows_pairs_revised/crows_pairs_EN_revised+210.csv")

Row = dict[str, str]
Tokens = tuple[str, ...]


def rows_of(path: Path) -> list[Row]:
    with path.open(encoding="utf8", newline="") as handle:
        return list(csv.DictReader(handle))


SETS = {language: rows_of(FOLDER / f"{language}.csv") for language in PER_TYPE}
DEMO = [
    row[column]
    for name in ("corpus.csv", "corpus_twins.csv", "probes.csv")
    for row in rows_of(DEMO_FOLDER / name)
    for column in ("text", "twin")
    if column in row
]


def tokens_of(language: str, text: str) -> Tokens:
    """Words; characters where words are written without spaces."""
    return tuple("".join(words_of(text))) if language == "zh" else words_of(text)


def both(rows: Iterable[Row]) -> list[str]:
    return [row[column] for row in rows for column in ("text", "twin")]


def frame(language: str, row: Row) -> Tokens:
    """The probe with the group blanked."""
    text, twin = tokens_of(language, row["text"]), tokens_of(language, row["twin"])
    start = next(at for at in range(len(text)) if text[at] != twin[at])
    end = next(at for at in range(len(text)) if text[-1 - at] != twin[-1 - at])
    return (*text[:start], "_", *text[len(text) - end :])


def opening(language: str, row: Row) -> Tokens:
    return tokens_of(language, row["text"])[:4]


def probes(language: str) -> tuple[ProbeSet, list[str]]:
    return read_probes(ProbeConfig(path=str(FOLDER / f"{language}.csv"), twin_column="twin", bias_type_column="bias_type"))


def refused(rows: Iterable[Row], references: dict[str, list[str]], *, english: bool = True) -> list[Rejection]:
    judge = Judge(RULES, references, english=english)
    found = (judge.judge(Candidate(cells=dict(row), raw=row["text"])) for row in rows)
    return [row for row in found if isinstance(row, Rejection)]


def sharing_a_run(rows: Iterable[Row], others: Iterable[str]) -> list[str]:
    """The texts and twins with five words in a row that stand in `others`. (A text of fewer words has a share of NaN.)"""
    texts = both(rows)
    return [text for text, share in zip(texts, ngram_overlap(texts, others), strict=True) if share > 0]


@pytest.mark.parametrize("language", PER_TYPE)
def test_reads_whole_with_the_projects_bias_types(language: str) -> None:
    found, notes = probes(language)
    assert notes == [] and all(probe.twin for probe in found)
    assert Counter(probe.bias_type for probe in found) == dict.fromkeys(BIAS_TYPES, PER_TYPE[language])


@pytest.mark.parametrize("language", PER_TYPE)
def test_twins_differ_in_one_short_span(language: str) -> None:
    for row in SETS[language]:
        spans = word_spans(tokens_of(language, row["text"]), tokens_of(language, row["twin"]))
        assert len(spans) == 1 and all(1 <= len(side) <= GROUP_WORDS for side in spans[0]), (row["text"], spans)


def test_no_sentence_occurs_twice() -> None:
    counts = Counter(normalised(text) for rows in SETS.values() for text in both(rows))
    assert counts.most_common(1)[0][1] == 1, counts.most_common(3)
    assert len(counts) == 2 * len(BIAS_TYPES) * sum(PER_TYPE.values())


@pytest.mark.parametrize("of", [frame, opening], ids=["frame", "opening four words"])
@pytest.mark.parametrize("language", PER_TYPE)
def test_no_frame_is_used_more_than_three_times(language: str, of: Callable[[str, Row], Tokens]) -> None:
    most = Counter(of(language, row) for row in SETS[language]).most_common(1)[0]
    assert most[1] <= 3, most


def test_many_groups_and_many_lengths() -> None:
    for kind in BIAS_TYPES:
        assert len({row["group"] for row in SETS["en"] if row["bias_type"] == kind}) >= 12, kind
    assert all(row["group"] and row["group"] == row["group"].lower() for rows in SETS.values() for row in rows)
    lengths = Counter(len(row["text"].split()) for row in SETS["en"])
    assert min(lengths) <= 7 and max(lengths) >= 24 and max(lengths.values()) <= 0.15 * len(SETS["en"]), lengths


@pytest.mark.parametrize("language", ["en", "es"])
def test_pairs_keep_to_the_rules_and_resemble_neither_each_other_nor_the_demo(language: str) -> None:
    assert refused(SETS[language], {"the demo": DEMO}, english=language == "en") == []


def test_a_near_duplicate_of_the_demo_or_of_another_row_would_be_refused() -> None:
    first, second = SETS["en"][:2]
    assert [row.raw for row in refused([first, {**first, "text": f"{first['text']} Yes."}], {})] == [f"{first['text']} Yes."]
    assert [row.raw for row in refused([first, second], {"the demo": [second["twin"].upper()]})] == [second["text"]]


@pytest.mark.parametrize("language", PER_TYPE)
def test_nothing_leaks_into_the_demo(language: str) -> None:
    corpus = read_corpus(CorpusConfig()).corpus
    assert leakage(probes(language)[0], corpus, DEMO) == LeakageReport(in_corpus=(), in_evaluation=())
    assert sharing_a_run(SETS[language], DEMO) == []


@pytest.mark.parametrize("name", CROWS_PAIRS)
def test_nothing_leaks_into_crows_pairs(name: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"needs {name} under BIASDIFF_DATA")
    scored = pair_texts(CrowsPairsConfig(path=str(DATA / name)))
    assert refused(SETS["en"], {"CrowS-Pairs": scored}) == []
    assert sharing_a_run(SETS["en"], scored) == []


def test_the_datasheet_gives_the_number_of_rows() -> None:
    datasheet = (FOLDER / "datasheet.md").read_text(encoding="utf8")
    for language, rows in SETS.items():
        assert f"| `{language}.csv` | {len(rows)} |" in datasheet
