"""The whole audit on a tiny model: order of stages, resuming after a kill at each stage, staleness, and no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biasdiff_core.audit import Audit
from biasdiff_core.pipeline import Pipeline
from biasdiff_core.plan import plan, predicted_cost, removals
from biasdiff_core.results import Progress
from tests.tiny_audit import tiny_config

REFUSE_SOCKETS = """
import socket, sys
def refuse(*arguments, **options):
    raise RuntimeError("a socket was opened")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
from biasdiff_core.cli import main
sys.argv = ["biasdiff", "run", sys.argv[1]]
main()
"""


class Killed(Exception):
    """Stands for the moment at which the process dies."""


def test_a_finished_audit_is_complete_and_verifies(finished_audit: Audit) -> None:
    assert finished_audit.plan().finished
    findings = [finding for files in finished_audit.folder.verify().values() for finding in files]
    assert findings and all(finding.state == "ok" for finding in findings)
    heads = [removal.config["decisions_head"] for removal in removals(finished_audit.folder)]
    assert finished_audit.log.verify(heads) == []


def test_every_number_of_the_comparison_leads_to_a_manifest(finished_audit: Audit) -> None:
    comparison = finished_audit.compare()
    assert comparison.variants == ("base", "origin", "retrain", "npo", "random")
    for variant, keys in comparison.provenance.items():
        manifest = json.loads((finished_audit.folder.path / "evaluation" / keys["evaluation"] / "manifest.json").read_text())
        assert manifest["facts"]["variant"] == variant
    assert all(metric.convention for metrics in comparison.metrics.values() for metric in metrics.values())


def test_the_report_marks_simulated_decisions_and_quotes_no_training_text(finished_audit: Audit) -> None:
    html, markdown, _ = (path.read_text(encoding="utf8") for path in finished_audit.report_files())
    assert "Simulated" in html and "Simulated" in markdown
    assert not [example.text for example in finished_audit.corpus() if example.text in html]
    assert "http://" not in html and "https://" not in html  # opens offline


def test_scores_in_the_ranking_are_those_of_the_store_up_to_projection(finished_audit: Audit) -> None:
    scores = finished_audit.artefact("scores")
    assert -1 <= scores.facts["exact_projected_r"] <= 1
    table = pd.read_parquet(scores.path("scores.parquet"))
    assert np.isfinite(table["score"]).all() and (table["score"].abs() <= 1).all()


@pytest.mark.parametrize("stage", ["corpus", "probes", "warmup", "gradients", "scores", "ranking", "index", "map2d", "evaluation"])
def test_killed_at_any_stage_it_resumes_to_the_same_result(
    finished_audit: Audit, tmp_path: Path, tiny_model_folder: Path, stage: str
) -> None:
    audit = Audit.from_config(finished_audit.config, tmp_path / "workspace")

    def dies(progress: Progress) -> None:
        if progress.stage == stage and (progress.done > 0 or stage not in ("warmup", "gradients")):
            raise Killed

    with pytest.raises(Killed):
        Pipeline(audit.folder, dies).analyse()
    assert not audit.plan().finished
    audit.run()
    for name in ("ranking", "scores"):
        file = f"{name}.parquet"
        assert audit.artefact(name).path(file).read_bytes() == finished_audit.artefact(name).path(file).read_bytes()


def test_a_changed_source_makes_the_results_stale_and_says_why(tmp_path: Path, tiny_model_folder: Path, finished_audit: Audit) -> None:
    shutil.copytree(finished_audit.folder.workspace, tmp_path / "workspace")
    data = tmp_path / "data"
    data.mkdir()
    audit = Audit.from_config(tiny_config(data, tiny_model_folder), tmp_path / "workspace")
    Pipeline(audit.folder).analyse(until="probes")
    path = Path(audit.config.corpus.path)
    path.write_text(path.read_text(encoding="utf8") + "\n", encoding="utf8")
    stale = plan(audit.folder)["corpus"]
    assert not stale.done and "corpus is stale: made from source" in stale.stale


def test_a_source_that_is_gone_is_said_and_the_results_are_shown(tmp_path: Path, tiny_model_folder: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    audit = Audit.from_config(tiny_config(data, tiny_model_folder), tmp_path / "workspace")
    Pipeline(audit.folder).analyse(until="probes")
    Path(audit.config.corpus.path).unlink()
    after = plan(audit.folder)
    assert after["corpus"].done and any("corpus" in note for note in after.notes)


def test_predicted_cost_grows_with_the_work(finished_audit: Audit) -> None:
    workspace, config = finished_audit.folder.workspace, finished_audit.config
    small, large = (predicted_cost(workspace, config, examples=n, probes=20) for n in (100, 200))
    assert small.measured and 0 < small.seconds < large.seconds


@pytest.mark.slow
def test_the_bundled_model_runs_an_audit_with_sockets_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    config = tiny_config(data, Path("bundled:smollm2-135m"))
    audit = Audit.from_config(config, tmp_path / "workspace")
    environment = {**os.environ, "BIASDIFF_WORKSPACE": str(tmp_path / "workspace")}
    run = [sys.executable, "-c", REFUSE_SOCKETS, str(audit.folder.path)]
    result = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert audit.plan().finished


def test_the_socket_test_can_fail(tmp_path: Path) -> None:
    code = REFUSE_SOCKETS.split("from biasdiff_core")[0] + "socket.create_connection(('127.0.0.1', 9))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "a socket was opened" in result.stderr


def test_an_existing_adapter_takes_the_place_of_the_warm_up(finished_audit: Audit, tmp_path: Path) -> None:
    """The origin's own last checkpoint, given as an adapter, leads to the same scores."""
    origin = sorted(finished_audit.artefact("warmup").folder.glob("epoch-*"))[-1]
    config = replace(finished_audit.config, name="adapted", model=replace(finished_audit.config.model, adapter=str(origin)))
    audit = Audit.from_config(config, tmp_path / "workspace")
    Pipeline(audit.folder).analyse(until="ranking")
    before, after = (a.ranking().set_index("id")["score"] for a in (finished_audit, audit))
    assert after.loc[before.index].to_numpy() == pytest.approx(before.to_numpy(), abs=1e-6)
    assert not list(audit.folder.path.rglob("*.pt"))
