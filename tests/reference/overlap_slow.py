"""Near-duplicates the slow way: every known text and each of its sentences against the text, word by word."""

from __future__ import annotations

import re
from fractions import Fraction

from biasdiff_core.corpus.summary import normalised


def overlap_slow(known: list[str], text: str, threshold: float) -> tuple[int, float] | None:
    """(number, Jaccard index) of the known text with the largest index of at least `threshold`, the first of equals."""
    best: tuple[int, Fraction] | None = None
    words = set(normalised(text).split())
    for number, other in enumerate(known):
        for part in [other, *re.split(r"(?<=[.!?])\s+", other)]:
            others = set(normalised(part).split())
            if words & others:
                share = Fraction(len(words & others), len(words | others))
                if share >= Fraction(str(threshold)) and (best is None or share > best[1]):
                    best = number, share
    return best and (best[0], float(best[1]))
