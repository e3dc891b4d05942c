"""Exact search over a store against the sorted full product: shards, blocks, ties, rows without a vector, memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biasdiff_core.attribution import search
from biasdiff_core.attribution.search import nearest_rows, nearest_to_each, refined, similar_rows, top_probes
from biasdiff_core.attribution.store import GradientStore
from biasdiff_core.errors import ArtefactError, ConfigError, DataError
from tests.stores import unit, vector_store

COUNT, DIM, WITHOUT = 53, 24, (0, 17, 52)


def nearest_slow(vectors: np.ndarray, queries: np.ndarray, k: int, without: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """All products in float64, sorted; of equal ones the lower row first."""
    cosines = queries.astype(float) @ vectors.astype(float).T
    cosines[:, list(without)] = -np.inf
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, : min(k, len(vectors) - len(without))]
    return np.take_along_axis(cosines, rows, axis=1), rows


@pytest.fixture(params=[1, 3], ids=["block-of-1", "block-of-3"])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So few bytes a block that a store of 53 rows has many, with ends inside shards."""
    monkeypatch.setattr(search, "BLOCK_BYTES", 4 * (DIM + 6) * request.param)


@pytest.fixture
def store(tmp_path: Path) -> GradientStore:
    return vector_store(tmp_path / "store", unit(COUNT, 0), without=WITHOUT)


@pytest.mark.parametrize("k", [1, 7, 50, 80])
def test_equals_the_sorted_full_product(store: GradientStore, small_blocks: None, k: int) -> None:
    queries = unit(6, 1)
    cosines, rows = nearest_rows(store, queries, k)
    expected, expected_rows = nearest_slow(store.vectors(), queries, k, WITHOUT)
    assert rows.shape == cosines.shape == (6, min(k, COUNT - len(WITHOUT)))
    np.testing.assert_allclose(cosines, expected, atol=1e-6)
    assert (rows == expected_rows).all()  # no two of these cosines differ by less than rounding


@pytest.mark.parametrize("k", [1, 5])
def test_the_other_way_round_equals_the_sorted_full_product(store: GradientStore, small_blocks: None, k: int) -> None:
    known = unit(6, 1)
    cosines, numbers = nearest_to_each(store, known, k)
    expected, expected_numbers = nearest_slow(known, store.vectors()[store.done], k)
    np.testing.assert_allclose(cosines, expected, atol=1e-6)
    assert (numbers == expected_numbers).all()


def test_nearest_probes_come_with_the_cosine_to_their_own_twin(store: GradientStore, small_blocks: None, tmp_path: Path) -> None:
    probes, twins = (vector_store(tmp_path / name, unit(6, seed)) for name, seed in (("probes", 1), ("twins", 2)))
    found = top_probes(store, probes, 2, twins)
    row, number = {id_: n for n, id_ in enumerate(store.ids)}, {id_: n for n, id_ in enumerate(probes.ids)}
    assert len(found) == 2 * (COUNT - len(WITHOUT))
    for line in found.itertuples():
        example = store.vectors()[row[line.id]]
        assert line.cosine == pytest.approx(example @ probes.vectors()[number[line.probe]], abs=1e-6)
        assert line.twin_cosine == pytest.approx(example @ twins.vectors()[number[line.probe]], abs=1e-6)
    assert list(top_probes(store, probes, 2).columns) == ["id", "place", "probe", "cosine"]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_ties_go_to_the_lower_row_whatever_the_block(tmp_path_factory: pytest.TempPathFactory, count: int, k: int, seed: int) -> None:
    """Coordinates are −1, 0 or 1, so that products are small integers, exact and often equal."""
    generator = np.random.default_rng(seed)
    vectors, queries = generator.integers(-1, 2, (count, 3)), generator.integers(-1, 2, (4, 3)).astype(np.float32)
    store = vector_store(tmp_path_factory.mktemp("store") / "store", vectors.astype(np.float32), shard_size=25)
    expected, expected_rows = nearest_slow(vectors, queries, k)
    with pytest.MonkeyPatch.context() as patch:
        for rows_in_block in (1, 4, 100):
            patch.setattr(search, "BLOCK_BYTES", 4 * (3 + 4) * rows_in_block)
            cosines, rows = nearest_rows(store, queries, k)
            assert (cosines == expected).all() and (rows == expected_rows).all()


def test_any_shard_size_gives_identical_results(tmp_path: Path, small_blocks: None) -> None:
    vectors, queries = unit(COUNT, 0), unit(6, 1)
    stores = [vector_store(tmp_path / str(size), vectors, shard_size=size) for size in (1, 7, 16, 100)]
    first = nearest_rows(stores[0], queries, 9)
    for store in stores[1:]:
        for found, expected in zip(nearest_rows(store, queries, 9), first, strict=True):
            assert found.tobytes() == expected.tobytes()


