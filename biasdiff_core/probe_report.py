"""The quality of a probing set: its figures with intervals and conventions, and flags in words for what is weak. Loads no torch.

Every figure is computed when it is asked for, from texts and finished results; `docs/probes.md` has what each means and costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from biasdiff_core.attribution.influence import CheckpointStores
from biasdiff_core.attribution.nearness import CORPUS, ENCODER, EVALUATION, Place
from biasdiff_core.attribution.probe_quality import (
    ACROSS,
    MOST_EXAMPLES,
    WITHIN,
    coherence,
    contributions,
    least_size,
    preferences,
    resampled,
    stability,
    subset_sizes,
)
from biasdiff_core.config.generation import BIAS_TYPES
from biasdiff_core.config.gradients import ScoreKind
from biasdiff_core.corpus.examples import Corpus, ProbeSet
from biasdiff_core.corpus.probe_texts import (
    FOLDS,
    GROUP_WORDS,
    NGRAM,
    Fault,
    TwinDifference,
    ngram_overlap,
    style_pool,
    style_scores,
    twin_differences,
    words_of,
)
from biasdiff_core.corpus.probes import Leak, leakage
from biasdiff_core.corpus.summary import counted
from biasdiff_core.errors import BiasDiffError, NumericError
from biasdiff_core.evaluation.statistics import Estimate, auroc, bootstrap_mean, wilson
from biasdiff_core.results import MetricResult

# From where on a figure is flagged: chosen, not derived (docs/probes.md).
SHARED_RUNS = 0.5  # share of a probe's runs of words that stand elsewhere
NEAR = 0.9  # cosine of sentence embeddings
STYLE_AUROC = 0.75
LENGTH_AUROC = 0.7  # or one less this
IMBALANCE = 3.0
STABLE = 0.95

DRAWS, COHERENCE_DRAWS, SUBSETS, SEED = 1_000, 500, 20, 0
PLACES: Mapping[Place, str] = {CORPUS: "the corpus", EVALUATION: "the evaluation"}
TOO_GOOD = "their figures are too good; leave them out, or the texts out of there."
FAULTS: Mapping[Fault, str] = {
    "nothing shared": "the twin shares no word with it",
    "several places": "the twin differs in several places",
    "long": "the twin differs in too many words",
    "negated": "the twin negates it",
    "misplaced": "the twin belongs to another probe",
}


Part = tuple[list[MetricResult], list["Flag"]]


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A weakness of the probing set. `metric`: the figure that shows it.

    `probes`: ids, where it is about some of them alone, with the `remark` that stands beside each.
    """

    metric: str
    words: str
    remark: str = ""
    probes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProbeQuality:
    """Figures `probes.<figure>[.<bias type or size>]`, flags, where each twin differs from its probe, and probes by bias type.

    A figure that could not be measured has no value, and its convention says why.
    """

    metrics: tuple[MetricResult, ...]
    flags: tuple[Flag, ...]
    twins: tuple[TwinDifference, ...]
    types: Mapping[str, int]

    def __getitem__(self, figure: str) -> MetricResult:
        """`probes.<figure>`. Raises KeyError."""
        return self.parts(figure)[""]

    def parts(self, figure: str) -> Mapping[str, MetricResult]:
        """`probes.<figure>` under the empty name, and what it is of (a bias type, a size) under that."""
        name = f"probes.{figure}"
        return {m.name[len(name) + 1 :]: m for m in self.metrics if m.name == name or m.name.startswith(f"{name}.")}

    @property
    def remarks(self) -> Mapping[str, tuple[str, ...]]:
        """Probe id → the remarks of the flags that name it."""
        found: dict[str, tuple[str, ...]] = {}
        for flag in self.flags:
            for probe in flag.probes:
                found[probe] = (*found.get(probe, ()), flag.remark)
        return found

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)


