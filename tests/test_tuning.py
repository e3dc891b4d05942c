"""Choosing dtype and token budget: what is chosen of given trials, and a real measurement of a tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from biasdiff_core.attribution.self_check import CHECKED, LEAST_COSINE
from biasdiff_core.attribution.tuning import BUDGETS, Trial, choose, measure
from biasdiff_core.audit import Audit
from biasdiff_core.cli import main
from biasdiff_core.corpus.examples import Corpus
from biasdiff_core.errors import DataError, NumericError
from tests.tiny_audit import tiny_config


def trial(dtype: str = "float32", budget: int = 512, speed: float = 100.0, cosine: float = 1.0) -> Trial:
    return Trial(dtype=dtype, token_budget=budget, tokens_per_second=speed, least_cosine=cosine)  # type: ignore[arg-type]


def test_the_fastest_setting_is_chosen() -> None:
    trials = [trial(budget=128, speed=50), trial(budget=512, speed=100), trial("bfloat16", 128, 150), trial("bfloat16", 512, 300)]
    assert choose(trials) == trials[3]


def test_of_nearly_equal_ones_the_smaller_budget_is_chosen() -> None:
    trials = [trial(budget=128, speed=80), trial(budget=256, speed=97), trial(budget=512, speed=100)]
    assert choose(trials) == trials[1]


def test_a_faster_dtype_with_other_gradients_is_not_chosen() -> None:
    trials = [trial(speed=100), trial("bfloat16", speed=900, cosine=LEAST_COSINE - 0.01)]
    assert choose(trials) == trials[0]


def test_what_did_not_fit_into_memory_is_not_chosen() -> None:
    trials = [trial(budget=512, speed=100), trial(budget=1024, speed=0)]
    assert choose(trials) == trials[0]
    with pytest.raises(NumericError, match="fits into memory"):
        choose([replace(trials[0], tokens_per_second=0.0), trials[1]])


def test_a_measurement_tries_every_setting_and_compares_with_one_example_at_a_time(finished_audit: Audit) -> None:
    config, corpus = finished_audit.config, finished_audit.corpus()
    steps: list[tuple[int, int]] = []
    trials = measure(config.model, config.lora, corpus, finished_audit.folder.workspace, lambda step: steps.append((step.done, step.total)))
    settings = [(trial.dtype, trial.token_budget) for trial in trials]
    assert settings == [(dtype, budget) for dtype in ("float32", "bfloat16") for budget in BUDGETS["cpu"]]
    assert steps[-1] == (len(trials), len(trials))
    assert all(trial.tokens_per_second > 0 for trial in trials)
    exact, rounded = trials[0].least_cosine, trials[-1].least_cosine
    assert exact > 0.99999  # batched fp32 beside one at a time in fp32
    assert 0.9 < rounded < exact  # bf16 keeps 8 bits of each number
    assert len(corpus) > CHECKED


def test_a_corpus_without_a_token_to_predict_cannot_be_measured(finished_audit: Audit) -> None:
    config = finished_audit.config
    empty = Corpus(examples=tuple(replace(example, prompt="", text="a") for example in list(finished_audit.corpus())[:2]))
    with pytest.raises(DataError, match="No example of the corpus has a token to predict"):
        measure(config.model, config.lora, empty, finished_audit.folder.workspace)


def test_tuning_makes_an_audit_of_the_same_choices_but_these(tmp_path: Path, tiny_model_folder: Path) -> None:
    audit = Audit.from_config(tiny_config(tmp_path, tiny_model_folder), tmp_path / "workspace")
    tuned, trials = audit.tune()
    best = choose(trials)
    assert (tuned.config.model.dtype, tuned.config.gradients.token_budget) == (best.dtype, best.token_budget)
    assert replace(tuned.config, model=audit.config.model, gradients=audit.config.gradients) == audit.config


def test_the_command_prints_every_setting_and_last_the_audit_to_run(tmp_path: Path, tiny_model_folder: Path) -> None:
    audit = Audit.from_config(tiny_config(tmp_path, tiny_model_folder), tmp_path / "workspace")
    said = CliRunner().invoke(main, ["tune", str(audit.folder.path)])
    assert said.exit_code == 0, said.output
    assert all(said.stdout.count(f"{dtype} ") >= len(BUDGETS["cpu"]) for dtype in ("float32", "bfloat16"))
    tuned = Audit.open(said.stdout.splitlines()[-1].split(":")[0], tmp_path / "workspace")
    assert tuned.config.corpus == audit.config.corpus
