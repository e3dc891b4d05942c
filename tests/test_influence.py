"""Influence: Eq. 5 by hand, its sign as the change of a probe's loss, exact against projected, a planted example, the null."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from biasdiff_core.attribution.gradients import full_vectors
from biasdiff_core.attribution.influence import (
    CheckpointStores,
    direction_name,
    exact_cosines,
    nearest_cosines,
    null_scores,
    projected_cosines,
    score_column,
    whitened_cosines,
)
from biasdiff_core.attribution.optimizer_map import gradient_map
from biasdiff_core.attribution.projection import hashed_coordinates
from biasdiff_core.attribution.ranking import rank
from biasdiff_core.attribution.store import GradientStore, finish_store, write_shard
from biasdiff_core.config import MapConfig
from biasdiff_core.errors import ArtefactError
from biasdiff_core.model.checkpoint import Checkpoint, load_optimizer_state
from biasdiff_core.model.lora import add_lora, attach_adapter, lora_parameters
from biasdiff_core.model.score import sequence_log_probs
from biasdiff_core.model.tokenise import collate, encode, encode_texts
from tests.reference.influence_slow import nearest_cosines_slow, whitened_cosines_slow
from tests.tiny_gradients import LORA, PROBES, collect, gradient_config, tiny_corpus, tiny_probes, warm_up
from tests.tiny_models import tiny_loaded

TYPES = ["x", "y", "x"]


def store(folder: Path, vectors: np.ndarray, cosines: dict[str, Sequence[float]] | None = None, empty: int | None = None) -> GradientStore:
    """A store of the given vectors in shards of two rows, `z0`, `z1` …"""
    folder.mkdir(parents=True)
    tokens = np.array([0 if row == empty else 3 for row in range(len(vectors))])
    table = pd.DataFrame({"norm": 1.0, "loss": 2.0, "tokens": tokens} | {f"cosine:{n}": list(v) for n, v in (cosines or {}).items()})
    for number, start in enumerate(range(0, len(vectors), 2)):
        write_shard(folder, number, vectors[start : start + 2], table.iloc[start : start + 2])
    finish_store(folder, {}, [f"z{row}" for row in range(len(vectors))], 2)
    return GradientStore.open(folder)


def two_checkpoints(folder: Path, twins: bool = True) -> list[CheckpointStores]:
    """Three examples on the axes of the plane, three probes; at the second checkpoint the first two examples have changed places."""
    east, north, west = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
    made = []
    for number, (weight, train) in enumerate(((0.75, [east, north, west]), (0.25, [north, east, west]))):
        place = folder / str(number)
        # mean of probes x: (east + north) / 2 = (0.5, 0.5); y: west = (−1, 0). Twins: x: (0, 1), y: (0, 1).
        exact = {
            "probe:x": [0.5 * (a + b) for a, b in train],
            "probe:y": [-a for a, b in train],
            "pool": [0.5 * (b - a) for a, b in train],
        } | ({"twin:x": [b for a, b in train], "twin:y": [b for a, b in train]} if twins else {})
        made.append(
            CheckpointStores(
                weight=weight,
                train=store(place / "train", np.array(train), exact),
                probes=store(place / "probes", np.array([east, west, north])),
                twins=store(place / "twins", np.array([north, north, north])) if twins else None,
                pool=store(place / "pool", np.array([north, west])),  # of z0 and z1
            )
        )
    return made


# Checkpoint 1 (η̄ 0.75): cosines to the probes (east, west, north): z0 = (1, −1, 0), z1 = (0, 0, 1), z2 = (−1, 1, 0).
# Means 0, 1/3, 0. Checkpoint 2 (η̄ 0.25): z0 and z1 changed places: 1/3, 0, 0.
# Eq. 5: z0 = 0.75·0 + 0.25/3, z1 = 0.75/3 + 0, z2 = 0.
MEAN = [1 / 12, 1 / 4, 0.0]
# Type x (east, north): checkpoint 1: z0 = 1/2, z1 = 1/2, z2 = −1/2; the same at 2. Type y (west): z0 = −1, 0, 1; then 0, −1, 1.
MEAN_X = [0.5, 0.5, -0.5]
MEAN_Y = [-0.75, -0.25, 1.0]
# Twins (all north): z0 = 0, z1 = 1, z2 = 0; then 1, 0, 0.
TWIN = [0.25, 0.75, 0.0]
# Pool: z0 as north, z1 as west; neither is measured against itself. Checkpoint 1: z0 (east) to west −1, z1 (north) to north 1,
# z2 (west) to both 1/2. Checkpoint 2: z0 (north) to west 0, z1 (east) to north 0, z2 1/2.
POOL_MEAN = [-0.75, 0.75, 0.5]


@pytest.mark.parametrize("source", ["exact", "projected"])
def test_eq_5_over_two_checkpoints_by_hand(tmp_path: Path, source: str) -> None:
    stores = two_checkpoints(tmp_path)
    cosines = exact_cosines(stores, {"x": 2, "y": 1}) if source == "exact" else projected_cosines(stores, TYPES)
    found = projected_columns(cosines)
    for name, expected in {
        "mean": MEAN,
        "mean:x": MEAN_X,
        "mean:y": MEAN_Y,
        "twin_mean": TWIN,
        "twin_mean:x": TWIN,
        "pool_mean": POOL_MEAN,
    }.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(score_column(cosines, "mean"), MEAN, atol=1e-6)
    np.testing.assert_allclose(score_column(cosines, "contrast"), np.array(MEAN) - TWIN, atol=1e-6)
    np.testing.assert_allclose(score_column(cosines, "centred"), np.array(MEAN) - POOL_MEAN, atol=1e-6)


def projected_columns(cosines: pd.DataFrame) -> dict[str, list[float]]:
    return {str(name): cosines[name].tolist() for name in cosines}


def test_the_types_are_told_apart_by_the_probes_places_in_the_store(tmp_path: Path) -> None:
    cosines = projected_cosines(two_checkpoints(tmp_path), ["y", "x", "x"])
    # y is now east: z0 = 0.75·1 + 0.25·0.
    assert cosines["mean:y"][0] == pytest.approx(0.75, abs=1e-6)
    np.testing.assert_allclose(cosines["mean"], MEAN, atol=1e-6)


def test_the_last_checkpoint_alone_is_eq_6(tmp_path: Path) -> None:
    last = two_checkpoints(tmp_path)[-1:]
    np.testing.assert_allclose(exact_cosines(last, {"x": 2, "y": 1})["mean"], [0.25 / 3, 0, 0], atol=1e-6)


def test_there_is_no_contrast_without_twins_and_no_score_without_checkpoints(tmp_path: Path) -> None:
    stores = two_checkpoints(tmp_path, twins=False)
    for cosines in (exact_cosines(stores, {"x": 2, "y": 1}), projected_cosines(stores, TYPES)):
        assert not [name for name in cosines if str(name).startswith("twin")]
        with pytest.raises(ArtefactError, match="twins"):
            score_column(cosines, "contrast")
    with pytest.raises(ArtefactError, match="no checkpoint"):
        exact_cosines([], {"x": 1})


def test_a_row_without_a_loss_has_no_score(tmp_path: Path) -> None:
    train = store(
        tmp_path / "t", np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]), {"probe:x": [1.0, np.nan, 0.0], "pool": [1.0, np.nan, 0.0]}, empty=1
    )
    east = np.array([[1.0, 0.0]])
    made = [CheckpointStores(weight=1.0, train=train, probes=store(tmp_path / "p", east), twins=None, pool=store(tmp_path / "o", east))]
    for cosines in (exact_cosines(made, {"x": 1}), projected_cosines(made, ["x"])):
        assert cosines["mean"].isna().tolist() == [False, True, False]
        assert rank(train.ids, cosines["mean"].to_numpy())["id"].tolist() == ["z0", "z2"]
        assert cosines["pool_mean"].isna().tolist() == [True, True, False]  # z0 is the whole pool: it has no other to be measured against


def test_turning_the_probes_gradients_around_reverses_the_ranking(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    vectors, probes = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (generator.normal(size=(n, 16)) for n in (12, 4)))
    ranked = []
    for sign in (1, -1):
        train, side = store(tmp_path / f"t{sign}", vectors), store(tmp_path / f"p{sign}", sign * probes)
        cosines = projected_cosines([CheckpointStores(weight=1.0, train=train, probes=side, twins=None, pool=train)], ["x"] * 4)
        ranked.append(rank(train.ids, cosines["mean"].to_numpy())["id"].tolist())
    assert ranked[0] == ranked[1][::-1]


def random_stores(folder: Path, rows: int, dim: int, *, seed: int = 0, turned_by: np.ndarray | None = None) -> CheckpointStores:
    """Unit vectors that all lean to one side, five probes; `turned_by`: an orthogonal matrix applied to all."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(rows + 5, dim)) + 2 * generator.normal(size=dim)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) @ (np.eye(dim) if turned_by is None else turned_by)
    train, probes = store(folder / "train", vectors[:rows]), store(folder / "probes", vectors[rows:])
    return CheckpointStores(weight=1.0, train=train, probes=probes, twins=None, pool=train)


