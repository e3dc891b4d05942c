"""The predicted cost: what is counted, and by whose seconds it is timed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from biasdiff_core.audit import Audit
from biasdiff_core.config import METHODS, AnswersConfig, AuditConfig, LmEvalConfig, StereoSetConfig, TrexConfig, UnlearnConfig
from biasdiff_core.config.mitigation import Method
from biasdiff_core.cost import RATES, predicted_cost, unlearning_passes
from biasdiff_core.workspace.artefacts import MANIFEST
from biasdiff_core.workspace.audits import create_audit
from tests.tiny_audit import tiny_config


@pytest.fixture
def config(tmp_path: Path, tiny_model_folder: Path) -> AuditConfig:
    (tmp_path / "data").mkdir()
    return tiny_config(tmp_path / "data", tiny_model_folder)


def with_methods(config: AuditConfig, methods: tuple[Method, ...], seeds: tuple[int, ...] = (0,)) -> AuditConfig:
    return replace(config, mitigation=replace(config.mitigation, methods=methods, random_seeds=seeds))


def finish_warmup(workspace: Path, config: AuditConfig, created: str, seconds: float, **machine: str) -> None:
    """An audit whose warm-up of 100 example passes took so long, as its manifest says. `machine`: what differs from this one."""
    folder = create_audit(workspace, config).path
    environment = json.loads((folder / "environment.json").read_text(encoding="utf8"))
    (folder / "environment.json").write_text(json.dumps({**environment, **machine}), encoding="utf8")
    result = folder / "warmup" / "0123456789ab"
    result.mkdir(parents=True)
    record = {"stage": "warmup", "created": created, "seconds": seconds, "facts": {"work": 100}}
    (result / MANIFEST).write_text(json.dumps(record), encoding="utf8")


def test_unlearning_passes_by_hand() -> None:
    # 10 rows, 3 epochs: forget, retain and the origin's forward pass (2 + 1/3)·10·3; a weight of KL takes a pass more, an NLL without
    # weight two thirds less; pairs count two examples.
    assert unlearning_passes(UnlearnConfig(), 10) == pytest.approx(70)
    assert unlearning_passes(UnlearnConfig(retain_weight=0.0), 10) == pytest.approx(50)
    assert unlearning_passes(UnlearnConfig(kl_weight=1.0), 10) == pytest.approx(100)
    assert unlearning_passes(UnlearnConfig(), 10, together=2) == pytest.approx(100)


def test_every_method_is_counted(config: AuditConfig, tmp_path: Path) -> None:
    def cost(methods: tuple[Method, ...], seeds: tuple[int, ...] = (0,)) -> float:
        return predicted_cost(tmp_path, with_methods(config, methods, seeds), examples=100, probes=20).seconds

    alone = {method: cost((method,)) - cost(()) for method in METHODS}
    assert alone["prompt"] == min(alone.values()) > 0  # its evaluation
    assert alone["random"] == alone["retrain"] == alone["oracle"]
    assert cost(("random",), seeds=(0, 1, 2)) - cost(()) == pytest.approx(3 * alone["random"])


def test_further_evaluations_are_counted_for_every_variant(config: AuditConfig, tmp_path: Path) -> None:
    config = with_methods(config, ("retrain", "npo"))  # four variants with the base and the origin
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"prompt": "Who?"}\n{"prompt": "Why?"}\n', encoding="utf8")
    known = replace(config.evaluation, answers=None)
    further = replace(
        known,
        stereoset=StereoSetConfig(path="dev.json", limit=30),
        trex=TrexConfig(path="trex.csv", limit=40),
        answers=AnswersConfig(path=str(questions)),
    )
    plain, more = (predicted_cost(tmp_path, replace(config, evaluation=e), 100, 20) for e in (known, further))
    assert more.seconds - plain.seconds == pytest.approx(4 * (30 * RATES["stereoset"] + 40 * RATES["trex"] + 2 * RATES["answers"]))
    assert not plain.uncounted and not more.uncounted


def test_what_cannot_be_counted_is_named(config: AuditConfig, tmp_path: Path) -> None:
    known = config.evaluation
    unknown = replace(known, trex=TrexConfig(path=str(tmp_path / "gone.csv"), limit=None), lm_eval=LmEvalConfig(tasks=("arc_easy",)))
    plain, more = (predicted_cost(tmp_path, replace(config, evaluation=e), 100, 20) for e in (known, unknown))
    assert (more.seconds, more.uncounted) == (plain.seconds, ["T-REx", "lm-evaluation-harness"])


def test_the_rates_are_those_of_the_latest_finished_stage(config: AuditConfig, tmp_path: Path) -> None:
    later, earlier = (replace(config, name=name) for name in ("made-first", "made-second"))
    finish_warmup(tmp_path, later, "2026-02-02T00:00:00.000+00:00", 700.0)
    finish_warmup(tmp_path, earlier, "2026-01-01T00:00:00.000+00:00", 100.0)
    warmup = 100 * config.warmup.training.epochs
    found, none = (predicted_cost(folder, config, 100, 20) for folder in (tmp_path, tmp_path / "empty"))
    assert found.seconds - none.seconds == pytest.approx(warmup * (7.0 - RATES["warmup"]))
    assert not found.measured  # the gradients are not


def test_a_stage_that_was_resumed_times_nothing(config: AuditConfig, tmp_path: Path) -> None:
    """Its seconds are those of its last process alone."""
    finish_warmup(tmp_path, config, "2026-01-01T00:00:00.000+00:00", 700.0)
    (manifest,) = tmp_path.glob(f"audits/*/warmup/*/{MANIFEST}")
    timed = predicted_cost(tmp_path, config, 100, 20)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text(encoding="utf8")), "resumed": True}), encoding="utf8")
    assert predicted_cost(tmp_path, config, 100, 20) == predicted_cost(tmp_path / "empty", config, 100, 20) != timed


@pytest.mark.parametrize("differs", ["processor", "gpu", "dtype", "model"])
def test_other_machines_and_models_time_nothing(config: AuditConfig, tmp_path: Path, differs: str) -> None:
    model = {"dtype": replace(config.model, dtype="bfloat16"), "model": replace(config.model, name="org/another")}.get(
        differs, config.model
    )
    machine = {differs: "another"} if differs in ("processor", "gpu") else {}
    finish_warmup(tmp_path, replace(config, name="other", model=model), "2026-01-01T00:00:00.000+00:00", 700.0, **machine)
    assert predicted_cost(tmp_path, config, 100, 20) == predicted_cost(tmp_path / "empty", config, 100, 20)


def test_a_finished_audit_times_all_that_it_did(finished_audit: Audit) -> None:
    workspace, config = finished_audit.folder.workspace, finished_audit.config
    small, large = (predicted_cost(workspace, config, examples=n, probes=20) for n in (100, 200))
    assert small.measured and 0 < small.seconds < large.seconds


def test_an_audit_of_another_version_does_not_stop_the_prediction(config: AuditConfig, tmp_path: Path) -> None:
    folder = create_audit(tmp_path / "workspace", config).path
    (folder / "audit.yaml").write_text((folder / "audit.yaml").read_text(encoding="utf8") + "unheard_of: 1\n", encoding="utf8")
    assert predicted_cost(tmp_path / "workspace", config, examples=10, probes=5).seconds > 0
