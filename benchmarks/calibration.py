"""Whether the tests and intervals keep what they promise: rejections under a true null, and how often 95 % intervals hold the truth.

python -m benchmarks.calibration AUDIT     an audit with evaluations of base and origin, e.g. `demo-fresh` after `biasdiff demo`

Null: a pair's two outcomes are given to variant and reference at random, on pairs drawn with replacement from the real scores, so
no variant is better than the other, whatever the data look like.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import click
import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from benchmarks.record import record
from biasdiff_core.audit import Audit
from biasdiff_core.evaluation.crows_pairs import PairScores
from biasdiff_core.evaluation.statistics import (
    Estimate,
    bootstrap_mean,
    bootstrap_ratio,
    mcnemar_exact,
    paired_bootstrap,
    pooled_auroc,
    pooled_coverage,
    pooled_difference,
    pooled_share_undone,
    share_undone,
    wilson,
)

RESAMPLES = 400
CASES = 4_000
DRAWS = 400
ITEMS = 300
SEEDS, PAIRS = 3, 1290
# Spread of the means of training seeds over that of a pair's margins: in Table 1 it is 0.01 to 0.04 (docs/log.md), there the greatest
# with retraining; more than that; and so great that three seeds are three values.
SPREADS = {"none": 0.0, "small": 0.02, "much": 0.07, "great": 0.3}
# Rankings: so many examples, this share of them biased, this share selected; how far the biased ones score above the others, in spreads of
# an example's own part, from AUROC 0.6 to 0.98; and how much the seeds vary that (in `benchmarks.probes` by some 0.05 to 0.2, docs/log.md).
EXAMPLES, BIASED, SELECTED = 500, 0.29, 0.35
DISTANCES = {"weak": 0.4, "strong": 3.4}
VARIED = {"none": 0.0, "small": 0.1, "much": 0.3, "great": 0.8}
NOISE = math.hypot(1, 0.5)  # of a score: the example's own part, and that of the example in the seed


def rejections(base: PairScores, origin: PairScores) -> Iterator[tuple[str, int]]:
    """Name of each test at 5 %, and how many of the resamples it rejects under the null."""
    generator = np.random.default_rng(0)
    stereo = base.stereotypes
    wins = np.stack([scores.wins("sum")[stereo] for scores in (base, origin)])
    margins = np.stack([scores.margins("sum")[stereo] for scores in (base, origin)])
    count = {"mcnemar": 0, "margin": 0, "score": 0}
    for draw in range(RESAMPLES):
        pairs = generator.integers(0, wins.shape[1], wins.shape[1])
        side = generator.integers(0, 2, len(pairs))
        won, other = wins[side, pairs], wins[1 - side, pairs]
        count["mcnemar"] += mcnemar_exact(int((other & ~won).sum()), int((won & ~other).sum())) < 0.05
        count["margin"] += not holds(paired_bootstrap(margins[side, pairs], margins[1 - side, pairs], draws=DRAWS, seed=draw), 0.0)
        count["score"] += not holds(paired_bootstrap(won, other, draws=DRAWS, seed=draw), 0.0)
    yield from count.items()


def holds(estimate: Estimate, truth: float) -> bool:
    """Whether the interval holds the truth."""
    return estimate.low <= truth <= estimate.high


def cases() -> dict[str, Callable[[np.random.Generator, int], bool]]:
    """Each interval with data of a known truth: whether it holds it."""

    def proportion(generator: np.random.Generator, _: int) -> bool:
        truth = generator.uniform(0.2, 0.8)
        return holds(wilson(int(generator.binomial(ITEMS, truth)), ITEMS), truth)

    def mean(generator: np.random.Generator, seed: int) -> bool:
        return holds(bootstrap_mean(generator.gamma(2.0, size=ITEMS), draws=DRAWS, seed=seed), 2.0)

    def ratio(generator: np.random.Generator, seed: int) -> bool:
        tokens = generator.integers(5, 40, ITEMS)
        nll = tokens * 3.0 + generator.normal(0, np.sqrt(tokens), ITEMS)
        return holds(bootstrap_ratio(nll, tokens, draws=DRAWS, seed=seed), 3.0)

    def paired(generator: np.random.Generator, seed: int) -> bool:
        shared = generator.normal(size=ITEMS)
        return holds(paired_bootstrap(shared + generator.normal(0.2, 1, ITEMS), shared, draws=DRAWS, seed=seed), 0.2)

    def share(generator: np.random.Generator, seed: int) -> bool:
        base = generator.normal(size=ITEMS)
        origin = base + generator.normal(0.7, 1, ITEMS)
        after = origin - 0.5 * 0.7 + generator.normal(0, 1, ITEMS)
        found = share_undone(origin, after, base, draws=DRAWS, seed=seed)
        return found.low is not None and found.high is not None and found.low <= 0.5 <= found.high

    return {
        "wilson": proportion,
        "mean": mean,
        "ratio": ratio,
        "paired": paired,
        "share_undone": share,
        **{f"pooled_over_seeds.{name}": partial(pooled, spread=spread) for name, spread in SPREADS.items()},
        **{
            f"{figure}.{distance}.{name}": partial(case, distance=DISTANCES[distance], varied=varied)
            for figure, case in (("pooled_auroc", pooled_area), ("pooled_coverage", covered))
            for distance in DISTANCES
            for name, varied in VARIED.items()
        },
        **{f"pooled_share.{name}": partial(pooled_share, spread=SPREADS[name]) for name in ("none", "small", "much")},
    }


def pooled(generator: np.random.Generator, _: int, *, spread: float) -> bool:
    """A mean over seeds and pairs. `spread`: of the seeds, over that of a pair."""
    return holds(pooled_difference(moved_by(0.3, generator, spread), np.zeros((SEEDS, PAIRS))), 0.3)


def pooled_share(generator: np.random.Generator, _: int, *, spread: float) -> bool:
    """A share over seeds and pairs: 0.4 of a rise that is clear of zero."""
    rise = moved_by(0.5, generator, spread)
    origin = generator.normal(size=(1, PAIRS)) + rise
    found = pooled_share_undone(origin, origin - 0.4 * rise - moved_by(0.0, generator, spread), origin - rise)
    return found.low is not None and found.high is not None and found.low <= 0.4 <= found.high


def pooled_area(generator: np.random.Generator, _: int, *, distance: float, varied: float) -> bool:
    """An AUROC over seeds and examples: a difference of two scores is normal, over seeds too."""
    return holds(pooled_auroc(*ranked(generator, distance, varied)), float(norm.cdf(distance / math.hypot(math.sqrt(2) * NOISE, varied))))


def covered(generator: np.random.Generator, _: int, *, distance: float, varied: float) -> bool:
    """A coverage over seeds and examples."""
    return holds(pooled_coverage(*ranked(generator, distance, varied), round(SELECTED * EXAMPLES)), true_coverage(distance, varied))


def ranked(generator: np.random.Generator, distance: float, varied: float) -> tuple[np.ndarray, list[int]]:
    """Scores [seeds, examples] and labels: examples, seeds, and each example in each seed have their own part in a score."""
    labels = (generator.random(EXAMPLES) < BIASED).astype(int)
    raised = labels * (distance + varied * generator.normal(size=(SEEDS, 1)))
    return raised + generator.normal(size=EXAMPLES) + 0.5 * generator.normal(size=(SEEDS, EXAMPLES)), labels.tolist()


@cache
def true_coverage(distance: float, varied: float) -> float:
    """Share of all biased examples that there are above the cut which selects `SELECTED` of all, mean over seeds (Gauss-Hermite)."""

    def above(cut: float, raised: float) -> float:
        return float(norm.sf((cut - raised) / NOISE))

    def of_seed(raised: float) -> float:
        cut = brentq(lambda at: BIASED * above(at, raised) + (1 - BIASED) * above(at, 0.0) - SELECTED, -20.0, 20.0)
        return above(cut, raised)

    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    return float(np.average([of_seed(distance + varied * node) for node in nodes], weights=weights))


def moved_by(mean: float, generator: np.random.Generator, spread: float) -> np.ndarray:
    """What margins move by [seeds, pairs]: pairs, seeds, and each pair in each seed have their own part in it."""
    pairs, seeds = generator.normal(0, 1, PAIRS), generator.normal(0, spread, (SEEDS, 1))
    return np.asarray(mean + pairs + seeds + generator.normal(0, 0.5, (SEEDS, PAIRS)))


@click.command()
@click.argument("reference", metavar="AUDIT")
@click.option("--workspace", type=click.Path(exists=True, path_type=Path), help="Where the audit lies; default: as for `biasdiff`.")
def main(reference: str, workspace: Path | None) -> None:
    """Record the share of rejections under the null and the share of intervals that hold the truth."""
    audit = Audit.open(reference, workspace)
    base, origin = (PairScores.load(audit.artefact(f"evaluation:{v}").path("crows_pairs.parquet")) for v in ("base", "origin"))
    for name, rejected in rejections(base, origin):
        shown = wilson(rejected, RESAMPLES)
        unit = f"share of {RESAMPLES} resamples under a true null that the test at 5 % rejects"
        _record(f"calibration.{name}.rejected", shown, RESAMPLES, unit, audit.config.model.name)
    for name, case in cases().items():
        generator = np.random.default_rng(0)
        shown = wilson(sum(case(generator, number) for number in range(CASES)), CASES)
        _record(f"calibration.{name}.held", shown, CASES, f"share of {CASES} simulated cases whose 95 % interval holds the truth", "none")


def _record(metric: str, shown: Estimate, n: int, unit: str, model: str) -> None:
    record(metric, shown.value, low=shown.low, high=shown.high, n=n, unit=unit, model=model)


if __name__ == "__main__":
    main()
