"""The gradients stage: at each chosen checkpoint, stores of the corpus, the probes and their twins, side by side.

    <folder>/epoch-03/train|probes|twins/shard-00000.npy …

Shards have a fixed size and their batches are a pure function of the shard, so a killed run goes on with the missing ones.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from biasdiff_core.attribution.gradients import Featurizer, GradientRows, probe_pass
from biasdiff_core.attribution.influence import PROBE, TWIN, direction_name
from biasdiff_core.attribution.optimizer_map import gradient_map
from biasdiff_core.attribution.projection import SKETCH_VERSION, CountSketch
from biasdiff_core.attribution.store import STORE_FILE, finish_store, missing_shards, shard_ranges, write_shard
from biasdiff_core.config import GradientConfig
from biasdiff_core.corpus.examples import Corpus, ProbeSet
from biasdiff_core.errors import DataError
from biasdiff_core.model.checkpoint import Checkpoint, OptimizerState, load_optimizer_state
from biasdiff_core.model.load import LoadedModel
from biasdiff_core.model.lora import attach_adapter, detach_adapter, require_trained
from biasdiff_core.model.tokenise import Encoded, encode, encode_texts
from biasdiff_core.results import Progress, ProgressCallback

log = logging.getLogger(__name__)


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
    directions = _probe_stores(loaded, model, probes, state, sketch, config, place, identity)
    featurizer = Featurizer(model, pad_id, gradient_map(config.maps.train, state), sketch, directions, config.token_budget)
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


def _probe_stores(
    loaded: LoadedModel,
    model: Any,
    probes: ProbeSet,
    state: OptimizerState | None,
    sketch: CountSketch,
    config: GradientConfig,
    place: Path,
    identity: dict[str, Any],
) -> Any:
    """Write the stores of probes and twins; return their mean directions."""
    sides = {PROBE: [probe.text for probe in probes]}
    if probes.has_twins:
        sides[TWIN] = [probe.twin or "" for probe in probes]
    texts = [text for side in sides.values() for text in side]
    kinds = [direction_name(side, probe.bias_type) for side in sides for probe in probes]
    encoded = encode_texts(loaded.tokenizer, texts)
    empty = [text for text, example in zip(texts, encoded, strict=True) if not example.loss_tokens]
    if empty:
        raise DataError(f"{len(empty)} probe(s) have no token to predict, e.g. {empty[0]!r}.", "Leave them out of the probing set.")
    mapped = gradient_map(config.maps.probe, state)
    directions, rows = probe_pass(model, loaded.tokenizer.pad_token_id, mapped, sketch, encoded, kinds, config.token_budget)
    table = _table(rows, ())
    for number, side in enumerate(sides):
        part = slice(number * len(probes), (number + 1) * len(probes))
        store = place / f"{side}s"
        store.mkdir(parents=True, exist_ok=True)
        write_shard(store, 0, rows.sketch[part], table.iloc[part])
        finish_store(store, {**identity, "map": config.maps.probe}, [probe.id for probe in probes], len(probes))
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