@pytest.mark.parametrize("nearest", [1, 2, 5])
def test_the_nearest_probes_alone_equal_the_slow_twin(tmp_path: Path, nearest: int) -> None:
    made = random_stores(tmp_path, 7, 12)
    expected = nearest_cosines_slow(made.train.vectors(), made.probes.vectors(), nearest)
    np.testing.assert_allclose(nearest_cosines([made], nearest), expected, atol=1e-6)


def test_the_nearest_of_all_probes_are_the_mean_over_checkpoints(tmp_path: Path) -> None:
    stores = two_checkpoints(tmp_path)
    np.testing.assert_allclose(nearest_cosines(stores, 3), MEAN, atol=1e-6)
    # Every example is a probe at both checkpoints: 0.75·1 + 0.25·1.
    np.testing.assert_allclose(nearest_cosines(stores, 1), [1, 1, 1], atol=1e-6)
    # The two greatest are 1 and 0 for each of them.
    np.testing.assert_allclose(nearest_cosines(stores, 2), [0.5, 0.5, 0.5], atol=1e-6)


@pytest.mark.parametrize("damping", [0.01, 1.0])
@pytest.mark.parametrize(("rows", "dim"), [(6, 20), (40, 8)], ids=["wide", "tall"])
def test_whitened_scores_equal_the_slow_twin(tmp_path: Path, rows: int, dim: int, damping: float) -> None:
    made = random_stores(tmp_path, rows, dim)
    expected = whitened_cosines_slow(made.train.vectors().astype(float), made.probes.vectors().astype(float), damping)
    np.testing.assert_allclose(whitened_cosines([made], damping), expected, atol=1e-5)


