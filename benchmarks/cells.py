"""Cells of the paper's tables, and how they are made side by side in processes, before a table is read off."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np

from benchmarks.arms import Pooled, Recipe, changed_arms, full_arms, overlap, ranked
from biasdiff_core.audit import Audit
from biasdiff_core.config.mitigation import Method
from biasdiff_core.workspace.artefacts import Artefact

Task = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Arms of `recipe` with `changes`; where nothing differs they are those of its main audit, which tables share.

    `name`: of the changed audits.
    """

    recipe: Recipe
    methods: tuple[Method, ...] = ("retrain",)
    name: str = "main"
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> Recipe:
        return replace(self.recipe, **self.changes)

    def arms(self, seed: int) -> dict[str, Artefact]:
        """Variant → evaluation, with one training seed."""
        if self.changed == self.recipe:
            return full_arms(self.recipe, seed, self.methods)
        return changed_arms(self.recipe, seed, self.methods, self.name, **self.changes)

    def audit(self, seed: int) -> Audit:
        """Where those of one training seed are made."""
        return self.changed.audit("main" if self.changed == self.recipe else self.name, seed)

    def pooled(self, seeds: Sequence[int]) -> dict[str, Pooled]:
        """Variant → evaluations over the training seeds."""
        return pooled([self.arms(seed) for seed in seeds])

    def overlap(self, seeds: Sequence[int]) -> str:
        """Coverage and precision of the selection, mean over seeds."""
        return mean_overlap([self.audit(seed) for seed in seeds], self.changed.percent)


def pooled(by_seed: Sequence[Mapping[str, Artefact]]) -> dict[str, Pooled]:
    """Variant → its evaluations over seeds."""
    return {variant: Pooled(evaluations=[arms[variant] for arms in by_seed]) for variant in by_seed[0]}


def mean_overlap(audits: Sequence[Audit], percent: float) -> str:
    """Coverage and precision of the top `percent` % of rankings, mean over them."""
    coverage, precision = np.mean([overlap(audit, percent) for audit in audits], axis=0)
    return f"{coverage:.3f}, {precision:.3f}"


def waves(cells: Sequence[Cell], seeds: Sequence[int]) -> list[list[Task]]:
    """What the cells need: first the main audits up to their ranking, then every cell with every seed.

    Their input files are written here, for the processes of a wave would write the same ones at once.
    """
    for cell in cells:
        cell.recipe.inputs()
        cell.changed.inputs()
    recipes = list(dict.fromkeys(cell.recipe for cell in cells))
    return [
        [partial(ranked, recipe, seed, "full") for recipe in recipes for seed in seeds],
        [partial(cell.arms, seed) for cell in cells for seed in seeds],
    ]


def side_by_side(waves: Sequence[Sequence[Task]], processes: int) -> None:
    """Carry tasks out in so many processes, which share the cores; a wave begins when the one before is done."""
    # More threads than cores spin at each other's barriers: evaluations took ten times as long.
    cores = len(os.sched_getaffinity(0))
    os.environ["OMP_NUM_THREADS"] = str(min(max(1, cores // processes), int(os.environ.get("OMP_NUM_THREADS", cores))))
    # A process a task: over a table's cells one grew to 11 GB, and two of them filled the machine (docs/log.md, 2026-11-27).
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for wave in waves:
            for running in [pool.submit(_run, task) for task in wave]:
                running.result()


def _run(task: Task) -> None:
    """Without the result, which is on disk."""
    task()
