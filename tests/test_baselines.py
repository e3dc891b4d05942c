"""Baselines by hand arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from biasdiff_core.attribution.baselines import length_scores, random_scores, unigram_log_ratio, words


def test_words_are_case_folded_and_keep_their_apostrophes() -> None:
    assert words("Don't SAY: café, it’s 5 p.m.!") == ["don't", "say", "café", "it’s", "5", "p", "m"]
    assert words("…") == []


def test_shorter_texts_score_higher() -> None:
    assert length_scores(["one two three", "one", "…"]).tolist() == [-3, -1, 0]


def test_random_scores_are_uniform_and_seeded() -> None:
    scores = random_scores(2000, seed=3)
    assert (scores == random_scores(2000, seed=3)).all() and (scores != random_scores(2000, seed=4)).any()
    # The mean of 2,000 uniform numbers is ½ ± 1/√(12 · 2000).
    assert abs(scores.mean() - 0.5) < 4.5 / math.sqrt(12 * 2000)
    assert scores.min() >= 0 and scores.max() < 1


def test_unigram_log_ratio_by_hand() -> None:
    # Pool: a 3, b 2, c 1 (6 words). Probes: a 1, d 1 (2 words). Vocabulary a, b, c, d: 4.
    texts, probes = ["a a b", "A", "b c", "…"], ["a d"]
    a = math.log((1 + 1) / (2 + 4)) - math.log((3 + 1) / (6 + 4))
    b = math.log((0 + 1) / (2 + 4)) - math.log((2 + 1) / (6 + 4))
    c = math.log((0 + 1) / (2 + 4)) - math.log((1 + 1) / (6 + 4))
    np.testing.assert_allclose(unigram_log_ratio(texts, probes), [(2 * a + b) / 3, a, (b + c) / 2, 0.0])


def test_words_of_the_probes_are_ranked_first() -> None:
    texts = ["the harbour froze in March", "those people always cheat", "the ferry was late", "people like that cheat"]
    scores = unigram_log_ratio(texts, ["such people cheat", "those people lie"])
    assert set(np.argsort(-scores)[:2]) == {1, 3}


def test_it_knows_style_only() -> None:
    """The same words in another order have the same score: what it finds, it finds without meaning."""
    one, other = unigram_log_ratio(["men fear women", "women fear men"], ["men lie"])
    assert one == pytest.approx(other)
