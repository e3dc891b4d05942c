"""What an audit will cost before it runs: its work is counted, and timed by what this machine has finished. Loads no torch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from biasdiff_core.config import AuditConfig, EvaluationConfig, UnlearnConfig
from biasdiff_core.config.mitigation import UNLEARNINGS, Method
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.evaluation.suites import asked_suites
from biasdiff_core.plan import variants
from biasdiff_core.workspace.artefacts import manifests
from biasdiff_core.workspace.audits import AuditFolder, list_audits, machine

log = logging.getLogger(__name__)

# Seconds of one unit of each kind of work on 2 cores of an AMD EPYC with the bundled model, where no finished stage tells better: example
# passes, and items of each evaluation (benchmarks/results.jsonl: demo.quick.seconds.* over their n, evaluation.seconds_per_item.*).
RATES: Mapping[str, float] = {
    "warmup": 0.07,
    "gradients": 0.05,
    "mitigation": 0.07,
    "crows_pairs": 0.023,
    "perplexity": 0.018,
    "stereoset": 0.025,
    "seat": 0.004,
    "trex": 0.17,
    "answers": 0.75,
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Predicted seconds and bytes; `measured`: whether the rates of all that takes time come from stages finished on this machine.

    `uncounted`: evaluations that are asked for, whose items cannot be counted beforehand.
    """

    seconds: float
    gigabytes: float
    measured: bool
    uncounted: Sequence[str]


def predicted_cost(workspace: Path, config: AuditConfig, examples: int, probes: int) -> Cost:
    """As `Predictor.cost`, of one audit."""
    return Predictor.of(workspace, config).cost(config, examples, probes)


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """What all predictions of one workspace, model and evaluation share: files and manifests are read once.

    `items`: of each evaluation; `uncounted`: as in `Cost`; `measured`: seconds a unit of each kind of work, where it was measured.
    """

    items: Mapping[str, int]
    uncounted: Sequence[str]
    measured: Mapping[str, float]

    @classmethod
    def of(cls, workspace: Path, config: AuditConfig) -> Predictor:
        """For audits with this model and evaluation."""
        items, uncounted = _items(config.evaluation)
        return cls(items=items, uncounted=uncounted, measured=_measured(workspace, config))

    def cost(self, config: AuditConfig, examples: int, probes: int) -> Cost:
        """What the whole audit will cost: warm-up, gradients, the configured mitigations and all evaluations of all variants.

        Training is counted in example passes, an evaluation in its items; their rates are those of the latest finished stages of the
        workspace, made on this machine with the same model, else `RATES`. `examples`, `probes`: rows (twins counted by the caller).
        """
        work = _work(config, self.items, examples, probes)
        rates = {**RATES, **self.measured}
        return Cost(
            seconds=sum(rates[kind] * amount for kind, amount in work.items()),
            gigabytes=_sentences(config, examples, probes) * config.gradients.proj_dim * 2 / 1e9 + 0.05,
            measured=all(kind in self.measured for kind, amount in work.items() if amount),
            uncounted=self.uncounted,
        )


def _sentences(config: AuditConfig, examples: int, probes: int) -> int:
    """Gradients of all checkpoints."""
    checkpoints = config.warmup.training.epochs if config.gradients.checkpoints == "all" else 1
    return (examples + probes + min(config.gradients.pool_size, examples)) * checkpoints


def _work(config: AuditConfig, items: Mapping[str, int], examples: int, probes: int) -> dict[str, float]:
    """Units of each kind of work."""
    training = config.warmup.training
    scope = config.warmup.few_fraction if config.warmup.scope == "few" else 1.0
    chosen = variants(config.mitigation, config.mitigation.methods)
    removed = examples * config.removal.percent / 100
    return {
        "warmup": 0 if config.model.adapter else examples * scope * training.epochs,
        "gradients": _sentences(config, examples, probes),
        "mitigation": sum(_passes(config, variant.method, examples, removed, probes) for variant in chosen),
        **{suite: count * (2 + len(chosen)) for suite, count in items.items()},  # the base and the origin are judged as well
    }


def _items(config: EvaluationConfig) -> tuple[dict[str, int], list[str]]:
    """Items of each evaluation that is asked for, and the names of those that cannot be counted."""
    items, uncounted = {}, []
    for name, (suite, settings) in asked_suites(config).items():
        try:
            count = suite.items(settings)
        except BiasDiffError as error:  # a file that is gone: the evaluation says so when it runs, and results that are there are shown
            log.warning("%s is not counted: %s", suite.title, error)
            count = None
        if count is None:
            uncounted.append(suite.title)
        else:
            items[name] = count
    return items, uncounted


def _passes(config: AuditConfig, method: Method, examples: float, removed: float, probes: float) -> float:
    """Example passes of a method's training. `probes`: sentences, twins counted."""
    if method == "prompt":
        return 0
    if method in UNLEARNINGS:
        settings = config.mitigation.unlearning(method)
        return unlearning_passes(settings, probes / 2, together=2) if method == "twin" else unlearning_passes(settings, removed)
    return (examples - removed) * config.warmup.training.epochs


def unlearning_passes(config: UnlearnConfig, rows: float, together: int = 1) -> float:
    """Example passes of unlearning `rows` of so many examples each, with as many retain examples for each term that has a weight.

    A third is a forward pass alone: the origin's for KL, and the model's for the NLL where it has no weight and is only logged.
    """
    retain = (1 if config.retain_weight > 0 else 1 / 3) + (4 / 3 if config.kl_weight > 0 else 1 / 3)
    return rows * (together + retain) * config.training.epochs


def _measured(workspace: Path, config: AuditConfig) -> dict[str, float]:
    """Seconds a unit of each kind of work that audits like this one have finished on this machine; of each kind the latest."""
    manifest_paths = [path for audit in list_audits(workspace) if _alike(audit, config) for path in manifests(audit.path)]
    records = sorted((json.loads(path.read_text(encoding="utf8")) for path in manifest_paths), key=lambda record: str(record["created"]))
    return {kind: seconds / amount for record in records for kind, seconds, amount in _timed(record) if amount}


def _alike(audit: AuditFolder, config: AuditConfig) -> bool:
    """Whether an audit's stages take as long for the same work: the same model, on a machine like this one."""
    try:
        model, made_on = audit.config.model, audit.environment
    except (BiasDiffError, OSError, ValueError) as error:  # the list of audits says what is wrong, and its rates are not needed
        log.warning("%s is not read for its rates: %s", audit.id, error)
        return False
    return replace(model, adapter=None) == replace(config.model, adapter=None) and machine().items() <= made_on.items()


def _timed(record: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Kind of work, seconds and amount of what a manifest tells of; of a stage that was resumed nobody knows the seconds."""
    if (work := record["facts"].get("work")) and not record.get("resumed"):
        yield record["stage"], record["seconds"], work
    for name, suite in record["facts"].get("suites", {}).items():
        yield name, suite["seconds"], suite["items"] or 0
