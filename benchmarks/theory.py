"""The paper's theory, tried in numbers: what a step does to a loss, what a loss says of bias, what LoRA keeps of all gradients.

python -m benchmarks.theory                     a tiny model of words in float64, trained in code (benchmarks.tiny_model)
python -m benchmarks.theory --model bundled     the bundled model in float32, fewer step sizes, no training trajectories

**Corollary 1** (Eq. 1): with δL the plain gradient of the probes' loss and Γ the Adam direction of what is trained on,
L(D_diff, θ_{t+1}) − L(D_diff, θ_t) ≈ −η_t ⟨δL(D_diff, θ_t), Γ(D, θ_t)⟩. Observed: one step of `torch.optim.AdamW`, with the
checkpoint's own state and the warm-up's weight decay, on each training example alone. Predicted: the product, in each map.

**Theorem 1** (Eq. 2): "If a D_diff dataset contains a clearly defined mapping of biased tokens to a corresponding unbiased dataset
D_anti_diff, there exists a correlation between the model's bias and its loss on the D_diff dataset, i.e. p(x_stereo, θ) ~
L(D_diff, θ)." Its proof assumes that both sides share one such correlation, so that (Eq. 3) p(x_anti, θ) − p(x_stereo, θ) ~
L(D_diff, θ) − L(D_anti_diff, θ), and that a bias token depends on the tokens before it alone, so that (Eq. 4) the latter equals
Σ log p(x_anti, θ) − log p(x_stereo, θ). Tried apart:

- Eq. 4, over pairs at one θ: the gap of the summed losses against that of the bias tokens (those that the twins do not share).
  An identity where nothing follows the bias token; otherwise every later token, which is given another past, adds to the gap.
- Eq. 2 and Eq. 3, over the θ of a training, on four diets: the stereotypes, their twins, both, or neutral sentences.
- What a ranking needs of it, over training examples: whether a step that lowers the probes' loss raises the preference for them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import torch

from benchmarks.record import dry_option, record
from benchmarks.steps import (
    Floats,
    Point,
    full_parameter_cosines,
    mean_cosines,
    observed_changes,
    over_rows,
    pearson,
    products,
    spearman,
    within_columns,
)
from benchmarks.tiny_model import fit, tiny_model
from biasdiff_core.attribution.baselines import words
from biasdiff_core.config import LoraConfig, ModelConfig, TrainingConfig
from biasdiff_core.config.gradients import OptimizerMap
from biasdiff_core.config.presets import DEMO_CORPUS, DEMO_PROBES
from biasdiff_core.corpus.examples import Corpus, Probe, TrainingExample
from biasdiff_core.corpus.probes import read_probes
from biasdiff_core.corpus.read import read_corpus
from biasdiff_core.evaluation.scoring import shared_tokens
from biasdiff_core.evaluation.statistics import Estimate
from biasdiff_core.model.checkpoint import load_optimizer_state
from biasdiff_core.model.finetune import finetune
from biasdiff_core.model.load import LoadedModel, load_model
from biasdiff_core.model.lora import attach_adapter, detach_adapter
from biasdiff_core.model.score import score
from biasdiff_core.model.tokenise import Encoded, collate, encode, encode_texts
from biasdiff_core.results import no_progress
from biasdiff_core.workspace.audits import default_workspace

Report = Callable[[str, Estimate, int, str], None]  # (name, value and interval, n, unit)
MAPS: tuple[OptimizerMap, ...] = get_args(OptimizerMap)
TRAJECTORIES = 3  # trainings a diet
EPOCHS = 24  # of each


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A model to try the theory on. `rates`: the step sizes, the smallest last; it is the limit that Corollary 1 is about."""

    loaded: LoadedModel
    dtype: torch.dtype
    lora: LoraConfig
    training: TrainingConfig
    rates: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Material:
    """Training examples (every k-th row of the demo corpus), and probes with their twins."""

    examples: Sequence[TrainingExample]
    probes: Sequence[str]
    twins: Sequence[str]


def tiny_bench(corpus: Sequence[TrainingExample], probes: Sequence[Probe], seed: int) -> Bench:
    """The model of words after a short training on the corpus's unbiased rows."""
    vocabulary = [example.text for example in corpus] + [text for probe in probes for text in (probe.text, probe.twin or "")]
    return Bench(
        loaded=tiny_model([example.text for example in corpus if example.label == 0], vocabulary, seed),
        dtype=torch.float64,
        lora=LoraConfig(dropout=0.0),
        training=TrainingConfig(epochs=2, learning_rate=5e-3, batch_size=8, seed=seed),
        rates=(1e-1, 1e-2, 1e-3, 1e-6),
    )


