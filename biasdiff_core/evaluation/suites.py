"""All evaluations of one variant, in order, each with its own settings, into one folder.

metrics.json          every figure with interval, n and convention
crows_pairs.parquet   scores of each pair
perplexity.parquet    summed loss and tokens of each held-out text
trex.parquet          each T-REx query with the model's answer and the rank of the right one
answers.json          answers to the questions, for reading side by side
items.parquet         rows of the other suites, for paired tests (`evaluation.items`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from biasdiff_core.config import EvaluationConfig
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


Suite = Callable[[Subject, EvaluationConfig, Path, ProgressCallback], Outcome]


def evaluate(subject: Subject, config: EvaluationConfig, folder: Path, progress: ProgressCallback) -> list[MetricResult]:
    """Run every suite that the config asks for; write their tables into `folder` and return all figures."""
    suites: list[Suite] = [_crows_pairs, _perplexity, _stereoset, _seat, _trex, _answers, _lm_eval]
    outcomes = [suite(subject, config, folder, progress) for suite in suites]
    save_items([frame for outcome in outcomes for frame in outcome.items], folder / ITEMS_FILE)
    return [metric for outcome in outcomes for metric in outcome.metrics]


def _crows_pairs(subject: Subject, config: EvaluationConfig, folder: Path, progress: ProgressCallback) -> Outcome:
    settings = config.crows_pairs
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


def _perplexity(subject: Subject, config: EvaluationConfig, folder: Path, progress: ProgressCallback) -> Outcome:
    texts = perplexity.load_texts(config.perplexity)
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


def _stereoset(subject: Subject, config: EvaluationConfig, folder: Path, progress: ProgressCallback) -> Outcome:
    if config.stereoset is None:
        return Outcome(metrics=[])
    scores = stereoset.score_tests(
        subject.model,
        subject.tokenizer,
        stereoset.load_tests(config.stereoset),
        token_budget=config.token_budget,
        instruction=subject.instruction,
        progress=progress,
    )
    return Outcome(metrics=stereoset.figures(scores, bootstrap=config.bootstrap, seed=config.seed), items=scores.items())


def _seat(subject: Subject, config: EvaluationConfig, folder: Path, progress: ProgressCallback) -> Outcome:
    if config.seat is None:
        return Outcome(metrics=[])
    metrics = seat.figures(
        subject.model,
        subject.tokenizer,
        seat.load_tests(config.seat),
        config.seat,
        token_budget=config.token_budget,
        bootstrap=config.bootstrap,
        instruction=subject.instruction,
        progress=progress,
    )
    return Outcome(metrics=metrics)


def _trex(subject: Subject, config: EvaluationConfig, folder: Path, progress: ProgressCallback) -> Outcome:
    if config.trex is None:
        return Outcome(metrics=[])
    selection = trex.select(trex.load_queries(config.trex.path), subject.trained_on, config.trex)
    table = trex.ask(
        subject.model,
        subject.tokenizer,
        selection,
        instruction=subject.instruction,
        max_new_tokens=config.trex.max_new_tokens,
        token_budget=config.token_budget,
        progress=progress,
    )
    table.to_parquet(folder / trex.TABLE_FILE, index=False)
    figures = trex.figures(table, selection, config.trex, instruction=subject.instruction, bootstrap=config.bootstrap, seed=config.seed)
    return Outcome(metrics=figures, items=trex.items(table))


def _answers(subject: Subject, config: EvaluationConfig, folder: Path, progress: ProgressCallback) -> Outcome:
    if config.answers is not None:
        found = answers.answer_questions(
            subject.model,
            subject.tokenizer,
            answers.load_questions(config.answers),
            instruction=subject.instruction,
            max_new_tokens=config.answers.max_new_tokens,
            token_budget=config.token_budget,
            progress=progress,
        )
        answers.write_answers(found, folder / answers.ANSWERS_FILE)
    return Outcome(metrics=[])


def _lm_eval(subject: Subject, config: EvaluationConfig, folder: Path, progress: ProgressCallback) -> Outcome:
    if config.lm_eval is None:
        return Outcome(metrics=[])
    metrics = lm_harness.run_tasks(subject.model, subject.tokenizer, config.lm_eval, instruction=subject.instruction, progress=progress)
    return Outcome(metrics=metrics)
