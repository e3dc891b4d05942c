"""The before/after record of one removal set, and its documents: JSON, Markdown and one self-contained HTML file.

Everything shown is read from finished stage results, so each number leads to a manifest. Loads no torch.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from biasdiff_core.comparison import build_comparison, headline, is_main
from biasdiff_core.config.file import dump
from biasdiff_core.effect import EXPLAINED, effects, in_words
from biasdiff_core.evaluation.answers import ANSWERS_FILE, side_by_side
from biasdiff_core.naming import metric_group, metric_label, variant_name
from biasdiff_core.results import Comparison, MetricResult, PairedTest
from biasdiff_core.review.removal import load_removal
from biasdiff_core.workspace.artefacts import Artefact, open_artefact, write_atomic
from biasdiff_core.workspace.audits import AuditFolder

TEMPLATES = Path(__file__).parent / "templates"
NOT_VARIANTS = ("removal", "ranking")
COMPARISON_FILE, MARKDOWN_FILE, HTML_FILE = "comparison.json", "report.md", "report.html"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One metric in a table of variants. `convention`: of the first variant that has the figure; `n`: None where variants differ."""

    metric: str
    convention: str
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
            found[column.convention] = (*found.get(column.convention, ()), column)
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
        there = [rows[name] for rows in comparison.metrics.values() if name in rows]
        sizes = {result.n for result in there}
        columns.append(Column(metric=name, convention=there[0].convention, n=sizes.pop() if len(sizes) == 1 else None))
    rows = {variant: tuple(comparison.metrics[variant].get(name) for name in metrics) for variant in comparison.variants}
    return MetricTable(columns=tuple(columns), rows=rows)


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


def write_report(audit: AuditFolder, inputs: Mapping[str, str], folder: Path) -> None:
    """Write comparison.json, report.md and report.html. `inputs`: keys of `removal`, `ranking` and one evaluation a variant."""
    evaluations = {v: open_artefact(audit.path, "evaluation", key) for v, key in inputs.items() if v not in NOT_VARIANTS}
    comparison = build_comparison(audit, evaluations)
    facts = _facts(audit, inputs, comparison)
    write_atomic(folder / COMPARISON_FILE, json.dumps(comparison.to_json(), indent=1, ensure_ascii=False))
    for name in (MARKDOWN_FILE, HTML_FILE):
        write_atomic(folder / name, _environment(name).get_template(f"{name}.j2").render(**facts))


def _environment(name: str) -> jinja2.Environment:
    # Text of a dataset or a model is hostile: everything is escaped in HTML, and quoted as indented code in Markdown.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"variant": variant_name, "label": metric_label, "figure": figure_text}
    environment.filters |= {"difference": difference_text, "quoted": _quoted}
    return environment


def _quoted(text: str) -> str:
    """Lines of a code block, which Markdown shows as they are."""
    return "\n".join(f"    {line}" for line in text.splitlines()) or "    "


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _facts(audit: AuditFolder, inputs: Mapping[str, str], comparison: Comparison) -> dict[str, Any]:
    """Everything that the documents say."""
    ranking = open_artefact(audit.path, "ranking", inputs["ranking"])
    removal = open_artefact(audit.path, "removal", inputs["removal"])
    corpus = open_artefact(audit.path, "corpus", ranking.inputs["corpus"])
    scoring = audit.config.evaluation.crows_pairs.scorings[-1]
    found = effects(audit.path, comparison, ranking, scoring)
    detection = ranking.read_json("detection.json") if "detection.json" in ranking.files else []
    return {
        "audit": audit,
        "config": audit.config,
        "settings": dump(audit.config),
        "comparison": comparison,
        "headline": headline(comparison),
        "sections": sections(comparison),
        "effects": found,
        "effects_in_words": in_words(found),
        "effects_explained": EXPLAINED,
        "effects_scoring": scoring,
        "answers": answers_side_by_side(audit.path, comparison).map(_printable).to_dict("records"),
        "removal": load_removal(removal),
        "decisions": decision_counts(removal),
        "corpus": corpus.read_json("report.json"),
        "detection": [MetricResult.from_json(record) for record in detection],
        "provenance": provenance(audit, [ranking, removal, corpus], comparison),
        "environment": audit.environment,
    }


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
        rows.append({"stage": f"evaluation of {variant_name(variant)}", "key": evaluation.key, "created": evaluation.created})
    return pd.DataFrame(rows)
