"""How fast per-example gradients are taken: beside a training step, beside LESS as its paper describes it, and with exact dot products.

python -m benchmarks.featurize [compare] [--sentences 64] [--model NAME] [--dtype bfloat16] [--repeats 7] [--bergson PYTHON] [--dry]
python -m benchmarks.featurize --shape qwen2.5-1.5b ...     a model of that shape with random weights, for a GPU
python -m benchmarks.featurize growth ...     how time and memory grow with the number of sentences, and the projection's error

Sentences of the demo corpus of about 32 tokens, one adapter, after one epoch of training on 128 of them. In every round each way takes the
same sentences once, one way after another, and each pair of ways gives one ratio; a row is the median over the rounds, its interval the
bootstrap over them. Seconds are CPU seconds of the process, which other work on the machine stretches less than those of the clock; on a
GPU they are the clock's, once its work is done.

training          one optimizer step of our own loop on all the sentences: the same batches, forward, backward, AdamW
features          our vectors: gradient, optimizer map, norm, sketch of 8,192
hidden            the same with the mean hidden states of the layers that the presets keep
exact             as features, with exact dot products with random directions: 9 (means of bias types), 100 or 891 (single probes)
less_gradients    LESS (Xia et al. 2024), one sentence at a time: backward, all gradients as one vector, Adam's map; of 64 sentences
                  at most, and counted for all, since a sentence costs the same among few
less              the same, projected to 8,192 by a dense Rademacher matrix, 64 vectors at once
bergson           its two layouts, in a process of its own (`benchmarks.bergson_way`); with --bergson, an interpreter that has it

Directions of single probes need memory: 891 × 921,600 numbers of the bundled model's LoRA are 3.3 GB (--probes).
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import click
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.alone import peak_bytes
from benchmarks.record import dry_option, record, under
from benchmarks.shapes import SHAPES, shaped
from biasdiff_core.attribution.gradients import Directions, Featurizer, full_vectors
from biasdiff_core.attribution.optimizer_map import gradient_map
from biasdiff_core.attribution.projection import CountSketch, Rademacher
from biasdiff_core.attribution.store import write_shard
from biasdiff_core.config import CorpusConfig, GradientConfig, LoraConfig, ModelConfig, TrainingConfig
from biasdiff_core.config.gradients import OptimizerMap
from biasdiff_core.config.model import Dtype
from biasdiff_core.config.presets import HIDDEN_DEPTHS
from biasdiff_core.corpus.read import read_corpus
from biasdiff_core.evaluation.statistics import Estimate
from biasdiff_core.model.checkpoint import OptimizerState, load_optimizer_state
from biasdiff_core.model.load import LoadedModel, load_model
from biasdiff_core.model.lora import add_lora, lora_parameters
from biasdiff_core.model.tokenise import Encoded, collate, encode, length_batches
from biasdiff_core.model.train import Term, mean_nll, train
from biasdiff_core.workspace.audits import default_workspace

TOKENS = 32
TRAINED = 128  # sentences at most that the adapter has seen: enough for weights and moments that are not zero
MEANS, FEW = 9, 100  # directions: means of bias types, single probes
PROJECTOR_BATCH = 64  # vectors at once
STILL = 1e-12  # a learning rate that leaves the adapter as it is, so that every round has the same one
SHARDS = 8
OWN_PROJECTION = "our own dense projection"
DRAWS = 10_000
SETTINGS = GradientConfig()
BUDGETS = {"cpu": SETTINGS.token_budget, "cuda": 16_384}  # tokens a batch: what `biasdiff tune` tends to choose

Projector = Callable[[Tensor], Tensor]  # vectors [B, D] -> [B, 8192]
Seconds = Mapping[str, float]  # by the name of what took them, as `Bench.clock` counts


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all ways share. `encoded`: twice as many sentences as each way takes; after the epoch of training on some of them `adapter` is
    the adapter's folder and `state` AdamW's."""

    model: Any
    pad_id: int
    encoded: Sequence[Encoded]
    state: OptimizerState
    sketch: CountSketch
    adapter: Path

    @property
    def sentences(self) -> Sequence[Encoded]:
        """What each way takes: every second sentence."""
        return self.encoded[::2]

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def token_budget(self) -> int:
        return BUDGETS[self.device.type]

    @property
    def seconds(self) -> str:
        """What the clock counts, in words."""
        return "CPU seconds" if self.device.type == "cpu" else f"seconds on an {torch.cuda.get_device_name()}"

    def clock(self) -> float:
        """CPU seconds of the process; on a GPU the clock's, once all that was begun there is done."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def timed(self, name: str, work: Callable[[], Any]) -> Callable[[], Seconds]:
        """A way that takes its time as a whole."""

        def way() -> Seconds:
            started = self.clock()
            work()
            return {name: self.clock() - started}

        return way

    def batches(self) -> list[list[int]]:
        """Rows of `sentences` a batch, as our own ways take them."""
        return length_batches([len(example.ids) for example in self.sentences], self.token_budget)

    def features(
        self,
        encoded: Sequence[Encoded],
        directions: Directions | None = None,
        depths: Sequence[float] = (),
        optimizer_map: OptimizerMap = SETTINGS.maps.train,
    ) -> np.ndarray:
        """Our sketches [n, dim]; with directions or depths what these give is made as well."""
        mapped = gradient_map(optimizer_map, self.state)
        featurizer = Featurizer(self.model, self.pad_id, mapped, self.sketch, directions, self.token_budget, hidden_depths=depths)
        return featurizer.rows(encoded).sketch


def make_bench(loaded: LoadedModel, count: int, folder: Path) -> Bench:
    """The model with a trained adapter, and the 2 · `count` demo sentences whose length is nearest to `TOKENS`, sorted by length.

    `folder`: where the adapter is saved.
    """
    everything = encode(loaded.tokenizer, read_corpus(CorpusConfig(path="demo")).corpus)
    nearest = sorted(everything, key=lambda example: abs(len(example.ids) - TOKENS))[: 2 * count]
    encoded = sorted(nearest, key=lambda example: len(example.ids))
    model, pad_id = add_lora(loaded.model, LoraConfig(), seed=0), loaded.tokenizer.pad_token_id
    term = Term(name="nll", examples=encoded[:: -(-len(encoded) // TRAINED)], loss=mean_nll)
    adapter = train(model, pad_id, [term], TrainingConfig(epochs=1), folder, stage="featurize")[-1].folder
    state, sketch = load_optimizer_state(adapter, model), CountSketch(SETTINGS.proj_dim, SETTINGS.sketch_seed)
    return Bench(model=model, pad_id=pad_id, encoded=encoded, state=state, sketch=sketch, adapter=adapter)


def training_step(bench: Bench) -> Seconds:
    """One optimizer step of the training loop on all sentences, in the same batches; what is saved afterwards is not counted."""
    term = Term(name="nll", examples=bench.sentences, loss=mean_nll)
    config = TrainingConfig(epochs=1, batch_size=len(bench.sentences), learning_rate=STILL, token_budget=bench.token_budget)
    ended: list[float] = []
    with TemporaryDirectory() as folder:
        started = bench.clock()
        train(
            bench.model,
            bench.pad_id,
            [term],
            config,
            Path(folder),
            stage="featurize",
            progress=lambda step: ended.append(bench.clock()),
        )
    return {"training": ended[0] - started}


def less(bench: Bench, project: Projector) -> Seconds:
    """LESS from its description: batch size 1, one vector of all LoRA gradients, Adam's map, dense projection."""
    parameters = lora_parameters(bench.model)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    first, second = (
        torch.cat([moments[name].flatten() for name in parameters]) for moments in (bench.state.exp_avg, bench.state.exp_avg_sq)
    )
    seconds, projecting, waiting = 0.0, 0.0, []
    few = bench.sentences[:: -(-len(bench.sentences) // PROJECTOR_BATCH)]
    share = len(few) / len(bench.sentences)
    for number, example in enumerate(few, start=1):
        started = bench.clock()
        ids = torch.tensor([example.ids], device=bench.device)
        bench.model.zero_grad()
        bench.model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in parameters.values() if parameter.grad is not None])
        moment = bench.state.beta1 * first + (1 - bench.state.beta1) * gradient
        square = bench.state.beta2 * second + (1 - bench.state.beta2) * gradient**2
        waiting.append(moment / torch.sqrt(square + bench.state.epsilon))
        between = bench.clock()
        if len(waiting) == PROJECTOR_BATCH or number == len(few):
            project(torch.stack(waiting))
            waiting = []
        seconds, projecting = seconds + between - started, projecting + bench.clock() - between
    bench.model.zero_grad()
    bench.model.requires_grad_(False)
    return {"less_gradients": seconds / share, "less": (seconds + projecting) / share}


