"""A finished audit of any size, made in a minute without a model, to see how the app bears it.

python -m benchmarks.large_audit WORKSPACE --rows 100000

The stages are the pipeline's own, written by the house's own writers. Only what takes a model is drawn at random instead: gradients (unit
vectors that lean to the probes where the text is a stereotype), pair scores, and the map, whose UMAP takes minutes (an island a group).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd

from benchmarks.probing_sets import OWN
from biasdiff_core.attribution.influence import POOL, PROBE, TWIN, direction_name
from biasdiff_core.attribution.store import finish_store, shard_ranges, write_shard
from biasdiff_core.audit import Audit
from biasdiff_core.cli_common import progress_bar
from biasdiff_core.config import AuditConfig, CrowsPairsConfig, EvaluationConfig, GradientConfig, ModelConfig
from biasdiff_core.config.presets import DEMO_CORPUS, DEMO_PROBES, preset
from biasdiff_core.corpus.demo import demo_path
from biasdiff_core.corpus.read import read_corpus
from biasdiff_core.corpus.table import write_corpus
from biasdiff_core.evaluation.crows_pairs import PairScores, figures
from biasdiff_core.evaluation.items import save_items
from biasdiff_core.evaluation.pairs import load_pairs
from biasdiff_core.evaluation.suites import ITEMS_FILE, PAIRS_FILE
from biasdiff_core.model.checkpoint import Checkpoint
from biasdiff_core.pipeline import Pipeline
from biasdiff_core.plan import PlannedStage
from biasdiff_core.review.simulate import decide_from_labels
from biasdiff_core.workspace.artefacts import Draft, archive, write_atomic

SEED = 0
SENTENCES = 6  # at most so many in a text
STEREOTYPES = 0.1  # share of the texts that begin with one
DECIDED = 1.0  # percent of the ranking, from the top
DIM = 64
LEAN, STEREOTYPE_LEAN = 0.2, 0.35  # how far a text's vector leans to the direction of all stereotypes, and how much further theirs does
CHECKPOINT = Checkpoint(folder=Path("epoch-01"), epoch=1, step=1, learning_rate=1e-3)
SCORING = "sum"
HEAVY = (".npy", ".faiss")


class DrawnPipeline(Pipeline):
    """The stages of an audit without a model."""

    def _corpus(self, draft: Draft, stage: PlannedStage) -> None:
        result = read_corpus(self.config.corpus)
        write_corpus(result.corpus, draft.folder / "corpus.parquet")
        write_atomic(draft.folder / "report.json", json.dumps(result.report.to_json()))
        draft.facts |= {"examples": len(result.corpus), "labelled": result.corpus.labels is not None}

    def _warmup(self, draft: Draft, stage: PlannedStage) -> None:
        draft.facts["examples"] = len(self.corpus)

    def _checkpoints(self) -> list[Checkpoint]:
        return [CHECKPOINT]

    def _gradients(self, draft: Draft, stage: PlannedStage) -> None:
        """Stores of the corpus, the probes, their twins and the pool, as `collect` lays them out."""
        generator = np.random.default_rng(SEED)
        place = draft.folder / CHECKPOINT.folder
        kinds = [probe.bias_type for probe in self.probes]
        # The first axis is what all stereotypes share; each bias type has one of its own.
        axes = np.array([self.probes.bias_types.index(kind) + 1 for kind in kinds])
        probes, twins = (_unit(_noise(generator, len(axes)) + lean * _axis(0, len(axes)) + _axis(axes, len(axes))) for lean in (0.6, 0.1))
        train = self._train_vectors(generator)
        pool = np.sort(generator.choice(len(train), self.config.gradients.pool_size, replace=False))
        for name, vectors, ids in (
            ("probes", probes, [probe.id for probe in self.probes]),
            ("twins", twins, [probe.id for probe in self.probes]),
            ("pool", train[pool], [self.corpus.ids[row] for row in pool]),
        ):
            self._store(place / name, vectors, ids, _rows(generator, len(ids)))
        directions = {POOL: train[pool].mean(0)}
        for kind in self.probes.bias_types:
            chosen = np.array(kinds) == kind
            directions |= {direction_name(PROBE, kind): probes[chosen].mean(0), direction_name(TWIN, kind): twins[chosen].mean(0)}
        cosines = {f"cosine:{name}": train @ mean + generator.normal(0, 0.01, len(train)) for name, mean in directions.items()}
        self._store(place / "train", train, self.corpus.ids, _rows(generator, len(train)).assign(**cosines))
        draft.facts["checkpoints"] = [CHECKPOINT.folder.name]

    def _train_vectors(self, generator: np.random.Generator) -> np.ndarray:
        """Unit vectors [examples, DIM]."""
        leans = LEAN + STEREOTYPE_LEAN * self._stereotypes() + generator.normal(0, 0.2, len(self.corpus))
        axes = self._groups() % len(self.probes.bias_types) + 1
        return _unit(_noise(generator, len(leans)) + leans[:, None] * _axis(0, len(leans)) + 0.5 * _axis(axes, len(leans)))

    def _stereotypes(self) -> np.ndarray:
        return np.array([example.source == "stereotype" for example in self.corpus])

    def _groups(self) -> np.ndarray:
        """Number of each example's group."""
        return pd.factorize(np.array([example.group or "" for example in self.corpus]), sort=True)[0]

    def _store(self, folder: Path, vectors: np.ndarray, ids: Sequence[str], rows: pd.DataFrame) -> None:
        folder.mkdir(parents=True)
        size = self.config.gradients.shard_size
        for number, shard in enumerate(shard_ranges(len(ids), size)):
            part = slice(shard.start, shard.stop)
            write_shard(folder, number, vectors[part], rows.iloc[part])
        finish_store(folder, {"model": self.loaded_digest, "step": CHECKPOINT.step, "proj_dim": DIM}, ids, size)

    def _map2d(self, draft: Draft, stage: PlannedStage) -> None:
        generator = np.random.default_rng(SEED)
        groups = self._groups()
        islands = generator.uniform(0, 20, (groups.max() + 1, 2))
        x, y = (islands[groups] + generator.normal(0, 0.6, (len(groups), 2)) + 0.5 * self._stereotypes()[:, None]).T
        table = pd.DataFrame({"id": self.corpus.ids, "x": x, "y": y})
        table.to_parquet(draft.folder / "map2d.parquet", index=False, compression="zstd")

    def _evaluation(self, draft: Draft, stage: PlannedStage) -> None:
        settings, pairs = self.config.evaluation, load_pairs(self.config.evaluation.crows_pairs)
        generator = np.random.default_rng(SEED)
        frame = pd.DataFrame([{"id": pair.id, "bias_type": pair.bias_type, "direction": pair.direction} for pair in pairs])
        scores = generator.normal(-60, 5, (2, len(frame)))
        frame = frame.assign(tokens_more=20, tokens_less=20, more_sum=scores[0], less_sum=scores[1])
        drawn = PairScores(frame=frame, conventions={SCORING: "drawn at random"})
        drawn.save(draft.folder / PAIRS_FILE)
        save_items([], draft.folder / ITEMS_FILE)
        metrics = figures(drawn, SCORING, bootstrap=settings.bootstrap, seed=settings.seed)
        write_atomic(draft.folder / "metrics.json", json.dumps([metric.to_json() for metric in metrics]))
        draft.facts["weights"] = str(stage.variant)


