"""The before/after record of one removal set, and its documents: JSON, Markdown and one self-contained HTML file.

Everything shown is read from finished stage results, so each number leads to a manifest. Loads no torch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from biasdiff_core.config import AuditConfig
from biasdiff_core.config.file import dump
from biasdiff_core.errors import ArtefactError
from biasdiff_core.evaluation.crows_pairs import PairScores, compare
from biasdiff_core.evaluation.statistics import share_undone
from biasdiff_core.results import Comparison, MetricResult, PairedTest
from biasdiff_core.review.removal import load_removal
from biasdiff_core.workspace.artefacts import Artefact, open_artefact, write_atomic
from biasdiff_core.workspace.audits import AuditFolder

BASE, ORIGIN = "base", "origin"
TEMPLATES = Path(__file__).parent / "templates"
NOT_VARIANTS = ("removal", "ranking")
COMPARISON_FILE, MARKDOWN_FILE, HTML_FILE = "comparison.json", "report.md", "report.html"


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One variant's evaluation: its figures, its per-pair scores, and the digest of the weights that were judged."""

    variant: str
    artefact: Artefact
    metrics: Mapping[str, MetricResult]
    scores: PairScores

    @classmethod
    def read(cls, variant: str, artefact: Artefact) -> Evaluated:
        """From a finished evaluation."""
        metrics = [MetricResult.from_json(record) for record in artefact.read_json("metrics.json")]
        scores = PairScores.load(artefact.path("crows_pairs.parquet"))
        return cls(variant=variant, artefact=artefact, metrics={metric.name: metric for metric in metrics}, scores=scores)

    @property
    def weights(self) -> str:
        return str(self.artefact.facts["weights"])


def build_comparison(audit: AuditFolder, evaluations: Mapping[str, Artefact]) -> Comparison:
    """Variants × metrics with paired tests: origin against base, every other variant against origin, on the same pairs.

    `evaluations`: variant → finished evaluation; `base` and `origin` must be among them. A variant whose weights equal its
    reference's is not compared, and a note says so. Raises ArtefactError when base or origin is missing.
    """
    for needed in (BASE, ORIGIN):
        if needed not in evaluations:
            raise ArtefactError(f"There is no evaluation of {needed}.", f"Run `biasdiff run {audit.id}`.")
    read = {variant: Evaluated.read(variant, artefact) for variant, artefact in evaluations.items()}
    tests: list[PairedTest] = []
    notes: list[str] = []
    metrics: dict[str, dict[str, MetricResult]] = {}
    for variant, evaluated in read.items():
        metrics[variant] = dict(evaluated.metrics)
        reference = read[BASE if variant == ORIGIN else ORIGIN]
        if variant == BASE:
            continue
        if evaluated.weights == reference.weights:
            notes.append(f"{variant} is not compared with {reference.variant}: their weights are identical.")
            continue
        tests += _tests(evaluated, reference, audit.config)
        if variant != ORIGIN:
            metrics[variant] |= {m.name: m for m in _shares_undone(evaluated, read, audit.config)}
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


def _tests(variant: Evaluated, reference: Evaluated, config: AuditConfig) -> list[PairedTest]:
    settings = config.evaluation
    return [
        test
        for scoring in settings.crows_pairs.scorings
        for test in compare(
            variant.scores, reference.scores, scoring, variant.variant, reference.variant, bootstrap=settings.bootstrap, seed=settings.seed
        )
    ]


def _shares_undone(variant: Evaluated, read: Mapping[str, Evaluated], config: AuditConfig) -> list[MetricResult]:
    """Share of the induced rise that the variant undid, (origin − after) / (origin − base), in mean margin of the stereotype pairs."""
    found = []
    for scoring in config.evaluation.crows_pairs.scorings:
        margins = {v: read[v].scores.margins(scoring)[read[v].scores.stereotypes] for v in (BASE, ORIGIN)}
        after = variant.scores.margins(scoring)[variant.scores.stereotypes]
        share = share_undone(margins[ORIGIN], after, margins[BASE], draws=config.evaluation.bootstrap, seed=config.evaluation.seed)
        convention = (
            f"(origin − {variant.variant}) / (origin − base) in mean margin of the stereotype pairs, scoring {scoring}, paired bootstrap"
            + (f"; {share.reason}" if share.reason else "")
        )
        found.append(
            MetricResult(
                name=f"crows_pairs.{scoring}.rise_undone",
                value=None if share.value is None else 100 * share.value,
                low=None if share.low is None else 100 * share.low,
                high=None if share.high is None else 100 * share.high,
                n=len(after),
                convention=convention,
                unit="%",
            )
        )
    return found


