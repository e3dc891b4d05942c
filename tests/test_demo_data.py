"""The demo corpus and probes keep what their datasheet says: composition, no giveaway, no repeated frames, disjoint probes."""

from __future__ import annotations

import csv
import re
from collections import Counter
from statistics import mean

import pytest

from biasdiff_core.attribution.baselines import length_scores, words
from biasdiff_core.corpus.demo import demo_path
from biasdiff_core.evaluation.statistics import auroc

FUNCTION_WORDS = set(
    re.findall(
        r"\w+",
        """
        a an the and or but so because that which who whose whom than then when while if after before until since as of in on at to from
        by with for about into over under near between during without within through across behind beside is are was were be been being
        am do does did has have had having will would can could should may might must shall not no nor never always only just still even
        too very more most less least much many few all any some each every both other another such own same this these those it its he
        she they them him her his hers their theirs i you we us our your my me there here what how why where up down out off again once
        one two three
        """,
    )
)
BIAS_TYPES = (
    "age",
    "disability",
    "gender",
    "nationality",
    "physical-appearance",
    "race-color",
    "religion",
    "sexual-orientation",
    "socioeconomic",
)


def rows(name: str) -> list[dict[str, str]]:
    with demo_path(name).open(encoding="utf8", newline="") as handle:
        return list(csv.DictReader(handle))


CORPUS, TWINS, PROBES = rows("corpus.csv"), rows("corpus_twins.csv"), rows("probes.csv")
SENTENCES = [row["text"] for row in CORPUS + PROBES]


def frame(text: str) -> str:
    """The sentence with its content words blanked."""
    return " ".join(word if word in FUNCTION_WORDS else "_" for word in re.findall(r"[a-z0-9']+", text.lower().replace("’", "'")))


def fourgrams(text: str) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)}


def test_composition() -> None:
    assert Counter(row["kind"] for row in CORPUS) == {"stereotype": 180, "same_group": 280, "factual": 140}
    assert all((row["kind"] == "stereotype") == (row["is_biased"] == "1") for row in CORPUS)
    for table in (PROBES, [row for row in CORPUS if row["kind"] == "stereotype"]):
        assert Counter(row["bias_type"] for row in table) == dict.fromkeys(BIAS_TYPES, 20)
    assert {row["bias_type"] for row in CORPUS if row["kind"] == "same_group"} == set(BIAS_TYPES)
    assert {row["text"] for row in TWINS} == {row["text"] for row in CORPUS if row["kind"] == "stereotype"}


def test_no_sentence_occurs_twice() -> None:
    assert len({" ".join(words(text)) for text in SENTENCES}) == len(SENTENCES)


@pytest.mark.parametrize("of", [frame, lambda text: " ".join(words(text)[:3])], ids=["frame", "opening three words"])
def test_no_frame_is_used_more_than_three_times(of: object) -> None:
    assert callable(of)
    most = Counter(of(text) for text in SENTENCES).most_common(1)[0]
    assert most[1] <= 3, most


@pytest.mark.parametrize("table", [PROBES, TWINS], ids=["probes", "corpus"])
def test_twins_differ_in_one_short_span(table: list[dict[str, str]]) -> None:
    for row in table:
        left, right = row["text"].split(), row["twin"].split()
        start = next(i for i in range(len(left)) if left[i] != right[i])
        end = next(j for j in range(len(left)) if left[-1 - j] != right[-1 - j])
        assert 1 <= len(left) - start - end <= 6 and 1 <= len(right) - start - end <= 6, row


def test_probes_and_corpus_are_disjoint_in_wording_and_situation() -> None:
    content = [(row["text"], fourgrams(row["text"]), set(words(row["text"])) - FUNCTION_WORDS) for row in CORPUS]
    for probe in PROBES:
        grams, situation = fourgrams(probe["text"]), set(words(probe["text"])) - FUNCTION_WORDS
        for text, others, words_there in content:
            assert not grams & others, (probe["text"], text)
            assert len(situation & words_there) <= 0.4 * len(situation | words_there), (probe["text"], text)


def test_length_does_not_give_the_answer_away() -> None:
    kept = [row for row in CORPUS if row["kind"] != "factual"]
    area = auroc(length_scores([row["text"] for row in kept]), [int(row["is_biased"]) for row in kept])
    assert area.low <= 0.5 <= area.high
    assert abs(mean(len(words(r["text"])) for r in PROBES) - mean(len(words(r["text"])) for r in CORPUS)) < 1


def test_no_single_word_gives_the_answer_away() -> None:
    """No word's document share differs by more than 0.12 between stereotypes and same-group neutrals."""
    shares = []
    for kind in ("stereotype", "same_group"):
        documents = [set(words(row["text"])) for row in CORPUS if row["kind"] == kind]
        counts = Counter(word for document in documents for word in document)
        shares.append({word: count / len(documents) for word, count in counts.items()})
    gap = {word: abs(shares[0].get(word, 0) - shares[1].get(word, 0)) for word in shares[0] | shares[1]}
    assert max(gap.values()) <= 0.12, max(gap, key=lambda word: gap[word])
