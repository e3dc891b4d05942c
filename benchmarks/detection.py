"""How well the ranking finds known biased examples, beside the baselines.

python -m benchmarks.detection --corpus trex_mix --n 600 --seed 0     the paper's mix, shuffled, one example at a time
python -m benchmarks.detection --corpus demo                          our own corpus, also against its same-group neutrals
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import pandas as pd
from scipy.stats import spearmanr

from benchmarks.record import DATA, dry_option, record, record_metric, require_data
from biasdiff_core.attribution.influence import nearest_cosines, projected_cosines, whitened_cosines
from biasdiff_core.audit import Audit
from biasdiff_core.cli_common import shown_progress
from biasdiff_core.config import AuditConfig, CorpusConfig, MapConfig, ProbeConfig
from biasdiff_core.config.gradients import OptimizerMap, ScoreKind
from biasdiff_core.config.presets import DEMO_CORPUS, DEMO_PROBES, preset
from biasdiff_core.corpus.examples import Corpus
from biasdiff_core.corpus.recipes import build
from biasdiff_core.evaluation.detection import SCORES, detection_metrics
from biasdiff_core.evaluation.statistics import auroc
from biasdiff_core.pipeline import Pipeline
from biasdiff_core.results import MetricResult

NEAREST = (1, 10)  # probes whose cosines count
DAMPINGS = (0.1, 1.0, 10.0)  # of the whitening, times the mean eigenvalue of the corpus's second moment


def shuffled(recipe: str, seed: int) -> list[dict[str, str]]:
    """All rows of a mix of the paper's (text, is_biased, source), shuffled: what `biasdiff corpus build RECIPE --seed …` writes."""
    built = build(recipe, seed=seed, data=DATA)
    return [{"text": text, "is_biased": label, "source": source} for text, label, source, _ in built.rows]


