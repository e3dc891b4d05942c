"""How well a ranking finds known labels, and how well the baselines do: the same convention for all of them. Loads no torch."""

from __future__ import annotations

import pandas as pd

from biasdiff_core.attribution.ranking import rank, selected_count
from biasdiff_core.corpus.examples import Corpus
from biasdiff_core.evaluation.statistics import auroc, wilson
from biasdiff_core.results import MetricResult

SCORES = ("score", "mean", "centred", "contrast", "random", "length", "unigram", "repsim", "loss")


def detection_metrics(scores: pd.DataFrame, corpus: Corpus, percent: float) -> list[MetricResult]:
    """How well each score finds the known labels: AUROC with a 95 % interval; coverage and precision at `percent` %.

    `scores`: columns `id`, `score`, `mean`, `centred`, `random`, `length`, `unigram`, `loss`, `contrast` where there are twins, and
    `repsim` where hidden states were kept.
    """
    labels = dict(zip(corpus.ids, corpus.labels or [], strict=True))
    table = scores.dropna(subset=["score"])
    truth = [labels[i] for i in table["id"]]
    names = [name for name in SCORES if name in table]
    metrics = []
    for name in names:
        area = auroc(table[name].to_numpy(), truth)
        convention = f"area under the ROC curve of {name} against the known labels, ties counted half, 95 % DeLong interval"
        metrics.append(
            MetricResult(
                name=f"detection.{name}.auroc",
                value=area.value,
                low=area.low,
                high=area.high,
                n=len(truth),
                chance=0.5,
                convention=convention,
            )
        )
    order = rank(table["id"].tolist(), table["score"].to_numpy())
    by_rank = [labels[i] for i in order["id"]]
    k = selected_count(len(by_rank), percent)
    found, biased = sum(by_rank[:k]), sum(by_rank)
    for name, total, equation in (("coverage", biased, 9), ("precision", k, 10)):
        share = wilson(found, total)
        convention = f"{name} (Eq. {equation}) of the top {percent:g} % ({k} of {len(by_rank)}), 95 % Wilson interval"
        metrics.append(
            MetricResult(name=f"detection.{name}", value=share.value, low=share.low, high=share.high, n=total, convention=convention)
        )
    return metrics
