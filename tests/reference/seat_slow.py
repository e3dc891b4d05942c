"""SEAT from its definitions: one sentence, one cosine, one partition at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

import torch

Vector = list[float]


def sentence_vector_slow(model: Any, ids: Sequence[int], first: int = 0, *, last: bool = False) -> Vector:
    """Mean of the last layer over the tokens from `first` on, or its last token, as it comes."""
    with torch.no_grad():
        states = model(torch.tensor([list(ids)]), output_hidden_states=True).hidden_states[-1][0]
    vector: Vector = (states[-1] if last else states[first:].mean(0)).double().tolist()
    return vector


def cosine(u: Vector, v: Vector) -> float:
    dot = sum(a * b for a, b in zip(u, v, strict=True))
    return dot / math.sqrt(sum(a * a for a in u) * sum(b * b for b in v))


def association_slow(w: Vector, a: Sequence[Vector], b: Sequence[Vector]) -> float:
    return fmean(cosine(w, one) for one in a) - fmean(cosine(w, one) for one in b)


def effect_size_slow(s_x: Sequence[float], s_y: Sequence[float]) -> float:
    return (fmean(s_x) - fmean(s_y)) / stdev([*s_x, *s_y])


def permutation_p_slow(s_x: Sequence[float], s_y: Sequence[float]) -> float:
    """Share of all partitions whose difference of means is at least the observed one."""
    both = [*s_x, *s_y]
    observed = fmean(s_x) - fmean(s_y)
    reached = total = 0
    for chosen in combinations(range(len(both)), len(s_x)):
        taken = set(chosen)
        x = [both[place] for place in chosen]
        y = [value for place, value in enumerate(both) if place not in taken]
        reached += sum(x) / len(x) - sum(y) / len(y) >= observed - 1e-9
        total += 1
    return reached / total