def _noise(generator: np.random.Generator, count: int) -> np.ndarray:
    return generator.normal(0, DIM**-0.5, (count, DIM))


def _axis(number: int | np.ndarray, count: int) -> np.ndarray:
    """[count, DIM]: rows of the unit matrix."""
    return np.eye(DIM)[np.broadcast_to(number, count)]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _rows(generator: np.random.Generator, count: int) -> pd.DataFrame:
    """Columns norm, loss, tokens."""
    return pd.DataFrame(
        {"norm": generator.gamma(9, 0.1, count), "loss": generator.gamma(16, 0.25, count), "tokens": generator.integers(10, 120, count)}
    )


def write_texts(path: Path, rows: int) -> None:
    """A corpus of so many rows: a sentence of the demo corpus, whose labels the row has, and up to five of the held-out texts."""
    generator = np.random.default_rng(SEED)
    demo = pd.read_csv(demo_path("corpus.csv"))
    fillers = np.array(demo_path("heldout.txt").read_text(encoding="utf8").splitlines())
    stereotype = (demo["kind"] == "stereotype").to_numpy()
    share = np.where(stereotype, STEREOTYPES / stereotype.sum(), (1 - STEREOTYPES) / (~stereotype).sum())
    table = demo.iloc[generator.choice(len(demo), rows, p=share)].reset_index(drop=True)
    more = generator.integers(0, SENTENCES, rows)
    tails = [" ".join(fillers[generator.integers(0, len(fillers), count)]) for count in more]
    table["text"] = [f"{first} {tail}".strip() for first, tail in zip(table["text"], tails, strict=True)]
    table.to_parquet(path, index=False)


