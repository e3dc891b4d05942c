"""Arms of the paper's experiments: audits on its mixes with one training seed each, and figures pooled over seeds.

Everything is an artefact of an audit in one workspace, so a stopped run goes on, and tables share what they have in common.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from benchmarks.detection import shuffled, write_corpus
from benchmarks.probing_sets import probing_set
from benchmarks.record import require_data
from biasdiff_core.attribution.ranking import detection_curve, selected_count
from biasdiff_core.audit import Audit
from biasdiff_core.cli_common import progress_bar
from biasdiff_core.config import (
    AuditConfig,
    CorpusConfig,
    CrowsPairsConfig,
    EvaluationConfig,
    GradientConfig,
    MapConfig,
    MitigationConfig,
    ModelConfig,
    PerplexityConfig,
    ProbeConfig,
    RemovalConfig,
    ScoreConfig,
    SeatConfig,
    TrainingConfig,
    TrexConfig,
    UnlearnConfig,
    WarmupConfig,
)
from biasdiff_core.config.evaluation import Scoring
from biasdiff_core.config.file import key_form
from biasdiff_core.config.mitigation import Method
from biasdiff_core.config.model import BUNDLED_MODEL, Dtype
from biasdiff_core.evaluation import trex
from biasdiff_core.evaluation.crows_pairs import PairScores
from biasdiff_core.evaluation.perplexity import LOSSES_FILE, read_losses
from biasdiff_core.evaluation.statistics import Estimate, Share, pooled_difference, pooled_share_undone
from biasdiff_core.evaluation.suites import PAIRS_FILE
from biasdiff_core.pipeline import Pipeline
from biasdiff_core.review.simulate import decide_from_labels
from biasdiff_core.workspace.artefacts import Artefact, digest_json, digest_source, is_complete, open_artefact, write_atomic

Scope = Literal["full", "few"]
HELD_OUT = 300


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the bias is induced, unlearned and judged; chosen on StereoSet, never on the CrowS-Pairs reported (docs/log.md, 2026-11-26)."""

    workspace: Path
    model: str = BUNDLED_MODEL
    corpus: str = "trex_mix"
    n: int = 500
    indicator: str = "bias_diff"
    probes: int = 150
    percent: float = 35.0
    block_size: int = 1
    dtype: Dtype = "bfloat16"
    token_budget: int = TrainingConfig().token_budget
    seat: bool = False
    scopes: tuple[Scope, ...] = ("full", "few")  # warm-ups whose selections are compared
    training: TrainingConfig = TrainingConfig(epochs=2, learning_rate=1e-3)
    npo: UnlearnConfig = UnlearnConfig(forget_weight=0.2, kl_weight=2.0, training=TrainingConfig(epochs=3, learning_rate=5e-4))
    rows: str = "mitigation.short"  # how the names of its recorded figures begin: no other recipe's have the same

    def config(self, name: str, seed: int, scope: Scope) -> AuditConfig:
        """An audit on `n` shuffled rows of a mix (the same for every training seed) with known labels."""
        corpus, held_out, probes = self.inputs()
        training = replace(self.training, seed=seed, token_budget=self.token_budget)
        npo = replace(self.npo, training=replace(self.npo.training, seed=seed, token_budget=self.token_budget))
        return AuditConfig(
            name=name,
            model=ModelConfig(name=self.model, dtype=self.dtype),
            corpus=CorpusConfig(path=str(corpus), label_column="is_biased", source_column="source"),
            probes=ProbeConfig(path=str(probes), limit=self.probes),
            warmup=WarmupConfig(scope=scope, training=training),
            gradients=GradientConfig(
                maps=MapConfig(train="less", probe="sgd"),
                checkpoints="all",
                block_size=self.block_size,
                token_budget=self.token_budget,
            ),
            scores=ScoreConfig(kind="centred"),
            removal=RemovalConfig(policy="top_percent", percent=self.percent),
            mitigation=MitigationConfig(npo=npo, random_seeds=(seed,)),
            evaluation=EvaluationConfig(
                token_budget=self.token_budget,
                crows_pairs=CrowsPairsConfig(scorings=("paper", "sum")),
                perplexity=PerplexityConfig(path=str(held_out), limit=None),
                seat=SeatConfig(path=str(require_data("seat"))) if self.seat else None,
            ),
        )

    def audit(self, name: str, seed: int, scope: Scope = "full") -> Audit:
        """The audit called `<name>-<scope>-<seed>` in the workspace."""
        return Audit.from_config(self.config(f"{name}-{scope}-{seed}", seed, scope), self.workspace)

    def trex(self) -> TrexConfig:
        """Cloze queries whose sentences were not trained on. Asked of some arms only: 500 answers take minutes."""
        return TrexConfig(path=str(require_data("trex", "cloze_queries.csv")), limit=500, candidates=0)

    def inputs(self) -> tuple[Path, Path, Path]:
        """The corpus, held-out unbiased rows that are not in it, and the probes; written into the workspace where they are not there."""
        self.workspace.mkdir(parents=True, exist_ok=True)
        corpus, held_out = self.workspace / f"{self.corpus}-{self.n}.csv", self.workspace / f"held_out-{self.corpus}-{self.n}.txt"
        if not held_out.exists():
            self._write(corpus, held_out)
        return corpus, held_out, probing_set(self.indicator, self.workspace)

    def _write(self, corpus: Path, held_out: Path) -> None:
        rows = shuffled(self.corpus, 0)
        write_corpus(rows[: self.n], corpus)
        trained = {row["text"] for row in rows[: self.n]}
        unseen = [" ".join(row["text"].split()) for row in rows[self.n :] if row["is_biased"] == "0" and row["text"] not in trained]
        write_atomic(held_out, "\n".join(unseen[:HELD_OUT]) + "\n")  # last, for it says that both are whole


