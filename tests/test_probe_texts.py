"""What texts say of a probing set: shared runs of words, style without and with a difference, and what a twin changes."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasdiff_core.corpus.examples import Probe, ProbeSet
from biasdiff_core.corpus.probe_texts import (
    AGREEMENT,
    GROUP_WORDS,
    MOST_POOL,
    NEGATIONS,
    ngram_overlap,
    style_pool,
    style_scores,
    twin_differences,
    word_spans,
    words_of,
)
from biasdiff_core.errors import NumericError
from biasdiff_core.evaluation.statistics import auroc

NOUNS = ("ferry", "birch", "kettle", "bridge", "lamp", "goat", "piano", "canal")
VERBS = ("waited", "cracked", "shone", "vanished", "returned", "froze", "sang", "leaned")
PLACES = ("by the mill", "at noon", "in the rain", "near Bonn", "under the moon", "on Friday", "without a word", "again")


def sentences(count: int, seed: int) -> list[str]:
    """Distinct sentences of one grammar, in random order."""
    every = [f"The {noun} {verb} {place}." for noun in NOUNS for verb in VERBS for place in PLACES]
    return random.Random(seed).sample(every, count)


def twinned(*pairs: tuple[str, str | None]) -> ProbeSet:
    return ProbeSet(probes=tuple(Probe(id=f"p{number}", text=text, twin=twin) for number, (text, twin) in enumerate(pairs)))


def style_auroc(probes: Sequence[str], pool: Sequence[str], seed: int = 0) -> float:
    return auroc(style_scores(probes, pool, seed), [1] * len(probes) + [0] * len(pool)).value


def test_the_share_of_runs_by_hand() -> None:
    texts = ["One two THREE, four!", "two three four five six", "two three"]
    # Runs of 3 in the other text: (one two three), (two three four), (three four nine).
    # First: (one two three), (two three four): 2 of 2. Second: (two three four) of 3. Third: no run of 3.
    shares = ngram_overlap(texts, ["one two three four nine", "five six"], 3)
    np.testing.assert_allclose(shares, [1.0, 1 / 3, math.nan])


def test_repeated_runs_count_once_and_nothing_is_shared_with_nothing() -> None:
    # Runs of 2 of "a b a b a": (a b), (b a). Of them "x a b" has one.
    assert ngram_overlap(["a b a b a"], ["x a b"], 2).tolist() == [0.5]
    assert ngram_overlap(["a b c"], [], 2).tolist() == [0.0]


def test_a_style_of_its_own_is_told() -> None:
    pool = sentences(150, 0)
    assert style_auroc([f"Frankly, {text}" for text in sentences(200, 1)[:60]], pool) > 0.95


def test_permuted_labels_give_a_half() -> None:
    """The same grammar on both sides: 20 random splits; each AUROC of 60 against 240 has a standard error of about 0.042."""
    areas = []
    for seed in range(20):
        mixed = sentences(300, seed)
        areas.append(style_auroc(mixed[:60], mixed[60:], seed))
    assert np.mean(areas) == pytest.approx(0.5, abs=4 * 0.042 / math.sqrt(20))


def test_copies_with_the_other_label_do_not_turn_the_score_upside_down() -> None:
    """Every probe is a text of the pool, some in another case: equal texts have equal scores, so the AUROC is exactly a half."""
    pool = sentences(80, 0)
    copies = [text.upper() if number % 2 else text for number, text in enumerate(pool)]
    assert style_auroc(copies, pool) == 0.5


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(NumericError, match="4 distinct texts on one side"):
        style_scores([*sentences(4, 0), *sentences(4, 0)], sentences(50, 1), 0)


def test_the_pool_is_a_seeded_sample_of_a_large_corpus() -> None:
    texts = [str(number) for number in range(MOST_POOL + 100)]
    pool = style_pool(texts, 0)
    assert len(set(pool)) == MOST_POOL and pool == style_pool(texts, 0) != style_pool(texts, 1)
    assert style_pool(texts[:7], 0) == texts[:7]


@pytest.mark.parametrize(
    ("text", "twin", "differs"),
    [
        pytest.param("Women cannot park.", "Men cannot park.", "women → men", id="one word"),
        pytest.param("So an old man forgets his hat.", "So a boy forgets his hat.", "an old man → a boy", id="several words"),
        pytest.param("A woman lost her way, she says.", "A man lost his way, he says.", "woman → man; her → his; she → he", id="pronouns"),
        pytest.param("Nurses pity nurses.", "Pilots pity pilots.", "nurses → pilots; nurses → pilots", id="the same change twice"),
        pytest.param("Poor people lie.", "People lie.", "poor → –", id="left out"),
        pytest.param("People with scars lie.", "People without scars lie.", "with → without", id="a group by what it lacks"),
        pytest.param("SHE lies.", "He lies!", "she → he", id="pronouns alone"),
    ],
)
def test_twins_that_differ_in_the_group(text: str, twin: str, differs: str) -> None:
    [found] = twin_differences(twinned((text, twin)))
    assert (found.fault, found.owner, found.text()) == ("", None, differs)


@pytest.mark.parametrize(
    ("text", "twin", "fault"),
    [
        pytest.param("Women cannot park a car.", "Men cannot park a bus.", "several places", id="two places"),
        pytest.param("Women can park any car.", "Men cannot park any car.", "negated", id="cannot"),
        pytest.param("Women are late for the show.", "Men aren't late for the show.", "negated", id="n't"),
        pytest.param("They say women lie.", "Perhaps he knows.", "nothing shared", id="another sentence"),
        pytest.param("We met women.", "We met " + "very " * GROUP_WORDS + "old men.", "long", id="long"),
    ],
)
def test_twins_that_differ_in_more(text: str, twin: str, fault: str) -> None:
    [found] = twin_differences(twinned((text, twin), ("The ferry was late.", None)))
    assert (found.fault, found.owner) == (fault, None)


def test_a_probe_without_a_twin_has_no_difference() -> None:
    assert [found.probe for found in twin_differences(twinned(("a b", None), ("a c", "a d")))] == ["p1"]


FAULTS = ("never pay back what they borrow", "cannot be trusted with a map", "spoil every meeting", "give up before lunch")


def test_shuffled_twins_are_named_with_their_owner() -> None:
    pairs = [(f"Of course women {fault}.", f"Of course men {fault}.") for fault in FAULTS]
    right = twinned(*pairs)
    assert not any(found.fault or found.owner for found in twin_differences(right))
    moved = [pairs[(number + 1) % len(pairs)][1] for number in range(len(pairs))]
    wrong = twinned(*zip([text for text, _ in pairs], moved, strict=True))
    assert [(found.fault, found.owner) for found in twin_differences(wrong)] == [("misplaced", owner) for owner in ("p1", "p2", "p3", "p0")]


def test_two_twins_that_changed_places_among_many_are_found() -> None:
    pairs = [[f"The women {text.lower()}", f"The men {text.lower()}"] for text in sentences(40, 3)]
    pairs[7][1], pairs[30][1] = pairs[30][1], pairs[7][1]
    assert {found.probe: found.owner for found in twin_differences(twinned(*map(tuple, pairs))) if found.fault} == {
        "p7": "p30",
        "p30": "p7",
    }


WORDS = st.sampled_from(["ash", "bay", "cod", "dew", "elm", "fir"])
GROUP = st.lists(st.sampled_from(["kin", "lad", "mob", "nun"]), min_size=1, max_size=GROUP_WORDS)


@given(before=st.lists(WORDS, max_size=6), one=GROUP, other=GROUP, after=st.lists(WORDS, min_size=1, max_size=6))
def test_a_change_of_one_short_run_is_no_fault(before: list[str], one: list[str], other: list[str], after: list[str]) -> None:
    """The run may hold words that both groups share: then it falls into several, and that is a fault, as in any two places.

    A run of more than half of the probe is one too, unless it is a word.
    """
    [found] = twin_differences(twinned((" ".join([*before, *one, *after]), " ".join([*before, *other, *after]))))
    if not set(one) & set(other):
        half = (len(before) + len(one) + len(after)) // 2
        assert found.fault == ("" if max(len(one), len(other)) <= max(1, half) else "long")
        assert found.spans == ((tuple(one), tuple(other)),)


@given(st.lists(WORDS, max_size=8), st.lists(WORDS, max_size=8))
def test_putting_the_spans_back_makes_the_twin(text: list[str], twin: list[str]) -> None:
    """Spans hold all that is not common: the lengths add up on both sides."""
    spans = word_spans(tuple(text), tuple(twin))
    common = len(text) - sum(len(before) for before, _ in spans)
    assert common == len(twin) - sum(len(after) for _, after in spans)
    assert (not spans) == (text == twin)


def test_the_lists_of_words_are_as_words_are_compared() -> None:
    assert all(words_of(word) == (word,) for word in AGREEMENT | NEGATIONS)
    assert "t" in words_of("don't")
