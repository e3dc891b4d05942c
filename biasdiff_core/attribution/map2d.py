"""The map: UMAP of the unit vectors, on 50 principal components, seeded. Near = the same gradient direction."""

from __future__ import annotations

from typing import Any

import numpy as np

from biasdiff_core.errors import MissingDependency
from biasdiff_core.results import Progress, ProgressCallback, no_progress

COMPONENTS = 50
NEIGHBOURS = 15
SAMPLE = 50_000  # rows that UMAP lays out at most; more take minutes on its one thread (docs/log.md, 2026-11-27)
AT_ONCE = 10_000  # rows placed between two reports of progress


def coordinates(vectors: np.ndarray, seed: int, progress: ProgressCallback = no_progress) -> np.ndarray:
    """[n, 2] map coordinates of `vectors` [n, dim]; a function of both, whatever the number of threads.

    Fewer than 10 rows have no neighbourhoods to preserve: their first two principal components are given instead. Of more than `SAMPLE` a
    seeded sample is laid out; each other row is placed at the mean of its nearest sampled ones, as near as UMAP takes them to be (Euclidean
    on the components), weighted by 1 / distance.
    """
    if len(vectors) <= SAMPLE:
        return _laid_out(vectors, seed, progress)[-1]
    sampled = np.zeros(len(vectors), dtype=bool)
    sampled[np.random.default_rng(seed).choice(len(vectors), SAMPLE, replace=False)] = True
    pca, components, drawn = _laid_out(vectors[sampled], seed, progress)
    xy = np.empty((len(vectors), 2))
    xy[sampled] = drawn
    return _place_others(vectors, xy, sampled, pca, components, progress)


def _laid_out(vectors: np.ndarray, seed: int, progress: ProgressCallback) -> tuple[Any, np.ndarray, np.ndarray]:
    """The fitted PCA, the components [n, ≤ 50] and the coordinates [n, 2]."""
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    width = min(COMPONENTS, vectors.shape[0], vectors.shape[1])
    _tell(progress, "principal components", 0, 1)
    pca = PCA(n_components=width, random_state=seed)
    components = pca.fit_transform(vectors)
    _tell(progress, "principal components", 1, 1)
    if len(vectors) < 10:
        return pca, components, np.asarray(np.pad(components[:, :2], ((0, 0), (0, max(0, 2 - width)))), dtype=float)
    try:
        from umap import UMAP
    except ImportError as error:
        raise MissingDependency("umap-learn", "The map", "pip install umap-learn") from error
    _tell(progress, "neighbours and layout", 0, 1)
    # n_jobs=1: with a fixed seed UMAP is reproducible on one thread only.
    settings = UMAP(n_neighbors=min(NEIGHBOURS, len(vectors) - 1), min_dist=0.1, random_state=seed, n_jobs=1)
    # numba lets OpenMP take all cores from then on, torch's too, whatever OMP_NUM_THREADS says; given back here.
    with threadpool_limits():
        xy = np.asarray(settings.fit_transform(components), dtype=float)
    _tell(progress, "neighbours and layout", 1, 1)
    return pca, components, xy


def _place_others(
    vectors: np.ndarray, xy: np.ndarray, sampled: np.ndarray, pca: Any, components: np.ndarray, progress: ProgressCallback
) -> np.ndarray:
    """`xy` [n, 2], which holds the sampled rows, with all others placed among them. `components`: of the sampled rows."""
    from sklearn.neighbors import KNeighborsRegressor

    near = KNeighborsRegressor(NEIGHBOURS, weights="distance", algorithm="brute").fit(components, xy[sampled])
    others = np.flatnonzero(~sampled)
    for start in range(0, len(others), AT_ONCE):
        _tell(progress, "place the other examples", start, len(others))
        rows = others[start : start + AT_ONCE]
        xy[rows] = near.predict(pca.transform(vectors[rows]))
    _tell(progress, "place the other examples", len(others), len(others))
    return xy


def _tell(progress: ProgressCallback, step: str, done: int, total: int) -> None:
    unit = "steps" if total == 1 else "examples"
    progress(Progress(stage="map2d", done=done, total=total, unit=unit, message=f"Draw the map: {step}"))
