"""The detection benchmark on a tiny audit that ranks by densely projected vectors, as the preset `paper` does."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.detection import compared_scores, report_detection
from biasdiff_core.attribution.store import GradientStore
from biasdiff_core.audit import Audit
from biasdiff_core.config import ScoreConfig
from biasdiff_core.pipeline import Pipeline
from tests.tiny_audit import tiny_config


def test_every_compared_score_is_reported_and_the_stores_mean_is_the_ranking(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    config = tiny_config(tmp_path / "data", tiny_model_folder)
    config = replace(config, gradients=replace(config.gradients, projection="rademacher"), scores=ScoreConfig(source="store"))
    audit = Audit.from_config(config, tmp_path / "workspace")
    Pipeline(audit.folder).analyse(until="ranking")
    for store in audit.artefact("gradients").folder.glob("*/*/store.json"):
        assert GradientStore.open(store.parent).record["identity"]["sketch"] == "rademacher-v1-seed0"
    report_detection("detection.tiny", audit, dry=True)
    found = dict(re.findall(r"^detection\.tiny\.(\S+) = (\S+)", capsys.readouterr().out, re.MULTILINE))
    names = list(compared_scores(audit))
    assert names == ["projected_mean", "nearest1", "nearest10", "whitened0.1", "whitened1", "whitened10"]
    assert {f"{name}.auroc" for name in names} < set(found)
    assert found["projected_mean.auroc"] == found["auroc"]
