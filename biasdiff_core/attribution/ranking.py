"""The ranking, and how well it finds known labels: coverage and precision at a selection percentage (Eq. 9, 10)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor

import numpy as np
import pandas as pd


def rank(ids: Sequence[str], scores: np.ndarray) -> pd.DataFrame:
    """Columns `rank` (from 1), `id`, `score`, best first; ties by id; rows without a score (NaN) are left out."""
    table = pd.DataFrame({"id": list(ids), "score": np.asarray(scores, dtype=float)}).dropna()
    table = table.sort_values(["score", "id"], ascending=[False, True], ignore_index=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table


def selected_count(count: int, percent: float) -> int:
    """How many of `count` the top `percent` % are: rounded half up, in exact arithmetic."""
    return floor(Fraction(str(percent)) * count / 100 + Fraction(1, 2))


def detection_curve(labels_by_rank: Sequence[int]) -> pd.DataFrame:
    """For every cut k = 0 … n: `selected`, `percent`, `coverage` (Eq. 9), `precision` (Eq. 10; NaN at 0).

    `labels_by_rank`: known labels, best rank first.
    """
    labels = np.asarray(labels_by_rank, dtype=int)
    found = np.concatenate([[0], np.cumsum(labels)])
    selected = np.arange(len(labels) + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return pd.DataFrame(
            {
                "selected": selected,
                "percent": 100 * selected / max(1, len(labels)),
                "coverage": found / labels.sum() if labels.sum() else np.full(len(found), np.nan),
                "precision": found / np.where(selected, selected, np.nan),
            }
        )
