"""Whether the estimates of a review keep what they promise, and what the stop hint saves: simulated reviews with known labels.

python -m benchmarks.review [--reviews 4000] [--dry]
python -m benchmarks.review --target 0.9 --confidence 0.9     another rule of stopping: its assurance and effort alone

A corpus has 300 to 3,000 examples (log-uniform), 1 to 30 % of them biased (uniform). Its ranking is by a normal score whose mean is
higher for the biased ones by 0 (useless) to 4 standard deviations (AUROC 0.998). Each review reads the default queue: by rank, some
at random. Held: after 5 to 60 % of the corpus, how often the 95 % intervals hold the truth; cuts are at 5 to 60 %, too. Figures that
are not known yet, and precisions that are mere counts, are left out. Effort: the auditor looks at the stop hint after every `LOOK`
examples, follows what is suggested, and stops at the first hint that is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click
import numpy as np
from scipy.stats import norm

from benchmarks.record import dry_option, record
from biasdiff_core.evaluation.statistics import Estimate, bootstrap_mean, wilson
from biasdiff_core.results import MetricResult
from biasdiff_core.review.design import Review, mixed_order, uniform_order
from biasdiff_core.review.estimate import biased_left, coverage_at, precision_at, share_found
from biasdiff_core.review.suggest import NEXT, StopRule, expected_found, next_queue, stop_hint

SIZE = (300, 3_000)
BIASED = (0.01, 0.30)
SEPARATION = (0.0, 4.0)
READ = (0.05, 0.60)  # share of the corpus read, and of a cut
LOOK = 10
DRAWS = 2_000
GOOD, MANY = 0.95, 200  # AUROC from which on a ranking is called good; number of biased examples that are called many
TOLERANCE = 1e-9  # a quantile of a share is found by halving


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Labels by rank, and the AUROC of the score behind the ranking."""

    seed: int
    labels: np.ndarray
    auroc: float


def corpus(seed: int) -> tuple[Corpus, np.random.Generator]:
    """A corpus and what further chances of its review come from."""
    generator = np.random.default_rng(seed)
    size = int(np.exp(generator.uniform(*np.log(SIZE))))
    biased = np.arange(size) < max(1, round(size * generator.uniform(*BIASED)))
    separation = generator.uniform(*SEPARATION)
    by_rank = np.argsort(-generator.normal(separation * biased, 1.0), kind="stable")
    return Corpus(seed=seed, labels=biased[by_rank], auroc=float(norm.cdf(separation / np.sqrt(2)))), generator


class Reading:
    """A review under way."""

    def __init__(self, of: Corpus) -> None:
        self.of = of
        self.places: list[int] = []
        self.drawn: list[bool] = []
        self.kind = ""
        self.pending: list[tuple[int, bool]] = []

    def read(self, number: int, kind: str) -> None:
        """Read so many more (fewer when fewer are open) from a queue of this kind; made anew only where it was another."""
        if kind != self.kind:
            self.kind, self.pending = kind, self._queue(kind)
        for place, drawn in self.pending[:number]:
            self.places.append(place)
            self.drawn.append(drawn)
        self.pending = self.pending[number:]

    def review(self) -> Review:
        """As it stands."""
        places = np.array(self.places, dtype=np.int64)
        left_open = np.ones(len(self.of.labels), dtype=bool)
        left_open[places] = False
        return Review(open=left_open, places=places, biased=self.of.labels[places], drawn=np.array(self.drawn, dtype=bool))

    def _queue(self, kind: str) -> list[tuple[int, bool]]:
        """Places of the open examples in the order of the queue, each with whether it is drawn."""
        ids, seed = tuple(map(str, np.flatnonzero(self.review().open))), str(self.of.seed)
        if kind == "random":
            return [(int(id_), True) for id_ in uniform_order(ids, seed)]
        mixed, drawn = mixed_order(ids, seed)
        return [(int(id_), id_ in drawn) for id_ in mixed]


def intervals(seed: int) -> tuple[float, dict[str, bool]]:
    """Of one review: AUROC of its ranking, and whether each interval holds the truth."""
    of, generator = corpus(seed)
    labels, size = of.labels, len(of.labels)
    share, cut = generator.uniform(*READ), int(size * generator.uniform(*READ))
    reading = Reading(of)
    reading.read(int(size * share), "mixed")
    review = reading.review()
    upcoming = [place for place, _ in reading.pending[:NEXT]]
    figures = {
        "left": (biased_left(review), labels[review.open].sum()),
        "share_found": (share_found(review), labels[reading.places].sum() / labels.sum()),
        "coverage": (coverage_at(review, cut), labels[:cut].sum() / labels.sum()),
        "expected_found": (expected_found(review, upcoming), labels[upcoming].sum()),
    }
    if review.open[:cut].any():
        figures["precision"] = (precision_at(review, cut), labels[:cut].mean())
    return of.auroc, {name: holds(figure, truth) for name, (figure, truth) in figures.items() if figure.value is not None}


