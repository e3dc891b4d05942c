"""Which probing set finds the biased examples: ours, the paper's, and benchmarks taken as indicators (the paper's Figure 5).

python -m benchmarks.probes --workspace DIR --seeds 3 --n 500

One warm-up a training seed serves all sets; only the probes change. Every cell is an artefact of an audit in the workspace, so a stopped
run goes on, and what `benchmarks.paper table1` made there is not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.arms import Recipe, ranked, take_over
from benchmarks.cells import side_by_side
from benchmarks.record import dry_option, record
from biasdiff_core.attribution.ranking import selected_count
from biasdiff_core.audit import Audit
from biasdiff_core.cli_common import progress_bar
from biasdiff_core.config.model import BUNDLED_MODEL
from biasdiff_core.evaluation.statistics import Estimate, pooled_auroc, pooled_coverage
from biasdiff_core.pipeline import Pipeline

INDICATORS = ("own", "bias_diff", "wino", "seat", "stereoset")
PROBES = 891  # the whole of the paper's set; larger ones are sampled
PERCENT = 35.0
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def ranked_by(recipe: Recipe, indicator: str, seed: int) -> Audit:
    """The audit whose probes are this set, carried on to its ranking; corpus, warm-up and their gradients are the recipe's own."""
    audit = replace(recipe, indicator=indicator, probes=PROBES).audit(f"by-{indicator}", seed)
    take_over(ranked(recipe, seed, "full"), audit)
    with progress_bar() as show:
        Pipeline(audit.folder, show).analyse(until="ranking")
    return audit


def scores_and_labels(audits: Sequence[Audit]) -> tuple[Floats, Labels]:
    """Influence scores [training seeds, examples] and the known labels [examples] of audits on one corpus, by id."""
    tables = [audit.ranking().sort_values("id") for audit in audits]
    return np.stack([table["score"].to_numpy(float) for table in tables]), tables[0]["label"].to_numpy(int)


def coverage(scores: Floats, labels: Labels) -> Estimate:
    """Share of the biased examples among the top `PERCENT` % by score (Eq. 9), mean over training seeds."""
    return pooled_coverage(scores, labels.tolist(), selected_count(len(labels), PERCENT))


def area(scores: Floats, labels: Labels) -> Estimate:
    """AUROC of the scores against the labels, mean over training seeds."""
    return pooled_auroc(scores, labels.tolist())


FIGURES: Mapping[str, tuple[Callable[[Floats, Labels], Estimate], str]] = {
    "coverage_35": (coverage, f"share of the biased examples in the top {PERCENT:g} %"),
    "auroc": (area, "area under the ROC curve of influence against the known labels"),
}


@click.command()
@click.option("--workspace", type=click.Path(path_type=Path), required=True, help="Kept between runs: finished cells are not made again.")
@click.option("--seeds", default=3, show_default=True, help="Training seeds.")
@click.option("--n", default=500, show_default=True, help="Rows of Trex_mix.")
@click.option("--model", default=BUNDLED_MODEL, show_default=True, help="Also a folder or a Hugging Face id.")
@click.option("--processes", default=2, show_default=True, help="Cells that are made at once; they share the cores.")
@dry_option
def main(workspace: Path, seeds: int, n: int, model: str, processes: int, dry: bool) -> None:
    """Rank Trex_mix by every probing set and record how well each finds the biased rows."""
    recipe = Recipe(workspace=workspace.resolve(), model=model, n=n)
    for indicator in INDICATORS:  # here, for the processes would write the same files at once
        replace(recipe, indicator=indicator).inputs()
    warm_ups = [partial(ranked, recipe, seed, "full") for seed in range(seeds)]
    side_by_side([warm_ups, [partial(ranked_by, recipe, i, seed) for i in INDICATORS for seed in range(seeds)]], processes)
    for indicator in INDICATORS:
        audits = [ranked_by(recipe, indicator, seed) for seed in range(seeds)]
        scores, labels = scores_and_labels(audits)
        against = f"{len(audits[0].probes())} probes; {seeds} training seeds; the other sets in the same run"
        for name, (figure, unit) in FIGURES.items():
            found = figure(scores, labels)
            how = f"{unit}; mean over training seeds, which cross the examples as random effects"
            place, bounds = f"probes.{indicator}.{name}", {"low": found.low, "high": found.high}
            n = int(labels.sum()) if name.startswith("coverage") else len(labels)  # coverage is of the biased rows
            record(place, found.value, **bounds, n=n, unit=how, model=model, against=against, dry=dry)


if __name__ == "__main__":
    main()