def probe_quality(
    probes: ProbeSet,
    corpus: Corpus,
    *,
    evaluation: Sequence[str] | BiasDiffError,
    nearness: pd.DataFrame | BiasDiffError,
    gradients: CheckpointStores | BiasDiffError,
    kind: ScoreKind,
) -> ProbeQuality:
    """All figures and flags of a probing set; where an error is given, it says why what would be there is not.

    `evaluation`: texts that the evaluation scores. `nearness`: see `attribution.nearness`. `gradients`: stores of the last checkpoint,
    rows in the order of `probes`. `kind`: the score whose ranking has to be stable.
    """
    texts, learned = [probe.text for probe in probes], [example.text for example in corpus]
    twins, types = twin_differences(probes), counted(probe.bias_type for probe in probes)
    leaks = leakage(probes, corpus, evaluation)
    pool = style_pool(learned, SEED)
    found = [
        _measured(["copied_corpus"], _copied, probes, CORPUS, leaks.in_corpus),
        _measured(["copied_evaluation"], _copied, probes, EVALUATION, leaks.in_evaluation),
        _measured(["shared_corpus"], _shared, probes, CORPUS, learned),
        _measured(["shared_evaluation"], _shared, probes, EVALUATION, evaluation),
        _measured(["near_corpus"], _near, probes, CORPUS, nearness),
        _measured(["near_evaluation"], _near, probes, EVALUATION, nearness),
        _measured(["style_auroc"], _style, texts, pool),
        _measured(["length_auroc"], _length, texts, pool),
        _measured(["one_change"], _twins, probes, twins),
        _measured(["types_present", "imbalance"], _types, types),
        _measured(["coherence", "coherence_across", "coherence_gap"], _coherence, probes, gradients),
        _measured(["margin"], _margin, probes, gradients),
        _measured(["least_size"], _number, probes, gradients, kind),
    ]
    metrics, flags = ([one for part in parts for one in part] for parts in zip(*found, strict=True))
    return ProbeQuality(metrics=tuple(metrics), flags=tuple(flags), twins=tuple(twins), types=types)


def _measured(figures: Sequence[str], work: Callable[..., Part], *made_from: Any) -> Part:
    """What `work` finds; where an error stands in place of what it is made from, or comes of it, the figures without a value."""
    try:
        for one in made_from:
            if isinstance(one, BiasDiffError):
                raise one
        return work(*made_from)
    except BiasDiffError as error:
        return [_undefined(figure, error) for figure in figures], []


def _undefined(figure: str, why: BiasDiffError | str) -> MetricResult:
    return MetricResult(name=f"probes.{figure}", value=None, n=0, convention=f"not measured: {why}")


def _metric(figure: str, found: Estimate, n: int, convention: str, **more: Any) -> MetricResult:
    return MetricResult(name=f"probes.{figure}", value=found.value, low=found.low, high=found.high, n=n, convention=convention, **more)


def _percent(figure: str, share: Estimate, n: int, convention: str, **more: Any) -> MetricResult:
    of_hundred = Estimate(value=100 * share.value, low=100 * share.low, high=100 * share.high)
    return _metric(figure, of_hundred, n, convention, unit="%", **more)


def _share_of(probes: ProbeSet, figure: str, ids: Iterable[str], convention: str, remark: str, words: str) -> Part:
    """The share of probes that `ids` are, and a flag where there are any. `words`: what they do, after `3 of 40 probes`."""
    chosen = tuple(dict.fromkeys(ids))
    metric = _percent(figure, wilson(len(chosen), len(probes)), len(probes), f"share of probes {convention}, 95 % Wilson interval")
    flag = Flag(metric=metric.name, words=f"{len(chosen)} of {len(probes)} probes {words}", remark=remark, probes=chosen)
    return [metric], [flag] if chosen else []


def _copied(probes: ProbeSet, place: Place, leaks: Sequence[Leak]) -> Part:
    where = PLACES[place]
    convention = f"whose text or twin stands in {where}, regardless of case, punctuation and white space"
    words = f"stand in {where}, or their twins do: {TOO_GOOD}"
    return _share_of(probes, f"copied_{place}", (leak.probe for leak in leaks), convention, f"stands in {where}", words)


def _shared(probes: ProbeSet, place: Place, texts: Sequence[str]) -> Part:
    shares, where = ngram_overlap([probe.text for probe in probes], texts), PLACES[place]
    scored = int(np.isfinite(shares).sum())
    convention = f"mean share of a probe's runs of {NGRAM} words that stand in {where}, bootstrap over probes; shorter ones are not scored"
    mean = bootstrap_mean(shares, draws=DRAWS, seed=SEED)
    metric = _percent(f"shared_{place}", mean, scored, convention, not_scored=len(shares) - scored)
    ids = tuple(probe.id for probe, share in zip(probes, shares, strict=True) if share >= SHARED_RUNS)
    words = (
        f"{len(ids)} of {scored} probes share {SHARED_RUNS:.0%} or more of their runs of {NGRAM} words with {where}: "
        "they may come from the same templates, and what is found is then the template."
    )
    return [metric], [Flag(metric=metric.name, words=words, remark=f"shares wording with {where}", probes=ids)] if ids else []