def test_whitening_by_hand(tmp_path: Path) -> None:
    """Corpus: three times east, once north, so C = diag(3/4, 1/4). Damping 2 adds 2/2 · I: diag(7/4, 5/4), roots (2/√7, 2/√5).

    The probe (3/5, 4/5) becomes (6/(5√7), 8/(5√5)) ∝ (3/√7, 4/√5), of length √(9/7 + 16/5) = √(157/35). East and north stay themselves.
    """
    east, north = [1.0, 0.0], [0.0, 1.0]
    train, probes = store(tmp_path / "t", np.array([east, east, east, north])), store(tmp_path / "p", np.array([[0.6, 0.8]]))
    made = CheckpointStores(weight=0.5, train=train, probes=probes, twins=None, pool=train)
    length = np.sqrt(157 / 35)
    expected = np.array([3 / np.sqrt(7), 3 / np.sqrt(7), 3 / np.sqrt(7), 4 / np.sqrt(5)]) / length
    np.testing.assert_allclose(whitened_cosines([made], 2.0), 0.5 * expected, atol=2e-4)  # the store's fp16 rounds 0.6 and 0.8


def test_a_great_damping_gives_back_the_plain_scores(tmp_path: Path) -> None:
    made = random_stores(tmp_path, 12, 10)
    plain = projected_cosines([made], ["x"] * 5)["mean"].to_numpy()
    np.testing.assert_allclose(whitened_cosines([made], 1e9), plain, atol=2**-10)  # the store's fp16 vectors are not quite unit
    assert np.abs(whitened_cosines([made], 0.01) - plain).max() > 0.1


