"""Variants against their references: every figure, paired tests on the same items, shares of the rise undone. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from biasdiff_core.config import AuditConfig
from biasdiff_core.config.evaluation import Scoring
from biasdiff_core.errors import ArtefactError
from biasdiff_core.evaluation.crows_pairs import PairScores, compare, power_note
from biasdiff_core.evaluation.items import compare_items
from biasdiff_core.evaluation.perplexity import LOSSES_FILE, TextLosses, perplexity_ratio, read_losses
from biasdiff_core.evaluation.statistics import share_undone
from biasdiff_core.evaluation.suites import ITEM_METRICS, ITEMS_FILE, PAIRS_FILE
from biasdiff_core.naming import family, variant_name
from biasdiff_core.results import Comparison, MetricResult, PairedTest
from biasdiff_core.workspace.artefacts import Artefact
from biasdiff_core.workspace.audits import AuditFolder

BASE, ORIGIN, ORACLE = "base", "origin", "oracle"


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One variant's evaluation: its figures, its rows for paired tests, and the digest of the weights that were judged."""

    variant: str
    artefact: Artefact
    metrics: Mapping[str, MetricResult]
    scores: PairScores
    items: pd.DataFrame
    losses: TextLosses

    @classmethod
    def read(cls, variant: str, artefact: Artefact) -> Evaluated:
        """From a finished evaluation."""
        metrics = [MetricResult.from_json(record) for record in artefact.read_json("metrics.json")]
        return cls(
            variant=variant,
            artefact=artefact,
            metrics={metric.name: metric for metric in metrics},
            scores=PairScores.load(artefact.path(PAIRS_FILE)),
            items=pd.read_parquet(artefact.path(ITEMS_FILE)),
            losses=read_losses(artefact.path(LOSSES_FILE)),
        )

    @property
    def weights(self) -> str:
        return str(self.artefact.facts["weights"])


def build_comparison(audit: AuditFolder, evaluations: Mapping[str, Artefact]) -> Comparison:
    """Variants × metrics with paired tests: origin against base, every other variant against origin, on the same items.

    `evaluations`: variant → finished evaluation; `base` and `origin` must be among them. A variant whose weights equal its
    reference's is not compared, and a note says so. Raises ArtefactError when base or origin is missing.
    """
    for needed in (BASE, ORIGIN):
        if needed not in evaluations:
            raise ArtefactError(f"There is no evaluation of {needed}.", f"Run `biasdiff run {audit.id}`.")
    read = {variant: Evaluated.read(variant, artefact) for variant, artefact in evaluations.items()}
    tests: list[PairedTest] = []
    notes: list[str] = []
    metrics = {variant: dict(evaluated.metrics) for variant, evaluated in read.items()}
    for variant, evaluated in list(read.items()):
        if variant == BASE:
            continue
        reference = read[BASE if variant == ORIGIN else ORIGIN]
        if evaluated.weights == reference.weights:
            notes.append(f"{variant_name(variant)} is not compared with {reference.variant}: their weights are identical.")
            continue
        tests += _tests(evaluated, reference, audit.config)
        metrics[variant] |= {m.name: m for m in _against_reference(evaluated, reference, read, audit.config)}
        notes += [f"{variant_name(variant)}: {power_note(evaluated.scores, reference.scores, s)}" for s in _scorings(audit.config)[-1:]]
    warmup = audit.config.warmup
    if warmup.scope == "few":
        notes.append(
            f"{ORIGIN} was trained on {100 * warmup.few_fraction:g} % of the corpus, retraining and the controls on all that was not "
            "removed: against the origin they show more training as well as the removal."
        )
    return Comparison(
        audit=audit.id,
        variants=tuple(read),
        metrics=metrics,
        tests=tuple(tests),
        provenance={
            v: {"evaluation": e.artefact.key, "adapter": e.artefact.inputs["adapter"], "weights": e.weights} for v, e in read.items()
        },
        notes=tuple(notes),
    )


def _scorings(config: AuditConfig) -> Sequence[Scoring]:
    return config.evaluation.crows_pairs.scorings


def _tests(variant: Evaluated, reference: Evaluated, config: AuditConfig) -> list[PairedTest]:
    draws = {"bootstrap": config.evaluation.bootstrap, "seed": config.evaluation.seed}
    pairs = [
        test
        for scoring in _scorings(config)
        for test in compare(variant.scores, reference.scores, scoring, variant.variant, reference.variant, **draws)
    ]
    return pairs + compare_items(variant.items, reference.items, ITEM_METRICS, variant.variant, reference.variant, **draws)


