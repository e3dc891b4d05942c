"""Gradient stores of given vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from biasdiff_core.attribution.store import GradientStore, finish_store, shard_ranges, write_shard
from biasdiff_core.config.gradients import StoreDtype


def unit(count: int, seed: int, dim: int = 24) -> np.ndarray:
    """Random unit vectors [count, dim] in fp32."""
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def vector_store(
    folder: Path, vectors: np.ndarray, shard_size: int = 7, without: tuple[int, ...] = (), dtype: StoreDtype = "float16"
) -> GradientStore:
    """A store of these vectors as they are, ids z0, z1, …; the rows `without` hold none."""
    folder.mkdir(parents=True)
    kept = np.array(vectors)
    kept[list(without)] = 0
    table = pd.DataFrame({"norm": 1.0, "loss": 2.0, "tokens": 3}, index=range(len(kept)))
    table.loc[list(without), "tokens"] = 0
    for number, rows in enumerate(shard_ranges(len(kept), shard_size)):
        write_shard(folder, number, kept[rows], table.iloc[rows], dtype=dtype)
    finish_store(folder, {}, [f"z{row}" for row in range(len(kept))], shard_size)
    return GradientStore.open(folder)
