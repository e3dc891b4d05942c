"""Projections: their hash against unbounded integers, their law against theory, their sums against dense matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from biasdiff_core.attribution import projection
from biasdiff_core.attribution.gradients import Featurizer, probe_pass
from biasdiff_core.attribution.optimizer_map import gradient_map
from biasdiff_core.attribution.projection import Rademacher, hashed_coordinates, hashed_words, make_projection
from biasdiff_core.config.gradients import ProjectionKind
from tests.reference.gradients_slow import gradients_slow, hash_slow, rademacher_matrix, sketch_matrix
from tests.tiny_models import sequences, tiny_lora

# A right projection fails one of these tests less than once in 100,000 runs of it, and every seed is fixed.
SIGMA = 4.5
NAME = "model.layers.0.self_attn.q_proj.lora_A.weight"
DENSE: dict[ProjectionKind, Callable[[int, str, int, int], Tensor]] = {"countsketch": sketch_matrix, "rademacher": rademacher_matrix}
both_kinds = pytest.mark.parametrize("kind", DENSE)


def project(kind: ProjectionKind, parts: dict[str, Tensor], dim: int, seed: int) -> Tensor:
    """Projection [B, dim] of all parts, in the order given."""
    first = next(iter(parts.values()))
    total, projector = torch.zeros((len(first), dim), dtype=first.dtype), make_projection(kind, dim, seed)
    for name, vectors in parts.items():
        projector.add(total, name, vectors)
    projector.flush()
    return total


def test_golden_values() -> None:
    """Pinned: a store made by an earlier version can be read by a later one. Change them only with the version."""
    buckets, signs = hashed_coordinates(0, NAME, 6, 8192)
    assert buckets.tolist() == [4932, 4535, 8017, 3404, 5490, 2357]
    assert signs.tolist() == [-1, -1, -1, -1, -1, 1]
    assert buckets.dtype == np.int64 and signs.dtype == np.float32
    dense = Rademacher(8192, 0).signs(NAME, 0, 2)
    assert dense[:, :8].tolist() == [[-1, 1, 1, -1, 1, -1, -1, 1], [-1, 1, -1, -1, 1, -1, 1, 1]]
    assert dense.dtype == torch.float32 and dense.shape == (2, 8192)


@given(seed=st.integers(0, 2**31), name=st.text(min_size=1, max_size=30), dim=st.integers(1, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_hash_equals_splitmix64_in_unbounded_integers(seed: int, name: str, dim: int) -> None:
    buckets, signs = hashed_coordinates(seed, name, 9, dim)
    words = [hash_slow(f"1:{seed}:{name}", coordinate) for coordinate in range(9)]
    assert buckets.tolist() == [(z >> 1) % dim for z in words]
    assert signs.tolist() == [1.0 if z & 1 else -1.0 for z in words]


@given(stream=st.text(max_size=30), first=st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_a_stream_can_be_read_from_any_place(stream: str, first: int) -> None:
    assert hashed_words(stream, first, 3).tolist() == [hash_slow(stream, first + place) for place in range(3)]


def test_a_longer_parameter_begins_with_the_same_coordinates() -> None:
    short, long = hashed_coordinates(5, NAME, 100, 512), hashed_coordinates(5, NAME, 1000, 512)
    assert all((a == b[:100]).all() for a, b in zip(short, long, strict=True))
    signs = Rademacher(100, 5).signs(NAME, 0, 40)
    assert (signs[17:] == Rademacher(100, 5).signs(NAME, 17, 23)).all()


def test_seed_and_name_matter() -> None:
    base = hashed_coordinates(0, NAME, 1000, 64)
    other_name = NAME.replace("lora_A", "lora_B")
    for other in (hashed_coordinates(1, NAME, 1000, 64), hashed_coordinates(0, other_name, 1000, 64)):
        # Of independent coordinates 1 in 64 shares its bucket: 15.6 ± 3.9 of 1000.
        assert (base[0] == other[0]).sum() < 15.6 + SIGMA * 3.9
        # Independent signs agree in 500 ± 15.8 of 1000.
        assert abs((base[1] == other[1]).sum() - 500) < SIGMA * 15.8
    dense = Rademacher(50, 0).signs(NAME, 0, 20)
    for signs in (Rademacher(50, 1).signs(NAME, 0, 20), Rademacher(50, 0).signs(other_name, 0, 20)):
        assert abs((dense == signs).sum() - 500) < SIGMA * 15.8


@pytest.mark.parametrize("dim", [512, 1000])
def test_buckets_and_signs_are_uniform(dim: int) -> None:
    """χ² over bucket × sign cells: mean 2·dim − 1, variance 2·(2·dim − 1)."""
    buckets, signs = hashed_coordinates(3, NAME, 200_000, dim)
    counts = np.bincount(2 * buckets + (signs > 0), minlength=2 * dim)
    expected = 200_000 / (2 * dim)
    chi2 = ((counts - expected) ** 2 / expected).sum()
    freedom = 2 * dim - 1
    assert abs(chi2 - freedom) < SIGMA * np.sqrt(2 * freedom)
    # Neighbouring coordinates are not related: the product of their signs has mean 0 ± 1/√n.
    assert abs((signs[1:] * signs[:-1]).mean()) < SIGMA / np.sqrt(len(signs) - 1)


def test_dense_signs_are_balanced_and_unrelated_to_their_neighbours() -> None:
    """Means over n signs, and over n products of neighbours along a row, along a column and a word apart, are 0 ± 1/√n."""
    signs = Rademacher(1000, 3).signs(NAME, 0, 200)
    assert set(signs.unique().tolist()) == {-1, 1}
    for values in (signs, signs[:, 1:] * signs[:, :-1], signs[1:] * signs[:-1], signs[:, 64:] * signs[:, :-64]):
        assert abs(float(values.mean())) < SIGMA / np.sqrt(values.numel())


def random_parts(seed: int, rows: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn((rows, size), generator=generator, dtype=torch.float64) for name, size in (("a", 30), ("b", 1), ("c", 21))}


@both_kinds
@pytest.mark.parametrize("dim", [16, 70])
def test_equals_the_dense_matrix(kind: ProjectionKind, dim: int) -> None:
    parts = random_parts(0, rows=4)
    dense = sum((parts[n] @ DENSE[kind](7, n, parts[n].shape[1], dim).T for n in parts), start=torch.zeros(4, dim).double())
    torch.testing.assert_close(project(kind, parts, dim, 7), dense, rtol=1e-12, atol=1e-12)


@both_kinds
def test_the_order_of_the_parameters_does_not_matter(kind: ProjectionKind) -> None:
    parts = random_parts(1)
    turned = dict(reversed(parts.items()))
    torch.testing.assert_close(project(kind, parts, 16, 7), project(kind, turned, 16, 7), rtol=1e-12, atol=1e-12)


@both_kinds
@given(a=st.floats(-10, 10), b=st.floats(-10, 10))
@settings(max_examples=20, deadline=None)
def test_is_linear(kind: ProjectionKind, a: float, b: float) -> None:
    x, y = random_parts(2), random_parts(3)
    mixed = project(kind, {n: a * x[n] + b * y[n] for n in x}, 16, 7)
    torch.testing.assert_close(mixed, a * project(kind, x, 16, 7) + b * project(kind, y, 16, 7), rtol=1e-9, atol=1e-9)


@both_kinds
def test_batches_are_projected_row_by_row(kind: ProjectionKind) -> None:
    parts = random_parts(4, rows=5)
    for row in range(5):
        alone = project(kind, {n: p[row : row + 1] for n, p in parts.items()}, 16, 7)
        torch.testing.assert_close(project(kind, parts, 16, 7)[row], alone[0], rtol=1e-12, atol=1e-12)


@both_kinds
@pytest.mark.parametrize("related", [False, True], ids=["unrelated", "related"])
def test_inner_products_are_unbiased_with_the_variance_of_theory(kind: ProjectionKind, related: bool) -> None:
    """Over seeds, E⟨Px, Py⟩ = ⟨x, y⟩ and Var⟨Px, Py⟩ = (‖x‖²‖y‖² + ⟨x, y⟩² − 2 Σ x²y²) / dim, of both kinds.

    The mean of n seeds has the standard error √(Var/n); the sample variance has √((m4 − s⁴)/n), m4 the fourth moment.
    """
    seeds, dim = 1000, 16
    parts = random_parts(5)
    if related:
        parts = {n: torch.stack([p[0], p[0] + 0.3 * p[1]]) for n, p in parts.items()}
    x, y = (torch.cat([p[row] for p in parts.values()]) for row in (0, 1))
    truth = float(x @ y)
    variance = float((x @ x) * (y @ y) + truth**2 - 2 * (x**2 * y**2).sum()) / dim
    products = np.array([float(s[0] @ s[1]) for s in (project(kind, parts, dim, seed) for seed in range(seeds))])
    assert abs(products.mean() - truth) < SIGMA * np.sqrt(variance / seeds)
    error = products - truth
    assert abs((error**2).mean() - variance) < SIGMA * np.sqrt(((error**4).mean() - variance**2) / seeds)
    bound = float((x @ x) * (y @ y) + truth**2) / dim
    assert variance <= bound


@both_kinds
def test_a_longer_sketch_is_closer(kind: ProjectionKind) -> None:
    parts = random_parts(6)
    x, y = (torch.cat([p[row] for p in parts.values()]) for row in (0, 1))

    def spread(dim: int) -> float:
        return float(np.std([float(s[0] @ s[1] - x @ y) for s in (project(kind, parts, dim, seed) for seed in range(200))]))

    # Standard deviations fall as 1/√dim: by 4 from 16 to 256.
    assert spread(256) < spread(16) / 2.5


@both_kinds
def test_one_projector_serves_many_batches_without_remembering_them(kind: ProjectionKind) -> None:
    projector, parts = make_projection(kind, 16, 7), random_parts(8)
    first, second = torch.zeros(2, 16).double(), torch.zeros(2, 16).double()
    for total in (first, second):
        for name, vectors in parts.items():
            projector.add(total, name, vectors)
        projector.flush()
    projector.flush()
    assert (first == second).all() and first.any()


def test_the_signs_of_a_parameter_are_made_once_for_many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 2 are held back until 6 rows have come; what is left waits for `flush`. Each still goes to its own sketch."""
    monkeypatch.setattr(projection, "HELD_ROWS", 6)
    monkeypatch.setattr(projection, "_BLOCK", 16 * 8)  # eight coordinates at a time
    projector, batches = Rademacher(16, 7), [random_parts(seed) for seed in range(5)]
    sketches = [torch.zeros(2, 16).double() for _ in batches]
    for sketch, parts in zip(sketches, batches, strict=True):
        for name, vectors in parts.items():
            projector.add(sketch, name, vectors)
    assert [bool(sketch.any()) for sketch in sketches] == [True, True, True, False, False]
    projector.flush()
    for sketch, parts in zip(sketches, batches, strict=True):
        torch.testing.assert_close(sketch, project("rademacher", parts, 16, 7), rtol=1e-12, atol=1e-12)


def test_labels_tell_kind_version_and_seed() -> None:
    assert [make_projection(kind, 8, 3).label for kind in DENSE] == ["countsketch-v1-seed3", "rademacher-v1-seed3"]


@pytest.mark.parametrize("side", ["corpus", "probes"])
def test_gradients_projected_by_dense_signs_equal_one_example_at_a_time(side: str) -> None:
    """Several batches are held back, and each row gets its own vector."""
    model, encoded, plain = tiny_lora("llama"), sequences(5), gradient_map("sgd", None)
    projector, budget = make_projection("rademacher", 8, 3), 20
    if side == "corpus":
        rows = Featurizer(model, 0, plain, projector, None, budget).rows(encoded)
    else:
        _, rows = probe_pass(model, 0, plain, projector, encoded, ["a"] * 5, budget)
    matrices: dict[str, Tensor] = {}
    for row, example in enumerate(encoded):
        total = torch.zeros(8, dtype=torch.float64)
        for name, gradient in gradients_slow(model, example)[1].items():
            matrices.setdefault(name, rademacher_matrix(3, name, len(gradient), 8))
            total += matrices[name] @ gradient.double()
        np.testing.assert_allclose(rows.sketch[row], (total / total.norm()).numpy(), atol=1e-5)