def test_permuted_rows_give_the_same_neighbours(tmp_path: Path) -> None:
    vectors, order = unit(COUNT, 0), np.random.default_rng(1).permutation(COUNT)
    queries = unit(6, 2)
    cosines, rows = nearest_rows(vector_store(tmp_path / "a", vectors), queries, 9)
    permuted_cosines, permuted = nearest_rows(vector_store(tmp_path / "b", vectors[order]), queries, 9)
    assert (order[permuted] == rows).all()
    np.testing.assert_allclose(permuted_cosines, cosines, atol=1e-6)


def test_planted_neighbours_are_found_best_first(tmp_path: Path) -> None:
    """Rows 40, 3 and 21 are the query with 10, 20 and 40 % of noise in the length of the vector."""
    vectors, query, noise = unit(COUNT, 0, dim=512), unit(1, 1, dim=512), unit(3, 2, dim=512)
    for row, share, direction in zip((40, 3, 21), (0.1, 0.2, 0.4), noise, strict=True):
        mixed = query[0] + share * direction
        vectors[row] = mixed / np.linalg.norm(mixed)
    cosines, rows = nearest_rows(vector_store(tmp_path / "store", vectors), query, 4)
    assert rows[0, :3].tolist() == [40, 3, 21]
    assert cosines[0, 3] < 0.3  # of a random row: standard deviation 1 / √512 = 0.044


def test_similar_rows_leave_out_the_row_itself_among_its_doubles(tmp_path: Path) -> None:
    vectors = unit(COUNT, 0)
    vectors[[2, 11, 30]] = vectors[20]
    store = vector_store(tmp_path / "store", vectors, without=(5,))
    cosines, rows = similar_rows(store, 20, 5)
    assert rows[:3].tolist() == [2, 11, 30] and 20 not in rows and len(rows) == 5
    np.testing.assert_allclose(cosines[:3], 1, atol=2e-3)
    assert (np.diff(cosines) <= 0).all()
    # Four rows are equal, and one is asked for: the row is not among its own two nearest, 2 and 11.
    assert similar_rows(store, 20, 1)[1].tolist() == [2]
    everything = similar_rows(store, 20, 100)[1]
    assert sorted(everything.tolist()) == [row for row in range(COUNT) if row not in (5, 20)]


def test_a_row_without_a_vector_has_none_similar(store: GradientStore) -> None:
    with pytest.raises(DataError, match="z17 has no token to predict"):
        similar_rows(store, 17, 3)


def test_a_store_without_any_vector_finds_nothing(tmp_path: Path) -> None:
    store = vector_store(tmp_path / "store", unit(4, 0), without=(0, 1, 2, 3))
    assert [found.shape for found in nearest_rows(store, unit(2, 1), 3)] == [(2, 0), (2, 0)]


def test_candidates_are_ranked_by_their_true_cosines(store: GradientStore) -> None:
    queries = unit(2, 1)
    candidates = np.array([[30, 4, 9, -1], [-1, -1, 8, -1]])
    cosines, rows = refined(store, queries, candidates, 3)
    true = queries @ store.vectors().T
    assert rows[0].tolist() == sorted((30, 4, 9), key=lambda row: -true[0, row])
    np.testing.assert_allclose(cosines[0], -np.sort(-true[0, [30, 4, 9]]), atol=1e-6)
    assert rows[1].tolist() == [8, -1, -1] and np.isneginf(cosines[1, 1:]).all()
    everything = np.tile(np.flatnonzero(store.done), (2, 1))
    assert (refined(store, queries, everything, 9)[1] == nearest_rows(store, queries, 9)[1]).all()


def test_what_cannot_be_searched_for_is_refused(store: GradientStore) -> None:
    with pytest.raises(ArtefactError, match="have 24 dimensions, those searched for 8"):
        nearest_rows(store, unit(2, 1, dim=8), 3)
    with pytest.raises(ArtefactError, match="have 24 dimensions, those searched for 8"):
        nearest_to_each(store, unit(2, 1, dim=8), 3)
    with pytest.raises(ConfigError, match="0 nearest are asked for"):
        nearest_rows(store, unit(2, 1), 0)


def test_archived_vectors_are_said(store: GradientStore) -> None:
    (store.folder / "shard-00003.npy").unlink()
    with pytest.raises(ArtefactError, match="archived"):
        nearest_rows(store, unit(2, 1), 3)
    with pytest.raises(ArtefactError, match="archived"):
        store.take(np.array([1, 22]))


def test_memory_does_not_grow_with_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4,000 rows of 256 dimensions are 4.1 MB in fp32; a block is 256 kB, and the working arrays of a block a few of these."""
    store = vector_store(tmp_path / "store", unit(4_000, 0, dim=256), shard_size=500)
    queries = unit(10, 1, dim=256)
    assert len(store.done) == 4_000
    monkeypatch.setattr(search, "BLOCK_BYTES", 2**18)
    tracemalloc.start()
    nearest_rows(store, queries, 10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    store.vectors()
    _, whole = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20 < 2**22 < whole