def write_report(audit: AuditFolder, inputs: Mapping[str, str], folder: Path) -> None:
    """Write comparison.json, report.md and report.html. `inputs`: keys of `removal`, `ranking` and one evaluation a variant."""
    evaluations = {v: open_artefact(audit.path, "evaluation", key) for v, key in inputs.items() if v not in NOT_VARIANTS}
    comparison = build_comparison(audit, evaluations)
    facts = _facts(audit, inputs, comparison)
    write_atomic(folder / COMPARISON_FILE, json.dumps(comparison.to_json(), indent=1, ensure_ascii=False))
    for name in (MARKDOWN_FILE, HTML_FILE):
        write_atomic(folder / name, _environment(name).get_template(f"{name}.j2").render(**facts))


def _environment(name: str) -> jinja2.Environment:
    # Text of a dataset is hostile: everything is escaped in HTML.
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _facts(audit: AuditFolder, inputs: Mapping[str, str], comparison: Comparison) -> dict[str, Any]:
    """Everything that the documents say."""
    ranking = open_artefact(audit.path, "ranking", inputs["ranking"])
    removal = open_artefact(audit.path, "removal", inputs["removal"])
    corpus = open_artefact(audit.path, "corpus", ranking.inputs["corpus"])
    detection = ranking.read_json("detection.json") if "detection.json" in ranking.files else []
    return {
        "audit": audit,
        "config": audit.config,
        "settings": dump(audit.config),
        "comparison": comparison,
        "headline": headline(comparison),
        "rows": metric_rows(comparison),
        "tests": [test for test in comparison.tests if _is_main(test.metric)],
        "type_tests": [test for test in comparison.tests if not _is_main(test.metric)],
        "removal": load_removal(removal),
        "decisions": decision_counts(removal),
        "corpus": corpus.read_json("report.json"),
        "detection": [MetricResult.from_json(record) for record in detection],
        "provenance": provenance(audit, [ranking, removal, corpus], comparison),
        "environment": audit.environment,
    }


def _is_main(metric: str) -> bool:
    """Whether a metric is over all pairs rather than of one bias type (`crows_pairs.sum.stereotype_score.gender`)."""
    return metric.count(".") <= 2


def metric_rows(comparison: Comparison) -> list[tuple[str, list[MetricResult | None]]]:
    """The main metrics, in the order in which they are shown: name, then one result a variant (None where it has none)."""
    names: dict[str, None] = {}
    for rows in comparison.metrics.values():
        names |= {name: None for name in rows if _is_main(name)}
    return [(name, [comparison.metrics[variant].get(name) for variant in comparison.variants]) for name in names]


def headline(comparison: Comparison) -> list[str]:
    """One sentence a mitigation: how much of the induced rise it undid, and what it cost in perplexity."""
    sentences = []
    scorings = [name.split(".")[1] for name in comparison.metrics[ORIGIN] if name.endswith(".stereotype_margin")]
    for variant in comparison.variants:
        if variant in (BASE, ORIGIN):
            continue
        share = comparison.metrics[variant].get(f"crows_pairs.{scorings[-1]}.rise_undone") if scorings else None
        before, after = comparison.metrics[ORIGIN].get("perplexity"), comparison.metrics[variant].get("perplexity")
        cost = f"; held-out perplexity {before.text()} before, {after.text()} after" if before and after else ""
        if share is None or share.value is None:
            why = f", since {share.convention.rpartition('; ')[2]}" if share else ""
            sentences.append(f"{variant}: the share of the induced rise that it undid is not defined{why}{cost}.")
        else:
            sentences.append(f"{variant} undid {share.text(0)} % of the induced rise in stereotype margin ({scorings[-1]} scoring){cost}.")
    return sentences


def decision_counts(removal: Artefact) -> dict[str, dict[str, int]]:
    """Verdicts by auditor in the frozen decision log, every decision counted as it was made (undone ones included)."""
    counts: dict[str, Counter[str]] = {}
    for line in removal.path("decisions.jsonl").read_text(encoding="utf8").splitlines():
        action = json.loads(line)
        for row in action.get("decisions", ()):
            counts.setdefault(row.get("auditor") or action["auditor"], Counter())[row["verdict"]] += 1
    return {auditor: dict(counter) for auditor, counter in counts.items()}


def provenance(audit: AuditFolder, artefacts: Sequence[Artefact], comparison: Comparison) -> pd.DataFrame:
    """Stage, key and creation time of every result that the report stands on."""
    rows = [{"stage": a.stage, "key": a.key, "created": a.created} for a in artefacts]
    for variant, keys in comparison.provenance.items():
        evaluation = open_artefact(audit.path, "evaluation", keys["evaluation"])
        rows.append({"stage": f"evaluation of {variant}", "key": evaluation.key, "created": evaluation.created})
    return pd.DataFrame(rows)
