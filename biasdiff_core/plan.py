"""The order of stages, their keys, what is done and what is stale and why, and the predicted cost. Loads no torch."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biasdiff_core.config import AuditConfig
from biasdiff_core.config.mitigation import Method
from biasdiff_core.corpus.sources import source_digest
from biasdiff_core.errors import ArtefactError, BiasDiffError
from biasdiff_core.evaluation.crows_pairs import pairs_path
from biasdiff_core.model.source import adapter_digest, locate
from biasdiff_core.report import BASE, ORIGIN
from biasdiff_core.workspace.artefacts import Artefact, digest_file, is_complete, manifests, open_artefact, stage_key
from biasdiff_core.workspace.audits import AuditFolder, list_audits

log = logging.getLogger(__name__)


MAP_SEED = 0

# Seconds of one unit of work on 2 cores with the bundled model, where no finished stage of this workspace tells better
# (benchmarks/results.jsonl: demo.seconds_per_example.*).
DEFAULT_RATES: Mapping[str, float] = {"warmup": 0.11, "gradients": 0.11, "mitigation": 0.11, "evaluation": 0.06}


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """One stage result to be: its key follows from config and inputs. `variant`: of evaluations and mitigations."""

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    key: str
    title: str
    done: bool
    variant: str | None = None
    stale: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The analysis of one audit, in order: from the corpus to the ranking and map, then base and origin evaluated."""

    stages: tuple[PlannedStage, ...]
    notes: tuple[str, ...] = field(default=())

    def __getitem__(self, name: str) -> PlannedStage:
        """The stage called `name`, for evaluations `evaluation:<variant>`."""
        for stage in self.stages:
            if name in (stage.stage, f"{stage.stage}:{stage.variant}"):
                return stage
        raise KeyError(name)

    @property
    def finished(self) -> bool:
        """Whether nothing of the analysis is left to do."""
        return all(stage.done for stage in self.stages)


def plan(audit: AuditFolder) -> Plan:
    """The analysis plan of an audit as its config, data and model stand now."""
    config = audit.config
    sources, notes = _sources(audit)
    build = _Builder(audit.path)
    model = {"model": sources["model"]}
    corpus = build("corpus", {"corpus": config.corpus}, {"source": sources["corpus"], **model}, "Read the corpus")
    probes = build("probes", {"probes": config.probes}, {"source": sources["probes"], "corpus": corpus}, "Read the probes")
    warmup = build(
        "warmup",
        {"lora": config.lora, "warmup": config.warmup, "dtype": config.model.dtype},
        {"corpus": corpus, **model, **({"adapter": sources["adapter"]} if config.model.adapter else {})},
        "Take over the adapter" if config.model.adapter else "Warm up the model",
    )
    gradients = build("gradients", {"gradients": config.gradients}, {"warmup": warmup, "probes": probes}, "Take gradients")
    scores = build("scores", {"scores": config.scores}, {"gradients": gradients}, "Score influence")
    build("ranking", {}, {"scores": scores, "corpus": corpus}, "Rank the examples")
    build("index", {}, {"gradients": gradients}, "Index the gradients")
    build("map2d", {"seed": MAP_SEED}, {"gradients": gradients}, "Draw the map")
    for variant, trained in ((BASE, "none"), (ORIGIN, warmup)):
        _evaluation(build, config, sources, variant, trained, corpus)
    return Plan(stages=tuple(build.stages), notes=tuple(notes))


def repair_plan(audit: AuditFolder, removal_key: str, methods: Sequence[Method]) -> Plan:
    """What follows a frozen removal set: each method's mitigation and evaluation, then the report."""
    config = audit.config
    sources, notes = _sources(audit)
    analysis = plan(audit)
    build = _Builder(audit.path)
    corpus, warmup = analysis["corpus"].key, analysis["warmup"].key
    for method in methods:
        settings, inputs = _method(config, method, removal_key, corpus, warmup, sources["model"])
        key = build("mitigation", settings, inputs, TITLES[method], variant=method)
        _evaluation(build, config, sources, method, key, corpus)
    evaluations = {s.variant or "": s.key for s in (*analysis.stages, *build.stages) if s.stage == "evaluation"}
    build("report", {}, {"removal": removal_key, "ranking": analysis["ranking"].key, **evaluations}, "Write the report")
    return Plan(stages=tuple(build.stages), notes=tuple(notes))


TITLES: Mapping[Method, str] = {"retrain": "Retrain", "npo": "Unlearn with NPO", "random": "Random control"}


def removals(audit: AuditFolder) -> list[Artefact]:
    """Frozen removal sets of the present ranking, newest first."""
    ranking = plan(audit)["ranking"].key
    found = [open_artefact(audit.path, "removal", p.parent.name) for p in manifests(audit.path, "removal")]
    return sorted((r for r in found if r.inputs["ranking"] == ranking), key=lambda r: r.created, reverse=True)


def _method(
    config: AuditConfig, method: Method, removal: str, corpus: str, warmup: str, model: str
) -> tuple[dict[str, Any], dict[str, str]]:
    inputs = {"removal": removal, "corpus": corpus, "model": model}
    if method == "npo":
        return {"method": method, "npo": config.mitigation.npo}, {**inputs, "warmup": warmup}
    settings: dict[str, Any] = {"method": method, "lora": config.lora, "training": config.warmup.training, "dtype": config.model.dtype}
    return settings | ({"seed": config.mitigation.random_seed} if method == "random" else {}), inputs


