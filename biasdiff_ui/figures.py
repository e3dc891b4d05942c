"""The strip of figures on top of Explore, each with its interval and where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from biasdiff_core.evaluation.statistics import wilson
from biasdiff_core.guide import guide_of
from biasdiff_core.results import MetricResult
from biasdiff_core.review.decisions import Decision
from biasdiff_core.review.design import Review
from biasdiff_core.review.estimate import coverage_at, precision_at
from biasdiff_ui.examples import Examples
from biasdiff_ui.verdicts import VERDICTS, WORDS

STYLE_BASELINES = ("length", "unigram")


def strip(examples: Examples, decisions: Mapping[str, Decision], review: Review, verdicts: pd.Series, cut: int, percent: float) -> None:
    """Five figures: examples, candidates, decided, precision and coverage, style alarm."""
    columns = st.columns([2, 3, 3, 4, 5], gap="small")
    unranked = len(examples.corpus_ids) - len(examples.ids)
    _figure(columns[0], "Examples", f"{len(examples.ids):,}", f"{unranked:,} without a rank" if unranked else "all ranked", "examples")
    undecided = int((verdicts.iloc[:cut] == "undecided").sum())
    _figure(columns[1], "Candidates", f"{cut:,}", f"top {percent:g} % · {undecided:,} undecided", "candidates")
    counts = Counter(decision.verdict for decision in decisions.values())
    inspected = sum(decision.inspected for decision in decisions.values())
    parts = " · ".join(f"{counts[verdict]:,} {WORDS[verdict]}" for verdict in VERDICTS if counts[verdict])
    _figure(columns[2], "Decided", f"{len(decisions):,}", f"{parts} · {inspected:,} inspected" if parts else "nothing yet", "decided")
    coverage, precision = figures_at(examples, review, cut)
    source = "known labels" if examples.labelled else "estimated from inspected decisions"
    if not examples.labelled and coverage.value is None:
        source += "; no coverage before some are drawn at random beyond the cut"
    value = f"{_share(precision)} · {_share(coverage)}"
    intervals = " · ".join(filter(None, (_interval(precision), _interval(coverage))))
    _figure(
        columns[3],
        "Precision · coverage",
        value,
        f"{intervals} {source}",
        "precision",
        "coverage",
        more=(precision.convention, coverage.convention),
    )
    alarm, words = style_alarm(examples.detection)
    _figure(columns[4], "Style alarm", alarm, words, "style_alarm")


def _figure(
    column: st.delta_generator.DeltaGenerator, label: str, value: str, caption: str, *figures: str, more: Sequence[str] = ()
) -> None:
    """`figures`: their names in `guide`, for the help, which `more` follows."""
    with column:
        st.metric(label, value, help="\n\n".join([*(guide_of(name).words() for name in figures), *more]))
        st.caption(caption)


def _share(figure: MetricResult) -> str:
    return "–" if figure.value is None else f"{figure.value:.2f}"


def _interval(figure: MetricResult) -> str:
    return "" if figure.low is None or figure.high is None else f"[{figure.low:.2f}, {figure.high:.2f}]"


def figures_at(examples: Examples, review: Review, cut: int) -> tuple[MetricResult, MetricResult]:
    """Coverage (Eq. 9) and precision (Eq. 10) at the cut: against known labels, else estimated from inspected decisions."""
    if not examples.labelled:
        return coverage_at(review, cut), precision_at(review, cut)
    labels = examples.table["label"]
    found = int(labels.iloc[:cut].sum())
    return _of_labels("coverage", found, int(labels.sum())), _of_labels("precision", found, cut)


def _of_labels(name: str, found: int, total: int) -> MetricResult:
    convention = f"{name} of the cut against the known labels, 95 % Wilson interval"
    if not total:
        return MetricResult(name=name, value=None, n=0, convention=convention)
    share = wilson(found, total)
    return MetricResult(name=name, value=share.value, low=share.low, high=share.high, n=total, convention=convention)


def style_alarm(detection: Mapping[str, MetricResult]) -> tuple[str, str]:
    """(word, sentence): whether the AUROC interval of a style baseline overlaps or exceeds that of influence."""
    influence = detection.get("detection.score.auroc")
    if influence is None or influence.low is None:
        return "not known", "No labels are known, so influence cannot be set against length and unigram."
    alarms = [name for name in STYLE_BASELINES if _reaches(detection.get(f"detection.{name}.auroc"), influence.low)]
    figures = f"AUROC {influence.text()}"
    others = " · ".join(f"{name} {detection[f'detection.{name}.auroc'].text()}" for name in alarms or STYLE_BASELINES)
    if not alarms:
        return "quiet", f"Influence {figures} lies above {others}."
    return "alarm", f"{_alone(alarms)} well as influence here: {figures} against {others}."


def _alone(names: Sequence[str]) -> str:
    return f"{names[0].capitalize()} alone ranks as" if len(names) == 1 else f"{' and '.join(names).capitalize()}, each alone, rank as"


def _reaches(baseline: MetricResult | None, low: float) -> bool:
    return baseline is not None and baseline.high is not None and baseline.high >= low
