"""All evaluations of one variant, in order, each with its own settings, into one folder.

metrics.json          every figure with interval, n and convention
crows_pairs.parquet   scores of each pair
perplexity.parquet    summed loss and tokens of each held-out text
trex.parquet          each T-REx query with the model's answer and the rank of the right one
answers.json          answers to the questions, for reading side by side
items.parquet         rows of the other suites, for paired tests (`evaluation.items`)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from biasdiff_core.config import EvaluationConfig
from biasdiff_core.config.evaluation import (
    AnswersConfig,
    CrowsPairsConfig,
    LmEvalConfig,
    PerplexityConfig,
    SeatConfig,
    StereoSetConfig,
    TrexConfig,
)
from biasdiff_core.evaluation import answers, crows_pairs, lm_harness, perplexity, seat, stereoset, trex
from biasdiff_core.evaluation.items import ItemMetric, save_items
from biasdiff_core.evaluation.pairs import load_pairs
from biasdiff_core.results import MetricResult, ProgressCallback

ITEMS_FILE = "items.parquet"
PAIRS_FILE = "crows_pairs.parquet"
# Every metric that has rows in ITEMS_FILE, for `items.compare_items`.
ITEM_METRICS: Mapping[str, ItemMetric] = {**stereoset.METRICS, **trex.METRICS, **perplexity.METRICS}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is judged: a model as it stands, its tokenizer, the `instruction` in front of every text (empty for none), and the training
    texts, which held-out material must not contain."""

    model: Any
    tokenizer: Any
    instruction: str
    trained_on: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A suite's figures, and its rows for paired tests (`items.item_frame`), empty where items cannot be paired."""

    metrics: Sequence[MetricResult]
    items: Sequence[pd.DataFrame] = ()


Run = Callable[[Subject, Any, EvaluationConfig, Path, ProgressCallback], Outcome]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One evaluation by its settings. `items`: how many it asks at most, which its time grows with; None where nobody can tell before."""

    title: str
    run: Run
    items: Callable[[Any], int | None]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All figures of one variant; `times`: items and seconds of each suite, by its name in EvaluationConfig."""

    metrics: Sequence[MetricResult]
    times: Mapping[str, Mapping[str, float | None]]


def asked_suites(config: EvaluationConfig) -> dict[str, tuple[Suite, Any]]:
    """The suites that the config asks for, each with its settings, in the order in which they run."""
    return {name: (suite, settings) for name, suite in SUITES.items() if (settings := getattr(config, name)) is not None}


def evaluate(subject: Subject, config: EvaluationConfig, folder: Path, progress: ProgressCallback) -> Evaluation:
    """Run every suite that the config asks for; write their tables into `folder`."""
    outcomes, times = [], {}
    for name, (suite, settings) in asked_suites(config).items():
        items, started = suite.items(settings), time.monotonic()
        outcomes.append(suite.run(subject, settings, config, folder, progress))
        times[name] = {"items": items, "seconds": round(time.monotonic() - started, 3)}
    save_items([frame for outcome in outcomes for frame in outcome.items], folder / ITEMS_FILE)
    return Evaluation(metrics=[metric for outcome in outcomes for metric in outcome.metrics], times=times)


def _crows_pairs(
    subject: Subject, settings: CrowsPairsConfig, config: EvaluationConfig, folder: Path, progress: ProgressCallback
) -> Outcome:
    scores = crows_pairs.score_pairs(
        subject.model,
        subject.tokenizer,
        load_pairs(settings),
        settings.scorings,
        token_budget=config.token_budget,
        prefix=settings.prefix,
        instruction=subject.instruction,
        progress=progress,
    )
    scores.save(folder / PAIRS_FILE)
    draws: dict[str, int] = {"bootstrap": config.bootstrap, "seed": config.seed}
    return Outcome(metrics=[metric for scoring in settings.scorings for metric in crows_pairs.figures(scores, scoring, **draws)])


