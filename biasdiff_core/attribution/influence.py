"""Influence scores from gradient stores: Eq. 5 over checkpoints, or its last-checkpoint form (Eq. 6).

**Positive = training on the example lowers the loss on the stereotyped probes.** Loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from biasdiff_core.attribution.store import GradientStore
from biasdiff_core.config.gradients import ScoreKind
from biasdiff_core.errors import ArtefactError

PROBE, TWIN, POOL = "probe", "twin", "pool"
NULL_FILE = "null.parquet"  # quantiles of `null_scores`: columns share, score
NULL_SHARES = np.linspace(0, 1, 1001)


def direction_name(side: str, bias_type: str) -> str:
    """Name of the mean direction of one side (`probe` or `twin`) of one bias type; the pool's is `pool`."""
    return f"{side}:{bias_type}"


@dataclass(frozen=True, kw_only=True)
class CheckpointStores:
    """The stores of one checkpoint and its weight η̄_t. `pool`: the sample of the corpus, in the probes' map."""

    weight: float
    train: GradientStore
    probes: GradientStore
    twins: GradientStore | None
    pool: GradientStore

    @classmethod
    def open(cls, folder: Path, weight: float, expect: Mapping[str, Any] | None = None) -> CheckpointStores:
        """The stores in `folder`, twins where there are. `expect`: of the examples' store. Raises ArtefactError (`GradientStore.open`)."""
        twins = GradientStore.open(folder / "twins") if (folder / "twins").exists() else None
        train = GradientStore.open(folder / "train", expect)
        probes, pool = GradientStore.open(folder / "probes"), GradientStore.open(folder / "pool")
        return cls(weight=weight, train=train, probes=probes, twins=twins, pool=pool)


def exact_cosines(stores: Sequence[CheckpointStores], counts: Mapping[str, int]) -> pd.DataFrame:
    """Σ_t η̄_t · mean cosine, in the full gradient space, for each example (rows, corpus order).

    `counts`: probes a bias type. Columns `mean` and `mean:<type>`, with twins `twin_mean` and `twin_mean:<type>`, and `pool_mean`:
    the mean over the other examples of the pool.
    """
    total: pd.DataFrame | None = None
    for store in stores:
        part = mean_cosines(store.train, counts).assign(pool_mean=_without_self(store, store.train.rows[f"cosine:{POOL}"]))
        total = store.weight * part if total is None else total + store.weight * part
    if total is None:
        raise ArtefactError("There is no checkpoint to score.", "Run the warm-up again.")
    return total


def mean_cosines(train: GradientStore, counts: Mapping[str, int]) -> pd.DataFrame:
    """Mean cosines at one checkpoint, in the full gradient space: columns as of `exact_cosines` less the pool's. Reads no vector."""
    return _with_overall(train.rows.filter(like="cosine:").rename(columns=lambda c: c.removeprefix("cosine:")), counts)


def projected_cosines(stores: Sequence[CheckpointStores], bias_types: Sequence[str]) -> pd.DataFrame:
    """As `exact_cosines`, from the projected vectors of the stores. `bias_types`: the type of each probe row, in store order."""
    counts = {kind: list(bias_types).count(kind) for kind in sorted(set(bias_types))}
    total: pd.DataFrame | None = None
    for store in stores:
        columns = {}
        for side, probes in ((PROBE, store.probes), (TWIN, store.twins)):
            if probes is not None:
                vectors = probes.vectors()
                for kind in counts:
                    mean = vectors[np.array([t == kind for t in bias_types])].mean(0)
                    columns[direction_name(side, kind)] = _cosines_to(mean, store.train)
        pool = pd.Series(_cosines_to(store.pool.vectors().mean(0), store.train))
        part = _with_overall(pd.DataFrame(columns), counts).assign(pool_mean=_without_self(store, pool))
        part.loc[~store.train.done, :] = np.nan
        total = store.weight * part if total is None else total + store.weight * part
    assert total is not None
    return total


def nearest_cosines(stores: Sequence[CheckpointStores], nearest: int) -> np.ndarray:
    """Σ_t η̄_t · mean over each example's `nearest` probes only, those of its greatest cosines [rows]; 1: its greatest cosine.

    From the projected vectors; a mean over all probes is `projected_cosines`'s column `mean`. NaN for a row without a vector.
    """

    def at(store: CheckpointStores) -> np.ndarray:
        cosines = store.train.vectors() @ store.probes.vectors().T
        return np.sort(cosines, axis=1)[:, -nearest:].mean(1)

    return _over_checkpoints(stores, at)