def bundled_bench(seed: int) -> Bench:
    """The bundled model: below 1e-4, float32 no longer tells the losses of two steps apart."""
    return Bench(
        loaded=load_model(ModelConfig(), default_workspace()),
        dtype=torch.float32,
        lora=LoraConfig(dropout=0.0),
        training=TrainingConfig(epochs=2, learning_rate=2e-4, batch_size=8, seed=seed),
        rates=(1e-3, 1e-4),
    )


@contextmanager
def warmed_up(bench: Bench, examples: Sequence[TrainingExample], folder: Path) -> Iterator[Point]:
    """The last checkpoint of a warm-up on `examples`, in the bench's dtype; the base model is as it was afterwards."""
    folder.mkdir(parents=True)
    made = finetune(bench.loaded, examples, bench.lora, bench.training, folder, stage="warmup", progress=no_progress)
    model = attach_adapter(bench.loaded.model, made[-1].folder).to(bench.dtype).requires_grad_(False)
    state = load_optimizer_state(made[-1].folder, model)
    try:
        yield Point(model=model, state=state, pad_id=bench.loaded.tokenizer.pad_token_id, decay=bench.training.weight_decay)
    finally:
        detach_adapter(model).to(torch.float32)


@dataclass(frozen=True, kw_only=True)
class BiasTokens:
    """Of pairs of twins under a model, natural logs [pairs]: `probe` and `twin`, the summed log-probability of the whole sentence;
    `probe_own` and `twin_own`, of the tokens that the other side does not share; `probe_tokens`, `twin_tokens`, how many are scored."""

    probe: Floats
    twin: Floats
    probe_own: Floats
    twin_own: Floats
    probe_tokens: Floats
    twin_tokens: Floats

    @property
    def gap(self) -> Floats:
        """L(D_diff) − L(D_anti_diff) of each pair, losses summed over tokens."""
        return self.twin - self.probe

    @property
    def own_gap(self) -> Floats:
        """Right side of Eq. 4: log p(x_anti) − log p(x_stereo)."""
        return self.twin_own - self.probe_own

    @property
    def mean_gap(self) -> Floats:
        """As `gap`, of mean token losses: the loss that is trained and whose gradient influence is about."""
        return self.twin / self.twin_tokens - self.probe / self.probe_tokens


def bias_tokens(model: Any, pad_id: int, probes: Sequence[Encoded], twins: Sequence[Encoded]) -> BiasTokens:
    """Score both sides of every pair, but for those whose bias token comes first: nothing predicts it, so p is not defined."""
    found: dict[str, list[float]] = {name: [] for name in BiasTokens.__dataclass_fields__}
    for pair in zip(probes, twins, strict=True):
        with torch.no_grad():
            scored = score(model, collate(pair, range(2), pad_id, next(model.parameters()).device))
        own = [~shared[example.loss_from :] for shared, example in zip(shared_tokens(pair[0].ids, pair[1].ids), pair, strict=True)]
        if not all(mask.any() for mask in own):
            continue
        for row, side in enumerate(("probe", "twin")):
            logs = scored.token_log_probs[scored.owner == row].double().cpu().numpy()
            found[side].append(float(logs.sum()))
            found[f"{side}_own"].append(float(logs[own[row]].sum()))
            found[f"{side}_tokens"].append(len(logs))
    return BiasTokens(**{name: np.array(values) for name, values in found.items()})