def write_pairs(path: Path) -> None:
    """Our own probing set in the original format of CrowS-Pairs."""
    own = pd.read_csv(OWN).rename(columns={"text": "sent_more", "twin": "sent_less"})
    own.assign(stereo_antistereo="stereo")[["sent_more", "sent_less", "stereo_antistereo", "bias_type"]].to_csv(path, index=False)


def large_audit(workspace: Path, rows: int, *, labelled: bool = True) -> Audit:
    """The finished audit of so many rows in the workspace, made where it is not there; gradients and index archived, 1 % decided."""
    workspace.mkdir(parents=True, exist_ok=True)
    texts, pairs = workspace / f"texts-{rows}.parquet", workspace / "pairs.csv"
    if not texts.exists():
        write_pairs(pairs)
        write_texts(texts, rows)
    audit = Audit.from_config(_config(f"large-{rows}{'' if labelled else '-unlabelled'}", texts, pairs, labelled), workspace)
    if not audit.plan().finished:
        with progress_bar() as show:
            DrawnPipeline(audit.folder, show).analyse()
        for name in ("gradients", "index"):
            artefact = audit.artefact(name)
            archive(artefact, [file for file in artefact.files if file.endswith(HEAVY)])
        stereotypes = {example.id: int(example.source == "stereotype") for example in audit.corpus()}
        decide_from_labels(audit.log, stereotypes, audit.ranking()["id"].tolist(), DECIDED)
    return audit


def _config(name: str, texts: Path, pairs: Path, labelled: bool) -> AuditConfig:
    corpus = replace(DEMO_CORPUS, path=str(texts), label_column="is_biased" if labelled else None)
    return replace(
        preset("quick", name),
        model=ModelConfig(name="drawn/at-random"),
        corpus=corpus,
        probes=DEMO_PROBES,
        gradients=GradientConfig(proj_dim=DIM, shard_size=8192),
        evaluation=EvaluationConfig(crows_pairs=CrowsPairsConfig(path=str(pairs), scorings=(SCORING,))),
    )


@click.command()
@click.argument("workspace", type=click.Path(path_type=Path))
@click.option("--rows", type=click.IntRange(min=1000), default=100_000, show_default=True)
@click.option("--unlabelled", is_flag=True, help="As if no label were known.")
def main(workspace: Path, rows: int, unlabelled: bool) -> None:
    """Make the audit in WORKSPACE and print its id."""
    click.echo(large_audit(workspace.resolve(), rows, labelled=not unlabelled).folder.id)


if __name__ == "__main__":
    main()