def _against_reference(
    variant: Evaluated, reference: Evaluated, read: Mapping[str, Evaluated], config: AuditConfig
) -> Iterator[MetricResult]:
    """Figures that a variant has only beside others: its perplexity over its reference's, and the shares of the rise it undid."""
    draws = {"bootstrap": config.evaluation.bootstrap, "seed": config.evaluation.seed}
    yield perplexity_ratio(variant.losses, reference.losses, **draws)
    if variant.variant == ORIGIN:
        return
    for scoring in _scorings(config):
        yield _share(variant, read, BASE, scoring, config)
        if ORACLE in read and variant.variant != ORACLE:
            yield _share(variant, read, ORACLE, scoring, config)


def _share(variant: Evaluated, read: Mapping[str, Evaluated], bottom: str, scoring: Scoring, config: AuditConfig) -> MetricResult:
    """(origin − after) / (origin − bottom) in mean margin of the stereotype pairs.

    From the base: the share of the induced rise undone. From the oracle: of the rise that perfect removal undoes.
    """
    margins = {v: read[v].scores.margins(scoring)[read[v].scores.stereotypes] for v in (ORIGIN, bottom, variant.variant)}
    settings = config.evaluation
    share = share_undone(margins[ORIGIN], margins[variant.variant], margins[bottom], draws=settings.bootstrap, seed=settings.seed)
    scored = int(np.isfinite(list(margins.values())).all(axis=0).sum())
    formula = f"(origin − {variant.variant}) / (origin − {bottom}) in mean margin of the stereotype pairs, scoring {scoring}"
    value, low, high = (None if x is None else 100 * x for x in (share.value, share.low, share.high))
    return MetricResult(
        name=f"crows_pairs.{scoring}.{'rise_undone' if bottom == BASE else 'removable_undone'}",
        value=value,
        low=low,
        high=high,
        n=scored,
        not_scored=len(margins[ORIGIN]) - scored,
        convention=f"{formula}, paired bootstrap" + (f"; {share.reason}" if share.reason else ""),
        unit="%",
    )


def is_main(metric: str) -> bool:
    """Whether a metric is over all items rather than of one bias type or test (`crows_pairs.sum.stereotype_score.gender`)."""
    of = family(metric)
    if of == "seat":
        return metric.endswith(".mean_abs_effect_size")
    return of == "lm_eval" or metric.count(".") <= (2 if of == "crows_pairs" else 1)


def headline(comparison: Comparison) -> list[str]:
    """One sentence a mitigation: how much of the induced rise it undid, and what it cost in perplexity.

    Where the rise is not clear of zero, one sentence says so, and the others by how much the margin changed.
    """
    scorings = [name.split(".")[1] for name in comparison.metrics[ORIGIN] if name.endswith(".stereotype_margin")]
    judged = [variant for variant in comparison.variants if variant not in (BASE, ORIGIN)]
    if not scorings:
        return []
    shares = [comparison.metrics[variant].get(f"crows_pairs.{scorings[-1]}.rise_undone") for variant in judged]
    reasons = dict.fromkeys(share.convention.rpartition("; ")[2] for share in shares if share and share.value is None)
    undefined = [f"The share of the induced rise that was undone is not defined, since {reason}." for reason in reasons]
    return undefined + [_sentence(comparison, variant, scorings[-1]) for variant in judged]


def _sentence(comparison: Comparison, variant: str, scoring: str) -> str:
    figures, name = comparison.metrics[variant], variant_name(variant)
    name = name[0].upper() + name[1:]
    share, ratio = figures.get(f"crows_pairs.{scoring}.rise_undone"), figures.get("perplexity_ratio")
    cost = f"; held-out perplexity times {ratio.text()}" if ratio else ""
    if share is not None and share.value is not None:
        return f"{name} undid {share.text(0)} % of the induced rise in stereotype margin ({scoring} scoring){cost}."
    margin = f"crows_pairs.{scoring}.stereotype_margin"
    moved = next((test for test in comparison.tests if (test.variant, test.metric) == (variant, margin)), None)
    if moved is None:
        return f"{name} is not compared with {ORIGIN}."
    return f"{name}: mean stereotype margin {moved.words(3)} ({scoring} scoring){cost}."
