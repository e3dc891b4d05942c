"""The order of stages, their keys, what is done and what is stale and why. Loads no torch."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from biasdiff_core.comparison import BASE, ORIGIN
from biasdiff_core.config import AuditConfig
from biasdiff_core.config.mitigation import DEV_PROBES, UNLEARNINGS, Method, MitigationConfig
from biasdiff_core.corpus.sources import source_digest
from biasdiff_core.errors import ArtefactError, BiasDiffError, DataError
from biasdiff_core.evaluation.pairs import pairs_path
from biasdiff_core.evidence import nearness_made_from
from biasdiff_core.model.source import adapter_digest, locate
from biasdiff_core.workspace.artefacts import Artefact, is_complete, manifests, open_artefact, stage_key
from biasdiff_core.workspace.audits import AuditFolder

log = logging.getLogger(__name__)


MAP_SEED = 0
TOKENS_FILE = "tokens.parquet"
SHADED = 300  # candidates at most: more are hardly read token by token, and at the rate of gradients below these take half a minute
NO_ADAPTER = "none"  # in place of a stage key: the base model as it is
# Evaluation suites that read a file or folder, and the path that stands for what comes with the project (None: it has no such).
SUITE_FILES: Mapping[str, str | None] = {"stereoset": None, "seat": None, "trex": None, "answers": "paper"}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A model that follows from a removal set. `seed`: of a random control."""

    name: str
    method: Method
    seed: int | None = None


def variants(config: MitigationConfig, methods: Sequence[Method]) -> list[Variant]:
    """A variant a method, in order; `random` gives one for each of its seeds, `random-<seed>` where there are several."""
    seeds = config.random_seeds
    controls = [Variant(name=f"random-{seed}" if len(seeds) > 1 else "random", method="random", seed=seed) for seed in seeds]
    chosen = [controls if method == "random" else [Variant(name=method, method=method)] for method in dict.fromkeys(methods)]
    return [variant for several in chosen for variant in several]


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
    build("index", {}, {"gradients": gradients}, "Index the gradients")
    scores = build("scores", {"scores": config.scores}, {"gradients": gradients}, "Score influence")
    build("ranking", {}, {"scores": scores, "corpus": corpus}, "Rank the examples")
    build("map2d", {"seed": MAP_SEED}, {"gradients": gradients}, "Draw the map")
    for variant, trained in ((BASE, NO_ADAPTER), (ORIGIN, warmup)):
        _evaluation(build, config, sources, variant, trained, corpus)
    return Plan(stages=tuple(build.stages), notes=tuple(notes))


def nearness_stage(audit: AuditFolder) -> PlannedStage:
    """How near the probes are in meaning to corpus and evaluation: made when asked for, no part of the analysis."""
    analysis, build = plan(audit), _Builder(audit.path)
    corpus, probes, evaluation = (analysis[name] for name in ("corpus", "probes", "evaluation"))
    made_from = nearness_made_from(audit.config, corpus.key, probes.key, evaluation.inputs)
    build("nearness", *made_from, "Compare the meanings of the probes")
    return build.stages[0]


def tokens_stage(audit: AuditFolder) -> PlannedStage:
    """Loss and influence of each token of the candidates at the cut: made when asked for, no part of the analysis."""
    analysis, build = plan(audit), _Builder(audit.path)
    inputs = {name: analysis[name].key for name in ("gradients", "ranking")}
    build("tokens", {"percent": audit.config.removal.percent, "limit": SHADED}, inputs, "Shade the candidates by token")
    return build.stages[0]


def search_stage(audit: AuditFolder, text: str) -> PlannedStage:
    """The gradient of a sentence of one's own, to search by: made when asked for, no part of the analysis."""
    analysis, build = plan(audit), _Builder(audit.path)
    build("search", {"text": text}, {"gradients": analysis["gradients"].key}, "Take the sentence's gradient")
    return build.stages[0]


def repair_plan(audit: AuditFolder, removal_key: str, methods: Sequence[Method]) -> Plan:
    """What follows a frozen removal set: each variant's mitigation and evaluation, then the report."""
    config = audit.config
    sources, notes = _sources(audit, methods)
    analysis = plan(audit)
    build = _Builder(audit.path)
    results = {name: analysis[name].key for name in ("corpus", "probes", "warmup", "scores", "ranking")} | {"removal": removal_key}
    for variant in variants(config.mitigation, methods):
        if variant.method == "prompt":
            _evaluation(build, config, sources, variant.name, results["warmup"], results["corpus"], prompt=config.mitigation.prompt)
            continue
        inputs = _inputs(config, variant.method, sources | results)
        key = build("mitigation", _settings(config, variant), inputs, _title(variant), variant=variant.name)
        _evaluation(build, config, sources, variant.name, key, results["corpus"])
    evaluations = {s.variant or "": s.key for s in (*analysis.stages, *build.stages) if s.stage == "evaluation"}
    build("report", {}, {"removal": removal_key, "ranking": results["ranking"], **evaluations}, "Write the report")
    return Plan(stages=tuple(build.stages), notes=tuple(notes))


