"""Per-item results of the evaluations beside CrowS-Pairs, and paired tests of a variant against its reference on the same items.

A row is one item of one metric (a sentence, a cloze query, a text), so every suite is compared in the same way. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from biasdiff_core.errors import ArtefactError
from biasdiff_core.evaluation.statistics import mcnemar_exact, paired_bootstrap
from biasdiff_core.results import PairedTest

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ItemMetric:
    """How a metric is made of its items: its mean times `scale`. `binary`: values are 0 or 1, so McNemar's test applies."""

    convention: str
    scale: float = 1.0
    binary: bool = False


def item_frame(metric: str, items: Sequence[str], values: Sequence[float]) -> pd.DataFrame:
    """Rows `metric`, `item` (an id that is the same for every variant), `value`."""
    return pd.DataFrame({"metric": metric, "item": list(items), "value": [float(value) for value in values]})


def sample(items: Sequence[T], count: int, seed: int) -> list[T]:
    """`count` of a suite's items, drawn with a seed and without replacement, in their order."""
    chosen = np.random.default_rng(seed).choice(len(items), size=count, replace=False)
    return [items[place] for place in np.sort(chosen)]


def save_items(frames: Sequence[pd.DataFrame], path: Path) -> None:
    """One Parquet file of all suites' rows; an empty one when there are none."""
    empty = pd.DataFrame({"metric": pd.Series(dtype=str), "item": pd.Series(dtype=str), "value": pd.Series(dtype=float)})
    pd.concat([empty, *frames], ignore_index=True).to_parquet(path, index=False, compression="zstd")


def compare_items(
    after: pd.DataFrame,
    before: pd.DataFrame,
    metrics: Mapping[str, ItemMetric],
    variant: str,
    reference: str,
    *,
    bootstrap: int,
    seed: int,
) -> list[PairedTest]:
    """Variant − reference of every metric in `metrics` that both have: paired bootstrap, and exact McNemar where values are 0 or 1.

    Items without a value on either side are left out. Raises ArtefactError when the two were not made on the same items.
    """
    tests = []
    for name, kind in metrics.items():
        left, right = (table[table["metric"] == name].set_index("item")["value"] for table in (after, before))
        if left.empty and right.empty:
            continue
        if list(left.index) != list(right.index):
            raise ArtefactError(f"{variant} and {reference} were not judged on the same items of {name}.", "Evaluate both again.")
        both = pd.DataFrame({"after": left, "before": right}).dropna()
        if both.empty:
            continue
        moved = paired_bootstrap(both["after"].to_numpy(), both["before"].to_numpy(), draws=bootstrap, seed=seed)
        only_variant, only_reference = (int((a > b).sum()) for a, b in ((both["after"], both["before"]), (both["before"], both["after"])))
        tests.append(
            PairedTest(
                metric=name,
                variant=variant,
                reference=reference,
                difference=kind.scale * moved.value,
                low=kind.scale * moved.low,
                high=kind.scale * moved.high,
                n=len(both),
                p_value=mcnemar_exact(only_variant, only_reference) if kind.binary else None,
                only_variant=only_variant if kind.binary else 0,
                only_reference=only_reference if kind.binary else 0,
                convention=kind.convention,
            )
        )
    return tests