def dense_projector(size: int, device: torch.device) -> tuple[str, Projector]:
    """The dense Rademacher projection from `size` dimensions, and whose it is: traker's where it can be imported, else our own.

    Ours is many times as fast, so figures beside it have a name of their own. `pip install --no-deps traker` is enough.
    """
    try:
        from trak import __version__ as trak_version
        from trak.projectors import BasicProjector, ProjectionType
    except ImportError:
        return OWN_PROJECTION, _own_projection
    theirs = BasicProjector(size, SETTINGS.proj_dim, 0, ProjectionType.rademacher, device)
    return f"traker {trak_version}, BasicProjector", lambda vectors: theirs.project(vectors, model_id=0)


def _own_projection(vectors: Tensor) -> Tensor:
    projection = Rademacher(SETTINGS.proj_dim, SETTINGS.sketch_seed)
    projected = torch.zeros((len(vectors), SETTINGS.proj_dim), device=vectors.device)
    projection.add(projected, "everything", vectors)
    projection.flush()
    return projected


@dataclass(frozen=True, kw_only=True)
class Bergson:
    """Its process: one line asked, one line answered."""

    process: subprocess.Popen[str]
    folder: Path
    version: str

    def way(self, layout: str) -> Callable[[], Seconds]:
        """A way of `rounds`."""
        return lambda: {f"bergson {layout}": float(self._ask(layout)["seconds"])}

    def rows(self, layout: str) -> np.ndarray:
        """The projected gradients [n, numbers] of its last round."""
        return np.load(self.folder / f"{layout}.npy")

    def _ask(self, layout: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(layout, file=self.process.stdin, flush=True)
        return answer(self.process)


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line of JSON that the process prints; whatever else it prints is passed by."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            return dict(json.loads(line))
    raise SystemExit(f"Bergson's process ended (code {process.wait()}); what it said is above.")


@contextmanager
def bergson_process(python: Path, bench: Bench, dtype: str) -> Iterator[Bergson]:
    """Bergson on the same model, adapter, sentences, dtype and threads as ours, waiting for rounds."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        job = {
            "model": bench.model.base_model.model.config.name_or_path,
            "adapter": str(bench.adapter),
            "dtype": dtype,
            "ids": [list(example.ids) for example in bench.sentences],
            "batches": bench.batches(),
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf8")
        command = [str(python), "-W", "ignore", str(Path(__file__).with_name("bergson_way.py")), place]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            said = answer(process)
            if said["threads"] != torch.get_num_threads():
                raise SystemExit(f"Bergson runs on {said['threads']} threads, ours on {torch.get_num_threads()}: set OMP_NUM_THREADS.")
            yield Bergson(process=process, folder=folder, version=said["version"])
            assert process.stdin is not None
            process.stdin.close()


def random_directions(bench: Bench, count: int) -> Directions:
    """Directions of the shape that probes have."""
    parameters = lora_parameters(bench.model)
    parts = {name: torch.randn(count, parameter.numel(), device=bench.device) for name, parameter in parameters.items()}
    return Directions(names=tuple(f"d{number}" for number in range(count)), parts=parts)


def rounds(ways: Sequence[Callable[[], Seconds]], repeats: int) -> dict[str, np.ndarray]:
    """Seconds [repeats] of each way; all ways take turns."""
    taken: dict[str, list[float]] = {}
    for number in range(1, repeats + 1):
        for way in ways:
            for name, seconds in way().items():
                taken.setdefault(name, []).append(seconds)
        print(f"round {number}:", {name: round(seconds[-1], 3) for name, seconds in taken.items()}, flush=True)
    return {name: np.array(values) for name, values in taken.items()}


def ratio(top: np.ndarray, bottom: np.ndarray) -> Estimate:
    """Median of the ratios of the rounds, and its percentile interval over rounds drawn with replacement."""
    ratios = top / bottom
    drawn = np.median(ratios[np.random.default_rng(0).integers(0, len(ratios), (DRAWS, len(ratios)))], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value=float(np.median(ratios)), low=float(low), high=float(high))


def whole_vectors(bench: Bench, optimizer_map: OptimizerMap) -> np.ndarray:
    """The vectors [n, D] of the sentences, not projected."""
    mapped, whole = gradient_map(optimizer_map, bench.state), {}
    for rows in bench.batches():
        vectors, _ = full_vectors(bench.model, collate(bench.sentences, rows, bench.pad_id, bench.device), mapped)
        whole |= dict(zip(rows, torch.cat(list(vectors.values()), dim=1).cpu().numpy(), strict=True))
    return np.stack([whole[row] for row in range(len(bench.sentences))])


def rms_error(projected: np.ndarray, whole: np.ndarray) -> float:
    """Root mean square, over all pairs of rows, of the cosine of the projected vectors less that of the whole ones."""
    few, many = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (projected, whole))
    return float(np.sqrt(np.mean((few @ few.T - many @ many.T)[np.triu_indices(len(few), k=1)] ** 2)))


def peak_during(device: torch.device, work: Callable[[], Any]) -> int:
    """Most bytes held while `work` runs: on a GPU there, else the resident size of this process. Linux only."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf8")  # forgets the largest so far
    work()
    return peak_bytes()


