"""The map: UMAP of the unit vectors, on 50 principal components, seeded. Near = the same gradient direction."""

from __future__ import annotations

import numpy as np

from biasdiff_core.errors import MissingDependency

COMPONENTS = 50
NEIGHBOURS = 15


def coordinates(vectors: np.ndarray, seed: int) -> np.ndarray:
    """[n, 2] map coordinates of `vectors` [n, dim]; a function of both, whatever the number of threads.

    Fewer than 10 rows have no neighbourhoods to preserve: their first two principal components are given instead.
    """
    from sklearn.decomposition import PCA

    width = min(COMPONENTS, vectors.shape[0], vectors.shape[1])
    components = PCA(n_components=width, random_state=seed).fit_transform(vectors)
    if len(vectors) < 10:
        return np.asarray(np.pad(components[:, :2], ((0, 0), (0, max(0, 2 - width)))), dtype=float)
    try:
        from umap import UMAP
    except ImportError as error:
        raise MissingDependency("umap-learn", "The map", "pip install umap-learn") from error
    # n_jobs=1: with a fixed seed UMAP is reproducible on one thread only.
    settings = UMAP(n_neighbors=min(NEIGHBOURS, len(vectors) - 1), min_dist=0.1, random_state=seed, n_jobs=1)
    return np.asarray(settings.fit_transform(components), dtype=float)