def corollary_1(bench: Bench, point: Point, material: Material, report: Report) -> None:
    """Predicted against observed change of each probe's loss by a step on each example, for each map and step size."""
    examples, probes = (encode(bench.loaded.tokenizer, material.examples), encode_texts(bench.loaded.tokenizer, material.probes))
    plain = point.vectors(probes, "sgd")
    predicted, cosines = {}, {}
    for kind in MAPS:  # one map's vectors in memory at a time
        vectors = point.vectors(examples, kind)
        predicted[kind], cosines[kind] = -products(vectors, plain), mean_cosines(vectors, plain)
    cells = f"{len(examples)} examples × {len(probes)} probes"
    by_rate = {rate: observed_changes(point, examples, probes, rate) for rate in bench.rates}
    for rate, changes in list(by_rate.items())[:-1]:
        unit = f"Pearson r of predicted and observed change of loss by one AdamW step, {cells}, map adam, η = {rate:g}"
        report(f"corollary1_r.eta_{rate:g}", over_rows(pearson, predicted["adam"], changes), changes.size, unit)
    rate, changes = bench.rates[-1], by_rate[bench.rates[-1]]
    for kind in MAPS:
        name = "" if kind == "adam" else f".{kind}"
        unit = f"Pearson r of predicted and observed change of loss by one AdamW step, {cells}, map {kind}, η = {rate:g}"
        report(f"corollary1_r{name}", over_rows(pearson, predicted[kind], changes), changes.size, unit)
        unit = f"the same over the examples of each probe, mean over probes, {cells}, map {kind}, η = {rate:g}"
        report(f"corollary1_r.within_probe{name}", over_rows(within_columns, predicted[kind], changes), changes.size, unit)
        unit = f"Spearman over examples of Eq. 5's mean cosine and the observed fall of the mean probe loss, {cells}, map {kind}"
        found = over_rows(spearman, cosines[kind], -changes.mean(1))
        report(f"eq5_spearman{name}", found, len(examples), unit)


def lora_against_full(bench: Bench, point: Point, material: Material, report: Report) -> None:
    """Rank correlation over examples of the mean cosine by LoRA weights and by all base weights, plain gradients on both sides."""
    examples, probes = (encode(bench.loaded.tokenizer, material.examples), encode_texts(bench.loaded.tokenizer, material.probes))
    lora = mean_cosines(point.vectors(examples, "sgd"), point.vectors(probes, "sgd"))
    everything = full_parameter_cosines(point, examples, probes)
    unit = f"Spearman over examples of the mean cosine to {len(probes)} probes by LoRA and by all base weights, plain gradients"
    report("lora_full_spearman", over_rows(spearman, lora, everything), len(examples), unit)


def theorem_1_at_a_point(bench: Bench, point: Point, material: Material, report: Report) -> None:
    """Eq. 4 over pairs, and over examples whether a step that lowers the probes' loss raises the preference for them."""
    tokenizer = bench.loaded.tokenizer
    sides = [encode_texts(tokenizer, texts) for texts in (material.probes, material.twins)]
    found = bias_tokens(point.model, point.pad_id, *sides)
    pairs = len(found.gap)
    report("theorem1_eq4_r", over_rows(pearson, found.own_gap, found.gap), pairs, "Pearson r over pairs of both sides of Eq. 4")
    unit = "rms over pairs of left less right side of Eq. 4, over the rms of the left"
    report("theorem1_eq4_rest", over_rows(_rms_share, found.own_gap, found.gap), pairs, unit)
    unit = "Pearson r over pairs of the right side of Eq. 4 and the gap of mean token losses"
    report("theorem1_eq4_r.mean_loss", over_rows(pearson, found.own_gap, found.mean_gap), pairs, unit)
    examples, rate = encode(tokenizer, material.examples), bench.rates[-1]
    changes = observed_changes(point, examples, [*sides[0], *sides[1]], rate)
    of_probes, of_twins = (part.mean(1) for part in np.split(changes, 2, axis=1))
    fall, rise = -of_probes, of_twins - of_probes
    unit = f"Pearson r over examples: a step's fall of the probes' mean loss, its rise of the twins' less the probes', η = {rate:g}"
    report("theorem1_step_r.loss", over_rows(pearson, fall, rise), len(examples), unit)
    mapped = point.vectors(examples, "adam")
    towards = [products(mapped, point.vectors(side, "sgd")).mean(1) for side in sides]
    unit = f"Pearson r over examples: ⟨δL(probes) − δL(twins), Γ⟩ in map adam, a step's rise of that preference, η = {rate:g}"
    report("theorem1_step_r.contrast", over_rows(pearson, towards[0] - towards[1], rise), len(examples), unit)


def _rms_share(part: Floats, whole: Floats) -> float:
    return float(np.sqrt(np.mean((whole - part) ** 2) / np.mean(whole**2)))


def diets(material: Material) -> dict[str, list[str]]:
    """What the trainings of Theorem 1 see: sentences of both sides, or as many neutral ones as there are probes."""
    neutral = [example.text for example in material.examples if example.label == 0][: len(material.probes)]
    return {"stereotypes": [*material.probes], "twins": [*material.twins], "both": [*material.probes, *material.twins], "neutral": neutral}