@click.command()
@click.argument("what", type=click.Choice(["compare", "growth"]), default="compare")
@click.option("--sentences", type=click.IntRange(min=8), default=64, show_default=True)
@click.option("--model", default=ModelConfig().name, show_default=True)
@click.option("--shape", type=click.Choice(list(SHAPES)), help="A model of this shape with random weights, in place of --model.")
@click.option("--dtype", type=click.Choice(get_args(Dtype)), default="float32", show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--probes", default=891, show_default=True, help="Directions of single probes in exact mode.")
@click.option("--bergson", type=click.Path(exists=True, path_type=Path), help="The interpreter of an environment that has Bergson.")
@dry_option
def main(
    what: str, sentences: int, model: str, shape: str | None, dtype: Any, repeats: int, probes: int, bergson: Path | None, dry: bool
) -> None:
    """Record the ratios of seconds, or how time and memory grow with the number of sentences."""
    if bergson and (shape or torch.cuda.is_available()):
        raise click.UsageError("Bergson's process loads the model by name and counts CPU seconds: leave out --shape, hide the GPU.")
    loaded = shaped(shape, dtype) if shape else load_model(ModelConfig(name=model, dtype=dtype), default_workspace())

    def row(metric: str, found: Estimate | float, unit: str, against: str = "") -> None:
        value, low, high = (found.value, found.low, found.high) if isinstance(found, Estimate) else (found, None, None)
        unit = f"{unit}; {dtype}, {repeats} rounds"
        record(
            under(metric, dtype, bench.device.type),
            value,
            low=low,
            high=high,
            n=sentences,
            unit=unit,
            model=loaded.source.name,
            against=against,
            dry=dry,
        )

    with TemporaryDirectory() as folder:
        bench = make_bench(loaded, sentences, Path(folder))
        if what == "growth":
            growth(bench, repeats, row)
        else:
            with bergson_process(bergson, bench, dtype) if bergson else nullcontext() as theirs:
                compare(bench, repeats, probes, theirs, row)


def growth(bench: Bench, repeats: int, row: Callable[..., None]) -> None:
    """Seconds a token from an eighth of the sentences to all, the peak of memory from one shard to `SHARDS`, and the projection's error."""
    sizes = {f"1/{part}": bench.encoded[::part] for part in (8, 4, 2, 1)}
    for encoded in sizes.values():
        bench.features(encoded)  # makes the sketch's matrices, and lets the allocator settle
    taken = rounds([bench.timed(name, lambda encoded=encoded: bench.features(encoded)) for name, encoded in sizes.items()], repeats)
    tokens = {name: sum(len(example.ids) for example in encoded) for name, encoded in sizes.items()}
    print(f"{bench.seconds} a thousand tokens:", {name: round(1000 * float(np.median(taken[name])) / tokens[name], 3) for name in sizes})
    largest = ratio(taken["1/1"] / tokens["1/1"], taken["1/8"] / tokens["1/8"])
    row("featurize.linear", largest, f"{bench.seconds} a token, {len(sizes['1/1'])} over {len(sizes['1/8'])} sentences, asked ≤ 1.1")
    with TemporaryDirectory() as folder:

        def shards(count: int) -> None:
            """As the gradients stage fills a store."""
            for number in range(count):
                table = pd.DataFrame({"norm": 1.0}, index=range(len(bench.encoded)))
                write_shard(Path(folder), number, bench.features(bench.encoded), table)

        small, large = (peak_during(bench.device, partial(shards, count)) for count in (1, SHARDS))
    unit = f"peak memory, {SHARDS} shards of {len(bench.encoded)} sentences over one ({large / 1e9:.2f} GB)"
    row("featurize.peak_rss", large / small, unit)
    error = rms_error(bench.features(bench.sentences), whole_vectors(bench, SETTINGS.maps.train))
    row("featurize.cosine_rms_error", error, "rms of projected less exact cosine over pairs of sentences", "full vectors")


def compare(bench: Bench, repeats: int, probes: int, theirs: Bergson | None, row: Callable[..., None]) -> None:
    """All ways in turns: first those that hold little, then ours again beside those that hold gigabytes.

    These slow whatever runs after them in the same process (a training step by a tenth), and Bergson has a process of its own.
    """
    few = random_directions(bench, MEANS)
    light = rounds(
        [
            bench.timed("features", lambda: bench.features(bench.sentences)),
            bench.timed("hidden", lambda: bench.features(bench.sentences, depths=HIDDEN_DEPTHS)),
            bench.timed("exact", lambda: bench.features(bench.sentences, few)),
            lambda: training_step(bench),
            *([theirs.way("module")] if theirs else []),
        ],
        repeats,
    )
    projector, project = dense_projector(sum(parameter.numel() for parameter in lora_parameters(bench.model).values()), bench.device)
    many = random_directions(bench, probes)
    some = Directions(names=many.names[:FEW], parts={name: part[:FEW] for name, part in many.parts.items()})
    heavy = rounds(
        [
            bench.timed("features", lambda: bench.features(bench.sentences)),
            bench.timed("exact few", lambda: bench.features(bench.sentences, some)),
            bench.timed("exact", lambda: bench.features(bench.sentences, many)),
            lambda: less(bench, project),
            *([theirs.way("global")] if theirs else []),
        ],
        repeats,
    )
    for taken in (light, heavy):
        print(f"{bench.seconds}:", {name: round(float(np.median(seconds)), 3) for name, seconds in taken.items()})
    ours, beside = light["features"], heavy["features"]
    as_fast = f"{bench.seconds} of the other over ours, asked ≥"
    row("featurize.speed_vs_training_step", ratio(light["training"], ours), f"{as_fast} 1.0", "one optimizer step on the same batches")
    metric = "featurize.speed_vs_less" + (".own_projection" if projector == OWN_PROJECTION else "")
    row(metric, ratio(heavy["less"], beside), f"{as_fast} 7", f"LESS as described, projected by {projector}")
    whole = whole_vectors(bench, SETTINGS.maps.train)
    unit = "rms of projected less exact cosine over pairs of sentences"
    row("featurize.cosine_rms_error", rms_error(bench.features(bench.sentences), whole), unit, "full vectors")
    dense = project(torch.from_numpy(whole).to(bench.device)).cpu().numpy()
    row("featurize.cosine_rms_error_less", rms_error(dense, whole), unit, f"full vectors, projected by {projector}")
    gradients = ratio(heavy["less_gradients"], beside)
    row("featurize.speed_vs_less_gradients", gradients, f"{as_fast} 1.25", "LESS as described, not projected")
    if theirs:
        compare_bergson(bench, theirs, {"module": light, "global": heavy}, row)
    unit = f"share of {bench.seconds} that the mean hidden states of {len(HIDDEN_DEPTHS)} layers add"
    row("featurize.hidden_overhead", ratio(light["hidden"] - ours, ours), unit, "ours without")
    exact = ((light, "exact", MEANS, "overhead", 0.05), (heavy, "exact few", FEW, f"overhead_{FEW}", None))
    for taken, way, count, name, asked in (*exact, (heavy, "exact", probes, f"overhead_{probes}", 0.5)):
        more = ratio(taken[way] - taken["features"], taken["features"])
        unit = f"share of {bench.seconds} that exact dot products with {count} directions add" + (f", asked ≤ {asked}" if asked else "")
        row(f"exact.{name}", more, unit, "ours without")


def compare_bergson(bench: Bench, theirs: Bergson, taken: Mapping[str, Mapping[str, np.ndarray]], row: Callable[..., None]) -> None:
    """Seconds of both layouts over ours, and the projection's error of the default one, on plain gradients as it takes them.

    `taken`: seconds of the rounds that a layout took part in.
    """
    against, as_fast = f"Bergson {theirs.version}, plain gradients", f"{bench.seconds} of the other over ours with Adam's map, asked ≥"
    whole = whole_vectors(bench, "sgd")
    ours = rms_error(bench.features(bench.sentences, optimizer_map="sgd"), whole)
    for layout, quicker, nearer in (("global", "4.5", ""), ("module", "1.15 in fp32, 1.0 in bf16", ", asked ≤ 0.4")):
        rows = theirs.rows(layout)
        speed = ratio(taken[layout][f"bergson {layout}"], taken[layout]["features"])
        row(f"featurize.speed_vs_bergson_{layout}", speed, f"{as_fast} {quicker}", f"{against}, {layout} to {rows.shape[1]} numbers")
        error = rms_error(rows, whole)
        unit = f"rms cosine error of plain gradients, ours ({ours:.4f}) over theirs ({error:.4f}){nearer}"
        row(f"featurize.cosine_rms_error_vs_bergson_{layout}", ours / error, unit, against)


if __name__ == "__main__":
    main()
