"""FAISS's indexes against NumPy; the approximate ones against the exact one on planted clusters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import faiss
import numpy as np
import pytest

from biasdiff_core.attribution.index import Kind, build_index, nearest, search
from biasdiff_core.attribution.search import nearest_rows, refined, similar_rows
from biasdiff_core.attribution.store import GradientStore
from biasdiff_core.errors import ArtefactError, ConfigError, MissingDependency
from tests.stores import unit, vector_store

APPROXIMATE: tuple[Kind, ...] = ("ivf_flat", "ivf_pq")


@pytest.mark.parametrize("k", [1, 7, 50, 80])
@pytest.mark.parametrize("stored", [False, True], ids=["memory", "file"])
def test_equals_numpy(tmp_path: Path, k: int, stored: bool) -> None:
    """Two rows whose cosines differ by less than rounding may change places, so cosines are compared, and rows by their cosine."""
    store, queries = vector_store(tmp_path / "store", unit(50, 0)), unit(6, 1)
    if stored:
        build_index(store, tmp_path / "index.faiss")
        cosines, rows = search(tmp_path / "index.faiss", queries, k)
    else:
        cosines, rows = nearest(store.vectors(), queries, k)
    everything = queries.astype(float) @ store.vectors().astype(float).T
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
    build_index(vector_store(tmp_path / "store", unit(5, 0)), tmp_path / "index.faiss")
    with pytest.raises(ArtefactError, match="24 dimensions, the queries 8"):
        search(tmp_path / "index.faiss", unit(2, 1, dim=8), 3)


def test_equal_vectors_give_equal_bytes_whatever_the_shards(tmp_path: Path) -> None:
    for name, size in (("a", 7), ("b", 3)):
        build_index(vector_store(tmp_path / f"store-{name}", unit(20, 0), shard_size=size), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> GradientStore:
    """12,000 unit vectors of 32 dimensions about 100 centres; PQ is trained on 39 × 256 = 9,984 rows."""
    generator = np.random.default_rng(0)
    vectors = unit(100, 1, dim=32)[generator.integers(0, 100, 12_000)] + 0.1 * generator.normal(size=(12_000, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vector_store(tmp_path_factory.mktemp("clustered") / "store", vectors, shard_size=1_000)


@pytest.fixture(scope="module")
def built(clustered: GradientStore) -> Mapping[Kind, Path]:
    """Each approximate index of the clusters, made once."""
    paths = {kind: clustered.folder.with_name(kind) for kind in APPROXIMATE}
    for kind, path in paths.items():
        build_index(clustered, path, kind)
    return paths


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_an_approximate_index_finds_most_of_a_planted_cluster(clustered: GradientStore, built: Mapping[Kind, Path], kind: Kind) -> None:
    """A cluster has about 120 members, so that the 20 nearest of one lie in few of the 110 lists, of which half are searched."""
    queries = clustered.take(np.arange(0, 400, 20))
    cosines, found = nearest_rows(clustered, queries, 20, built[kind])
    _, exact = nearest_rows(clustered, queries, 20)
    recall = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(found.tolist(), exact.tolist(), strict=True)])
    assert recall > 0.9
    assert (found[:, 0] == np.arange(0, 400, 20)).all()
    np.testing.assert_allclose(cosines[:, 0], 1, atol=2e-3)
    _, candidates = search(built[kind], queries, 100)
    shuffled = np.random.default_rng(1).permutation(clustered.count)[candidates]
    _, by_chance = refined(clustered, queries, shuffled, 20)
    assert np.mean([len(set(a) & set(b)) / 20 for a, b in zip(by_chance.tolist(), exact.tolist(), strict=True)]) < 0.1


def test_by_an_index_too_a_row_without_a_vector_is_never_found(tmp_path: Path) -> None:
    """All 100 rows lie in lists that are searched; the 30 without a vector have cosine 0, which is more than half of the others have."""
    store = vector_store(tmp_path / "store", unit(100, 0), without=tuple(range(30)))
    build_index(store, tmp_path / "index")
    cosines, rows = nearest_rows(store, unit(3, 1), 80, tmp_path / "index")
    exact, exact_rows = nearest_rows(store, unit(3, 1), 80)
    assert (rows == exact_rows).all() and rows.shape == (3, 70) and rows.min() == 30
    np.testing.assert_allclose(cosines, exact, atol=1e-6)


def test_similar_rows_by_an_index_are_those_of_its_cluster(clustered: GradientStore, built: Mapping[Kind, Path]) -> None:
    cosines, rows = similar_rows(clustered, 7, 20, built["ivf_pq"])
    exact_cosines, exact = similar_rows(clustered, 7, 20)
    assert 7 not in rows and len(set(rows.tolist()) & set(exact.tolist())) >= 18
    assert cosines[0] == pytest.approx(exact_cosines[0], abs=1e-6)


def test_pq_is_smaller_and_building_again_gives_equal_bytes(clustered: GradientStore, built: Mapping[Kind, Path], tmp_path: Path) -> None:
    build_index(clustered, tmp_path / "again", "ivf_pq")
    build_index(clustered, tmp_path / "flat")
    assert built["ivf_pq"].read_bytes() == (tmp_path / "again").read_bytes()
    # One byte for 32 dimensions and 8 for the row's number, against 128; centroids and codes are 110 + 256 rows of fp32.
    assert built["ivf_pq"].stat().st_size < 0.13 * (tmp_path / "flat").stat().st_size


@pytest.mark.parametrize("kind, wanted", [("ivf_flat", 70), ("ivf_pq", 2_560)])
def test_too_few_rows_to_train_on_are_refused(tmp_path: Path, kind: Kind, wanted: int) -> None:
    """√50 is 7 lists, at least 10 rows each."""
    with pytest.raises(ConfigError, match=f"trained on at least {wanted:,} rows, the store has 50"):
        build_index(vector_store(tmp_path / "store", unit(50, 0)), tmp_path / "index", kind)


def test_a_gpu_that_is_not_there_is_refused_not_replaced(tmp_path: Path) -> None:
    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus():
        pytest.skip("there is a GPU")
    with pytest.raises((MissingDependency, ConfigError), match="faiss-gpu|sees no GPU"):
        nearest(unit(5, 0), unit(2, 1), 3, "gpu")
    build_index(vector_store(tmp_path / "store", unit(5, 0)), tmp_path / "index")
    with pytest.raises((MissingDependency, ConfigError), match="faiss-gpu|sees no GPU"):
        search(tmp_path / "index", unit(2, 1), 3, "gpu")


@pytest.mark.gpu
def test_the_gpu_finds_what_the_cpu_finds(tmp_path: Path) -> None:
    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        pytest.skip("needs faiss-gpu and a CUDA device")
    store, queries = vector_store(tmp_path / "store", unit(2_000, 0, dim=64), shard_size=500), unit(6, 1, dim=64)
    expected, _ = nearest(store.vectors(), queries, 50)
    build_index(store, tmp_path / "index")
    for cosines, rows in (nearest(store.vectors(), queries, 50, "gpu"), search(tmp_path / "index", queries, 50, "gpu")):
        np.testing.assert_allclose(cosines, expected, atol=1e-5)
        np.testing.assert_allclose(np.take_along_axis(queries @ store.vectors().T, rows, 1), expected, atol=1e-5)
