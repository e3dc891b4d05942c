"""The comparison of ways to take gradients, on a tiny model on the CPU: every row is there, and what can be known of it holds."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.featurize import FEW, MEANS, Bench, compare, growth, less, make_bench, rms_error
from benchmarks.shapes import SHAPES
from biasdiff_core.attribution.gradients import full_vectors
from biasdiff_core.attribution.optimizer_map import gradient_map
from biasdiff_core.evaluation.statistics import Estimate
from biasdiff_core.model.lora import lora_parameters
from biasdiff_core.model.tokenise import collate
from tests.tiny_models import tiny_loaded

SENTENCES, PROBES = 8, 120


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tiny_loaded(), SENTENCES, tmp_path_factory.mktemp("bench"))


class Rows(dict[str, tuple[float, str, str]]):
    """What `compare` and `growth` record: the value, the unit and what it stands against, by metric."""

    def __call__(self, metric: str, found: Estimate | float, unit: str, against: str = "") -> None:
        assert metric not in self
        self[metric] = (found.value if isinstance(found, Estimate) else found, unit, against)


def test_compare_records_every_way_and_the_error_of_both_projections(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trak", None)  # as where traker is not installed
    rows = Rows()
    compare(bench, 2, PROBES, None, rows)
    speeds = ("speed_vs_training_step", "speed_vs_less.own_projection", "speed_vs_less_gradients", "hidden_overhead")
    errors = ("cosine_rms_error", "cosine_rms_error_less")
    exact = {f"exact.{name}" for name in ("overhead", f"overhead_{FEW}", f"overhead_{PROBES}")}
    assert set(rows) == {f"featurize.{name}" for name in (*speeds, *errors)} | exact
    assert all(np.isfinite(value) for value, _, _ in rows.values())
    assert rows["featurize.speed_vs_less.own_projection"][0] > rows["featurize.speed_vs_less_gradients"][0] > 0
    for name in errors:  # of a projection to 8,192 numbers the error is at most about 1 / √8192 = 0.011
        assert 0 < rows[f"featurize.{name}"][0] < 0.015
    counts = {name: rows[name][1].split("products with ")[1].split()[0] for name in exact}
    assert counts == {"exact.overhead": str(MEANS), f"exact.overhead_{FEW}": str(FEW), f"exact.overhead_{PROBES}": str(PROBES)}
    assert all("CPU seconds" in rows[name][1] for name in exact)


def test_growth_records_time_memory_and_error(bench: Bench) -> None:
    rows = Rows()
    growth(bench, 1, rows)
    assert list(rows) == ["featurize.linear", "featurize.peak_rss", "featurize.cosine_rms_error"]
    assert rows["featurize.peak_rss"][0] == pytest.approx(1, abs=0.2)


def test_the_less_way_takes_the_vectors_that_ours_are_compared_with(bench: Bench) -> None:
    """One sentence at a time with LESS's map, beside our batched vectors under the map of that name; the adapter is left frozen."""
    taken: list[Any] = []
    less(bench, lambda vectors: taken.append(vectors) or vectors)
    encoded = bench.sentences
    batch = collate(encoded, range(len(encoded)), bench.pad_id, bench.device)
    ours, _ = full_vectors(bench.model, batch, gradient_map("less", bench.state))
    expected = torch.cat([ours[name] for name in lora_parameters(bench.model)], dim=1)
    assert torch.cosine_similarity(torch.cat(taken), expected).min() > 0.99999
    assert not [parameter for parameter in bench.model.parameters() if parameter.requires_grad]


def test_the_error_of_a_projection_by_hand() -> None:
    """Rows (1, 0), (0, 1), (1, 1) have cosines 0, 1/√2, 1/√2; without the second number the first and third have cosine 1."""
    whole = np.array([[1.0, 0.0], [0.1, 1.0], [1.0, 1.0]])
    assert rms_error(whole, whole) == 0
    one = np.array([[1.0], [1.0], [1.0]])
    cosines = [0.1 / 1.01**0.5, 1 / 2**0.5, 1.1 / (1.01 * 2) ** 0.5]
    assert rms_error(one, whole) == pytest.approx(np.sqrt(np.mean([(1 - cosine) ** 2 for cosine in cosines])))


def test_the_shape_is_that_of_the_published_model() -> None:
    """Qwen2.5-1.5B has 1.54 B parameters (its card), 1.31 B of them outside the embedding, which is tied."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(SHAPES["qwen2.5-1.5b"])
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_543_714_304
    assert sum(parameter.numel() for name, parameter in model.named_parameters() if "embed" not in name) == 1_310_340_608
