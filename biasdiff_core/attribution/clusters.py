"""Clusters of the map: k-means on its coordinates, each named by the words that set its texts apart from all others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from biasdiff_core.attribution.baselines import words

WORDS = 3
KEPT = frozenset({"he", "him", "his", "himself", "she", "her", "hers", "herself"})  # what an audit of bias wants to see
NAMELESS = "no telling word"
PRIOR = 0.01  # pseudo-counts of a word for each of its occurrences: the weight of the whole corpus in each cluster


def clusters(xy: np.ndarray, count: int, seed: int) -> np.ndarray:
    """[n] cluster of each point of `xy` [n, 2], finite: at most `count` of them, 0 is the largest; a function of all three."""
    from sklearn.cluster import KMeans

    count = min(count, len(np.unique(xy, axis=0)))
    codes = KMeans(n_clusters=count, n_init=3, random_state=seed).fit_predict(xy)
    by_size = np.argsort(-np.bincount(codes, minlength=count), kind="stable")
    return np.asarray(np.argsort(by_size)[codes])


def cluster_words(texts: Sequence[str], codes: np.ndarray) -> list[str]:
    """A name for each cluster: its words with the highest z-score of the log-odds against the others, the whole corpus as prior.

    `codes` [n]: as of `clusters`. A text counts a word once; scikit-learn's English stop words, but for `KEPT`, and contractions of "not"
    count for nothing. A cluster without another word is called by `NAMELESS`. Source: Monroe, Colaresi and Quinn, *Fightin' Words* (2008).
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    stop_words = ENGLISH_STOP_WORDS - KEPT
    counted = [Counter[str]() for _ in range(int(codes.max()) + 1)]
    for text, code in zip(texts, codes.tolist(), strict=True):
        counted[code].update(sorted(_stems(text) - stop_words))  # sorted, for words of equal z-score stand in this order
    whole = sum(counted, Counter[str]())
    return [", ".join(_distinctive(own, whole)) or NAMELESS for own in counted]


def _stems(text: str) -> set[str]:
    """The words of a text, each up to its apostrophe (`women's` is `women`, `she'd` is `she`), less those that end in n't."""
    parts = [re.split("['’]", word) for word in words(text)]
    return {stem for stem, *rest in parts if not (rest == ["t"] and stem.endswith("n"))}


def _distinctive(own: Counter[str], whole: Counter[str]) -> list[str]:
    vocabulary = list(own)
    here, everywhere = (np.array([counts[word] for word in vocabulary], dtype=float) for counts in (own, whole))
    prior, there = PRIOR * everywhere, everywhere - here
    total_prior = PRIOR * whole.total()
    total_here, total_there = own.total() + total_prior, whole.total() - own.total() + total_prior
    odds = np.log((here + prior) / (total_here - here - prior)) - np.log((there + prior) / (total_there - there - prior))
    z = odds / np.sqrt(1 / (here + prior) + 1 / (there + prior))
    return [vocabulary[place] for place in np.argsort(-z, kind="stable")[:WORDS]]
