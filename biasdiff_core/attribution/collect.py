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
from biasdiff_core.attribution.projection import Projection, make_projection
from biasdiff_core.attribution.store import (
    STORE_FILE,
    GradientStore,
    begin_store,
    digest_rows,
    finish_store,
    missing_shards,
    shard_ranges,
    write_shard,
)
from biasdiff_core.config import GradientConfig
from biasdiff_core.config.file import key_form
from biasdiff_core.config.gradients import OptimizerMap
from biasdiff_core.corpus.examples import Corpus, ProbeSet, TrainingExample
from biasdiff_core.errors import DataError
from biasdiff_core.model.checkpoint import Checkpoint, OptimizerState, load_optimizer_state
from biasdiff_core.model.load import LoadedModel
from biasdiff_core.model.lora import attach_adapter, detach_adapter, require_trained
from biasdiff_core.model.source import lora_settings
from biasdiff_core.model.tokenise import Encoded, encode, encode_texts, tokenizer_digest
from biasdiff_core.results import Progress, ProgressCallback
from biasdiff_core.workspace.artefacts import digest_json, digest_source

log = logging.getLogger(__name__)

STORE_NAMES = {PROBE: "probes", TWIN: "twins", POOL: "pool"}
POOL_SEED = 0
SENTENCE = "sentence"  # id of the one row of a sentence's store


def collect_gradients(
    loaded: LoadedModel,
    corpus: Corpus,
    probes: ProbeSet,
    checkpoints: Sequence[Checkpoint],
    config: GradientConfig,
    folder: Path,
    progress: ProgressCallback,
) -> None:
    """Fill `folder` with the stores of every checkpoint in `checkpoints`.

    Raises DataError for a probe without tokens, ArtefactError where `folder` holds what a killed run made from something else.
    """
    train = encode(loaded.tokenizer, corpus)
    for checkpoint in checkpoints:
        _collect_at(loaded, train, corpus, probes, checkpoint, config, folder / checkpoint.folder.name, progress)


def _collect_at(
    loaded: LoadedModel,
    train: Sequence[Encoded],
    corpus: Corpus,
    probes: ProbeSet,
    checkpoint: Checkpoint,
    config: GradientConfig,
    place: Path,
    progress: ProgressCallback,
) -> None:
    identity = _identity(loaded, checkpoint, config)
    of_train = {**identity, "map": config.maps.train, "rows": corpus_digest(corpus)}
    store = place / "train"
    if (store / STORE_FILE).exists():
        GradientStore.open(store, of_train)
        return
    log.info("gradients at %s", checkpoint.folder.name)
    begin_store(store, of_train)
    model = attach_adapter(loaded.model, checkpoint.folder).requires_grad_(False)
    require_trained(model)
    state = optimizer_state(checkpoint, model, config.maps.train, config.maps.probe)
    sketch = make_projection(config.projection, config.proj_dim, config.sketch_seed)
    pad_id = loaded.tokenizer.pad_token_id
    sides = _probe_sides(loaded, probes) | {POOL: _pool(train, corpus, config.pool_size)}
    mapped = gradient_map(config.maps.probe, state)
    directions = _side_stores(model, pad_id, mapped, sketch, sides, config, place, identity)
    mapped_train = gradient_map(config.maps.train, state)
    budget, depths = config.token_budget, config.hidden_depths
    featurizer = Featurizer(model, pad_id, mapped_train, sketch, directions, budget, config.block_size, depths)
    ranges = shard_ranges(len(train), config.shard_size)
    for number in missing_shards(store, len(train), config.shard_size):
        shard = ranges[number]

        def report(done: int, start: int = shard.start) -> None:
            message = f"gradients at {checkpoint.folder.name}"
            progress(Progress(stage="gradients", done=start + done, total=len(train), unit="examples", message=message))

        rows = featurizer.rows([train[row] for row in shard], report)
        write_shard(store, number, rows.sketch, _table(rows, directions.names), rows.hidden, config.store_dtype)
    finish_store(store, of_train, corpus.ids, config.shard_size)
    detach_adapter(model)


def optimizer_state(checkpoint: Checkpoint, model: Any, *maps: OptimizerMap) -> OptimizerState | None:
    """AdamW's state at the checkpoint, by the model's names; None where these maps do without it."""
    return None if set(maps) == {"sgd"} else load_optimizer_state(checkpoint.folder, model)


