"""Tasks of EleutherAI's lm-evaluation-harness on a model in memory: figures that can be set beside published ones.

The only module that imports the optional package lm_eval, and only when it runs. A task's data are loaded as the task says, most from
the Hugging Face hub.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from biasdiff_core.config.evaluation import LmEvalConfig
from biasdiff_core.errors import ConfigError, DataError, MissingDependency
from biasdiff_core.results import MetricResult, Progress, ProgressCallback, no_progress

# Shares of items, which the harness gives in 0-1; all other metrics keep its unit.
_SHARES = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "pct_stereotype"})
_BATCH_SIZE = 8


def missing() -> MissingDependency:
    """What is raised where the extra `lm-eval` is not installed."""
    return MissingDependency("lm-eval", "A task of lm-evaluation-harness", "pip install 'biasdiff[lm-eval]'")


def run_tasks(
    model: Any, tokenizer: Any, config: LmEvalConfig, *, instruction: str = "", progress: ProgressCallback = no_progress
) -> list[MetricResult]:
    """`lm_eval.<task>.<metric>` of every task (and group) that the config names, with ± 1.96 standard errors where the harness has one.

    Shares in percent. A metric computed after another filter than the harness's `none` has the filter's name behind it.
    `instruction` is the harness's system instruction, in front of every prompt. Raises MissingDependency without the extra `lm-eval`,
    ConfigError for an unknown task, DataError when a task's data cannot be loaded.
    """
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise missing() from error
    manager = TaskManager(include_path=config.include_path)
    unknown = [name for name in config.tasks if name not in manager.all_tasks]
    if unknown:
        raise ConfigError(
            f"lm-evaluation-harness {lm_eval.__version__} has no task {', '.join(map(repr, unknown))}.",
            "List them by `lm-eval ls tasks`, or set lm_eval.include_path to the folder of your own.",
        )
    progress(Progress(stage="evaluation", done=0, total=len(config.tasks), unit="tasks", message="lm-evaluation-harness"))
    try:
        found = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=_BATCH_SIZE),
            tasks=list(config.tasks),
            limit=config.limit,
            task_manager=manager,
            system_instruction=instruction or None,
            log_samples=False,
        )
    except OSError as error:
        raise DataError(
            f"The data of a task in {', '.join(config.tasks)} cannot be loaded: {error}.", "Check the network, or its paths."
        ) from error
    progress(Progress(stage="evaluation", done=len(config.tasks), total=len(config.tasks), unit="tasks", message="lm-evaluation-harness"))
    return list(_figures(found, f"lm-evaluation-harness {lm_eval.__version__}", config))


def _figures(found: Mapping[str, Any], harness: str, config: LmEvalConfig) -> Iterator[MetricResult]:
    first = f", first {config.limit} items" if config.limit else ""
    for task, values in found["results"].items():
        shots = found["n-shot"].get(task)
        how = f"{harness}, task {task}{'' if shots is None else f', {shots}-shot'}{first}"
        for key, value in values.items():
            metric, _, chosen = key.partition(",")
            if chosen and not metric.endswith("_stderr") and isinstance(value, int | float):
                error = values.get(f"{metric}_stderr,{chosen}")
                name = f"lm_eval.{task}.{metric}" + ("" if chosen == "none" else f".{chosen}")
                yield _figure(name, value, error, share=metric in _SHARES, n=_items(found, task), how=how)


def _items(found: Mapping[str, Any], task: str) -> int:
    """Items scored of a task, or of all tasks of a group."""
    samples = found["n-samples"].get(task)
    if samples is not None:
        return int(samples["effective"])
    return sum(_items(found, member) for member in found["group_subtasks"].get(task, ()))


def _figure(name: str, value: float, error: Any, *, share: bool, n: int, how: str) -> MetricResult:
    """`error`: the harness's standard error, or its `N/A`."""
    scale, bounds = (100.0, (0.0, 100.0)) if share else (1.0, (-math.inf, math.inf))
    known = isinstance(error, int | float)
    low, high = (max(bounds[0], scale * (value - 1.96 * error)), min(bounds[1], scale * (value + 1.96 * error))) if known else (None, None)
    return MetricResult(
        name=name,
        value=scale * value,
        low=low,
        high=high,
        n=n,
        convention=f"{how}; " + ("± 1.96 of the harness's standard errors" if known else "the harness gives no standard error"),
        unit="%" if share else "",
    )