def whitened_cosines(stores: Sequence[CheckpointStores], damping: float) -> np.ndarray:
    """Σ_t η̄_t · mean cosine to the probes after whitening both sides by the corpus [rows], so that what its gradients vary in most
    counts least (TrackStar, 2410.17413). NaN for a row without a vector.

    Vectors are multiplied by (C + damping · c̄ I)^(−1/2), C the second moment of the corpus's projected unit vectors and c̄ = 1 / dim
    the mean of its eigenvalues, and made unit again. With a great damping that changes nothing.
    """

    def at(store: CheckpointStores) -> np.ndarray:
        known = store.train.vectors()[store.train.done].astype(np.float64)
        _, singular, axes = np.linalg.svd(known, full_matrices=False)
        ridge = damping / known.shape[1]
        # Outside the span of the corpus C is zero, so there all directions are scaled alike, by ridge^(−1/2).
        scales = (singular**2 / len(known) + ridge) ** -0.5 - ridge**-0.5

        def whitened(vectors: np.ndarray) -> np.ndarray:
            moved = vectors * ridge**-0.5 + (vectors @ axes.T * scales) @ axes
            return moved / np.linalg.norm(moved, axis=1, keepdims=True)

        scores = np.full(store.train.count, np.nan)
        scores[store.train.done] = whitened(known) @ whitened(store.probes.vectors()).mean(0)
        return scores

    return _over_checkpoints(stores, at)


def _over_checkpoints(stores: Sequence[CheckpointStores], at: Callable[[CheckpointStores], np.ndarray]) -> np.ndarray:
    """Eq. 5's weighted sum of `at` [rows]; NaN for rows without a vector."""
    return np.sum([store.weight * np.where(store.train.done, at(store), np.nan) for store in stores], axis=0)


def _cosines_to(mean: np.ndarray, train: GradientStore) -> np.ndarray:
    return np.concatenate([shard @ mean for shard in train.shards()])


def _without_self(store: CheckpointStores, cosines: pd.Series) -> pd.Series:
    """Mean cosines to the pool, [rows], with each pool example's cosine to itself taken out of its own mean.

    That cosine is taken from the projected vectors: its error is divided by the size of the pool. NaN for a pool of one.
    """
    count = store.pool.count
    row_of = {example: row for row, example in enumerate(store.train.ids)}
    rows = [row_of[example] for example in store.pool.ids]
    own = (store.pool.vectors() * store.train.take(np.array(rows))).sum(1)
    others = cosines.to_numpy(copy=True)
    others[rows] = (count * others[rows] - own) / (count - 1) if count > 1 else np.nan
    return pd.Series(others, index=cosines.index)


def _with_overall(cosines: pd.DataFrame, counts: Mapping[str, int]) -> pd.DataFrame:
    """Columns a side: the mean over all probes (types weighted by their number) and one a bias type."""
    columns: dict[str, pd.Series] = {}
    everything = sum(counts.values())
    for side, name in ((PROBE, "mean"), (TWIN, "twin_mean")):
        if direction_name(side, next(iter(counts))) in cosines:
            columns[name] = (
                sum((cosines[direction_name(side, t)] * n for t, n in counts.items()), start=pd.Series(0.0, cosines.index)) / everything
            )
            columns.update({f"{name}:{t}": cosines[direction_name(side, t)] for t in counts})
    return pd.DataFrame(columns)


def score_column(cosines: pd.DataFrame, kind: ScoreKind) -> pd.Series:
    """The score that ranks, as `config.ScoreConfig` defines it. Raises ArtefactError for `contrast` without twins."""
    if kind == "mean":
        return cosines["mean"]
    if kind == "centred":
        return cosines["mean"] - cosines["pool_mean"]
    if "twin_mean" not in cosines:
        raise ArtefactError("The contrast needs the twins' gradients, and this store has none.", "Set scores.kind to mean.")
    return cosines["mean"] - cosines["twin_mean"]


def null_scores(stores: Sequence[CheckpointStores], kind: ScoreKind, *, draws: int, seed: int) -> np.ndarray:
    """What scores of this kind look like when the probes have nothing in common: each probe's sign is drawn at random.

    [draws · rows with a vector], Σ_t η̄_t · the cosines to the mean of the probes' directions with those signs, the same at each
    checkpoint, from the projected vectors. A direction is the probe's own, less the pool's mean where the score is `centred`, less its
    twin's where it is `contrast`.
    """
    flips = np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), size=(draws, stores[0].probes.count))

    def at(store: CheckpointStores) -> np.ndarray:
        directions = flips @ _own_directions(store, kind) / store.probes.count
        return np.concatenate([shard @ directions.T for shard in store.train.shards()])

    total = np.sum([store.weight * at(store) for store in stores], axis=0)
    return total[np.all([store.train.done for store in stores], axis=0)].ravel()


def _own_directions(store: CheckpointStores, kind: ScoreKind) -> np.ndarray:
    """[probes, D]: what of each probe the score is a mean of."""
    probes = store.probes.vectors()
    if kind == "centred":
        return probes - store.pool.vectors().mean(0)
    return probes if kind == "mean" or store.twins is None else probes - store.twins.vectors()
