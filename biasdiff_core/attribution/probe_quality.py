"""What gradients and losses say of a probing set: coherence of its bias types, the model's preference, how many probes are enough.

All of it from the stores of one checkpoint, the last; the vectors are the projected ones. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from biasdiff_core.attribution.influence import CheckpointStores
from biasdiff_core.attribution.store import GradientStore
from biasdiff_core.config.gradients import ScoreKind
from biasdiff_core.errors import ArtefactError

Floats = NDArray[np.float64]

WITHIN, ACROSS = "within", "across"
MOST_EXAMPLES = 2_000  # training examples, a seeded sample, whose order the subsets of probes are judged by


def preferences(stores: CheckpointStores) -> Floats:
    """log p(probe) − log p(twin) of every probe at this checkpoint, in nats, [probes]: sums over tokens, the first not scored.

    Raises ArtefactError where the twins have no store.
    """
    return _log_probs(stores.probes) - _log_probs(_twins(stores))


def _twins(stores: CheckpointStores) -> GradientStore:
    if stores.twins is None:
        raise ArtefactError("Not every probe has a twin.", "Name their column in probes.twin_column.")
    return stores.twins


def _log_probs(store: GradientStore) -> Floats:
    return -(store.rows["loss"] * store.rows["tokens"]).to_numpy(np.float64)


def resampled(types: Sequence[str], draws: int, seed: int) -> Floats:
    """How often each probe is drawn, [draws, probes]: a bootstrap within each bias type, so that their sizes stay."""
    generator, kinds = np.random.default_rng(seed), np.asarray(types)
    weights = np.empty((draws, len(kinds)))
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        weights[:, rows] = generator.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=draws)
    return weights


def coherence(vectors: np.ndarray, types: Sequence[str], weights: np.ndarray) -> Mapping[str, Floats]:
    """Mean cosine over pairs of different probes: `within` types, `within:<type>` and `across` types, each [draws].

    `vectors` [probes, dim]: unit vectors. `weights` [draws, probes]: how often each probe counts, ones for the probes as they are; a
    probe drawn twice makes no pair with itself. NaN where there is no pair. Costs 2 · draws · probes · dim operations: the sums of
    vectors give all pairs at once.
    """
    kinds, squares = np.asarray(types), (vectors.astype(np.float64) ** 2).sum(1)
    whole, own, pairs = np.zeros((len(weights), vectors.shape[1])), {}, {}
    for kind in np.unique(kinds):
        rows = kinds == kind
        chosen = weights[:, rows]
        sums = chosen.astype(vectors.dtype) @ vectors[rows]
        whole += sums
        own[str(kind)] = (sums.astype(np.float64) ** 2).sum(1) - chosen**2 @ squares[rows]
        pairs[str(kind)] = chosen.sum(1) ** 2 - (chosen**2).sum(1)
    within, within_pairs = sum(own.values()), sum(pairs.values())
    every = (whole**2).sum(1) - weights**2 @ squares
    every_pairs = weights.sum(1) ** 2 - (weights**2).sum(1)
    figures = {WITHIN: (within, within_pairs), ACROSS: (every - within, every_pairs - within_pairs)}
    figures |= {f"{WITHIN}:{kind}": (own[kind], pairs[kind]) for kind in own}
    return {name: np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0) for name, (total, count) in figures.items()}


def contributions(stores: CheckpointStores, kind: ScoreKind) -> np.ndarray:
    """The vector of each probe whose mean ranks by this kind of score, [probes, dim]: probe, less the pool's mean, or less its twin."""
    vectors = stores.probes.vectors()
    if kind == "centred":
        return vectors - stores.pool.vectors().mean(0)
    if kind == "contrast":
        return vectors - _twins(stores).vectors()
    return vectors


def subset_sizes(count: int) -> list[int]:
    """Sizes from 1 to `count` in steps of about √2, half of `count` among them."""
    steps = 2.0 ** np.arange(0, np.log2(count), 0.5) if count > 1 else np.array([])
    return sorted({*np.rint(steps).astype(int).tolist(), max(1, count // 2), count})


def stability(train: GradientStore, rows: np.ndarray, sizes: Sequence[int], *, draws: int, seed: int) -> pd.DataFrame:
    """Spearman's correlation of the ranking from m random probes with that from all: columns size, mean, low, high (2.5, 97.5 %).

    `rows` [probes, dim]: see `contributions`. Subsets are drawn without replacement, `draws` of each size; the ranking is that of a
    sample of `MOST_EXAMPLES` examples.
    """
    generator = np.random.default_rng(seed)
    usable = np.flatnonzero(train.done)
    if len(usable) > MOST_EXAMPLES:
        usable = np.sort(generator.choice(usable, MOST_EXAMPLES, replace=False))
    members = np.zeros((len(sizes) * draws + 1, len(rows)), rows.dtype)
    for number, size in enumerate(np.repeat(sizes, draws)):
        members[number, generator.choice(len(rows), size, replace=False)] = 1 / size
    members[-1] = 1 / len(rows)
    directions = members @ rows
    scores = np.concatenate([shard @ directions.T for shard in _chosen(train, usable)])
    ranks = rankdata(scores, axis=0)
    ranks -= ranks.mean(0)
    norms = np.linalg.norm(ranks, axis=0)
    correlations = (ranks[:, :-1].T @ ranks[:, -1] / (norms[:-1] * norms[-1])).reshape(len(sizes), draws)
    low, high = np.quantile(correlations, [0.025, 0.975], axis=1)
    return pd.DataFrame({"size": list(sizes), "mean": correlations.mean(1), "low": low, "high": high})


def _chosen(store: GradientStore, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The vectors of these rows (ascending) in fp32, shard by shard."""
    start = 0
    for shard in store.shards():
        end = start + len(shard)
        yield shard[rows[(start <= rows) & (rows < end)] - start]
        start = end


def least_size(curve: pd.DataFrame, wanted: float) -> int:
    """The least size of `stability` from which on the mean correlation is at least `wanted`."""
    below = np.flatnonzero(curve["mean"] < wanted)
    return int(curve["size"].iloc[below[-1] + 1 if len(below) else 0])