def collect_sentence(
    loaded: LoadedModel, model: Any, text: str, checkpoint: Checkpoint, config: GradientConfig, probes: GradientStore, folder: Path
) -> None:
    """The gradient of one sentence, taken as those of the store `probes` were, as a store of one row in `folder`.

    `model`: with the adapter of `checkpoint`. Raises DataError for a sentence without tokens, ArtefactError when the probes' gradients
    were taken otherwise, or the optimizer state that their map needs is not there.
    """
    encoded = encode_texts(loaded.tokenizer, [text])
    if not text.strip() or not encoded[0].loss_tokens:
        raise DataError(f"The sentence {text!r} has no token to predict.", "Give one of a few words.")
    identity = {**_identity(loaded, checkpoint, config), "map": config.maps.probe}
    GradientStore.open(probes.folder, identity)
    state = optimizer_state(checkpoint, model, config.maps.probe)
    sketch = make_projection(config.projection, config.proj_dim, config.sketch_seed)
    mapped = gradient_map(config.maps.probe, state)
    _, rows = probe_pass(model, loaded.tokenizer.pad_token_id, mapped, sketch, encoded, [PROBE], config.token_budget)
    write_shard(folder, 0, rows.sketch, _table(rows, ()), dtype=config.store_dtype)
    finish_store(folder, {**identity, "rows": digest_rows([[SENTENCE, text]])}, [SENTENCE], 1)


@dataclass(frozen=True, kw_only=True)
class _Side:
    """Sentences whose mean directions the corpus is measured against.

    `digest`: of ids and texts; `directions`: the one that each belongs to.
    """

    ids: Sequence[str]
    digest: str
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
        ids = [probe.id for probe in probes]
        sides[side] = _Side(ids=ids, digest=digest_rows(zip(ids, sentences, strict=True)), encoded=encoded, directions=directions)
    return sides


def _pool(train: Sequence[Encoded], corpus: Corpus, size: int) -> _Side:
    """A seeded sample of the corpus, in corpus order."""
    usable = [row for row, example in enumerate(train) if example.loss_tokens]
    chosen = sorted(np.random.default_rng(POOL_SEED).permutation(usable)[:size].tolist())
    examples = [corpus[row] for row in chosen]
    ids, encoded = [example.id for example in examples], [train[row] for row in chosen]
    return _Side(ids=ids, digest=corpus_digest(examples), encoded=encoded, directions=[POOL] * len(chosen))


def corpus_digest(examples: Sequence[TrainingExample]) -> str:
    """Of ids and texts, as the stores of a corpus and of a sample of it record it under `rows`."""
    return digest_rows((example.id, example.prompt, example.text) for example in examples)


def _side_stores(
    model: Any,
    pad_id: int,
    mapped: GradientMap,
    sketch: Projection,
    sides: Mapping[str, _Side],
    config: GradientConfig,
    place: Path,
    identity: Mapping[str, Any],
) -> Directions:
    """Write a store for each side; return all their mean directions."""
    encoded = [example for side in sides.values() for example in side.encoded]
    kinds = [name for side in sides.values() for name in side.directions]
    directions, rows = probe_pass(model, pad_id, mapped, sketch, encoded, kinds, config.token_budget, config.hidden_depths)
    table = _table(rows, ())
    start = 0
    for name, side in sides.items():
        part = slice(start, start + len(side.ids))
        store = place / STORE_NAMES[name]
        store.mkdir(parents=True, exist_ok=True)
        write_shard(store, 0, rows.sketch[part], table.iloc[part], rows.hidden[part], config.store_dtype)
        finish_store(store, {**identity, "map": config.maps.probe, "rows": side.digest}, side.ids, len(side.ids))
        start = part.stop
    return directions


def _identity(loaded: LoadedModel, checkpoint: Checkpoint, config: GradientConfig) -> dict[str, Any]:
    """What a store was made from; a reader refuses one that differs."""
    return {
        "model": loaded.source.digest,
        "checkpoint": checkpoint.folder.name,
        "step": checkpoint.step,
        "dtype": str(next(loaded.model.parameters()).dtype).removeprefix("torch."),
        "hidden_depths": list(config.hidden_depths),
        "proj_dim": config.proj_dim,
        "store_dtype": config.store_dtype,
        "sketch": make_projection(config.projection, config.proj_dim, config.sketch_seed).label,
        "tokenizer": type(loaded.tokenizer).__name__,
        "tokenizer_digest": tokenizer_digest(loaded.tokenizer),
        "adapter": _adapter_digest(checkpoint.folder),
    }


def _adapter_digest(folder: Path) -> str:
    """Of the adapter's weights, optimizer state and LoRA settings: peft writes the settings' file otherwise from process to process."""
    tensors = {path.name: digest_source(path) for path in sorted(folder.iterdir()) if path.suffix in {".safetensors", ".pt"}}
    return digest_json([tensors, key_form(lora_settings(folder))])


def _table(rows: GradientRows, directions: Sequence[str]) -> pd.DataFrame:
    columns = {"norm": rows.norm, "loss": rows.loss, "tokens": rows.tokens}
    return pd.DataFrame(columns | {f"cosine:{name}": rows.cosine[:, i] for i, name in enumerate(directions)})
