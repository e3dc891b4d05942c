"""FAISS over unit vectors: inner products, so cosines. Exact by `IndexFlatIP`; by IVF, with or without PQ, approximate and smaller.

What an approximate index finds is re-ranked by true cosines (`attribution.search.refined`); what it misses is measured by
`python -m benchmarks.search`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from biasdiff_core.attribution.store import GradientStore
from biasdiff_core.errors import ArtefactError, ConfigError, MissingDependency

INDEX_FILE = "index.faiss"
Kind = Literal["flat", "ivf_flat", "ivf_pq"]
Device = Literal["cpu", "gpu"]

ADDED = 2048  # rows in fp32 at a time
SEED = 0
LARGE = 100_000  # rows from which an audit's search goes by an index; below, all rows are read in seconds (docs/decisions/index.md)
PER_CENTROID = 39  # training rows, where the store has them: more make no better centroids (FAISS's own figure)
LEAST_PER_CENTROID = 10  # below which they are refused; the paper's 8,939 rows are enough for PQ
CODES = 256  # centroids of a sub-quantiser: one byte
CODED = 32  # dimensions at most that one byte stands for
PROBED = 2  # one list in so many is searched


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependency("faiss-cpu", "The index of the gradient store", "pip install faiss-cpu") from error
    return faiss


def build_index(store: GradientStore, path: Path, kind: Kind = "flat") -> None:
    """Write an index of the store's vectors, row for row. Equal vectors and threads give equal bytes.

    Raises ConfigError when the store has too few rows to train the index on.
    """
    index = _faiss().IndexFlatIP(store.dim) if kind == "flat" else _trained(store, kind)
    for _, block in store.blocks(ADDED):
        index.add(block)
    _faiss().write_index(index, str(path))


def _trained(store: GradientStore, kind: Kind) -> Any:
    """An empty IVF index of √n lists, its centroids (and, with PQ, its codes) trained on a seeded sample of the rows with a vector."""
    faiss, usable = _faiss(), np.flatnonzero(store.done)
    lists = max(1, round(len(usable) ** 0.5))
    centroids = max(lists, CODES if kind == "ivf_pq" else 0)
    least = LEAST_PER_CENTROID * centroids
    if len(usable) < least:
        raise ConfigError(f"An {kind} index is trained on at least {least:,} rows, the store has {len(usable):,}.", "Use a flat index.")
    part = max(size for size in range(1, CODED + 1) if store.dim % size == 0)
    code = "Flat" if kind == "ivf_flat" else f"PQ{store.dim // part}"
    index = faiss.index_factory(store.dim, f"IVF{lists},{code}", faiss.METRIC_INNER_PRODUCT)
    index.nprobe = -(-lists // PROBED)
    for clustering in (index.cp, index.pq.cp) if kind == "ivf_pq" else (index.cp,):
        clustering.min_points_per_centroid = LEAST_PER_CENTROID
    sample = min(PER_CENTROID * centroids, len(usable))
    index.train(store.take(np.sort(np.random.default_rng(SEED).choice(usable, sample, replace=False))))
    return index


def search(path: Path, queries: np.ndarray, k: int, device: Device = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of the index for each query: cosines [q, k] and row numbers [q, k], best first.

    Of an approximate index both are approximate, and row −1 stands where its lists hold fewer than k. Raises ArtefactError when the
    dimensions differ, MissingDependency or ConfigError without the GPU that is asked for.
    """
    index = _faiss().read_index(str(path))
    if index.d != queries.shape[1]:
        raise ArtefactError(f"The index has {index.d} dimensions, the queries {queries.shape[1]}.", "Build the index again.")
    return _searched(index, queries, k, device)


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int, device: Device = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """As `search`, exactly, over vectors in memory: for each query its k nearest rows of `vectors`."""
    index = _faiss().IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    return _searched(index, queries, k, device)


def _searched(index: Any, queries: np.ndarray, k: int, device: Device) -> tuple[np.ndarray, np.ndarray]:
    placed = index if device == "cpu" else _on_gpu(index)
    cosines, rows = placed.search(np.ascontiguousarray(queries, np.float32), min(k, index.ntotal))
    return cosines, rows


def _on_gpu(index: Any) -> Any:
    faiss = _faiss()
    if not hasattr(faiss, "StandardGpuResources"):
        raise MissingDependency("faiss-gpu", "Search on a GPU", "pip uninstall -y faiss-cpu && pip install -r requirements-gpu.txt")
    if not faiss.get_num_gpus():
        raise ConfigError("FAISS sees no GPU.", "Search on the CPU, or check `nvidia-smi`.")
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