def write_corpus(rows: Sequence[dict[str, str]], path: Path) -> Path:
    """The rows as a CSV that the ordinary reader reads."""
    with path.open("w", encoding="utf8", newline="") as handle:
        writer = csv.DictWriter(handle, fieldnames=["text", "is_biased", "source"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def trex_mix(name: str, n: int, seed: int, probes: int, folder: Path, which: str) -> AuditConfig:
    """`n` shuffled rows of Trex_mix and `probes` rows of its probing set, as files that the ordinary reader reads."""
    corpus = write_corpus(shuffled("trex_mix", seed)[:n], folder / f"trex_mix-{n}-{seed}.csv")
    return replace(
        preset(which, name),
        corpus=CorpusConfig(path=str(corpus), label_column="is_biased", source_column="source"),
        probes=ProbeConfig(path=str(require_data("trex_mix", "probe.csv")), limit=probes, seed=seed),
    )


@click.command()
@click.option("--corpus", type=click.Choice(["trex_mix", "demo"]), required=True)
@click.option("--n", type=int, default=600, show_default=True, help="Rows of trex_mix.")
@click.option("--probes", type=int, default=150, show_default=True, help="Probes of trex_mix.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--preset", "which", default="standard", show_default=True)
@click.option("--train-map", type=click.Choice(["sgd", "rms", "less", "adam", "adam_own"]), help="Instead of the preset's.")
@click.option("--probe-map", type=click.Choice(["sgd", "rms", "less", "adam", "adam_own"]), help="Instead of the preset's.")
@click.option("--score", type=click.Choice(["mean", "centred", "contrast"]), help="Instead of the preset's.")
@click.option("--epochs", type=int, help="Instead of the preset's.")
@click.option("--learning-rate", type=float, help="Instead of the preset's.")
@click.option("--checkpoints", type=click.Choice(["all", "last"]), help="Instead of the preset's.")
@click.option("--workspace", type=click.Path(path_type=Path), help="Kept between runs; default: a temporary one.")
@dry_option
def main(
    corpus: str,
    n: int,
    probes: int,
    seed: int,
    which: str,
    train_map: OptimizerMap | None,
    probe_map: OptimizerMap | None,
    score: ScoreKind | None,
    epochs: int | None,
    learning_rate: float | None,
    checkpoints: str | None,
    workspace: Path | None,
    dry: bool,
) -> None:
    """Run the audit up to its ranking and record AUROC, coverage and precision."""
    folder = (workspace or Path(tempfile.mkdtemp(prefix="biasdiff-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"detection-{corpus.replace('_', '-')}-{seed}"
    if corpus == "demo":
        config = replace(preset(which, name), corpus=DEMO_CORPUS, probes=DEMO_PROBES)
    else:
        config = trex_mix(name, n, seed, probes, folder, which)
    config = _changed(config, train_map, probe_map, score, epochs, learning_rate, checkpoints, seed)
    audit = Audit.from_config(config, folder)
    with shown_progress(audit) as show:
        Pipeline(audit.folder, show).analyse(until="ranking")
    report_detection(f"detection.{corpus}", audit, dry)


def report_detection(prefix: str, audit: Audit, dry: bool = False) -> None:
    """Record (or print, when `dry`) how well an audit's ranking finds its known labels; for the demo also within the same groups.

    Beside it, scores that no audit ranks by (`compared_scores`).
    """
    scores = audit.artefact("scores")
    table = pd.read_parquet(scores.path("scores.parquet"))
    compared = compared_scores(audit)
    _report(prefix, table, audit.corpus(), audit.config, dry)
    _compare(prefix, table.assign(**compared), audit.corpus(), list(compared), audit.config, dry)
    if audit.config.corpus.path == "demo":
        kept = [example for example in audit.corpus() if example.source != "factual"]
        subset = table[table["id"].isin([example.id for example in kept])]
        _report(f"{prefix}_same_group", subset, Corpus(kept), audit.config, dry)
        _compare(f"{prefix}_same_group", subset.assign(**compared), Corpus(kept), list(compared), audit.config, dry)
    r = scores.facts["exact_projected_r"]
    print(f"maps {audit.config.gradients.maps}")
    unit, model = "Pearson r of exact and projected scores", audit.config.model.name
    record(f"{prefix}.exact_projected_r", r, n=len(table), unit=unit, model=model, dry=dry)


def compared_scores(audit: Audit) -> dict[str, pd.Series]:
    """From the projected vectors, by example: the mean cosine, that of the nearest probes alone, and that after whitening (TrackStar)."""
    stores, types = Pipeline(audit.folder).stores(), [probe.bias_type for probe in audit.probes()]
    scores = {"projected_mean": projected_cosines(stores, types)["mean"].to_numpy()}
    scores |= {f"nearest{count}": nearest_cosines(stores, count) for count in NEAREST if count <= len(types)}
    scores |= {f"whitened{damping:g}": whitened_cosines(stores, damping) for damping in DAMPINGS}
    return {name: pd.Series(values) for name, values in scores.items()}


def _compare(prefix: str, table: pd.DataFrame, corpus: Corpus, names: Sequence[str], config: AuditConfig, dry: bool) -> None:
    """AUROC of each of these scores on the same rows, and how far its ranking is the audit's."""
    scored = table.dropna(subset=["score"])
    labels = dict(zip(corpus.ids, corpus.labels or [], strict=True))
    for name in names:
        values, n = scored[name].to_numpy(), len(scored)
        area = auroc(values, [labels[i] for i in scored["id"]])
        unit = f"area under the ROC curve of {name} against the known labels, 95 % DeLong interval"
        agreement = float(spearmanr(values, scored["score"]).statistic)
        model = config.model.name
        record(f"{prefix}.{name}.auroc", area.value, low=area.low, high=area.high, n=n, unit=unit, model=model, dry=dry)
        record(f"{prefix}.{name}.spearman", agreement, n=n, unit=f"Spearman of {name} and the audit's score", model=model, dry=dry)


def _report(prefix: str, table: pd.DataFrame, corpus: Corpus, config: AuditConfig, dry: bool) -> None:
    by_percent = {percent: detection_metrics(table, corpus, percent) for percent in (30.0, 35.0)}
    for metric in by_percent[35.0]:
        kind = metric.name.split(".")[1]
        if kind in SCORES:
            name = {"score": "auroc"}.get(kind, f"{kind if kind in ('mean', 'centred', 'contrast') else f'baseline.{kind}'}.auroc")
            _one(f"{prefix}.{name}", metric, config, dry)
    for percent, metrics in by_percent.items():
        for metric in metrics[-2:]:
            _one(f"{prefix}.{metric.name.split('.')[1]}{percent:g}", metric, config, dry)


def _one(name: str, metric: MetricResult, config: AuditConfig, dry: bool) -> None:
    record_metric(name, metric, model=config.model.name, against="baselines in the same run", dry=dry)


def _changed(
    config: AuditConfig,
    train_map: OptimizerMap | None,
    probe_map: OptimizerMap | None,
    score: ScoreKind | None,
    epochs: int | None,
    learning_rate: float | None,
    checkpoints: str | None,
    seed: int,
) -> AuditConfig:
    training = config.warmup.training
    training = replace(training, epochs=epochs or training.epochs, learning_rate=learning_rate or training.learning_rate, seed=seed)
    maps = MapConfig(train=train_map or config.gradients.maps.train, probe=probe_map or config.gradients.maps.probe)
    gradients = replace(config.gradients, maps=maps, **({"checkpoints": checkpoints} if checkpoints else {}))
    scores = replace(config.scores, kind=score or config.scores.kind)
    return replace(config, warmup=replace(config.warmup, training=training), gradients=gradients, scores=scores)


if __name__ == "__main__":
    main()