def test_whitened_scores_do_not_depend_on_the_axes(tmp_path: Path) -> None:
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(10, 10)))[0]
    one, other = random_stores(tmp_path / "a", 12, 10), random_stores(tmp_path / "b", 12, 10, turned_by=turn)
    # fp16 rounds the turned vectors otherwise; a damping of 1 keeps the least eigenvalues from blowing that up.
    np.testing.assert_allclose(whitened_cosines([one], 1.0), whitened_cosines([other], 1.0), atol=3e-3)


def test_whitening_discounts_what_all_examples_share(tmp_path: Path) -> None:
    """All examples lie mostly along one axis, and one of them shares the probe's own direction besides.

    The plain cosines to the probe are nearly alike; whitened, the planted example stands out.
    """
    generator, dim = np.random.default_rng(0), 20
    vectors = np.concatenate([np.full((15, 1), 5.0), generator.normal(size=(15, dim - 1)) * 0.3], axis=1)
    probe = np.concatenate([[5.0], generator.normal(size=dim - 1) * 0.3])
    vectors[4, 1:] = probe[1:]
    unit = np.concatenate([vectors, probe[None]]) / np.linalg.norm(np.concatenate([vectors, probe[None]]), axis=1, keepdims=True)
    train, probes = store(tmp_path / "t", unit[:15]), store(tmp_path / "p", unit[15:])
    made = CheckpointStores(weight=1.0, train=train, probes=probes, twins=None, pool=train)
    plain, whitened = np.sort(nearest_cosines([made], 1)), np.sort(whitened_cosines([made], 0.01))
    assert whitened_cosines([made], 0.01).argmax() == 4
    assert plain[-1] - plain[-2] < 0.1 < 0.3 < whitened[-1] - whitened[-2]


def test_rows_without_a_vector_have_no_such_score(tmp_path: Path) -> None:
    train = store(tmp_path / "t", np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]), empty=1)
    made = CheckpointStores(weight=1.0, train=train, probes=store(tmp_path / "p", np.array([[1.0, 0.0]])), twins=None, pool=train)
    for scores in (nearest_cosines([made], 1), whitened_cosines([made], 1.0)):
        np.testing.assert_allclose(scores, [1.0, np.nan, 0.0], atol=1e-6)


def made_of(
    folder: Path, train: np.ndarray, probes: np.ndarray, *, twins: np.ndarray | None = None, weight: float = 1.0
) -> CheckpointStores:
    """Stores of one checkpoint; the pool is the examples."""
    examples = store(folder / "t", train)
    other = None if twins is None else store(folder / "w", twins)
    return CheckpointStores(weight=weight, train=examples, probes=store(folder / "p", probes), twins=other, pool=examples)


def test_null_scores_are_symmetric_and_of_the_size_of_chance(tmp_path: Path) -> None:
    """A sign-flipped mean of k orthogonal probes: its cosine to a probe's own direction is ±1/k, so its mean square is 1/k²."""
    k, draws = 4, 500
    made = made_of(tmp_path, np.eye(k), np.eye(k))
    null = null_scores([made], "mean", draws=draws, seed=0)
    assert null.shape == (draws * k,)
    np.testing.assert_allclose(np.abs(null), 1 / k, atol=1e-6)
    assert abs(null.mean()) < 4.5 / k / np.sqrt(draws * k)
    assert (null == null_scores([made], "mean", draws=draws, seed=0)).all()


def test_null_scores_flip_what_the_score_is_a_mean_of(tmp_path: Path) -> None:
    """One probe: its score with either sign; what it shares with the pool, or with its twin, is no part of it."""
    probe, twin = np.array([[0.6, 0.8, 0.0]]), np.array([[0.6, 0.0, 0.8]])
    made = made_of(tmp_path, np.eye(3), probe, twins=twin)
    cosines = projected_cosines([made], ["age"])
    for kind, direction in (("mean", probe[0]), ("contrast", probe[0] - twin[0]), ("centred", probe[0] - np.ones(3) / 3)):
        null = null_scores([made], kind, draws=50, seed=0).reshape(3, 50)
        np.testing.assert_allclose(np.abs(null), np.abs(direction)[:, None].repeat(50, 1), atol=1e-3)
        if kind != "centred":  # whose pool leaves the example itself out
            np.testing.assert_allclose(np.abs(null[:, 0]), np.abs(score_column(cosines, kind)), atol=1e-3)


