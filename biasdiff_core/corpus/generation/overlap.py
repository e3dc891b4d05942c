"""Near-duplicates: texts whose sets of words are nearly the same."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass

from biasdiff_core.corpus.probe_texts import words_of

ROUNDING = 1e-9  # 0.7 · 30 may come out just above 21
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """A text that shares words with another. `share`: Jaccard index |A ∩ B| / |A ∪ B| of the sets of normalised words."""

    text: str
    place: str
    share: float


class OverlapIndex:
    """Texts by their words; finds one whose Jaccard index with a given text is at least `threshold`.

    Exact, and quick by the prefix filter (Chaudhuri et al. 2006): a text with at least ⌈tn⌉ of the n words has at least one of any
    n − ⌈tn⌉ + 1 of them, so the rarest so many are looked up.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._texts: list[tuple[str, str, frozenset[str]]] = []
        self._by_word: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, text: str, place: str) -> None:
        """Take in `text`, as a whole and each of its sentences; `place` says where it stands."""
        for part in dict.fromkeys((text, *_SENTENCE_END.split(text))):
            words = frozenset(words_of(part))
            for word in words:
                self._by_word[word].append(len(self._texts))
            self._texts.append((part, place, words))

    def find(self, text: str) -> Overlap | None:
        """The text with the largest share of at least the threshold, the first of equals; None when there is none."""
        words = frozenset(words_of(text))
        needed = math.ceil(self._threshold * len(words) - ROUNDING)
        # `get`, because looking up a word in a defaultdict would add it.
        rarest = sorted((self._by_word.get(word, []) for word in words), key=len)
        numbers = sorted({number for found in rarest[: len(words) - needed + 1] for number in found})
        best: Overlap | None = None
        for number in numbers:
            known, place, others = self._texts[number]
            share = len(words & others) / len(words | others)
            if share >= self._threshold - ROUNDING and (best is None or share > best.share):
                best = Overlap(text=known, place=place, share=share)
        return best
