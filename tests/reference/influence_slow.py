"""Scores from projected vectors as plainly as they can be written: loops over examples and probes, dense matrices."""

from __future__ import annotations

import numpy as np


def nearest_cosines_slow(train: np.ndarray, probes: np.ndarray, nearest: int) -> list[float]:
    """Mean of the greatest cosines of each example to the probes; unit vectors."""
    found = []
    for example in train:
        cosines = sorted((float(example @ probe) for probe in probes), reverse=True)
        found.append(sum(cosines[:nearest]) / nearest)
    return found


def whitened_cosines_slow(train: np.ndarray, probes: np.ndarray, damping: float) -> list[float]:
    """Mean cosine of each example to the probes after both are multiplied by (C + damping / dim · I)^(−1/2), C the mean of x xᵀ."""
    dim = train.shape[1]
    moment = np.zeros((dim, dim))
    for example in train:
        moment += np.outer(example, example) / len(train)
    values, axes = np.linalg.eigh(moment + damping / dim * np.eye(dim))
    root = axes @ np.diag(values**-0.5) @ axes.T
    found = []
    for example in train:
        moved = root @ example
        cosines = [float(moved @ (root @ p)) / float(np.linalg.norm(moved) * np.linalg.norm(root @ p)) for p in probes]
        found.append(sum(cosines) / len(probes))
    return found
