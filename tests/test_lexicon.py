"""The lexicon: whole words, capitals where a term has them, counts before and after a removal, and our own list."""

from __future__ import annotations

import csv
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biasdiff_core.corpus.demo import demo_path
from biasdiff_core.corpus.lexicon import LEXICON, SEPARATOR, Group, Lexicon, Mentions, lexicon_path, mentions, read_lexicon
from biasdiff_core.errors import DataError
from tests.test_demo_data import BIAS_TYPES

MEN, WOMEN, POLES, BLACK = (
    Group("gender", "men"),
    Group("gender", "women"),
    Group("nationality", "poles"),
    Group("race-color", "black people"),
)
SMALL = Lexicon({MEN: ["man", "men"], WOMEN: ["woman", "women"], POLES: ["Polish", "Pole"], BLACK: ["black man", "African-American"]})
OURS = read_lexicon()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man left.", {MEN}),
        ("MEN and Women", {MEN, WOMEN}),
        ("The woman's coat; the men’s coats", {MEN, WOMEN}),
        ("Human, mankind, amen, man2", set()),  # parts of words
        ("_man_", {MEN}),  # an underscore is no letter
        ("Polish the floor of the Polish consul", {POLES}),
        ("polish, pole, POLISH", set()),  # a term with a capital is found only so
        ("A black man", {BLACK, MEN}),  # terms may lie in one another
        ("black\n  man", {BLACK, MEN}),
        ("It was black. Man, it was dark", {MEN}),  # no term reaches over a full stop
        ("black, man", {MEN}),
        ("an African American, an African-American", {BLACK}),
        ("an african-american", set()),
        ("a non-Polish firm", {POLES}),
        ("", set()),
        ("…!?", set()),
    ],
)
def test_mentions_by_hand(text: str, expected: set[Group]) -> None:
    assert SMALL.mentioned(text) == expected


def slow(lexicon: dict[Group, list[str]], text: str) -> set[Group]:
    """One regular expression a term: its words, with white space, hyphens or apostrophes between them, and no letter or digit beside."""
    found = set()
    for group, terms in lexicon.items():
        for term in terms:
            words = [re.escape(word) for word in re.findall(r"[^\W_]+", term)]
            pattern = r"(?<![^\W_])" + r"[\s_'’‑-]+".join(words) + r"(?![^\W_])"
            if re.search(pattern, text, 0 if term != term.casefold() else re.IGNORECASE):
                found.add(group)
    return found


TERMS = {MEN: ["man", "old man"], WOMEN: ["woman"], POLES: ["Polish", "a Pole"], BLACK: ["African-American", "black woman"]}
PIECES = st.sampled_from(
    ["man", "old", "woman", "Polish", "polish", "a", "Pole", "African", "American", "black", "the", "MAN", "Old", "mans"]
)
BETWEEN = st.sampled_from([" ", "  ", "-", "’", ". ", ",", "\n", "_", "", "—", "/"])


@settings(max_examples=300)
@given(st.lists(st.tuples(PIECES, BETWEEN), max_size=12))
def test_the_same_as_a_regular_expression_a_term(parts: list[tuple[str, str]]) -> None:
    text = "".join(piece + between for piece, between in parts)
    assert Lexicon(TERMS).mentioned(text) == slow(TERMS, text)


TEXTS = {"a": "a man", "b": "a man and a woman", "c": "a Polish woman", "d": "rain"}


def test_before_and_after_by_hand() -> None:
    """Men: a, b; women: b, c; either: a, b, c. Without b: men a, women c, either a, c."""
    assert mentions(TEXTS, SMALL, ["b"]) == [
        Mentions(bias_type="gender", group=None, before=3, after=2),
        Mentions(bias_type="gender", group="men", before=2, after=1),
        Mentions(bias_type="gender", group="women", before=2, after=1),
        Mentions(bias_type="nationality", group=None, before=1, after=1),
        Mentions(bias_type="nationality", group="poles", before=1, after=1),
        Mentions(bias_type="race-color", group=None, before=0, after=0),
        Mentions(bias_type="race-color", group="black people", before=0, after=0),
    ]


