"""The figures of `benchmarks.probes`: by hand, planted and permuted, and over training seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.arms import Recipe, overlap
from benchmarks.probes import INDICATORS, PERCENT, area, coverage, ranked_by, scores_and_labels
from benchmarks.probing_sets import SETS
from benchmarks.record import DATA


def planted(seeds: int, examples: int = 200, biased: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Scores [seeds, examples] that are a standard deviation higher where the label is 1, and the labels."""
    labels = np.repeat([1, 0], [biased, examples - biased])
    return np.random.default_rng(0).normal(size=(seeds, examples)) + labels, labels


def test_coverage_and_area_by_hand() -> None:
    # 35 % of 10 is 3.5, rounded half up 4: the top four hold two of the three biased examples (scores 9, 7), the third has score 2.
    scores = np.array([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    labels = np.array([1, 0, 1, 0, 0, 0, 0, 1, 0, 0])
    assert coverage(scores[None], labels).value == pytest.approx(2 / 3)
    # Of the 7 neutral examples 7 lie below score 9, 6 below 7, 2 below 2: (7 + 6 + 2) / 21.
    assert area(scores[None], labels).value == pytest.approx(15 / 21)


def test_the_mean_over_seeds_with_an_interval_about_it() -> None:
    scores, labels = planted(3)
    for figure in (coverage, area):
        found = figure(scores, labels)
        assert found.value == pytest.approx(np.mean([figure(row[None], labels).value for row in scores]))
        assert found.low < found.value < found.high


def test_permuted_labels_give_chance() -> None:
    scores, labels = planted(3)
    labels = np.random.default_rng(1).permutation(labels)
    assert area(scores, labels).low < 0.5 < area(scores, labels).high
    assert coverage(scores, labels).low < 0.35 < coverage(scores, labels).high


def test_seeds_that_disagree_widen_the_interval() -> None:
    scores, labels = planted(1)
    for figure in (coverage, area):
        alike = figure(np.repeat(scores, 3, axis=0), labels)
        differing = figure(np.concatenate([scores, scores, -scores]), labels)
        assert differing.high - differing.low > 1.5 * (alike.high - alike.low)


def test_only_the_probes_change_between_the_sets(tmp_path: Path, tiny_model_folder: Path) -> None:
    if not (DATA / "trex_mix" / "probe.csv").exists():
        pytest.skip("needs trex_mix under BIASDIFF_DATA")
    assert set(INDICATORS) <= SETS.keys()
    recipe = Recipe(workspace=tmp_path, model=str(tiny_model_folder), n=30, probes=8)
    audits = {indicator: ranked_by(recipe, indicator, 0) for indicator in ("bias_diff", "own")}
    keys = [{name: audit.plan()[name].key for name in ("corpus", "warmup", "probes", "ranking")} for audit in audits.values()]
    assert [name for name in keys[0] if keys[0][name] == keys[1][name]] == ["corpus", "warmup"]
    warmups = [audit.artefact("warmup").path("manifest.json") for audit in audits.values()]
    assert warmups[0].stat().st_ino == warmups[1].stat().st_ino  # taken over, not made again
    for audit in audits.values():
        scores, labels = scores_and_labels([audit])
        assert coverage(scores, labels).value == pytest.approx(overlap(audit, PERCENT)[0])
    assert ranked_by(recipe, "own", 0).artefact("ranking").created == audits["own"].artefact("ranking").created
