"""Search over the vectors of a gradient store: exact, a block of rows at a time, or by an index, whose candidates get true cosines.

Cosines are dot products of the stored unit vectors. Of equal cosines the lower row comes first. Memory does not grow with the store.
Loads no torch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from biasdiff_core.attribution import index as faiss_index
from biasdiff_core.attribution.store import GradientStore
from biasdiff_core.errors import ArtefactError, ConfigError, DataError

BLOCK_BYTES = 2**26  # of a block of vectors in fp32 and of its cosines to all queries
REFINED = 8  # times as many candidates are taken from an index as rows are asked for


def nearest_rows(store: GradientStore, queries: np.ndarray, k: int, index: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of the store nearest to each of the unit vectors `queries` [q, dim]: cosines [q, k] and rows [q, k], best first.

    Rows that hold no vector are never found; k is cut to the number of the others. Blocks do not depend on the shards, so any
    shard size gives identical results. With `index`, of the store's own vectors, only its candidates are read: rows may be missed, and
    −inf and −1 stand where it has too few. Raises ArtefactError when the dimensions differ, ConfigError for a k below 1.
    """
    k = min(_checked(store, queries, k), int(store.done.sum()))
    cosines, rows = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1)
    if not k:
        return cosines, rows
    if index is not None:
        _, candidates = faiss_index.search(index, queries, REFINED * k)
        return refined(store, queries, np.where(store.done[candidates], candidates, -1), k)
    for at, block in store.blocks(_block_rows(store.dim, len(queries))):
        found = queries @ block.T
        found[:, ~store.done[at]] = -np.inf
        above, columns = _above(found, cosines.min(axis=1, keepdims=True))
        both, numbers = np.concatenate([cosines, above], axis=1), np.concatenate([rows, at.start + columns], axis=1)
        chosen = _greatest(both, k)
        cosines, rows = np.take_along_axis(both, chosen, 1), np.take_along_axis(numbers, chosen, 1)
    return _best_first(cosines, rows)


def nearest_to_each(store: GradientStore, known: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The other way round: for each row that holds a vector, in order, its k nearest of the unit vectors `known` [p, dim].

    Cosines [rows with a vector, k] and numbers in `known`, best first. Raises as `nearest_rows`.
    """
    k = min(_checked(store, known, k), len(known))
    parts = []
    for at, block in store.blocks(_block_rows(store.dim, len(known))):
        found = block[store.done[at]] @ known.T
        chosen = _greatest(found, k)
        parts.append(_best_first(np.take_along_axis(found, chosen, 1), chosen))
    cosines, numbers = (np.concatenate(part) for part in zip(*parts, strict=True))
    return cosines, numbers


def top_probes(train: GradientStore, probes: GradientStore, k: int, twins: GradientStore | None = None) -> pd.DataFrame:
    """For every example its k nearest probes, a row each: columns id, place (1 = nearest), probe, cosine.

    With `twins`, of the probes in their order: also twin_cosine, to the twin of that probe.
    """
    cosines, numbers = nearest_to_each(train, probes.vectors(), k)
    k = numbers.shape[1]
    columns = {
        "id": np.repeat(np.array(train.ids)[train.done], k),
        "place": np.tile(np.arange(1, k + 1), len(numbers)),
        "probe": np.array(probes.ids)[numbers.ravel()],
        "cosine": cosines.ravel(),
    }
    if twins is not None:
        columns["twin_cosine"] = _cosines_at(train, twins.vectors(), numbers).ravel()
    return pd.DataFrame(columns)


def _cosines_at(store: GradientStore, known: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Cosines [rows with a vector, k] of each row that holds one, in order, to those of the vectors `known` at its `numbers`."""
    parts, start = [], 0
    for at, block in store.blocks(_block_rows(store.dim, len(known))):
        found = block[store.done[at]] @ known.T
        parts.append(np.take_along_axis(found, numbers[start : start + len(found)], 1))
        start += len(found)
    return np.concatenate(parts)


def similar_rows(store: GradientStore, row: int, k: int, index: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k rows nearest to another row of the store: cosines [k] and rows [k], best first, without the row itself.

    `index`: as of `nearest_rows`. Raises as `vector_of` and `nearest_rows`.
    """
    cosines, rows = nearest_rows(store, vector_of(store, row), k + 1, index)
    others = (rows[0] != row) & (rows[0] >= 0)  # the row is not always the first: an exact duplicate has the same cosine
    return cosines[0, others][:k], rows[0, others][:k]


def vector_of(store: GradientStore, row: int) -> np.ndarray:
    """The unit vector [1, dim] of a row, to search by. Raises DataError when it holds none, ArtefactError when it is archived."""
    if not store.done[row]:
        raise DataError(f"{store.ids[row]} has no token to predict, so it has no gradient.", "Choose another example.")
    return store.take(np.array([row]))


def refined(store: GradientStore, queries: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the rows `candidates` [q, c] that an approximate index found (−1: none), the k best by their true cosines, best first.

    Cosines [q, k] and rows [q, k]; where a query has fewer candidates, −inf and −1 stand at the end.
    """
    cosines, rows = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1)
    for number, (query, found) in enumerate(zip(queries, candidates, strict=True)):
        own = np.sort(found[found >= 0])
        true = store.take(own) @ query
        best = np.argsort(-true, kind="stable")[:k]
        cosines[number, : len(best)], rows[number, : len(best)] = true[best], own[best]
    return cosines, rows


def _checked(store: GradientStore, queries: np.ndarray, k: int) -> int:
    if queries.shape[1] != store.dim:
        raise ArtefactError(
            f"The vectors of the gradient store {store.folder.name} have {store.dim} dimensions, those searched for {queries.shape[1]}.",
            "Take both gradients with the same gradients.proj_dim.",
        )
    if k < 1:
        raise ConfigError(f"{k} nearest are asked for.", "Ask for at least 1.")
    return k


def _block_rows(dim: int, others: int) -> int:
    return max(1, BLOCK_BYTES // (4 * (dim + others)))


def _above(cosines: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What of each row of `cosines` [q, n] is greater than its `edge` [q, 1], in its order: values [q, m] and columns [q, m].

    Rows with fewer than m end in −inf. After the first block few are left, so that what follows costs next to nothing; one that equals
    the edge comes after those that are there.
    """
    greater = cosines > edge
    counts = greater.sum(axis=1)
    owner, column = np.nonzero(greater)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    values, columns = np.full((len(cosines), counts.max()), -np.inf, np.float32), np.zeros((len(cosines), counts.max()), int)
    values[owner, place], columns[owner, place] = cosines[owner, column], column
    return values, columns


def _greatest(cosines: np.ndarray, k: int) -> np.ndarray:
    """Columns [q, k] of the k greatest of each row of `cosines` [q, n], ascending; of equal ones at the edge the first."""
    edge = np.partition(cosines, -k, axis=1)[:, -k, None]
    above, level = cosines > edge, cosines == edge
    keep = above | (level & (np.cumsum(level, axis=1) <= k - above.sum(axis=1, keepdims=True)))
    return np.nonzero(keep)[1].reshape(len(cosines), k)


def _best_first(cosines: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sorted by descending cosine; `rows` ascend, so equal cosines stay in the order of their rows."""
    order = np.argsort(-cosines, axis=1, kind="stable")
    return np.take_along_axis(cosines, order, 1), np.take_along_axis(rows, order, 1)