def holds(figure: MetricResult, truth: float) -> bool:
    """Whether the interval holds the truth."""
    assert figure.low is not None and figure.high is not None
    return figure.low - TOLERANCE <= truth <= figure.high + TOLERANCE


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """Where a review stopped, after reading the share `effort` of the corpus.

    `known`: what it had been in rank order up to the target, knowing the labels. `biased`: number in the corpus; `recall`: share of them
    found; `left_held`: whether the interval of those left holds them there.
    """

    auroc: float
    biased: int
    effort: float
    known: float
    recall: float
    left_held: bool


def stopped(seed: int, rule: StopRule, queue: str | None = None) -> Stopped:
    """One review to the first stop hint by the rule. `queue`: the one that is read throughout; None: that which is suggested."""
    of, _ = corpus(seed)
    reading, labels, kind = Reading(of), of.labels, queue or "mixed"
    while not stop_hint(reading.review(), rule).reached:
        if queue is None and len(reading.places) % NEXT == 0:
            kind = next_queue(reading.review())
        reading.read(LOOK, kind)
    review = reading.review()
    needed = int(np.ceil(rule.target * labels.sum() - TOLERANCE))
    return Stopped(
        auroc=of.auroc,
        biased=int(labels.sum()),
        effort=len(reading.places) / len(labels),
        known=(int(np.searchsorted(np.cumsum(labels), needed)) + 1) / len(labels),
        recall=float(labels[reading.places].sum() / labels.sum()),
        left_held=holds(biased_left(review), labels[review.open].sum()),
    )


def held_rows(reviews: int) -> Iterator[tuple[str, Estimate, int, str]]:
    """Metric, share, number and unit: how often each interval holds the truth."""
    outcomes: dict[str, list[bool]] = {}
    for auroc, found in map(intervals, range(reviews)):
        for name, held in found.items():
            outcomes.setdefault(f"{name}.held", []).append(held)
            outcomes.setdefault(f"{name}.held.{'good' if auroc >= GOOD else 'others'}", []).append(held)
    for name, held in sorted(outcomes.items()):
        unit = f"share of simulated reviews whose 95 % interval holds the truth; good: AUROC ≥ {GOOD:g}"
        yield f"review.{name}", wilson(sum(held), len(held)), len(held), unit


def stop_rows(reviews: int, rule: StopRule) -> Iterator[tuple[str, Estimate, int, str]]:
    """The same of the stop hint by a rule: its assurance, and the effort up to it."""
    with_hint = [stopped(seed, rule) for seed in range(reviews)]
    at_random = [stopped(seed, rule, "random") for seed in range(reviews)]
    for name, runs in (("", with_hint), ("random.", at_random)):
        enough = sum(run.recall >= rule.target - TOLERANCE for run in runs)
        unit = f"share of {reviews} simulated reviews that had found {100 * rule.target:g} % of the biased examples at the first stop hint"
        yield f"review.stop.{name}assurance", wilson(enough, reviews), reviews, unit
    held = sum(run.left_held for run in with_hint)
    unit = f"share of {reviews} simulated reviews whose 95 % interval of the number left holds the truth at the first stop hint"
    yield "review.stop.left_held", wilson(held, reviews), reviews, unit
    for suffix, auroc, biased in (("", 0.0, 0), (".good", GOOD, 0), (".good_many", GOOD, MANY)):
        chosen = [place for place, run in enumerate(with_hint) if run.auroc >= auroc and run.biased >= biased]
        for name, values in (
            ("effort_ratio", [with_hint[place].effort for place in chosen]),
            ("effort_ratio_random_order", [at_random[place].effort for place in chosen]),
            ("effort_ratio_known_labels", [with_hint[place].known for place in chosen]),
        ):
            unit = (
                f"share of the corpus read up to the stop hint, AUROC ≥ {auroc:g}, biased examples ≥ {biased}; 1 in rank order without it"
            )
            if values:
                yield f"review.{name}{suffix}", bootstrap_mean(values, draws=DRAWS, seed=0), len(values), unit


@click.command()
@click.option("--reviews", type=click.IntRange(min=1), default=4_000, show_default=True)
@click.option("--target", type=float, default=StopRule.target, show_default=True, help="Share of the biased examples to be found.")
@click.option("--confidence", type=float, default=StopRule.confidence, show_default=True, help="With which confidence.")
@dry_option
def main(reviews: int, target: float, confidence: float, dry: bool) -> None:
    """Record how often the intervals hold, whether the stop hint keeps its assurance, and how much reading it saves."""
    rule = StopRule(target=target, confidence=confidence)
    default = rule == StopRule()  # the intervals know no rule, and the rows of the default are named as they always were
    suffix = "" if default else f".{100 * target:g}-{100 * confidence:g}"
    for rows in (*([held_rows(reviews)] if default else []), stop_rows(reviews, rule)):
        for metric, shown, n, unit in rows:
            record(f"{metric}{suffix}", shown.value, low=shown.low, high=shown.high, n=n, unit=unit, model="none", dry=dry)


if __name__ == "__main__":
    main()
