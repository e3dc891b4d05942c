"""The before/after record of one removal set, and its documents: JSON, Markdown and one self-contained HTML file.

Everything shown is read from finished stage results, so each number leads to a manifest. Loads no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from biasdiff_core.comparison import build_comparison, headline, is_main
from biasdiff_core.config import RemovalConfig
from biasdiff_core.config.file import dump
from biasdiff_core.config.mitigation import METHODS
from biasdiff_core.effect import EXPLAINED, effects, in_words
from biasdiff_core.evaluation.answers import ANSWERS_FILE, side_by_side
from biasdiff_core.evidence import (
    Decided,
    corpus_card,
    frozen_decisions,
    groups_mentioned,
    nearest_types,
    or_error,
    outside,
    provenance,
    quality_of,
    settings_in_words,
    stands_on,
)
from biasdiff_core.guide import guides
from biasdiff_core.naming import metric_group, metric_label, variant_name
from biasdiff_core.probe_report import ProbeQuality
from biasdiff_core.results import Comparison, MetricResult, PairedTest
from biasdiff_core.review.decisions import VERDICTS
from biasdiff_core.review.history import origin_words
from biasdiff_core.review.removal import RemovalSet, load_removal
from biasdiff_core.workspace.artefacts import Artefact, open_artefact, write_atomic
from biasdiff_core.workspace.audits import AuditFolder

TEMPLATES = Path(__file__).parent / "templates"
NOT_VARIANTS = ("removal", "ranking")
COMPARISON_FILE, MARKDOWN_FILE, HTML_FILE = "comparison.json", "report.md", "report.html"
LISTED = 12  # values of a column of the corpus, in words
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&^=])")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One metric in a table of variants. `conventions`: how the figure is computed; where variants differ in that, each with their names.

    `n`: None where variants differ.
    """

    metric: str
    conventions: tuple[str, ...]
    n: int | None

    @property
    def label(self) -> str:
        """The metric's name within its section."""
        return metric_label(self.metric)