def test_null_scores_draw_the_same_signs_at_every_checkpoint(tmp_path: Path) -> None:
    """Two equal checkpoints of half the weight each are one."""
    train, probes = np.eye(4), np.eye(4)[[0, 1, 1, 2]]
    half = [made_of(tmp_path / name, train, probes, weight=0.5) for name in "ab"]
    whole = made_of(tmp_path / "c", train, probes)
    halves = null_scores(half, "centred", draws=30, seed=1)
    np.testing.assert_allclose(halves, null_scores([whole], "centred", draws=30, seed=1), atol=1e-6)


def test_rows_without_a_vector_are_no_part_of_the_null(tmp_path: Path) -> None:
    train = store(tmp_path / "t", np.array([[1.0, 0.0], [0.0, 0.0]]), empty=1)
    made = CheckpointStores(weight=1.0, train=train, probes=store(tmp_path / "p", np.array([[1.0, 0.0]])), twins=None, pool=train)
    null = null_scores([made], "mean", draws=10, seed=0)
    np.testing.assert_allclose(np.abs(null), 1.0, atol=1e-6)


# On a real tiny model.

PLANTED = PROBES[2][0]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    return warm_up(tmp_path_factory.mktemp("warmup"), tiny_corpus(PLANTED))


def gathered(warm: list[Checkpoint], folder: Path, maps: MapConfig, proj_dim: int = 64, seed: int = 0) -> list[CheckpointStores]:
    collect(warm, tiny_corpus(PLANTED), tiny_probes(), folder, gradient_config(maps=maps, proj_dim=proj_dim, sketch_seed=seed))
    total = sum(c.learning_rate for c in warm)
    made = []
    for checkpoint in warm:
        place = folder / checkpoint.folder.name
        train, probes, twins, pool = (GradientStore.open(place / side) for side in ("train", "probes", "twins", "pool"))
        made.append(CheckpointStores(weight=checkpoint.learning_rate / total, train=train, probes=probes, twins=twins, pool=pool))
    return made


def seed_without_collisions(dim: int) -> int:
    """The first sketch seed under which no two of the adapter's coordinates share a bucket."""
    sizes = {name: parameter.numel() for name, parameter in lora_parameters(add_lora(tiny_loaded().model, LORA, 0)).items()}
    for seed in range(1000):
        buckets = np.concatenate([hashed_coordinates(seed, name, size, dim)[0] for name, size in sizes.items()])
        if len(set(buckets.tolist())) == len(buckets):
            return seed
    raise AssertionError("no such seed")


@pytest.mark.parametrize(("train", "probe"), [("sgd", "sgd"), ("adam", "sgd"), ("rms", "rms"), ("less", "sgd")])
def test_projected_scores_equal_exact_ones_when_nothing_collides(warm: list[Checkpoint], tmp_path: Path, train: str, probe: str) -> None:
    """A sketch without collisions keeps every inner product; what is left is fp16: 2⁻¹¹ of each of two unit vectors."""
    dim = 2**17
    stores = gathered(warm, tmp_path / "g", MapConfig(train=train, probe=probe), dim, seed_without_collisions(dim))  # type: ignore[arg-type]
    exact, projected = exact_cosines(stores, {"age": 2, "gender": 4}), projected_cosines(stores, [kind for _, _, kind in PROBES])
    assert sorted(exact) == sorted(projected)
    for name in exact:
        np.testing.assert_allclose(projected[name], exact[name], atol=2 * 2**-11, err_msg=str(name))
    assert np.ptp(exact["mean"]) > 20 * 2**-11  # the agreement is not that of a constant


@pytest.mark.parametrize(("train", "probe"), [("sgd", "sgd"), ("adam", "sgd")])
def test_projected_scores_stray_from_exact_ones_as_theory_says(warm: list[Checkpoint], tmp_path: Path, train: str, probe: str) -> None:
    """The mean square error over seeds stays under that of a dense matrix, (1 + cos²)/dim a cosine, so at most 2/dim."""
    dim, errors = 256, []
    for seed in range(3):
        stores = gathered(warm[-1:], tmp_path / str(seed), MapConfig(train=train, probe=probe), dim, seed)  # type: ignore[arg-type]
        exact, projected = exact_cosines(stores, {"age": 2, "gender": 4}), projected_cosines(stores, [kind for _, _, kind in PROBES])
        errors.append(exact["mean"] - projected["mean"])
    error = np.sqrt(np.mean(np.square(errors)))
    assert 1e-3 < error < np.sqrt(2 / dim)


