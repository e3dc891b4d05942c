"""Rankings that know nothing of gradients, shown beside influence on every audit: random, length, unigram log-ratio, loss.

Higher = ranked first, as of influence. Each sees what the method sees (corpus and probes, no label) and no more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

WORD = re.compile(r"\w+(?:['’]\w+)?")


def words(text: str) -> list[str]:
    """Case-folded words."""
    return WORD.findall(text.casefold())


def random_scores(count: int, seed: int) -> np.ndarray:
    """Uniform scores: the base rate."""
    return np.random.default_rng(seed).random(count)


def length_scores(texts: Sequence[str]) -> np.ndarray:
    """Minus the number of words: the shorter, the higher (the direction in which published mixes leak)."""
    return -np.array([len(words(text)) for text in texts], dtype=float)


def unigram_log_ratio(texts: Sequence[str], probes: Sequence[str]) -> np.ndarray:
    """Mean over a text's words of log p(word | probes) − log p(word | pool), add-one smoothed; the pool is `texts` itself.

    A style detector without model or label: where it ranks as well as influence, the test is too easy.
    """
    pool, target = Counter[str](), Counter[str]()
    for text in texts:
        pool.update(words(text))
    for text in probes:
        target.update(words(text))
    vocabulary = len(pool.keys() | target.keys())
    ratio = {
        word: np.log((target[word] + 1) / (target.total() + vocabulary)) - np.log((pool[word] + 1) / (pool.total() + vocabulary))
        for word in pool
    }
    return np.array([np.mean([ratio[word] for word in words(text)]) if words(text) else 0.0 for text in texts])