@dataclass(frozen=True, kw_only=True)
class MetricTable:
    """Figures by variant: one result a column, None where the variant has none."""

    columns: tuple[Column, ...]
    rows: Mapping[str, tuple[MetricResult | None, ...]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One evaluation in one convention: its figures and paired tests over all items, and in detail, of each bias type, test or task."""

    title: str
    figures: MetricTable
    details: MetricTable
    tests: tuple[PairedTest, ...]
    detail_tests: tuple[PairedTest, ...]

    def conventions(self) -> dict[str, tuple[Column, ...]]:
        """Each convention with the columns that it is of."""
        found: dict[str, tuple[Column, ...]] = {}
        for column in (*self.figures.columns, *self.details.columns):
            for convention in column.conventions:
                found[convention] = (*found.get(convention, ()), column)
        return found


def sections(comparison: Comparison) -> list[Section]:
    """All figures and tests of a comparison, by what can be compared with each other."""
    names = dict.fromkeys(name for rows in comparison.metrics.values() for name in rows)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(metric_group(name), []).append(name)
    return [_section(comparison, title, metrics) for title, metrics in groups.items()]


def _section(comparison: Comparison, title: str, metrics: Sequence[str]) -> Section:
    tests = [test for test in comparison.tests if metric_group(test.metric) == title]
    return Section(
        title=title,
        figures=_table(comparison, [name for name in metrics if is_main(name)]),
        details=_table(comparison, [name for name in metrics if not is_main(name)]),
        tests=tuple(test for test in tests if is_main(test.metric)),
        detail_tests=tuple(test for test in tests if not is_main(test.metric)),
    )


def _table(comparison: Comparison, metrics: Sequence[str]) -> MetricTable:
    columns = []
    for name in metrics:
        there = {variant: rows[name] for variant, rows in comparison.metrics.items() if name in rows}
        sizes = {result.n for result in there.values()}
        columns.append(Column(metric=name, conventions=_conventions(there), n=sizes.pop() if len(sizes) == 1 else None))
    rows = {variant: tuple(comparison.metrics[variant].get(name) for name in metrics) for variant in comparison.variants}
    return MetricTable(columns=tuple(columns), rows=rows)


def _conventions(results: Mapping[str, MetricResult]) -> tuple[str, ...]:
    """The conventions of one metric's results by variant, as in `Column`."""
    found: dict[str, list[str]] = {}
    for variant, result in results.items():
        found.setdefault(result.convention, []).append(variant_name(variant))
    if len(found) == 1:
        return tuple(found)
    return tuple(f"{', '.join(variants)}: {convention}" for convention, variants in found.items())


def figure_text(metric: MetricResult) -> str:
    """`54.4 % [51.7, 57.1]`, `0.829 [0.780, 0.878]`, or `not defined`: digits by the size of the figure and its unit."""
    if metric.value is None:
        return metric.text()
    size = max(abs(end) for end in (metric.value, metric.low, metric.high) if end is not None)
    digits = 1 if metric.unit == "%" or size >= 100 else 2 if size >= 10 else 3 if size >= 0.1 else 4
    digits = 0 if metric.unit == "examples" else digits
    value, _, interval = metric.text(digits).partition(" ")
    return f"{value} {metric.unit} {interval}".strip() if metric.unit == "%" else f"{value} {interval}".strip()


def difference_text(test: PairedTest) -> str:
    """`lower by 3.1 [1.0, 5.2]`: as `PairedTest.words`, with two digits of half the interval's width."""
    half = (test.high - test.low) / 2
    return test.words(min(5, max(1, 1 - math.floor(math.log10(half)))) if half > 0 else 2)


def answers_side_by_side(audit: Path, comparison: Comparison) -> pd.DataFrame:
    """Columns question, source and one a variant that was asked; empty where none was. Raises ArtefactError (`side_by_side`)."""
    evaluations = {v: open_artefact(audit, "evaluation", keys["evaluation"]) for v, keys in comparison.provenance.items()}
    return side_by_side({v: found.path(ANSWERS_FILE) for v, found in evaluations.items() if ANSWERS_FILE in found.files})


def comparison_of(report: Artefact) -> Comparison:
    """The comparison that a finished report shows."""
    return Comparison.from_json(report.read_json(COMPARISON_FILE))


def write_report(audit: AuditFolder, inputs: Mapping[str, str], folder: Path) -> None:
    """Write comparison.json, report.md and report.html. `inputs`: keys of `removal`, `ranking` and one evaluation a variant."""
    evaluations = {v: open_artefact(audit.path, "evaluation", key) for v, key in inputs.items() if v not in NOT_VARIANTS}
    comparison = build_comparison(audit, evaluations)
    facts = _facts(audit, inputs, comparison)
    write_atomic(folder / COMPARISON_FILE, json.dumps(comparison.to_json(), indent=1, ensure_ascii=False))
    for name in (MARKDOWN_FILE, HTML_FILE):
        write_atomic(folder / name, _environment(name).get_template(f"{name}.j2").render(**facts))


def plain(text: str) -> str:
    """`text` such that Markdown shows it as it is: no link, picture, formula or colour comes of it; one paragraph."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def _environment(name: str) -> jinja2.Environment:
    # Text of a dataset or a model is hostile: everything is escaped in HTML; in Markdown it is made plain, or quoted as indented code.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"variant": variant_name, "label": metric_label, "figure": figure_text, "measured": measured_text}
    environment.filters |= {"difference": difference_text, "quoted": _quoted, "plain": plain, "counts": counts_text, "origin": origin_words}
    return environment


def _quoted(text: str) -> str:
    """Lines of a code block, which Markdown shows as they are."""
    return "\n".join(f"    {line}" for line in text.splitlines()) or "    "


def printable(text: str) -> str:
    """`text` without what would steer a terminal or the writing direction: such characters become U+FFFD; line breaks and tabs stay."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def measured_text(metric: MetricResult) -> str:
    """As `figure_text`; a figure without interval is a count or a ratio of two. `not measured`: its convention says why."""
    if metric.value is None:
        return "not measured"
    if metric.low is not None:
        return figure_text(metric)
    return f"{metric.value:,.0f}" if float(metric.value).is_integer() else f"{metric.value:.3g}"


def counts_text(counts: Mapping[str, int]) -> str:
    """`24 × forum, 16 × paper`, the most frequent first; how many others there are beyond a dozen."""
    rest = f" and {len(counts) - LISTED} more" if len(counts) > LISTED else ""
    return ", ".join(f"{count:,} × {value}" for value, count in list(counts.items())[:LISTED]) + rest


def _facts(audit: AuditFolder, inputs: Mapping[str, str], comparison: Comparison) -> dict[str, Any]:
    """Everything that the documents say."""
    opened = [open_artefact(audit.path, v if v in NOT_VARIANTS else "evaluation", key) for v, key in inputs.items()]
    results = stands_on(audit, opened)
    latest = {one.stage: one for one in results}
    ranking, removal, corpus, probes = (latest[stage] for stage in ("ranking", "removal", "corpus", "probes"))
    scoring = audit.config.evaluation.crows_pairs.scorings[-1]
    found = effects(audit.path, comparison, ranking, scoring)
    detection = ranking.read_json("detection.json") if "detection.json" in ranking.files else []
    frozen = load_removal(removal)
    policy = RemovalConfig(policy=frozen.policy, percent=frozen.percent or audit.config.removal.percent)
    named = {variant.partition("-")[0] for variant in comparison.variants}
    methods = [method for method in METHODS if method in named]
    top, kinds = pd.read_parquet(latest["scores"].path("top_probes.parquet")), pd.read_parquet(probes.path("probes.parquet"))
    bias_types = {str(id_): str(kind) for id_, kind in nearest_types(top, kinds).dropna().items()}
    decided = frozen_decisions(removal, ranking, bias_types, policy.percent)
    quality = quality_of(audit, corpus=corpus, probes=probes, gradients=latest["gradients"], evaluation=latest["evaluation"].inputs)
    figures = [name for rows in comparison.metrics.values() for name in rows]
    figures += [metric.name for metric in (*quality.metrics, *decided.estimates)] + [record["name"] for record in detection]
    read = corpus.read_json("report.json")
    inexact = latest["gradients"].facts.get("self_check", {}).get("warning", "")
    return {
        "audit": audit,
        "config": audit.config,
        "settings": dump(audit.config),
        "choices": settings_in_words(audit.config, methods, frozen),
        "comparison": comparison,
        "headline": headline(comparison),
        "sections": sections(comparison),
        "effects": found,
        "effects_in_words": in_words(found),
        "effects_explained": EXPLAINED,
        "effects_scoring": scoring,
        "answers": answers_side_by_side(audit.path, comparison).map(printable).to_dict("records"),
        "removal": frozen,
        "removal_key": removal.key,
        "decided": decided,
        "numbers": {link["action_id"]: link["number"] for link in decided.links},
        "guides": guides(figures),
        "verdicts": VERDICTS,
        "corpus": read,
        "card": or_error(lambda: corpus_card(audit.config.corpus.path, read["digest"])),
        "mentions": or_error(lambda: groups_mentioned(audit, corpus, frozen.ids)),
        "quality": quality,
        "quality_figures": [metric for metric in quality.metrics if metric.name.count(".") == 1],  # over all probes
        "detection": [MetricResult.from_json(record) for record in detection],
        "limits": limits(audit, comparison, frozen, decided, quality, labelled=bool(detection), inexact=inexact),
        "provenance": provenance(results),
        "outside": outside(results),
        "commands": commands(audit, policy, methods),
        "environment": audit.environment,
    }


def limits(
    audit: AuditFolder,
    comparison: Comparison,
    removal: RemovalSet,
    decided: Decided,
    quality: ProbeQuality,
    *,
    labelled: bool,
    inexact: str,
) -> list[str]:
    """What the audit does not show: what holds of every audit, and what is missing in this one.

    `inexact`: the warning of the gradients' self-check, if any (`attribution.self_check`).
    """
    found = [
        "CrowS-Pairs is US-centric and some of its pairs are noisy (Blodgett et al. 2021); 50 is chance, not “unbiased”.",
        "Intervals are over pairs of one training seed a variant; training seeds differ too.",
        "The convention of scoring moves the score by more than most mitigations do; compare only within a convention.",
        "Influence is measured against these probes: a bias that they do not show is not looked for.",
    ]
    if removal.simulated:
        found.append("Decisions were made by a program from known labels; they say nothing about how people would have decided.")
    if not decided.second_reviews:
        found.append("No second review: no example has inspected verdicts of two auditors, so their agreement is not measured.")
    if removal.undecided:
        found.append(f"{removal.undecided:,} of the {len(removal.ids):,} removed examples were removed without a decision on them.")
    if inexact:
        found.append(inexact)
    if not labelled:
        found.append("No labels are known, so how much of the bias the ranking finds is estimated from decisions alone.")
    if not any(name.partition("-")[0] == "random" for name in comparison.variants):
        found.append("There is no random control: what removing any examples would have done is not measured.")
    missing = sum(metric.value is None for metric in quality.metrics)
    if quality.flags or missing:
        found.append(f"The probing set: {len(quality.flags)} weaknesses were found, and {missing} figures could not be measured.")
    if audit.config.model.name.startswith("bundled:"):
        found.append("The bundled model's weights are dequantised from 4-bit; figures on it say little about large models.")
    return found


def commands(audit: AuditFolder, policy: RemovalConfig, methods: Sequence[str]) -> list[str]:
    """What makes the same audit again in an empty workspace, from its audit.yaml and the frozen decisions.

    Where this is not what the config asks for, the decisions are taken over first: its own set may be empty.
    """
    config = audit.config
    whole, verify = "biasdiff run audit.yaml --decisions decisions.jsonl", f"biasdiff verify {audit.id}"
    if set(methods) == set(config.mitigation.methods) and policy == config.removal:
        return [whole, verify]
    options = "".join(f" --method {method}" for method in methods)
    what = "--ids ids.json" if policy.policy == "filter" else f"--percent {policy.percent:g}"
    mitigate = f"biasdiff mitigate {audit.id} --policy {policy.policy} {what}{options}"
    if config.review.simulate_from_labels:  # `run` decides and mitigates by itself there
        return [whole, mitigate, verify]
    return ["biasdiff run audit.yaml", f"biasdiff decide replay {audit.id} decisions.jsonl", mitigate, verify]