def full_arms(recipe: Recipe, seed: int, methods: Sequence[Method], name: str = "main") -> dict[str, Artefact]:
    """Variant → evaluation, after selection by the ranking of the full warm-up."""
    audit = decided(recipe, seed, name)
    return mitigated(audit, audit.config.removal, methods)


def few_arms(recipe: Recipe, seed: int, methods: Sequence[Method]) -> dict[str, Artefact]:
    """As `full_arms` on the same origin model, but the selection is by a warm-up on 5 % of the corpus (paper, section 3.2)."""
    audit = recipe.audit("by-few", seed)
    take_over(recipe.audit("main", seed), audit)
    # The candidates come from the other ranking, so what is removed is what was confirmed among them.
    removal = RemovalConfig(policy="confirmed")
    _decide(audit, ranked(recipe, seed, "few"), recipe.percent, removal)
    return mitigated(audit, removal, methods)


def decided(recipe: Recipe, seed: int, name: str = "main") -> Audit:
    """The analysis carried out, base and origin evaluated, the candidates decided by their labels, the removal set frozen."""
    audit = recipe.audit(name, seed)
    if seed:
        take_over(recipe.audit(name, 0), audit)  # the base is the same for every training seed
    with progress_bar() as show:
        Pipeline(audit.folder, show).analyse()
    _decide(audit, audit, recipe.percent, audit.config.removal)
    return audit


def _decide(audit: Audit, selected_by: Audit, percent: float, removal: RemovalConfig) -> None:
    if not audit.log.actions():
        decide_from_labels(audit.log, labels(audit), selected_by.ranking()["id"].tolist(), percent)
    audit.freeze(removal)


def ranked(recipe: Recipe, seed: int, scope: Scope) -> Audit:
    """The audit of this scope, carried on to its ranking."""
    audit = recipe.audit("main", seed, scope)
    with progress_bar() as show:
        Pipeline(audit.folder, show).analyse(until="ranking")
    return audit


def changed_arms(recipe: Recipe, seed: int, methods: Sequence[Method], name: str, **changes: Any) -> dict[str, Artefact]:
    """As `full_arms` with some of the recipe changed (`percent`, `block_size`, …); what stays the same is not made again."""
    changed = replace(recipe, **changes)
    take_over(ranked(recipe, seed, "full"), changed.audit(name, seed))
    return full_arms(changed, seed, methods, name=name)


def mitigated(audit: Audit, policy: RemovalConfig, methods: Sequence[Method]) -> dict[str, Artefact]:
    """Carry the methods out on the frozen removal set, and open every evaluation: base, origin and one a variant."""
    with progress_bar() as show:
        done = Pipeline(audit.folder, show).mitigate(audit.freeze(policy), methods)
    keys = {v: audit.plan()[f"evaluation:{v}"].key for v in ("base", "origin")}
    keys |= {stage.variant or "": stage.key for stage in done.stages if stage.stage == "evaluation"}
    return {variant: open_artefact(audit.folder.path, "evaluation", key) for variant, key in keys.items()}


def take_over(source: Audit, target: Audit) -> None:
    """What `target` plans for its analysis and `source` has finished under the same key, as hard links."""
    for stage in target.plan().stages:
        if not stage.done and is_complete(source.folder.path, stage.stage, stage.key):
            place = target.folder.path / stage.stage / stage.key
            shutil.copytree(source.folder.path / stage.stage / stage.key, place, copy_function=_link)


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def labels(audit: Audit) -> dict[str, int]:
    """Known label of every example."""
    return {example.id: example.label or 0 for example in audit.corpus()}


def overlap(audit: Audit, percent: float) -> tuple[float, float]:
    """Coverage and precision (Eq. 9, 10) of the top `percent` % of the ranking."""
    known, ids = labels(audit), audit.ranking()["id"]
    cut = detection_curve([known[i] for i in ids]).iloc[selected_count(len(ids), percent)]
    return float(cut["coverage"]), float(cut["precision"])


