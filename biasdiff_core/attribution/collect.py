"""The gradients stage: at each chosen checkpoint, stores of the corpus, the probes, their twins and the pool, side by side.

    <folder>/epoch-03/train|probes|twins|pool/shard-00000.npy …

Shards have a fixed size and their batches are a pure function of the shard, so a killed run goes on with the missing ones.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from biasdiff_core.attribution.gradients import Directions, Featurizer, GradientRows, probe_pass
from biasdiff_core.attribution.influence import POOL, PROBE, TWIN, direction_name
from biasdiff_core.attribution.optimizer_map import GradientMap, gradient_map
from biasdiff_core.attribution.projection import SKETCH_VERSION, CountSketch
from biasdiff_core.attribution.store import STORE_FILE, finish_store, missing_shards, shard_ranges, write_shard
from biasdiff_core.config import GradientConfig
from biasdiff_core.corpus.examples import Corpus, ProbeSet
from biasdiff_core.errors import DataError
from biasdiff_core.model.checkpoint import Checkpoint, load_optimizer_state
from biasdiff_core.model.load import LoadedModel
from biasdiff_core.model.lora import attach_adapter, detach_adapter, require_trained
from biasdiff_core.model.tokenise import Encoded, encode, encode_texts
from biasdiff_core.results import Progress, ProgressCallback

log = logging.getLogger(__name__)

STORE_NAMES = {PROBE: "probes", TWIN: "twins", POOL: "pool"}
POOL_SEED = 0


def collect_gradients(
    loaded: LoadedModel,
    corpus: Corpus,
    probes: ProbeSet,
    checkpoints: Sequence[Checkpoint],
    config: GradientConfig,
    folder: Path,
    progress: ProgressCallback,
) -> None:
    """Fill `folder` with the stores of every checkpoint in `checkpoints`. Raises DataError for a probe without tokens."""
    train = encode(loaded.tokenizer, corpus)
    for checkpoint in checkpoints:
        place = folder / checkpoint.folder.name
        if not (place / "train" / STORE_FILE).exists():
            log.info("gradients at %s", checkpoint.folder.name)
            _collect_at(loaded, train, corpus.ids, probes, checkpoint, config, place, progress)


def _collect_at(
    loaded: LoadedModel,
    train: Sequence[Encoded],
    ids: Sequence[str],
    probes: ProbeSet,
    checkpoint: Checkpoint,
    config: GradientConfig,
    place: Path,
    progress: ProgressCallback,
) -> None:
    model = attach_adapter(loaded.model, checkpoint.folder).requires_grad_(False)
    require_trained(model)
    state = None if {config.maps.train, config.maps.probe} == {"sgd"} else load_optimizer_state(checkpoint.folder, model)
    sketch = CountSketch(config.proj_dim, config.sketch_seed)
    pad_id = loaded.tokenizer.pad_token_id
    identity = _identity(loaded, checkpoint, config)
    sides = _probe_sides(loaded, probes) | {POOL: _pool(train, ids, config.pool_size)}
    mapped = gradient_map(config.maps.probe, state)
    directions = _side_stores(model, pad_id, mapped, sketch, sides, config, place, identity)
    mapped_train = gradient_map(config.maps.train, state)
    featurizer = Featurizer(model, pad_id, mapped_train, sketch, directions, config.token_budget, config.block_size)
    store = place / "train"
    store.mkdir(parents=True, exist_ok=True)
    ranges = shard_ranges(len(train), config.shard_size)
    for number in missing_shards(store, len(train), config.shard_size):
        shard = ranges[number]

        def report(done: int, start: int = shard.start) -> None:
            message = f"gradients at {checkpoint.folder.name}"
            progress(Progress(stage="gradients", done=start + done, total=len(train), unit="examples", message=message))

        rows = featurizer.rows([train[row] for row in shard], report)
        write_shard(store, number, rows.sketch, _table(rows, directions.names))
    finish_store(store, {**identity, "map": config.maps.train}, ids, config.shard_size)
    detach_adapter(model)


@dataclass(frozen=True, kw_only=True)
class _Side:
    """Sentences whose mean directions the corpus is measured against. `directions`: the one that each belongs to."""

    ids: Sequence[str]
    encoded: Sequence[Encoded]
    directions: Sequence[str]


def _probe_sides(loaded: LoadedModel, probes: ProbeSet) -> dict[str, _Side]:
    """The probes and, where there are, their twins. Raises DataError for one without tokens."""
    texts = {PROBE: [probe.text for probe in probes]}
    if probes.has_twins:
        texts[TWIN] = [probe.twin or "" for probe in probes]
    sides = {}
    for side, sentences in texts.items():
        encoded = encode_texts(loaded.tokenizer, sentences)
        empty = [text for text, example in zip(sentences, encoded, strict=True) if not example.loss_tokens]
        if empty:
            raise DataError(f"{len(empty)} probe(s) have no token to predict, e.g. {empty[0]!r}.", "Leave them out of the probing set.")
        directions = [direction_name(side, probe.bias_type) for probe in probes]
        sides[side] = _Side(ids=[probe.id for probe in probes], encoded=encoded, directions=directions)
    return sides


def _pool(train: Sequence[Encoded], ids: Sequence[str], size: int) -> _Side:
    """A seeded sample of the corpus, in corpus order."""
    usable = [row for row, example in enumerate(train) if example.loss_tokens]
    chosen = sorted(np.random.default_rng(POOL_SEED).permutation(usable)[:size].tolist())
    return _Side(ids=[ids[row] for row in chosen], encoded=[train[row] for row in chosen], directions=[POOL] * len(chosen))


def _side_stores(
    model: Any,
    pad_id: int,
    mapped: GradientMap,
    sketch: CountSketch,
    sides: Mapping[str, _Side],
    config: GradientConfig,
    place: Path,
    identity: Mapping[str, Any],
) -> Directions:
    """Write a store for each side; return all their mean directions."""
    encoded = [example for side in sides.values() for example in side.encoded]
    kinds = [name for side in sides.values() for name in side.directions]
    directions, rows = probe_pass(model, pad_id, mapped, sketch, encoded, kinds, config.token_budget)
    table = _table(rows, ())
    start = 0
    for name, side in sides.items():
        part = slice(start, start + len(side.ids))
        store = place / STORE_NAMES[name]
        store.mkdir(parents=True, exist_ok=True)
        write_shard(store, 0, rows.sketch[part], table.iloc[part])
        finish_store(store, {**identity, "map": config.maps.probe}, side.ids, len(side.ids))
        start = part.stop
    return directions


def _identity(loaded: LoadedModel, checkpoint: Checkpoint, config: GradientConfig) -> dict[str, Any]:
    """What a store was made from; a reader refuses one that differs."""
    return {
        "model": loaded.source.digest,
        "checkpoint": checkpoint.folder.name,
        "step": checkpoint.step,
        "dtype": str(next(loaded.model.parameters()).dtype).removeprefix("torch."),
        "proj_dim": config.proj_dim,
        "sketch": f"countsketch-v{SKETCH_VERSION}-seed{config.sketch_seed}",
        "tokenizer": type(loaded.tokenizer).__name__,
    }


def _table(rows: GradientRows, directions: Sequence[str]) -> pd.DataFrame:
    columns = {"norm": rows.norm, "loss": rows.loss, "tokens": rows.tokens}
    return pd.DataFrame(columns | {f"cosine:{name}": rows.cosine[:, i] for i, name in enumerate(directions)})
