"""The plan: variants, what enters each key and what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from biasdiff_core.config import (
    METHODS,
    AuditConfig,
    LmEvalConfig,
    MitigationConfig,
    PromptConfig,
    StereoSetConfig,
    StopConfig,
    UnlearnConfig,
)
from biasdiff_core.config.mitigation import UNLEARNINGS, Method
from biasdiff_core.errors import DataError
from biasdiff_core.plan import TITLES, Plan, repair_plan, variants
from biasdiff_core.workspace.audits import create_audit
from tests.tiny_audit import tiny_config

REMOVAL = "0" * 12


@pytest.fixture
def config(tmp_path: Path, tiny_model_folder: Path) -> AuditConfig:
    (tmp_path / "data").mkdir()
    return tiny_config(tmp_path / "data", tiny_model_folder)


def planned(config: AuditConfig, tmp_path: Path, removal: str = REMOVAL, methods: tuple[Method, ...] = METHODS) -> Plan:
    return repair_plan(create_audit(tmp_path / "workspace", config), removal, methods)


def keys(plan: Plan) -> dict[str, str]:
    """Key of each stage by `<stage>:<variant>`."""
    return {f"{stage.stage}:{stage.variant}": stage.key for stage in plan.stages}


def changed(before: Plan, after: Plan) -> set[str]:
    return {name for name, key in keys(before).items() if keys(after)[name] != key} - {"report:None"}


def with_mitigation(config: AuditConfig, change: Callable[[MitigationConfig], MitigationConfig]) -> AuditConfig:
    return replace(config, mitigation=change(config.mitigation))


def test_every_method_is_a_variant_and_random_one_a_seed() -> None:
    assert [v.name for v in variants(MitigationConfig(), METHODS)] == list(METHODS)
    several = variants(MitigationConfig(random_seeds=(3, 7)), ("npo", "random", "npo"))
    assert [(v.name, v.method, v.seed) for v in several] == [("npo", "npo", None), ("random-3", "random", 3), ("random-7", "random", 7)]
    assert set(TITLES) == set(METHODS)


def test_each_variant_is_mitigated_and_judged_but_the_prompt_only_judged(config: AuditConfig, tmp_path: Path) -> None:
    plan = planned(with_mitigation(config, lambda m: replace(m, random_seeds=(1, 2))), tmp_path)
    names = [*(m for m in METHODS if m != "random"), "random-1", "random-2"]
    mitigated = {stage.variant for stage in plan.stages if stage.stage == "mitigation"}
    judged = {stage.variant for stage in plan.stages if stage.stage == "evaluation"}
    assert judged == set(names) and mitigated == set(names) - {"prompt"}
    assert len(set(keys(plan).values())) == len(plan.stages)
    report = plan.stages[-1]
    assert {"base", "origin", *names} <= set(report.inputs)
    assert plan["evaluation:prompt"].inputs["adapter"] == plan["mitigation:npo"].inputs["warmup"]


@pytest.mark.parametrize("method", UNLEARNINGS)
def test_a_methods_settings_enter_its_own_key_alone(config: AuditConfig, tmp_path: Path, method: str) -> None:
    other = with_mitigation(config, lambda m: replace(m, **{method: replace(getattr(m, method), beta=9.0)}))
    assert changed(planned(config, tmp_path), planned(other, tmp_path)) == {f"mitigation:{method}", f"evaluation:{method}"}


def test_the_instruction_enters_the_prompts_evaluation_alone(config: AuditConfig, tmp_path: Path) -> None:
    other = with_mitigation(config, lambda m: replace(m, prompt=PromptConfig(text="Be fair. ")))
    assert changed(planned(config, tmp_path), planned(other, tmp_path)) == {"evaluation:prompt"}


def test_the_removal_set_enters_every_key_but_those_that_do_not_read_it(config: AuditConfig, tmp_path: Path) -> None:
    same = set(keys(planned(config, tmp_path))) - changed(planned(config, tmp_path), planned(config, tmp_path, removal="1" * 12))
    assert same == {"mitigation:oracle", "evaluation:oracle", "evaluation:prompt", "report:None"}


def test_inputs_are_what_a_method_reads(config: AuditConfig, tmp_path: Path) -> None:
    plan = planned(config, tmp_path)
    common = {"corpus", "model", "removal"}
    expected = {
        "retrain": common,
        "random": common,
        "length": common,
        "oracle": common - {"removal"},
        "unigram": common | {"probes"},
        "minilm": common | {"probes"},
        "npo": common | {"warmup"},
        "twin": common | {"warmup", "probes"},
    }
    assert {name: set(plan[f"mitigation:{name}"].inputs) for name in expected} == expected
    weighed = with_mitigation(config, lambda m: replace(m, npo=replace(m.npo, by_influence=True)))
    assert set(planned(weighed, tmp_path)["mitigation:npo"].inputs) == common | {"warmup", "scores"}
    stopped = with_mitigation(config, lambda m: replace(m, npo=replace(m.npo, stop=StopConfig())))
    assert set(planned(stopped, tmp_path)["mitigation:npo"].inputs) == common | {"warmup", "probes"}


def test_a_dev_file_is_an_input_by_its_content(config: AuditConfig, tmp_path: Path) -> None:
    dev = tmp_path / "dev.json"
    dev.write_text("[1]")
    stopped = with_mitigation(config, lambda m: replace(m, door=UnlearnConfig(stop=StopConfig(dev=str(dev)))))
    before = planned(stopped, tmp_path)
    dev.write_text("[1, 2]")
    assert changed(before, planned(stopped, tmp_path)) == {"mitigation:door", "evaluation:door"}
    dev.unlink()
    with pytest.raises(DataError, match="There is no file"):
        planned(stopped, tmp_path)
    assert planned(stopped, tmp_path, methods=("npo",)).stages  # the file is not asked for where nothing reads it


def test_a_suites_file_is_an_input_of_every_evaluation(config: AuditConfig, tmp_path: Path) -> None:
    path = tmp_path / "stereoset.json"
    path.write_text("[1]")
    suite = replace(config, evaluation=replace(config.evaluation, stereoset=StereoSetConfig(path=str(path))))
    before = planned(suite, tmp_path)
    path.write_text("[1, 2]")
    assert changed(before, planned(suite, tmp_path)) == {f"evaluation:{method}" for method in METHODS}
    assert "stereoset" not in planned(config, tmp_path)["evaluation:npo"].inputs


def test_own_tasks_of_the_harness_are_an_input_of_every_evaluation(config: AuditConfig, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "own.yaml").write_text("task: own")
    harness = LmEvalConfig(tasks=("own",), include_path=str(tasks))
    suite = replace(config, evaluation=replace(config.evaluation, lm_eval=harness))
    before = planned(suite, tmp_path)
    (tasks / "own.yaml").write_text("task: own\nnum_fewshot: 1")
    assert changed(before, planned(suite, tmp_path)) == {f"evaluation:{method}" for method in METHODS}