def _near(probes: ProbeSet, place: Place, nearness: pd.DataFrame) -> Part:
    where, rows = PLACES[place], nearness[(nearness["place"] == place) & (nearness["cosine"] >= NEAR)]
    convention = f"with a text in {where} whose {ENCODER} embedding has a cosine of {NEAR} or more"
    words = f"have a close paraphrase in {where} (cosine of embeddings {NEAR} or more): {TOO_GOOD}"
    return _share_of(probes, f"near_{place}", rows["probe"], convention, f"has a paraphrase in {where}", words)


def _style(texts: Sequence[str], pool: Sequence[str]) -> Part:
    area = auroc(style_scores(texts, pool, SEED), _labels(texts, pool))
    convention = f"AUROC of a classifier that sees word counts alone, cross-validated in {FOLDS} parts, {_against(pool)}"
    metric = _metric("style_auroc", area, len(texts) + len(pool), convention, chance=0.5)
    words = (
        f"These probes can be told from your corpus by style alone: from single words a classifier reaches an AUROC of {metric.text()}. "
        "A ranking may follow the style instead of the bias; compare it with the ranking by unigrams."
    )
    return [metric], [Flag(metric=metric.name, words=words)] if area.low >= STYLE_AUROC else []


def _length(texts: Sequence[str], pool: Sequence[str]) -> Part:
    area = auroc([len(words_of(text)) for text in (*texts, *pool)], _labels(texts, pool))
    convention = f"AUROC of the length in words, {_against(pool)}; above 0.5, probes are longer"
    metric = _metric("length_auroc", area, len(texts) + len(pool), convention, chance=0.5)
    longer = "longer" if area.value > 0.5 else "shorter"
    words = f"The probes are {longer} than the texts of your corpus (AUROC of length {metric.text()}): a ranking may follow the length."
    far = area.low >= LENGTH_AUROC or area.high <= 1 - LENGTH_AUROC
    return [metric], [Flag(metric=metric.name, words=words)] if far else []


def _labels(texts: Sequence[str], pool: Sequence[str]) -> list[int]:
    return [1] * len(texts) + [0] * len(pool)


def _against(pool: Sequence[str]) -> str:
    return f"probes against {len(pool):,} texts of the corpus, ties counted half, 95 % DeLong interval"


def _twins(probes: ProbeSet, twins: Sequence[TwinDifference]) -> Part:
    if not twins:
        raise NumericError("the probes have no twins.", "Name their column in probes.twin_column.")
    convention = (
        f"share of twins that differ from their probe in one run of at most {GROUP_WORDS} words and half of it, and in no negation, not "
        "counting pronouns and articles that agree, 95 % Wilson interval"
    )
    share = wilson(sum(not twin.fault for twin in twins), len(twins))
    metric = _percent("one_change", share, len(twins), convention, not_scored=len(probes) - len(twins))
    flags = []
    for fault, remark in FAULTS.items():
        ids = tuple(twin.probe for twin in twins if twin.fault == fault)
        words = f"{len(ids)} of {len(twins)} probes: {remark}. What tells the two apart is then not the group alone."
        if ids:
            flags.append(Flag(metric=metric.name, words=words, remark=remark, probes=ids))
    if len(twins) < len(probes):
        ids = tuple(probe.id for probe in probes if not probe.twin)
        words = f"{len(ids)} of {len(probes)} probes have no twin: the preference and the contrast score need one for each."
        flags.append(Flag(metric=metric.name, words=words, remark="has no twin", probes=ids))
    return [metric], flags


def _types(types: Mapping[str, int]) -> Part:
    missing = [kind for kind in BIAS_TYPES if kind not in {name.casefold() for name in types}]
    largest, smallest = max(types, key=types.__getitem__), min(types, key=types.__getitem__)
    ratio = types[largest] / types[smallest]
    present = MetricResult(
        name="probes.types_present",
        value=float(len(BIAS_TYPES) - len(missing)),
        n=len(BIAS_TYPES),
        convention="how many of the nine bias types of CrowS-Pairs occur under their names; a count, so no interval",
    )
    imbalance = MetricResult(
        name="probes.imbalance",
        value=ratio,
        n=sum(types.values()),
        chance=1.0,
        convention="probes of the largest bias type for one of the smallest; of counts, so no interval",
    )
    flags = []
    if missing:
        words = f"{len(missing)} of the nine bias types have no probe: {', '.join(missing)}. Examples that teach them may not be found."
        flags.append(Flag(metric=present.name, words=words))
    if ratio >= IMBALANCE:
        words = f"The bias types are uneven, {types[largest]} probes of {largest} and {types[smallest]} of {smallest}: the large decide."
        flags.append(Flag(metric=imbalance.name, words=words))
    return [present, imbalance], flags