def test_an_example_that_is_a_probe_ranks_first(warm: list[Checkpoint], tmp_path: Path) -> None:
    """Measured against that probe alone: with equal maps its cosine is 1, and no other sentence reaches it."""
    collect(warm[-1:], tiny_corpus(PLANTED), tiny_probes(), tmp_path, gradient_config(maps=MapConfig(train="sgd", probe="sgd")))
    place = tmp_path / "epoch-02"
    train, probes = GradientStore.open(place / "train"), GradientStore.open(place / "probes")
    cosines = train.vectors() @ probes.vectors()[2]
    planted = train.ids.index(tiny_corpus(PLANTED)[-1].id)
    assert cosines.argmax() == planted and cosines[planted] == pytest.approx(1.0, abs=2e-3)
    assert np.sort(cosines)[-2] < 0.95


@pytest.mark.parametrize(("train", "probe"), [("sgd", "sgd"), ("adam", "sgd"), ("less", "sgd"), ("adam_own", "sgd")])
def test_a_planted_probe_ranks_first_against_all_probes_of_its_type(warm: list[Checkpoint], tmp_path: Path, train: str, probe: str) -> None:
    stores = gathered(warm, tmp_path / "g", MapConfig(train=train, probe=probe))  # type: ignore[arg-type]
    scores = exact_cosines(stores, {"age": 2, "gender": 4})["mean:gender"].to_numpy()
    assert rank(stores[0].train.ids, scores)["id"][0] == tiny_corpus(PLANTED)[-1].id


@pytest.mark.parametrize("kind", ["sgd", "adam", "less", "rms", "adam_own"])
def test_positive_influence_means_that_training_on_the_example_lowers_the_probes_loss(warm: list[Checkpoint], kind: str) -> None:
    """A small step against Γ(z) changes a probe's loss by −ε ‖Γ‖ ‖δL‖ cos(δL, Γ): the law behind the sign, measured."""
    corpus, epsilon = tiny_corpus(PLANTED), 3e-3
    loaded = tiny_loaded()
    model = attach_adapter(loaded.model, warm[-1].folder).double().requires_grad_(False)
    state = load_optimizer_state(warm[-1].folder, model)
    cpu = torch.device("cpu")
    probe = collate(encode_texts(loaded.tokenizer, [PROBES[0][0]]), [0], 0, cpu)
    direction, _ = full_vectors(model, probe, gradient_map("sgd", None))
    rows = encode(loaded.tokenizer, corpus)[::4]
    vectors, _ = full_vectors(model, collate(rows, range(len(rows)), 0, cpu), gradient_map(kind, state))  # type: ignore[arg-type]
    parameters = lora_parameters(model)
    signs = []
    for row in range(len(rows)):
        step = {name: vector[row] for name, vector in vectors.items()}
        length = torch.cat(list(step.values())).norm()
        losses = []
        for side in (-1, 1):
            for name, parameter in parameters.items():
                parameter.data += (side * epsilon / length * step[name]).reshape(parameter.shape)
            with torch.no_grad():
                log_prob, tokens = sequence_log_probs(model, probe)
                losses.append(float(-log_prob / tokens))
            for name, parameter in parameters.items():
                parameter.data -= (side * epsilon / length * step[name]).reshape(parameter.shape)
        lowered = (losses[1] - losses[0]) / (2 * epsilon)  # loss after a step against Γ is losses[0]
        dot = sum(float(direction[name][0] @ step[name]) for name in step) / float(length)
        # Central differences: the curvature enters by ε², rounding (Llama's norm is fp32) by 1e-7 / ε.
        assert lowered == pytest.approx(dot, abs=3e-4)
        signs.append(dot > 0)
    assert len(set(signs)) == 2 or kind in ("adam", "less")  # the shared term may pull all examples to one side


def test_direction_names() -> None:
    assert direction_name("probe", "age") == "probe:age"
