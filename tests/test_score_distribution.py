"""The distribution of the scores against chance on Explore."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from biasdiff_ui.score_distribution import BINS, CHANCE, EXAMPLES, above_chance, distribution_spec, score_bins

SHARES = np.linspace(0, 1, 1001)


def ranked(scores: list[float], labels: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"score": scores, "label": labels}).sort_values("score", ascending=False)


def normal_null(scale: float) -> pd.DataFrame:
    return pd.DataFrame({"share": SHARES, "score": norm.ppf(np.clip(SHARES, 1e-6, 1 - 1e-6), scale=scale)})


def test_every_example_is_in_one_bin_of_its_class() -> None:
    generator = np.random.default_rng(0)
    table = ranked(generator.normal(size=500).tolist(), generator.choice([0.0, 1.0, np.nan], 500).tolist())
    bins = score_bins(table, None)
    counted = {name: int(bins[name].sum()) for name in ("not biased", "biased", "unknown")}
    assert counted == {
        "not biased": int((table["label"] == 0).sum()),
        "biased": int((table["label"] == 1).sum()),
        "unknown": int(table["label"].isna().sum()),
    }
    assert CHANCE not in bins and EXAMPLES not in bins
    assert score_bins(table.assign(label=np.nan), None)[EXAMPLES].sum() == 500


def test_scores_that_are_chance_lie_as_chance_does_and_few_lie_above_it() -> None:
    scores = np.random.default_rng(0).normal(scale=0.02, size=20_000)
    bins = score_bins(ranked(scores.tolist(), [np.nan] * 20_000), normal_null(0.02))
    middle = bins[bins[CHANCE] >= 50]  # where 1,001 quantiles are fine enough
    assert len(middle) > 20
    assert (np.abs(middle[EXAMPLES] - middle[CHANCE]) <= 5 * np.sqrt(middle[CHANCE])).all()
    assert bins[CHANCE].sum() == pytest.approx(20_000, abs=40)  # the last quantile of either end lies half outside
    count, bound = above_chance(scores, normal_null(0.02))
    assert bound == pytest.approx(norm.ppf(0.99, scale=0.02), rel=0.01)
    assert 140 < count < 260  # 1 % of 20,000


def test_planted_examples_lie_above_chance() -> None:
    generator = np.random.default_rng(0)
    scores = np.concatenate([generator.normal(scale=0.02, size=900), generator.normal(0.2, 0.01, size=100)])
    count, _ = above_chance(scores, normal_null(0.02))
    assert 100 <= count < 125


def test_the_classes_are_stacked_and_the_score_of_the_last_candidate_is_marked() -> None:
    table = ranked([0.3, 0.2, 0.1, 0.0], [1.0, 1.0, 0.0, 0.0])
    spec = distribution_spec(score_bins(table, normal_null(0.1)), 0.2, 50.0)
    stacked = [series["name"] for series in spec["series"] if "stack" in series]
    assert stacked == ["not biased", "biased"] and spec["legend"]["data"] == [*stacked, CHANCE]
    marked = spec["series"][0]["markLine"]
    assert marked["data"] == [{"xAxis": 0.2}] and marked["label"]["formatter"] == "cut 50 %"
    assert len(spec["dataset"][0]["source"]) == BINS


def test_equal_scores_are_one_bin_wide() -> None:
    assert score_bins(ranked([0.5] * 3, [np.nan] * 3), normal_null(0.1))[EXAMPLES].sum() == 3
