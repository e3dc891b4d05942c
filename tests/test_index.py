"""FAISS's flat index against NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from biasdiff_core.attribution.index import build_index, nearest, search
from biasdiff_core.errors import ArtefactError


def unit(count: int, seed: int, dim: int = 24) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 7, 50, 80])
@pytest.mark.parametrize("stored", [False, True], ids=["memory", "file"])
def test_equals_numpy(tmp_path: Path, k: int, stored: bool) -> None:
    """Two rows whose cosines differ by less than rounding may change places, so cosines are compared, and rows by their cosine."""
    vectors, queries = unit(50, 0), unit(6, 1)
    if stored:
        build_index(vectors, tmp_path / "index.faiss")
        cosines, rows = search(tmp_path / "index.faiss", queries, k)
    else:
        cosines, rows = nearest(vectors, queries, k)
    everything = queries.astype(float) @ vectors.astype(float).T
    expected = -np.sort(-everything, axis=1)[:, : min(k, 50)]
    np.testing.assert_allclose(cosines, expected, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(everything, rows, axis=1), expected, atol=1e-6)
    assert all(len(set(row)) == len(row) for row in rows.tolist())


def test_a_vector_finds_itself_first_and_its_double_with_the_same_cosine() -> None:
    vectors = np.concatenate([unit(10, 0), unit(10, 0)[3:4]])
    cosines, rows = nearest(vectors, vectors[3:4], 3)
    assert set(rows[0, :2].tolist()) == {3, 10}
    np.testing.assert_allclose(cosines[0, :2], 1, atol=1e-6)
    assert cosines[0, 2] < 0.99


def test_a_row_without_a_vector_is_never_near() -> None:
    vectors = np.concatenate([np.zeros((1, 24), np.float32), unit(10, 0)])
    cosines, rows = nearest(vectors, vectors[4:5], 1)
    assert rows[0, 0] == 4 and cosines[0, 0] == pytest.approx(1, abs=1e-6)


def test_other_dimensions_are_refused_naming_both(tmp_path: Path) -> None:
    build_index(unit(5, 0), tmp_path / "index.faiss")
    with pytest.raises(ArtefactError, match="24 dimensions, the queries 8"):
        search(tmp_path / "index.faiss", unit(2, 1, dim=8), 3)


def test_equal_vectors_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        build_index(unit(20, 0), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
