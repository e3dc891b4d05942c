"""What the texts of a probing set say of its quality: runs of words shared with other texts, style, twins. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from biasdiff_core.corpus.examples import ProbeSet
from biasdiff_core.corpus.summary import normalised
from biasdiff_core.errors import NumericError

Floats = NDArray[np.float64]
Words = tuple[str, ...]
Span = tuple[Words, Words]
Fault = Literal["", "nothing shared", "several places", "long", "negated", "misplaced"]

NGRAM = 5  # words
FOLDS = 5
MOST_POOL = 5_000  # texts of the pool that the style classifier is shown
GROUP_WORDS = 6  # words of the longest name of a group
# Words that follow the group: a twin that changes them too still differs in the group alone.
AGREEMENT = frozenset(["he", "she", "him", "her", "his", "hers", "himself", "herself", "a", "an"])
# "Without" and "no" are none: they name groups, as in "people without papers".
NEGATIONS = frozenset(["not", "never", "cannot", "t"])
_ROWS = 500  # of the matrix of shared words at a time


def words_of(text: str) -> Words:
    """The words of `text`, without case and punctuation."""
    return tuple(normalised(text).split())


def ngram_overlap(texts: Sequence[str], others: Iterable[str], size: int = NGRAM) -> Floats:
    """Share of each text's distinct runs of `size` words that stand in `others`, [texts]; NaN for a text with fewer words."""
    own = [_runs(text, size) for text in texts]
    wanted = set().union(*own)
    found = set().union(*(wanted & _runs(text, size) for text in others))
    return np.array([len(runs & found) / len(runs) if runs else np.nan for runs in own])


def _runs(text: str, size: int) -> set[Words]:
    words = words_of(text)
    return {words[start : start + size] for start in range(len(words) - size + 1)}


def style_pool(texts: Sequence[str], seed: int) -> list[str]:
    """The texts that probes are told from: all, or a seeded sample of `MOST_POOL`."""
    if len(texts) <= MOST_POOL:
        return list(texts)
    return [texts[row] for row in np.sort(np.random.default_rng(seed).choice(len(texts), MOST_POOL, replace=False))]


def style_scores(probes: Sequence[str], pool: Sequence[str], seed: int) -> Floats:
    """How much like a probe each text looks to a classifier that has not seen it, [probes, then pool].

    Logistic regression on word counts, both classes weighted alike, cross-validated in `FOLDS` parts; texts that are equal once
    normalised stay in one part, since a copy with the other label would turn the score upside down. Scores are ranks within the part,
    in (0, 1): parts differ in scale. Raises NumericError when a side has fewer than `FOLDS` distinct texts.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    texts, labels = [*probes, *pool], np.repeat([1, 0], [len(probes), len(pool)])
    groups = np.unique([normalised(text) for text in texts], return_inverse=True)[1]
    fewest = min(len(set(groups[labels == side])) for side in (0, 1))
    if fewest < FOLDS:
        raise NumericError(f"{fewest} distinct texts on one side are too few to tell styles apart.", f"At least {FOLDS} are needed.")
    counts = CountVectorizer(analyzer=words_of, dtype=np.float64).fit_transform(texts)
    scores = np.empty(len(texts))
    for seen, held_out in StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(counts, labels, groups):
        classifier = LogisticRegression(class_weight="balanced", solver="liblinear").fit(counts[seen], labels[seen])
        scores[held_out] = _midranks(classifier.decision_function(counts[held_out]))
    return scores


def _midranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    return (rankdata(values) - 0.5) / len(values)


@dataclass(frozen=True, kw_only=True)
class TwinDifference:
    """Where a probe's twin differs from it, in words. `fault`: why that is not the group alone, or empty.

    `owner`: id of the probe that a misplaced twin belongs to.
    """

    probe: str
    spans: tuple[Span, ...]
    fault: Fault
    owner: str | None = None

    def text(self) -> str:
        """`women → men; cry → laugh`."""
        return "; ".join(" → ".join(" ".join(side) or "–" for side in span) for span in self.spans)


def twin_differences(probes: ProbeSet) -> list[TwinDifference]:
    """Of every probe with a twin, where the two differ, and whether in one short span: the group.

    Pronouns and articles that follow the group, and further places with the same change, are not counted. A twin that differs
    otherwise, but from another probe in one such span, belongs to that one. (The twin of a probe that says the same of another group
    cannot be told from the right one.)
    """
    twinned = [(probe.id, words_of(probe.text), words_of(probe.twin)) for probe in probes if probe.twin]
    spans = [word_spans(text, twin) for _, text, twin in twinned]
    faults = [span_fault(found, text) for found, (_, text, _) in zip(spans, twinned, strict=True)]
    strange = [row for row, fault in enumerate(faults) if fault not in ("", "negated")]
    everyone = [(probe.id, words_of(probe.text)) for probe in probes]
    owners = {}
    for row, other in zip(strange, _closest([twinned[row][2] for row in strange], [text for _, text in everyone]), strict=True):
        owner, text = everyone[other]
        if not span_fault(word_spans(text, twinned[row][2]), text):
            owners[row] = owner
            faults[row] = "misplaced"
    return [
        TwinDifference(probe=id_, spans=spans[row], fault=faults[row], owner=owners.get(row)) for row, (id_, _, _) in enumerate(twinned)
    ]


def word_spans(text: Words, twin: Words) -> tuple[Span, ...]:
    """The places at which the two differ, in order: the words of each."""
    codes = SequenceMatcher(None, text, twin, autojunk=False).get_opcodes()
    return tuple((text[a:b], twin[c:d]) for tag, a, b, c, d in codes if tag != "equal")


def span_fault(spans: Sequence[Span], text: Words) -> Fault:
    """Why these differences from `text` are not one change of the group; empty where they are."""
    if sum(len(before) for before, _ in spans) == len(text):
        return "nothing shared"
    changes = {span for span in spans if not AGREEMENT.issuperset(span[0] + span[1])}
    if len(changes) > 1:
        return "several places"
    for before, after in changes:
        if max(len(before), len(after)) > max(1, min(GROUP_WORDS, len(text) // 2)):
            return "long"
        if NEGATIONS.isdisjoint(before) != NEGATIONS.isdisjoint(after):
            return "negated"
    return ""


def _closest(texts: Sequence[Words], others: Sequence[Words]) -> list[int]:
    """For each text the row of `others` with the largest share of common words (Jaccard), the first of equals."""
    from sklearn.feature_extraction.text import CountVectorizer

    if not texts:
        return []
    vectorizer = CountVectorizer(analyzer=tuple, binary=True, dtype=np.float32).fit([*texts, *others])
    left, right = vectorizer.transform(texts), vectorizer.transform(others)
    sizes_left, sizes_right = (np.asarray(matrix.sum(1)).ravel() for matrix in (left, right))
    found: list[int] = []
    for start in range(0, len(texts), _ROWS):
        common: Any = (left[start : start + _ROWS] @ right.T).toarray()
        either = sizes_left[start : start + _ROWS, None] + sizes_right[None] - common
        found += (common / np.maximum(either, 1)).argmax(1).tolist()
    return found
