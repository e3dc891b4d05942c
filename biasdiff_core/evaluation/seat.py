"""SEAT, the sentence encoder association test (May et al. 2019): are two groups' sentences unlike near to two sets of attributes?

A sentence's association s = mean cosine with the attributes A − mean cosine with the attributes B; the effect size compares the two
target sets X and Y. Only `figures` loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biasdiff_core.config.evaluation import SeatConfig
from biasdiff_core.corpus.indicators import SEAT_TESTS
from biasdiff_core.corpus.refusals import flaw_of
from biasdiff_core.errors import DataError
from biasdiff_core.evaluation.files import read_json_object
from biasdiff_core.evaluation.scoring import Floats, context_of, encode_sentences
from biasdiff_core.results import MetricResult, Progress, ProgressCallback, no_progress

# Tests over which the mean absolute effect size of a group is taken.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "gender": SEAT_TESTS["gender"],
    "race": SEAT_TESTS["race-color"],
    "religion": SEAT_TESTS["religion"],
}
# Partitions up to this number are enumerated; beyond it they are drawn.
EXACT = 100_000
SETS = ("targ1", "targ2", "attr1", "attr2")
# Sums of the same numbers in another order differ by rounding: within this, relative to their size, they tie.
_ROUNDING = 1e-12
_CHUNK = 1_000_000
_MEND = "Name a folder with SEAT's test files sent-*.jsonl, each one JSON object with targ1, targ2, attr1, attr2."


@dataclass(frozen=True, kw_only=True)
class SeatTest:
    """One test: sentences of the target sets X, Y and of the attribute sets A, B, and the `categories` of the four in words."""

    name: str
    x: tuple[str, ...]
    y: tuple[str, ...]
    a: tuple[str, ...]
    b: tuple[str, ...]
    categories: tuple[str, str, str, str]


@dataclass(frozen=True, kw_only=True)
class Association:
    """What a test comes to: effect size d (None where all sentences are associated alike), its resampled values [draws], and p."""

    test: SeatTest
    effect: float | None
    resampled: Floats
    p_value: float
    how: str


def load_tests(config: SeatConfig) -> list[SeatTest]:
    """The tests in the folder `config.path`, sorted by name; `config.tests` names some of them (`weat6` for the file sent-weat6.jsonl).

    Raises DataError for a folder without tests, a test that is not there, or a file in another format.
    """
    folder = Path(config.path).expanduser()
    files = {path.stem.removeprefix("sent-"): path for path in sorted(folder.glob("sent-*.jsonl"))}
    if not files:
        raise DataError(f"{folder} has no files sent-*.jsonl.", _MEND)
    missing = [name for name in config.tests if name not in files]
    if missing:
        raise DataError(f"{folder} has no SEAT test {', '.join(missing)}.", f"It has: {', '.join(sorted(files))}.")
    return [_test(name, files[name]) for name in sorted(config.tests or files)]


def sentences_of(tests: Sequence[SeatTest]) -> list[str]:
    """All sentences of the tests, each once."""
    return list(dict.fromkeys(sentence for test in tests for part in (test.x, test.y, test.a, test.b) for sentence in part))


def figures(
    model: Any,
    tokenizer: Any,
    tests: Sequence[SeatTest],
    config: SeatConfig,
    *,
    token_budget: int,
    bootstrap: int,
    instruction: str = "",
    progress: ProgressCallback = no_progress,
) -> list[MetricResult]:
    """Effect size and p-value of every test, and the mean absolute effect size of each group of `GROUPS` that has a test here.

    Every sentence is encoded once, with the tokenizer's own special tokens; those of an `instruction` in front of it are context only.
    p-values are never averaged. Raises DataError for a sentence without tokens.
    """
    sentences = sentences_of(tests)
    vectors = _vectors(model, tokenizer, sentences, config, instruction=instruction, token_budget=token_budget, progress=progress)
    place = {sentence: row for row, sentence in enumerate(sentences)}
    found = []
    for test in tests:
        x, y, a, b = (vectors[[place[sentence] for sentence in part]] for part in (test.x, test.y, test.a, test.b))
        found.append(association(test, *associations(x, y, a, b), bootstrap=bootstrap, permutations=config.permutations, seed=config.seed))
    after = f", after the instruction {instruction!r}" if instruction else ""
    pooled = "mean over tokens" if config.pooling == "mean" else "last token"
    convention = f"SEAT: sentence vector = {pooled} of the last layer, L2-normalised{after}"
    return [*(metric for one in found for metric in _of_test(one, convention)), *_of_groups(found, convention)]


def associations(x: Floats, y: Floats, a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """s of every sentence of X [|X|] and of Y [|Y|]: mean cosine with A − mean cosine with B, of unit vectors [sentences, width]."""
    direction = a.mean(axis=0) - b.mean(axis=0)
    return x @ direction, y @ direction


def effect_size(s_x: Floats, s_y: Floats) -> Floats:
    """d = (mean s of X − mean s of Y) / standard deviation (ddof 1) of s over X ∪ Y, along the last axis; NaN where that is zero."""
    both = np.concatenate([s_x, s_y], axis=-1)
    deviation = both.std(axis=-1, ddof=1)
    # The deviation of equal numbers is not always exactly zero.
    deviation = np.where(deviation > _ROUNDING * np.abs(both).max(axis=-1), deviation, np.nan)
    return np.asarray((s_x.mean(axis=-1) - s_y.mean(axis=-1)) / deviation)


def permutation_p(s_x: Floats, s_y: Floats, *, permutations: int, seed: int) -> tuple[float, str]:
    """One-sided p of X being nearer to A than Y is, over partitions of X ∪ Y into sets of these sizes, and how it was found.

    All partitions where there are at most `EXACT`; else so many drawn ones, the observed partition counted as one more. A tie counts
    against the effect. X's sum of s orders partitions as the difference of means does.
    """
    both = np.concatenate([s_x, s_y])
    size, count = len(s_x), math.comb(len(both), len(s_x))
    least = s_x.sum() - _ROUNDING * np.abs(both).sum()
    if count <= EXACT:
        sums = both[np.array(list(combinations(range(len(both)), size)))].sum(axis=1)
        return float((sums >= least).mean()), f"exact over {count} partitions"
    generator = np.random.default_rng(seed)
    step, reached = max(1, _CHUNK // len(both)), 0
    for start in range(0, permutations, step):
        keys = generator.random((min(step, permutations - start), len(both)))
        reached += int((both[np.argpartition(keys, size, axis=1)[:, :size]].sum(axis=1) >= least).sum())
    return (reached + 1) / (permutations + 1), f"{permutations:,} drawn partitions, (reached + 1) / (drawn + 1)"


def association(test: SeatTest, s_x: Floats, s_y: Floats, *, bootstrap: int, permutations: int, seed: int) -> Association:
    """Effect size with its bootstrap (sentences drawn with replacement within X and within Y) and p of one test."""
    generator = np.random.default_rng(seed)
    drawn = [part[generator.integers(0, len(part), size=(bootstrap, len(part)))] for part in (s_x, s_y)]
    p_value, how = permutation_p(s_x, s_y, permutations=permutations, seed=seed)
    effect = float(effect_size(s_x, s_y))
    return Association(test=test, effect=None if math.isnan(effect) else effect, resampled=effect_size(*drawn), p_value=p_value, how=how)


def _test(name: str, path: Path) -> SeatTest:
    content = read_json_object(path, _MEND)
    sets = [content.get(part) for part in SETS]
    if not all(isinstance(part, dict) and isinstance(part.get("examples"), list) for part in sets):
        raise DataError(f"{path} lacks {', '.join(SETS)} with their examples.", _MEND)
    categories = [str(part.get("category", "")) for part in sets if part]
    x, y, a, b = (tuple(part["examples"]) for part in sets if part)
    flaw = flaw_of(*x, *y, *a, *b)
    if flaw or not all(len(part) >= 2 for part in (x, y)) or not (a and b):
        raise DataError(f"{path} has {'a set ' + flaw[0].what if flaw else 'a set with too few sentences'}.", _MEND)
    return SeatTest(name=name, x=x, y=y, a=a, b=b, categories=(categories[0], categories[1], categories[2], categories[3]))


def _vectors(
    model: Any,
    tokenizer: Any,
    sentences: Sequence[str],
    config: SeatConfig,
    *,
    instruction: str,
    token_budget: int,
    progress: ProgressCallback,
) -> NDArray[np.float64]:
    from biasdiff_core.model.tokenise import Encoded
    from biasdiff_core.model.vectors import sentence_vectors

    context, gap = context_of(tokenizer, instruction, special=True)
    ids = encode_sentences(tokenizer, [gap + sentence for sentence in sentences], special=not context)
    encoded = [Encoded(ids=(*context, *tokens), loss_from=len(context)) for tokens in ids]
    return sentence_vectors(model, encoded, config.pooling, token_budget=token_budget, progress=lambda step: progress(_titled(step)))


def _titled(step: Progress) -> Progress:
    return replace(step, stage="evaluation", message="SEAT")


def _of_test(found: Association, convention: str) -> Iterator[MetricResult]:
    x, y, a, b = found.test.categories
    n = len(found.test.x) + len(found.test.y)
    low, high = _interval(found.resampled) if found.effect is not None else (None, None)
    yield MetricResult(
        name=f"seat.{found.test.name}.effect_size",
        value=found.effect,
        low=low,
        high=high,
        n=n,
        chance=0.0,
        convention=f"{convention}; {x} against {y}, {a} against {b}; d with standard deviation of ddof 1; "
        + ("bootstrap 95 % interval over the sentences within X and Y" if low is not None else "all sentences are associated alike"),
    )
    yield MetricResult(
        name=f"seat.{found.test.name}.p_value",
        value=found.p_value,
        n=n,
        convention=f"{convention}; one-sided permutation test, {found.how}; a p-value has no interval",
    )


def _of_groups(found: Sequence[Association], convention: str) -> Iterator[MetricResult]:
    for group, names in GROUPS.items():
        here = [(one, one.effect) for one in found if one.test.name in names and one.effect is not None]
        if not here:
            continue
        # |d| of resampled values would lie above |d| for small d: each keeps the sign of its own d instead.
        resampled = np.mean([np.sign(effect) * one.resampled for one, effect in here], axis=0)
        low, high = _interval(resampled)
        yield MetricResult(
            name=f"seat.{group}.mean_abs_effect_size",
            value=float(np.mean([abs(effect) for _, effect in here])),
            low=low,
            high=high,
            n=len(here),
            convention=f"{convention}; mean absolute d over {len(here)} of {len(names)} tests ({', '.join(names)}); "
            "bootstrap 95 % interval over sentences, with the sign of each d as found",
        )


def _interval(resampled: Floats) -> tuple[float, float]:
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return float(low), float(high)
