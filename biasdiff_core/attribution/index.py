"""FAISS over unit vectors: exact inner-product search (`IndexFlatIP`), cosine by construction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from biasdiff_core.errors import ArtefactError, MissingDependency

INDEX_FILE = "index.faiss"


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependency("faiss-cpu", "The index of the gradient store", "pip install faiss-cpu") from error
    return faiss


def build_index(vectors: np.ndarray, path: Path) -> None:
    """Write a flat index of `vectors` [n, dim] (unit, fp32)."""
    faiss = _faiss()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    faiss.write_index(index, str(path))


def search(path: Path, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of the index for each query: cosines [q, k] and row numbers [q, k], best first.

    Raises ArtefactError when the dimensions differ.
    """
    index = _faiss().read_index(str(path))
    if index.d != queries.shape[1]:
        raise ArtefactError(f"The index has {index.d} dimensions, the queries {queries.shape[1]}.", "Build the index again.")
    cosines, rows = index.search(np.ascontiguousarray(queries, np.float32), min(k, index.ntotal))
    return cosines, rows


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """As `search`, over vectors in memory: for each query its k nearest rows of `vectors`."""
    index = _faiss().IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    cosines, rows = index.search(np.ascontiguousarray(queries, np.float32), min(k, len(vectors)))
    return cosines, rows