def _perplexity(
    subject: Subject, settings: PerplexityConfig, config: EvaluationConfig, folder: Path, progress: ProgressCallback
) -> Outcome:
    texts = perplexity.load_texts(settings)
    perplexity.refuse_training_rows(texts, subject.trained_on)
    held_out, per_text = perplexity.perplexity(
        subject.model,
        subject.tokenizer,
        texts,
        token_budget=config.token_budget,
        bootstrap=config.bootstrap,
        seed=config.seed,
        instruction=subject.instruction,
        progress=progress,
    )
    perplexity.write_losses(per_text, folder / perplexity.LOSSES_FILE)
    return Outcome(metrics=[held_out], items=[perplexity.items(texts, per_text)])


def _stereoset(subject: Subject, settings: StereoSetConfig, config: EvaluationConfig, folder: Path, progress: ProgressCallback) -> Outcome:
    scores = stereoset.score_tests(
        subject.model,
        subject.tokenizer,
        stereoset.load_tests(settings),
        token_budget=config.token_budget,
        instruction=subject.instruction,
        progress=progress,
    )
    return Outcome(metrics=stereoset.figures(scores, bootstrap=config.bootstrap, seed=config.seed), items=scores.items())


def _seat(subject: Subject, settings: SeatConfig, config: EvaluationConfig, folder: Path, progress: ProgressCallback) -> Outcome:
    metrics = seat.figures(
        subject.model,
        subject.tokenizer,
        seat.load_tests(settings),
        settings,
        token_budget=config.token_budget,
        bootstrap=config.bootstrap,
        instruction=subject.instruction,
        progress=progress,
    )
    return Outcome(metrics=metrics)


def _trex(subject: Subject, settings: TrexConfig, config: EvaluationConfig, folder: Path, progress: ProgressCallback) -> Outcome:
    selection = trex.select(trex.load_queries(settings.path), subject.trained_on, settings)
    table = trex.ask(
        subject.model,
        subject.tokenizer,
        selection,
        instruction=subject.instruction,
        max_new_tokens=settings.max_new_tokens,
        token_budget=config.token_budget,
        progress=progress,
    )
    table.to_parquet(folder / trex.TABLE_FILE, index=False)
    figures = trex.figures(table, selection, settings, instruction=subject.instruction, bootstrap=config.bootstrap, seed=config.seed)
    return Outcome(metrics=figures, items=trex.items(table))


def _answers(subject: Subject, settings: AnswersConfig, config: EvaluationConfig, folder: Path, progress: ProgressCallback) -> Outcome:
    found = answers.answer_questions(
        subject.model,
        subject.tokenizer,
        answers.load_questions(settings),
        instruction=subject.instruction,
        max_new_tokens=settings.max_new_tokens,
        token_budget=config.token_budget,
        progress=progress,
    )
    answers.write_answers(found, folder / answers.ANSWERS_FILE)
    return Outcome(metrics=[])


def _lm_eval(subject: Subject, settings: LmEvalConfig, config: EvaluationConfig, folder: Path, progress: ProgressCallback) -> Outcome:
    metrics = lm_harness.run_tasks(subject.model, subject.tokenizer, settings, instruction=subject.instruction, progress=progress)
    return Outcome(metrics=metrics)


def _pair_scorings(settings: CrowsPairsConfig) -> int:
    return len(load_pairs(settings)) * len(settings.scorings)


def _stereoset_tests(settings: StereoSetConfig) -> int:
    return settings.limit or len(stereoset.load_tests(settings))


def _trex_queries(settings: TrexConfig) -> int:
    return settings.limit or len(trex.load_queries(settings.path))


SUITES: Mapping[str, Suite] = {
    "crows_pairs": Suite(title="CrowS-Pairs", run=_crows_pairs, items=_pair_scorings),
    "perplexity": Suite(title="held-out perplexity", run=_perplexity, items=lambda settings: len(perplexity.load_texts(settings))),
    "stereoset": Suite(title="StereoSet", run=_stereoset, items=_stereoset_tests),
    "seat": Suite(title="SEAT", run=_seat, items=lambda settings: len(seat.sentences_of(seat.load_tests(settings)))),
    "trex": Suite(title="T-REx", run=_trex, items=_trex_queries),
    "answers": Suite(title="answers", run=_answers, items=lambda settings: len(answers.load_questions(settings))),
    "lm_eval": Suite(title="lm-evaluation-harness", run=_lm_eval, items=lambda settings: None),
}
