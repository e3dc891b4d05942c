"""Controls that a mitigation must beat: what else would have been removed. Each gives the ids, sorted."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from biasdiff_core.attribution.baselines import length_scores, minilm_scores, unigram_log_ratio
from biasdiff_core.attribution.ranking import rank
from biasdiff_core.config.mitigation import ScorerSwap
from biasdiff_core.corpus.examples import Corpus
from biasdiff_core.errors import DataError


def random_removal(ids: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` ids drawn uniformly without replacement, sorted; the same for every order of `ids`."""
    return sorted(random.Random(seed).sample(sorted(ids), count))


def oracle_removal(corpus: Corpus) -> list[str]:
    """All examples whose known label is 1: perfect removal. Raises DataError unless every example has a label, and one of them is 1."""
    if corpus.labels is None:
        raise DataError("The oracle removes by known labels, and not every example has one.", "Give corpus.label_column, or leave it out.")
    found = sorted(example.id for example in corpus if example.label == 1)
    if not found:
        raise DataError("The oracle has nothing to remove: no example has the label 1.", "Check corpus.label_column, or leave it out.")
    return found


def swap_removal(corpus: Corpus, probes: Sequence[str], scorer: ScorerSwap, count: int) -> list[str]:
    """The `count` examples that another ranking puts first: what do gradients add? Raises MissingDependency for `minilm`."""
    scorers: Mapping[ScorerSwap, Callable[[list[str]], np.ndarray]] = {
        "unigram": lambda texts: unigram_log_ratio(texts, probes),
        "length": length_scores,
        "minilm": lambda texts: minilm_scores(texts, probes),
    }
    scores = scorers[scorer]([example.text for example in corpus])
    return sorted(rank(corpus.ids, scores)["id"].tolist()[:count])
