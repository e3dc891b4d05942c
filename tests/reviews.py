"""Reviews and decisions for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from biasdiff_core.review.decisions import Decision
from biasdiff_core.review.design import Review, review_so_far

RANKING = [f"e{number}" for number in range(20)]


def decisions(verdicts: Mapping[int, Any], **changes: Any) -> dict[str, Decision]:
    """Inspected decisions on e0, e1, …, in this order."""
    common: dict[str, Any] = {"auditor": "Ann", "reason": "", "created": "", "inspected": True, "action_id": "a", "selection": None}
    return {f"e{n}": Decision(**{**common, "example_id": f"e{n}", "verdict": verdict, **changes}) for n, verdict in verdicts.items()}


def reviewed(verdicts: Mapping[int, Any], ranking: Sequence[str] = RANKING, **changes: Any) -> Review:
    """The review with these decisions, none of them drawn."""
    made = decisions(verdicts, **changes)
    return review_so_far(ranking, made, {id_: decision for id_, decision in made.items() if decision.inspected})


def review(size: int, inspected: Sequence[tuple[int, bool, bool]]) -> Review:
    """Of a ranking of `size` examples. `inspected`: place, biased, drawn, in order."""
    places, biased, drawn = (np.array([row[column] for row in inspected]) for column in range(3))
    left_open = np.ones(size, dtype=bool)
    left_open[places.astype(int)] = False
    return Review(open=left_open, places=places.astype(np.int64), biased=biased.astype(bool), drawn=drawn.astype(bool))


def read_in_part(labels: np.ndarray, order: Sequence[int], drawn: Sequence[bool]) -> Review:
    """A review that has inspected the places in `order`, with these labels by rank."""
    return review(len(labels), [(place, bool(labels[place]), draw) for place, draw in zip(order, drawn, strict=True)])