def theorem_1_over_training(loaded: LoadedModel, material: Material, report: Report) -> None:
    """Eq. 2 and Eq. 3 over the base and every epoch of a training of all weights, on each diet."""
    probes, twins = encode_texts(loaded.tokenizer, material.probes), encode_texts(loaded.tokenizer, material.twins)
    for diet, texts in diets(material).items():
        found: dict[str, list[float]] = {"eq2_r": [], "eq2_preference_r": [], "eq3_r": []}
        for seed in range(TRAJECTORIES):
            model = deepcopy(loaded.model)
            points = [bias_tokens(model, 0, probes, twins)]
            points += [bias_tokens(model, 0, probes, twins) for _ in fit(model, encode_texts(loaded.tokenizer, texts), EPOCHS, seed)]
            learnt = np.array([(point.probe / point.probe_tokens).mean() for point in points])
            found["eq2_r"].append(pearson(learnt, np.array([point.probe_own.mean() for point in points])))
            found["eq2_preference_r"].append(pearson(learnt, np.array([-point.own_gap.mean() for point in points])))
            likelier = np.array([np.mean(np.exp(point.probe_own) - np.exp(point.twin_own)) for point in points])
            found["eq3_r"].append(pearson(np.array([-point.gap.mean() for point in points]), likelier))
        spread = f"over the base and {EPOCHS} epochs on {diet}, mean of {TRAJECTORIES} trainings, their least and greatest"
        for name, unit in OVER_TRAINING.items():
            report(f"theorem1_{name}.{diet}", _spread(found[name]), len(points), f"Pearson r of {unit}, {spread}")


OVER_TRAINING = {
    "eq2_r": "−L(D_diff) and mean log p(x_stereo) of the bias tokens",
    "eq2_preference_r": "−L(D_diff) and mean log p(x_stereo) − log p(x_anti) of the bias tokens",
    "eq3_r": "L(D_anti_diff) − L(D_diff) and mean p(x_stereo) − p(x_anti) of the bias tokens",
}


def _spread(values: Sequence[float]) -> Estimate:
    return Estimate(value=float(np.mean(values)), low=min(values), high=max(values))


def read_demo() -> tuple[Corpus, Sequence[Probe]]:
    """The demo corpus and its probes; lengths counted in words, none is so long that it would be cut."""
    result = read_corpus(DEMO_CORPUS, count_tokens=lambda texts: [len(words(text)) for text in texts], truncate_text=_never)
    return result.corpus, read_probes(DEMO_PROBES)[0].probes


def _never(text: str, limit: int) -> str:
    raise AssertionError(f"{text!r} is longer than {limit}")


def material(corpus: Corpus, probes: Sequence[Probe], examples: int, count: int) -> Material:
    """So many examples and probes, evenly from the whole."""
    chosen = probes[:: max(1, len(probes) // count)][:count]
    rows = list(corpus)[:: max(1, len(corpus) // examples)][:examples]
    return Material(examples=rows, probes=[probe.text for probe in chosen], twins=[probe.twin or "" for probe in chosen])


@click.command()
@click.option("--model", type=click.Choice(["tiny", "bundled"]), default="tiny", show_default=True)
@click.option("--n", type=click.IntRange(4), default=48, show_default=True, help="Training examples.")
@click.option("--probes", type=click.IntRange(2), default=24, show_default=True, help="Probes, each with its twin.")
@click.option("--seed", type=int, default=0, show_default=True)
@dry_option
def main(model: str, n: int, probes: int, seed: int, dry: bool) -> None:
    """Record how far Corollary 1, Theorem 1 and the restriction to LoRA weights hold."""
    corpus, every_probe = read_demo()
    chosen = material(corpus, every_probe, n, probes)
    bench = tiny_bench(list(corpus), every_probe, seed) if model == "tiny" else bundled_bench(seed)

    def report(name: str, found: Estimate, count: int, unit: str) -> None:
        bounds, model_name = {"low": found.low, "high": found.high}, bench.loaded.source.name
        record(f"theory.{name}", found.value, **bounds, n=count, unit=unit, model=model_name, dry=dry)

    with tempfile.TemporaryDirectory(prefix="biasdiff-") as place:
        with warmed_up(bench, chosen.examples, Path(place) / "warmup") as point:
            corollary_1(bench, point, chosen, report)
            theorem_1_at_a_point(bench, point, chosen, report)
            lora_against_full(bench, point, chosen, report)
        if model == "tiny":
            theorem_1_over_training(bench.loaded, chosen, report)


if __name__ == "__main__":
    main()
