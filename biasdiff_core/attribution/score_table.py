"""The table of the stage `scores`: a row for each example, its influence in every kind, and the rankings that it is shown beside."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from biasdiff_core.attribution import baselines
from biasdiff_core.attribution.influence import CheckpointStores, score_column
from biasdiff_core.config.gradients import ScoreKind
from biasdiff_core.corpus.examples import Corpus, ProbeSet


def score_table(
    corpus: Corpus, probes: ProbeSet, cosines: pd.DataFrame, kind: ScoreKind, last: CheckpointStores, hidden_depths: Sequence[float]
) -> pd.DataFrame:
    """Columns id, score (that of `kind`), mean, centred and (with twins) contrast, mean cosines by bias type, loss, tokens, baselines.

    `cosines`: as `exact_cosines` gives them; `last`: the stores of the last checkpoint, with hidden states where `hidden_depths` are.
    """
    texts, rows = [example.text for example in corpus], last.train.rows
    kinds: tuple[ScoreKind, ...] = ("mean", "centred", "contrast") if probes.has_twins else ("mean", "centred")
    table = pd.DataFrame({"id": corpus.ids, "score": score_column(cosines, kind)} | {one: score_column(cosines, one) for one in kinds})
    table = table.join(cosines.filter(regex="^(mean|twin_mean):")).assign(
        loss=rows["loss"],
        tokens=rows["tokens"],
        random=baselines.random_scores(len(texts), seed=0),
        length=baselines.length_scores(texts),
        unigram=baselines.unigram_log_ratio(texts, [probe.text for probe in probes]),
    )
    return table.assign(repsim=baselines.repsim_scores(last.train, last.probes)) if hidden_depths else table