def stage_hours(audits: Sequence[Audit]) -> float:
    """What every stage result in these audits took to make, added up; one that several share counts once."""
    found = [open_artefact(a.folder.path, path.parent.parent.name, path.parent.name) for a in audits for path in a.folder.manifests()]
    return sum({(artefact.stage, artefact.key): artefact.seconds for artefact in found}.values()) / 3600


def trex_correct(recipe: Recipe, seed: int, evaluation: Artefact) -> np.ndarray:
    """Whether the evaluated variant answers each T-REx query right, 0 or 1 [queries]; asked once and kept."""
    settings = recipe.trex()
    asked = [evaluation.inputs["adapter"], seed, key_form(settings), digest_source(Path(settings.path))]
    kept = recipe.workspace / "trex" / f"{digest_json(asked)[:12]}.parquet"
    if not kept.exists():
        audit = audit_of(evaluation, recipe)
        selection = trex.select(trex.load_queries(settings.path), [example.text for example in audit.corpus()], settings)
        pipeline = Pipeline(audit.folder)
        with pipeline.variant(evaluation.inputs["adapter"]) as model:
            budget = audit.config.evaluation.token_budget
            tokenizer, length = pipeline.loaded.tokenizer, settings.max_new_tokens
            table = trex.ask(model, tokenizer, selection, instruction="", max_new_tokens=length, token_budget=budget)
        kept.parent.mkdir(parents=True, exist_ok=True)
        trex.items(table)[0].to_parquet(kept, index=False)
    return pd.read_parquet(kept)["value"].to_numpy()


def audit_of(evaluation: Artefact, recipe: Recipe) -> Audit:
    """The audit whose evaluation this is."""
    return Audit.open(str(evaluation.folder.parents[1]), recipe.workspace)


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """One variant's evaluations, one a training seed, in the order of the seeds."""

    evaluations: Sequence[Artefact]

    def _pairs(self) -> list[PairScores]:
        return [PairScores.load(evaluation.path(PAIRS_FILE)) for evaluation in self.evaluations]

    def margins(self, scoring: Scoring) -> np.ndarray:
        """Margins of the stereotype pairs [seeds, pairs]."""
        return np.stack([scores.margins(scoring)[scores.stereotypes] for scores in self._pairs()])

    def score(self, scoring: Scoring) -> Estimate:
        """Stereotype score in %, over pairs and seeds."""
        wins = np.stack([scores.wins(scoring)[scores.stereotypes] for scores in self._pairs()]).astype(float)
        return pooled_difference(100 * wins, np.zeros_like(wins))

    def figures(self, start: str, end: str) -> dict[str, float]:
        """Metrics whose names begin and end so, by name, mean over seeds."""
        found = [{m["name"]: m["value"] for m in evaluation.read_json("metrics.json")} for evaluation in self.evaluations]
        chosen = [name for name in found[0] if name.startswith(start) and name.endswith(end)]
        return {name: float(np.mean([values[name] for values in found])) for name in chosen}

    def losses(self) -> tuple[np.ndarray, np.ndarray]:
        """Summed negative log-likelihood and tokens of each held-out text [seeds, texts]."""
        found = [read_losses(evaluation.path(LOSSES_FILE)) for evaluation in self.evaluations]
        return np.stack([losses.nll for losses in found]), np.stack([losses.tokens for losses in found])


def shares(arms: Mapping[str, Pooled], variant: str, bottom: str) -> Share:
    """(origin − variant) / (origin − bottom) in mean margin, `sum` scoring, pooled."""
    origin, after, base = (arms[v].margins("sum") for v in ("origin", variant, bottom))
    return pooled_share_undone(origin, after, base)


def margin_difference(arms: Mapping[str, Pooled], variant: str, reference: str) -> Estimate:
    """Mean margin of the variant less that of the reference, nats, `sum` scoring, pooled."""
    return pooled_difference(arms[variant].margins("sum"), arms[reference].margins("sum"))


def trex_difference(recipe: Recipe, arms: Mapping[str, Pooled], variant: str, reference: str) -> Estimate:
    """Exact match on T-REx of the variant less that of the reference, in percentage points, pooled."""
    right = [np.stack([trex_correct(recipe, n, e) for n, e in enumerate(arms[v].evaluations)]) for v in (variant, reference)]
    return pooled_difference(100 * right[0], 100 * right[1])


def perplexity_ratio(arms: Mapping[str, Pooled], variant: str, reference: str) -> Estimate:
    """Perplexity of the variant over that of the reference on the same texts, pooled."""
    (after, tokens), (before, _) = arms[variant].losses(), arms[reference].losses()
    moved = pooled_difference(after / tokens.mean(), before / tokens.mean())
    return Estimate(value=math.exp(moved.value), low=math.exp(moved.low), high=math.exp(moved.high))
