"""Precision and coverage estimated from the auditors' own decisions, for corpora without known labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scipy.stats import binomtest

from biasdiff_core.results import MetricResult
from biasdiff_core.review.decisions import Decision

INSPECTED = "Only inspected decisions count, bulk decisions never; `unsure` is not scored, `neutral_but_influential` is not biased. "


def precision_at(decisions: Mapping[str, Decision], ranking_ids: Sequence[str], cut: int) -> MetricResult:
    """Share of biased examples among the first `cut` of the ranking (Eq. 10), from the inspected ones, as a fraction.

    `decisions`: as `DecisionLog.current()`; `ranking_ids`: best first.
    """
    judged = _judged(decisions, ranking_ids[:cut])
    convention = "biased / inspected within the cut. Unbiased only if the inspected ones are a random sample within the cut."
    return _share(
        "precision", sum(judged.values()), len(judged), len(ranking_ids[:cut]) - len(judged), convention, _note(decisions, judged)
    )


def coverage_at(decisions: Mapping[str, Decision], ranking_ids: Sequence[str], cut: int) -> MetricResult:
    """Share of all biased examples that lie within the first `cut` of the ranking (Eq. 9), from the inspected ones, as a fraction.

    `decisions`: as `DecisionLog.current()`; `ranking_ids`: best first.
    """
    judged = _judged(decisions, ranking_ids)
    biased = [id_ for id_, verdict in judged.items() if verdict]
    within = len(set(biased).intersection(ranking_ids[:cut]))
    convention = (
        "inspected biased within the cut / inspected biased. Unbiased only if the inspected ones are a random sample of the ranking."
    )
    return _share("coverage", within, len(biased), len(ranking_ids) - len(judged), convention, _note(decisions, judged))


def _judged(decisions: Mapping[str, Decision], ids: Sequence[str]) -> dict[str, bool]:
    """Biased or not, of the ids with an inspected verdict other than `unsure`."""
    found = {id_: decisions[id_] for id_ in ids if id_ in decisions}
    return {id_: decision.verdict == "biased" for id_, decision in found.items() if decision.inspected and decision.verdict != "unsure"}


def _note(decisions: Mapping[str, Decision], judged: Mapping[str, bool]) -> str:
    return " Decisions by the simulated auditor are among them." if any(decisions[id_].simulated for id_ in judged) else ""


def _share(name: str, count: int, n: int, not_scored: int, convention: str, note: str) -> MetricResult:
    interval = binomtest(count, n).proportion_ci(0.95, method="wilson") if n else None
    return MetricResult(
        name=name,
        value=count / n if n else None,
        low=float(interval.low) if interval else None,
        high=float(interval.high) if interval else None,
        n=n,
        not_scored=not_scored,
        convention=f"{INSPECTED}{convention} Wilson 95 % interval.{note}",
    )