TITLES: Mapping[Method, str] = {
    "retrain": "Retrain",
    "npo": "Unlearn with NPO",
    "door": "Unlearn with DOOR, token by token",
    "simnpo": "Unlearn with SimNPO",
    "grad_diff": "Unlearn by gradient difference",
    "ascent": "Unlearn by gradient ascent",
    "twin": "Prefer the anti-stereotype twins",
    "prompt": "Instruct by a prompt",
    "random": "Random control",
    "oracle": "Oracle control",
    "unigram": "Control: what unigrams would remove",
    "length": "Control: what length would remove",
    "minilm": "Control: what MiniLM would remove",
}


def _title(variant: Variant) -> str:
    seeded = variant.name != variant.method
    return f"{TITLES[variant.method]}, seed {variant.seed}" if seeded else TITLES[variant.method]


def removals(audit: AuditFolder) -> list[Artefact]:
    """Frozen removal sets of the present ranking, newest first."""
    ranking = plan(audit)["ranking"].key
    found = [open_artefact(audit.path, "removal", p.parent.name) for p in manifests(audit.path, "removal")]
    return sorted((r for r in found if r.inputs["ranking"] == ranking), key=lambda r: r.created, reverse=True)


def _settings(config: AuditConfig, variant: Variant) -> dict[str, Any]:
    """What of the config enters the key of a variant's mitigation."""
    method = variant.method
    if method in UNLEARNINGS:
        return {"method": method, method: config.mitigation.unlearning(method)}
    settings = {"method": method, "lora": config.lora, "training": config.warmup.training, "dtype": config.model.dtype}
    return settings if variant.seed is None else settings | {"seed": variant.seed}


def _inputs(config: AuditConfig, method: Method, available: Mapping[str, str]) -> dict[str, str]:
    """What a method is made from, by name: no more than it reads."""
    names = ["corpus", "model"]
    if method != "oracle":
        names.append("removal")
    if method in ("unigram", "minilm", "twin"):
        names.append("probes")
    inputs = {name: available[name] for name in names}
    if method in UNLEARNINGS:
        unlearning = config.mitigation.unlearning(method)
        inputs["warmup"] = available["warmup"]
        if unlearning.by_influence:
            inputs["scores"] = available["scores"]
        if unlearning.stop is not None:
            probes = unlearning.stop.dev == DEV_PROBES
            inputs["probes" if probes else "dev"] = available["probes" if probes else f"dev:{method}"]
    return inputs


def _evaluation(
    build: _Builder, config: AuditConfig, sources: Mapping[str, str], variant: str, trained: str, corpus: str, **more: Any
) -> None:
    """`more`: settings of this variant alone, like the prompt's instruction."""
    named = {name: sources[name] for name in ("model", "pairs", "held_out", *SUITE_FILES, "lm_eval") if name in sources}
    settings = {"evaluation": config.evaluation, "dtype": config.model.dtype, **more}
    build("evaluation", settings, {**named, "adapter": trained, "corpus": corpus}, f"Evaluate {variant}", variant=variant)


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


def _sources(audit: AuditFolder, methods: Sequence[Method] = ()) -> tuple[dict[str, str], list[str]]:
    """Digests of everything from outside. A source that is gone is taken as it was recorded, and a note says so.

    `methods`: those whose dev pairs, `dev:<method>`, are asked for as well.
    """
    config = audit.config
    adapter = config.model.adapter
    recorded: dict[str, tuple[str, str, Callable[[], str]]] = {
        "model": ("corpus", "model", lambda: locate(config.model).digest),
        "corpus": ("corpus", "source", lambda: source_digest(config.corpus.path)),
        "probes": ("probes", "source", lambda: source_digest(config.probes.path, demo="probes.csv")),
        "pairs": ("evaluation", "pairs", lambda: source_digest(str(pairs_path(config.evaluation.crows_pairs)))),
        "held_out": ("evaluation", "held_out", lambda: source_digest(config.evaluation.perplexity.path, demo="heldout.txt")),
    }
    if adapter:
        recorded["adapter"] = ("warmup", "adapter", lambda: adapter_digest(adapter))
    for name in SUITE_FILES:
        suite = getattr(config.evaluation, name)
        if suite is not None and suite.path != SUITE_FILES[name]:
            recorded[name] = ("evaluation", name, partial(source_digest, suite.path))
    harness = config.evaluation.lm_eval
    if harness is not None and harness.include_path:
        recorded["lm_eval"] = ("evaluation", "lm_eval", partial(source_digest, harness.include_path))
    for method in methods:
        stop = config.mitigation.unlearning(method).stop if method in UNLEARNINGS else None
        if stop is not None and stop.dev != DEV_PROBES:
            recorded[f"dev:{method}"] = ("mitigation", "dev", partial(source_digest, stop.dev))
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
    inputs = [json.loads(path.read_text(encoding="utf8"))["inputs"] for path in found]
    named = [str(record[name]) for record in inputs if name in record]
    if not named and isinstance(error, BiasDiffError):
        raise error
    if not named:
        raise DataError(f"The source of {name} cannot be read: {error}.", "Put it back, or name another in audit.yaml.") from error
    return named[-1]


def require_done(stage: PlannedStage, audit: AuditFolder) -> Artefact:
    """The finished result of a planned stage. Raises ArtefactError with the command that makes it."""
    if not stage.done:
        raise ArtefactError(stage.stale or f"{stage.title} is not done yet in {audit.id}.", f"Run `biasdiff run {audit.id}`.")
    return open_artefact(audit.path, stage.stage, stage.key)