def _evaluation(build: _Builder, config: AuditConfig, sources: Mapping[str, str], variant: str, trained: str, corpus: str) -> None:
    inputs = {"model": sources["model"], "adapter": trained, "pairs": sources["pairs"], "held_out": sources["held_out"], "corpus": corpus}
    settings = {"evaluation": config.evaluation, "dtype": config.model.dtype}
    build("evaluation", settings, inputs, f"Evaluate {variant}", variant=variant)


class _Builder:
    def __init__(self, audit: Path) -> None:
        self.audit = audit
        self.stages: list[PlannedStage] = []

    def __call__(self, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str], title: str, variant: str | None = None) -> str:
        key = stage_key(stage, config, inputs)
        done = is_complete(self.audit, stage, key)
        stale = "" if done or variant else self._stale(stage, inputs)
        self.stages.append(
            PlannedStage(stage=stage, config=config, inputs=inputs, key=key, title=title, done=done, variant=variant, stale=stale)
        )
        return key

    def _stale(self, stage: str, inputs: Mapping[str, str]) -> str:
        """Why an older result of this stage no longer counts: the first input that differs."""
        for manifest in manifests(self.audit, stage):
            before = json.loads(manifest.read_text(encoding="utf8"))["inputs"]
            for name, now in inputs.items():
                if before.get(name) != now:
                    return f"{stage} is stale: made from {name} {str(before.get(name))[:8]}…, now {now[:8]}…"
        return ""


def _sources(audit: AuditFolder) -> tuple[dict[str, str], list[str]]:
    """Digests of everything from outside. A source that is gone is taken as it was recorded, and a note says so."""
    config = audit.config
    adapter = config.model.adapter
    recorded: dict[str, tuple[str, str, Callable[[], str]]] = {
        "model": ("corpus", "model", lambda: locate(config.model).digest),
        "corpus": ("corpus", "source", lambda: source_digest(config.corpus.path)),
        "probes": ("probes", "source", lambda: source_digest(config.probes.path, demo="probes.csv")),
        "pairs": ("evaluation", "pairs", lambda: digest_file(pairs_path(config.evaluation.crows_pairs))),
        "held_out": ("evaluation", "held_out", lambda: source_digest(config.evaluation.perplexity.path, demo="heldout.txt")),
    }
    if adapter:
        recorded["adapter"] = ("warmup", "adapter", lambda: adapter_digest(adapter))
    digests, notes = {}, []
    for name, (stage, field_name, compute) in recorded.items():
        try:
            digests[name] = compute()
        except (BiasDiffError, OSError) as error:
            digests[name] = _recorded(audit.path, stage, field_name, error)
            notes.append(f"The source of {name} cannot be read now ({error}); results made from {digests[name][:8]}… are shown.")
    return digests, notes


def _recorded(audit: Path, stage: str, name: str, error: Exception) -> str:
    found = sorted(manifests(audit, stage), key=lambda path: path.stat().st_mtime)
    if not found:
        raise error
    return str(json.loads(found[-1].read_text(encoding="utf8"))["inputs"][name])


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Predicted seconds and bytes; `measured`: whether the rates come from finished audits of this workspace."""

    seconds: float
    gigabytes: float
    measured: bool


def predicted_cost(workspace: Path, config: AuditConfig, examples: int, probes: int) -> Cost:
    """What the whole audit will cost: warm-up, gradients, the configured mitigations and all evaluations.

    Work is counted in example passes; its rate is that of the latest finished stages of this workspace with the same model,
    else that of the bundled model on 2 cores. `examples`, `probes`: rows (twins counted by the caller).
    """
    rates, measured = _rates(workspace, config)
    training = config.warmup.training
    pairs = (config.evaluation.crows_pairs.pairs or 1508) * len(config.evaluation.crows_pairs.scorings)
    scope = config.warmup.few_fraction if config.warmup.scope == "few" else 1.0
    checkpoints = training.epochs if config.gradients.checkpoints == "all" else 1
    removed = examples * config.removal.percent / 100
    passes = {"retrain": examples - removed, "random": examples - removed, "npo": 2 * removed}
    epochs = {"npo": config.mitigation.npo.training.epochs}
    work = {
        "warmup": 0 if config.model.adapter else examples * scope * training.epochs,
        "gradients": (examples + probes) * checkpoints,
        "mitigation": sum(passes[m] * epochs.get(m, training.epochs) for m in config.mitigation.methods),
        "evaluation": pairs * (2 + len(config.mitigation.methods)),
    }
    vectors = (examples + probes) * checkpoints * config.gradients.proj_dim * 2
    return Cost(seconds=sum(rates[stage] * amount for stage, amount in work.items()), gigabytes=vectors / 1e9 + 0.05, measured=measured)


def _rates(workspace: Path, config: AuditConfig) -> tuple[dict[str, float], bool]:
    rates, measured = dict(DEFAULT_RATES), False
    for audit in list_audits(workspace):
        if audit.config.model.name != config.model.name:
            continue
        for stage in DEFAULT_RATES:
            for path in manifests(audit.path, stage):
                record = json.loads(path.read_text(encoding="utf8"))
                if record["facts"].get("work"):
                    rates[stage], measured = record["seconds"] / record["facts"]["work"], True
    return rates, measured


def require_done(stage: PlannedStage, audit: AuditFolder) -> Artefact:
    """The finished result of a planned stage. Raises ArtefactError with the command that makes it."""
    if not stage.done:
        raise ArtefactError(stage.stale or f"{stage.title} is not done yet in {audit.id}.", f"Run `biasdiff run {audit.id}`.")
    return open_artefact(audit.path, stage.stage, stage.key)
