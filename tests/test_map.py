"""The coordinates of the map: as UMAP gives them, and above a size those of a sample with the other rows placed among it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.decomposition import PCA
from umap import UMAP

from biasdiff_core.attribution import map2d
from biasdiff_core.attribution.map2d import coordinates
from biasdiff_core.results import Progress

GROUPS, EACH, DIM = 3, 80, 64


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors about three directions at right angles, shuffled, and the direction of each."""
    random = np.random.default_rng(0)
    group = random.permutation(np.repeat(range(GROUPS), EACH))
    vectors = np.eye(DIM)[group] + 0.05 * random.normal(size=(len(group), DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), group


def plain_umap(vectors: np.ndarray, seed: int) -> np.ndarray:
    components = PCA(n_components=50, random_state=seed).fit_transform(vectors)
    return np.asarray(UMAP(n_neighbors=15, min_dist=0.1, random_state=seed, n_jobs=1).fit_transform(components), dtype=float)


def test_up_to_the_size_it_is_umap_to_the_bit(planted: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = planted
    expected = plain_umap(vectors, 3)
    assert coordinates(vectors, 3).tobytes() == expected.tobytes()
    monkeypatch.setattr(map2d, "SAMPLE", len(vectors))
    assert coordinates(vectors, 3).tobytes() == expected.tobytes()


def test_above_the_size_each_row_lands_in_its_own_cluster(planted: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, group = planted
    monkeypatch.setattr(map2d, "SAMPLE", 90)
    monkeypatch.setattr(map2d, "AT_ONCE", 40)
    told: list[Progress] = []
    xy = coordinates(vectors, 0, told.append)
    centres = np.array([np.median(xy[group == number], axis=0) for number in range(GROUPS)])
    nearest = np.linalg.norm(xy[:, None] - centres, axis=2).argmin(axis=1)
    assert nearest.tolist() == group.tolist()
    sampled = np.sort(np.random.default_rng(0).choice(len(vectors), 90, replace=False))
    assert xy[sampled].tobytes() == plain_umap(vectors[sampled], 0).tobytes()
    assert [(step.message, step.done, step.total) for step in told] == [
        ("Draw the map: principal components", 0, 1),
        ("Draw the map: principal components", 1, 1),
        ("Draw the map: neighbours and layout", 0, 1),
        ("Draw the map: neighbours and layout", 1, 1),
        *(("Draw the map: place the other examples", done, 150) for done in (0, 40, 80, 120, 150)),
    ]


def test_the_sample_is_a_function_of_the_seed(planted: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = planted
    monkeypatch.setattr(map2d, "SAMPLE", 90)
    first = coordinates(vectors, 5)
    assert coordinates(vectors, 5).tobytes() == first.tobytes()
    assert not np.allclose(coordinates(vectors, 6), first)


def test_a_row_is_placed_by_its_nearest_sampled_ones(planted: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = planted
    monkeypatch.setattr(map2d, "SAMPLE", 90)
    sampled = np.sort(np.random.default_rng(1).choice(len(vectors), 90, replace=False))
    others = np.setdiff1d(np.arange(len(vectors)), sampled)
    vectors = vectors.copy()
    vectors[others[0]] = vectors[sampled[7]]
    xy = coordinates(vectors, 1)
    np.testing.assert_allclose(xy[others[0]], xy[sampled[7]], atol=1e-3)  # the same vector, the same place
    pca = PCA(n_components=50, random_state=1).fit(vectors[sampled])
    there = pca.transform(vectors[sampled]).astype(float)
    for row in others[1:20]:
        distances = np.linalg.norm(there - pca.transform(vectors[row : row + 1]).astype(float), axis=1)
        near = np.argsort(distances)[:15]
        expected = np.average(xy[sampled[near]], axis=0, weights=1 / distances[near])
        np.testing.assert_allclose(xy[row], expected, rtol=1e-4, atol=1e-4)


def test_the_map_leaves_torch_the_threads_it_had() -> None:
    """In a process of its own: numba takes all cores when it first compiles."""
    code = (
        "import numpy as np, torch; from biasdiff_core.attribution.map2d import coordinates; "
        "coordinates(np.random.default_rng(0).normal(size=(40, 8)), 0); print(torch.get_num_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.stdout.split() == ["1"]


def test_a_handful_of_rows_is_drawn_by_principal_components() -> None:
    vectors = np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(np.abs(coordinates(vectors, 0)), np.abs(PCA(4, random_state=0).fit_transform(vectors)[:, :2]))