def _coherence(probes: ProbeSet, gradients: CheckpointStores) -> Part:
    types = [probe.bias_type for probe in probes]
    vectors = gradients.probes.vectors()
    point = coherence(vectors, types, np.ones((1, len(types))))
    drawn = coherence(vectors, types, resampled(types, COHERENCE_DRAWS, SEED))

    def figure(name: str, of: str, draws: np.ndarray, value: float, n: int, **more: float) -> MetricResult:
        if not np.isfinite(value):
            return _undefined(name, f"there is no pair of probes {of}.")
        low, high = np.nanquantile(draws, [0.025, 0.975])
        convention = f"mean cosine over pairs of probes {of}, projected gradients at the last checkpoint, bootstrap over probes by type"
        return _metric(name, Estimate(value=value, low=float(low), high=float(high)), n, convention, **more)

    def mean(name: str, key: str, of: str, n: int) -> MetricResult:
        return figure(name, of, drawn[key], float(point[key][0]), n)

    within = mean("coherence", WITHIN, "of the same bias type", len(types))
    across = mean("coherence_across", ACROSS, "of different bias types", len(types))
    gap = figure(
        "coherence_gap",
        "of the same bias type, less that of different types",
        drawn[WITHIN] - drawn[ACROSS],
        float(point[WITHIN][0] - point[ACROSS][0]),
        len(types),
        chance=0.0,
    )
    each = [mean(f"coherence.{kind}", f"{WITHIN}:{kind}", f"of the type {kind}", types.count(kind)) for kind in sorted(set(types))]
    words = (
        f"Gradients of probes of the same bias type are no more alike than those of different types (difference {gap.text(3)}): "
        "scores by bias type will say little."
    )
    return [within, across, gap, *each], [Flag(metric=gap.name, words=words)] if gap.low is not None and gap.low <= 0 else []


def _margin(probes: ProbeSet, gradients: CheckpointStores) -> Part:
    margins, types = preferences(gradients), np.array([probe.bias_type for probe in probes])
    convention = (
        "mean of log p(stereotype) − log p(twin) of the warmed-up model at the last checkpoint, summed over tokens, bootstrap over probes; "
        "a twin of rarer words or more tokens raises it too"
    )
    rows = {"margin": np.full(len(types), True)} | {f"margin.{kind}": types == kind for kind in sorted(set(types))}
    found = {name: bootstrap_mean(margins[chosen], draws=DRAWS, seed=SEED) for name, chosen in rows.items()}
    metrics = [_metric(name, one, int(rows[name].sum()), convention, chance=0.0, unit="nats") for name, one in found.items()]
    words = (
        f"The warmed-up model does not clearly prefer these stereotypes to their twins (mean margin {metrics[0].text()} nats): "
        "its bias may lie where no probe looks."
    )
    return metrics, [Flag(metric=metrics[0].name, words=words)] if found["margin"].low <= 0 else []


def _number(probes: ProbeSet, gradients: CheckpointStores, kind: ScoreKind) -> Part:
    count = len(probes)
    curve = stability(gradients.train, contributions(gradients, kind), subset_sizes(count), draws=SUBSETS, seed=SEED)
    least = least_size(curve, STABLE)
    of = (
        f"Spearman's correlation of the ranking ({kind}) from so many random probes with that from all {count}, {SUBSETS} subsets of each "
        f"size, projected gradients at the last checkpoint, at most {MOST_EXAMPLES:,} examples"
    )
    stable = MetricResult(
        name="probes.least_size",
        value=float(least),
        n=count,
        convention=f"fewest probes from which on the mean of {of}, is at least {STABLE}; sizes go in steps of √2, so no interval",
    )
    sizes = [
        _metric(f"correlation.{size}", Estimate(value=mean, low=low, high=high), size, f"{of}; bounds: 95 % of the subsets")
        for size, mean, low, high in curve.itertuples(index=False)
    ]
    words = (
        f"The ranking is not settled: it takes {least} of the {count} probes to agree with that of all at {STABLE}. "
        "More probes would still change it."
    )
    return [stable, *sizes], [Flag(metric=stable.name, words=words)] if least > count / 2 else []
