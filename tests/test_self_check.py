"""The self-check of gradients in bf16: its cosine by another way, what the manifest and the report say, and nothing in fp32."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from biasdiff_core.attribution.self_check import CHECKED
from biasdiff_core.audit import Audit
from biasdiff_core.model.checkpoint import list_checkpoints
from biasdiff_core.model.load import load_model
from biasdiff_core.model.lora import attach_adapter
from biasdiff_core.model.tokenise import encode
from biasdiff_core.pipeline import Pipeline
from tests.reference.gradients_slow import gradients_slow, whole
from tests.tiny_audit import tiny_config


def run_in_bf16(folder: Path, model: Path, until: str | None) -> Audit:
    config = tiny_config(folder, model)
    config = replace(config, model=replace(config.model, dtype="bfloat16"), mitigation=replace(config.mitigation, methods=("retrain",)))
    audit = Audit.from_config(config, folder / "workspace")
    if until is None:
        audit.run()
    else:
        Pipeline(audit.folder).analyse(until=until)
    return audit


def test_the_manifest_holds_the_least_cosine_to_fp32_one_at_a_time(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside the slow twin's gradients, which autograd forms; the bf16 model's batch rounds otherwise than one at a time: ±2e-3."""
    monkeypatch.setattr("biasdiff_core.attribution.self_check.LEAST_COSINE", 0.5)
    with caplog.at_level(logging.WARNING):
        audit = run_in_bf16(tmp_path, tiny_model_folder, "gradients")
    check = audit.artefact("gradients").facts["self_check"]
    folder = list_checkpoints(audit.artefact("warmup").folder)[-1].folder
    found = []
    for dtype in ("float32", "bfloat16"):
        loaded = load_model(replace(audit.config.model, dtype=dtype), audit.folder.workspace)
        model = attach_adapter(loaded.model, folder)
        encoded = encode(loaded.tokenizer, audit.corpus())[:CHECKED]
        found.append(torch.stack([whole(gradients_slow(model, example)[1]) for example in encoded]))
    expected = float(torch.cosine_similarity(*found).min())
    assert check == {
        "checkpoint": "epoch-02",
        "dtype": "bfloat16",
        "examples": CHECKED,
        "least_cosine": pytest.approx(expected, abs=2e-3),
        "asked": 0.5,
        "warning": "",
    }
    assert expected < 0.99999 and not [record for record in caplog.records if "least cosine" in record.message]


def test_below_what_is_asked_it_warns_and_goes_on_and_the_report_says_so(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("biasdiff_core.attribution.self_check.LEAST_COSINE", 1.0)
    with caplog.at_level(logging.WARNING):
        audit = run_in_bf16(tmp_path, tiny_model_folder, None)
    check = audit.artefact("gradients").facts["self_check"]
    assert f"is {check['least_cosine']:.4f}, below 1.0." in check["warning"] and "bfloat16" in check["warning"]
    assert [record.message for record in caplog.records].count(check["warning"]) == 1
    assert f"is {check['least_cosine']:.4f}, below 1.0." in audit.report_files()[0].read_text(encoding="utf8")


def test_in_fp32_nothing_is_checked(finished_audit: Audit) -> None:
    assert "self_check" not in finished_audit.artefact("gradients").facts
    assert "the least cosine is" not in finished_audit.report_files()[0].read_text(encoding="utf8")