@given(st.sets(st.sampled_from(sorted(TEXTS))))
def test_laws_of_a_removal(removed: set[str]) -> None:
    found = mentions(TEXTS, SMALL, removed)
    left = mentions({id_: text for id_, text in TEXTS.items() if id_ not in removed}, SMALL)
    assert [one.after for one in found] == [one.before for one in left]
    assert all(0 <= one.before - one.after <= len(removed) for one in found)
    for whole in (one for one in found if one.group is None):
        parts = [one.before for one in found if one.bias_type == whole.bias_type and one.group is not None]
        assert max(parts) <= whole.before <= sum(parts)


def test_an_unknown_id_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 removed id\(s\) are not in the corpus, e.g. x"):
        mentions(TEXTS, SMALL, ["a", "x"])


def test_our_list_is_sound() -> None:
    with LEXICON.open(encoding="utf8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert tuple(dict.fromkeys(row["bias_type"] for row in rows)) == BIAS_TYPES
    assert len({(row["bias_type"], row["group"]) for row in rows}) == len(rows)
    for row in rows:
        terms = row["terms"].split(SEPARATOR)
        assert len(set(terms)) == len(terms) and all(term == " ".join(term.split()) for term in terms), row["group"]
        for term in terms:
            assert Group(row["bias_type"], row["group"]) in OURS.mentioned(f"Where {term}, there it was."), term


def own_type_share(rows: list[dict[str, str]], bias_types: list[str]) -> float:
    """Share of rows that mention a group of the bias type given for them."""
    hits = [
        bias_type in {group.bias_type for group in OURS.mentioned(row["text"])} for row, bias_type in zip(rows, bias_types, strict=True)
    ]
    return sum(hits) / len(rows)


def test_our_list_finds_the_groups_of_the_demo_and_not_by_chance() -> None:
    with demo_path("corpus.csv").open(encoding="utf8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["bias_type"]]
    types = [row["bias_type"] for row in rows]
    assert own_type_share(rows, types) > 0.85
    permuted = random.Random(0).sample(types, len(types))
    assert own_type_share(rows, permuted) < 0.3
    found = Counter(row["bias_type"] for row in rows if row["bias_type"] in {group.bias_type for group in OURS.mentioned(row["text"])})
    assert all(found[bias_type] >= 20 for bias_type in BIAS_TYPES), found


def test_the_workspace_may_have_its_own(tmp_path: Path) -> None:
    assert lexicon_path(tmp_path) == LEXICON
    own = tmp_path / "lexicon.csv"
    own.write_text("\ufeffbias_type,group,terms\nage,knights,Knight|old knight\nage,knights,dame\n", encoding="utf8")
    assert lexicon_path(tmp_path) == own
    found = mentions({"a": "A Knight and a dame", "b": "an old KNIGHT", "c": "a knight"}, read_lexicon(own))
    assert [(one.group, one.before) for one in found] == [(None, 2), ("knights", 2)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"group,terms\na,b\n", "has the columns"),
        (b"", "has the columns None"),
        (b"bias_type,group,terms\n", "no row at all"),
        (b"bias_type,group,terms\nage,,x\nage,g,\nage,g,|!|\nage,g,x\nage,g\n", "rows 2, 3, 4, 6"),
        (b"bias_type,group,terms\nage,g,caf\xe9\n", "cannot be read"),
        (b'bias_type,group,terms\nage,g,"x\n', "cannot be read"),
    ],
)
def test_a_file_that_is_no_lexicon_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "lexicon.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as refusal:
        read_lexicon(path)
    assert refusal.value.mend
    with pytest.raises(DataError, match="cannot be read"):
        read_lexicon(tmp_path / "absent.csv")
