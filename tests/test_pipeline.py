"""The whole audit on a tiny model: order of stages, resuming after a kill at each stage, staleness, and no network."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from biasdiff_core.audit import Audit
from biasdiff_core.config import METHODS, StopConfig, TrainingConfig, UnlearnConfig
from biasdiff_core.config.file import key_form
from biasdiff_core.config.mitigation import UNLEARNINGS
from biasdiff_core.errors import DataError, ReviewError
from biasdiff_core.model.train import read_steps
from biasdiff_core.pipeline import Pipeline
from biasdiff_core.plan import plan, removals
from biasdiff_core.results import Progress
from biasdiff_core.review.removal import load_removal
from biasdiff_core.workspace.artefacts import digest_json, manifests, open_artefact
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


def test_scores_by_chance_are_kept_beside_the_scores(finished_audit: Audit) -> None:
    null = pd.read_parquet(finished_audit.artefact("scores").path("null.parquet"))
    assert null["share"].iloc[0] == 0 and null["share"].iloc[-1] == 1
    assert null["score"].is_monotonic_increasing and (null["score"].abs() <= 1).all()
    assert null["score"].iloc[0] < 0 < null["score"].iloc[-1]


def test_hidden_states_rank_the_corpus_beside_influence(finished_audit: Audit) -> None:
    table = pd.read_parquet(finished_audit.artefact("scores").path("scores.parquet"))
    assert np.isfinite(table["repsim"]).all() and (table["repsim"].abs() <= 1).all()
    assert table["repsim"].nunique() > 1
    detection = finished_audit.artefact("ranking").read_json("detection.json")
    assert "detection.repsim.auroc" in {metric["name"] for metric in detection}


def test_without_hidden_states_an_audit_is_what_it_was(tiny_model_folder: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, tiny_model_folder)
    without = replace(config, gradients=replace(config.gradients, hidden_depths=()))
    assert "hidden_depths" in key_form(config)["gradients"]
    assert "hidden_depths" not in key_form(without)["gradients"]
    audit = Audit.from_config(without, tmp_path / "workspace")
    Pipeline(audit.folder).analyse(until="ranking")
    assert "repsim" not in pd.read_parquet(audit.artefact("scores").path("scores.parquet"))


# Where the process dies: the stage that reports its progress, and the title of the step (any, where it is empty).
DEATHS = (
    ("corpus", ""),
    ("probes", ""),
    ("warmup", ""),
    ("gradients", ""),
    ("index", ""),
    ("scores", ""),
    ("ranking", ""),
    ("map2d", ""),
    ("evaluation", "Evaluate base"),
    ("evaluation", "Evaluate origin"),
    ("retrain", ""),
    ("npo", ""),
    ("random", ""),
    ("evaluation", "Evaluate retrain"),
    ("evaluation", "Evaluate random"),
    ("report", ""),
)
TIMED = ("removal", "report")  # stages whose files name the decisions, and these the times at which they were made


def _run_and_die(audit_id: str, workspace: Path, stage: str, title: str) -> None:
    """The whole audit, up to the stage: with work behind it where the stage does several pieces, or at its beginning."""
    torch.set_num_threads(1)

    def die(progress: Progress) -> None:
        begun = progress.done > 0 or stage not in ("warmup", "gradients", "retrain", "npo", "random")
        if progress.stage == stage and title in progress.message and begun:
            os.kill(os.getpid(), signal.SIGKILL)

    Audit.open(audit_id, workspace).run(die)


def payloads(audit: Audit) -> dict[str, str]:
    """SHA-256 of every file of every artefact whose bytes follow from its inputs."""
    found = {}
    for manifest in manifests(audit.folder.path):
        artefact = open_artefact(audit.folder.path, manifest.parent.parent.name, manifest.parent.name)
        # By variant, not by key: what follows from decisions has their times in its key.
        place = f"{artefact.stage}:{artefact.facts.get('variant', '')}"
        found |= {f"{place}/{name}": file["sha256"] for name, file in artefact.files.items()}
    return {name: digest for name, digest in found.items() if not name.startswith(TIMED)}


@pytest.mark.parametrize(("stage", "title"), DEATHS)
def test_killed_at_any_stage_it_resumes_to_the_same_bytes(finished_audit: Audit, tmp_path: Path, stage: str, title: str) -> None:
    """SIGKILL to the real process, then run again: decided once, and every payload as of a run without a break."""
    audit = Audit.from_config(finished_audit.config, tmp_path / "workspace")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not by every process
    process = context.Process(target=_run_and_die, args=(audit.folder.id, audit.folder.workspace, stage, title))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    audit.run()
    assert [action.count for action in audit.log.actions()] == [action.count for action in finished_audit.log.actions()]
    assert [load_removal(removal).ids for removal in removals(audit.folder)] == [
        load_removal(removal).ids for removal in removals(finished_audit.folder)
    ]
    assert audit.compare().metrics == finished_audit.compare().metrics
    found, expected = payloads(audit), payloads(finished_audit)
    assert {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)} == set()


@pytest.fixture(scope="module")
def every_method(finished_audit: Audit, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """A copy of the finished audit, mitigated by every method (MiniLM aside, whose model is not a tiny one)."""
    root = tmp_path_factory.mktemp("methods")
    shutil.copytree(finished_audit.folder.workspace, root / "workspace")
    audit = Audit.open(finished_audit.folder.id, root / "workspace")
    audit.mitigate([method for method in METHODS if method != "minilm"])
    return audit


def test_every_method_is_compared_and_leaves_an_adapter_with_a_card(every_method: Audit) -> None:
    comparison = every_method.compare()
    assert comparison.variants == ("base", "origin", *(method for method in METHODS if method != "minilm"))
    frozen = removals(every_method.folder)[0]
    removed = load_removal(frozen)
    for variant, keys in comparison.provenance.items():
        if variant in ("base", "origin", "prompt"):
            continue
        result = open_artefact(every_method.folder.path, "mitigation", keys["adapter"])
        card = result.path("adapter/README.md").read_text(encoding="utf8")
        corpus = every_method.artefact("corpus").inputs
        assert all(part in card for part in (every_method.folder.id, variant, corpus["source"], corpus["model"]))
        if variant in ("random", "oracle", "unigram", "length"):
            ids = result.read_json("removed.json")
            assert len(ids) == result.facts["removed"] == len(removed.ids) and digest_json(ids) in card
        else:
            assert removed.digest in card and "removed.json" not in result.files
        if variant != "oracle":
            assert "decisions simulated from the known labels" in card
        assert result.facts["work"] > 0 and not any("optimizer" in name for name in result.files)
    # The decisions follow the labels, which single words give away here: three of the variants are one.
    same = [v for v, keys in comparison.provenance.items() if keys["weights"] == comparison.provenance["oracle"]["weights"]]
    assert same == ["retrain", "oracle", "unigram"]
    assert len({keys["weights"] for keys in comparison.provenance.values()}) == len(comparison.variants) - 2


def test_every_term_and_its_weight_are_logged_at_every_step(every_method: Audit) -> None:
    for method in UNLEARNINGS:
        key = every_method.compare().provenance[method]["adapter"]
        steps = read_steps(open_artefact(every_method.folder.path, "mitigation", key).folder)
        logged = {method, "retain_nll", "retain_kl", "gradient_norm"}
        weighed = {f"weight:{term}" for term in ([method] if method == "ascent" else [method, "retain_nll"])}
        assert all(step.keys() == {"epoch", "step", "learning_rate", *logged, *weighed} for step in steps)


def test_the_prompt_is_the_origin_under_an_instruction(every_method: Audit) -> None:
    """No weights of its own, but another identity: it is compared with the origin, and its figures are others."""
    comparison = every_method.compare()
    prompt, origin = comparison.provenance["prompt"], comparison.provenance["origin"]
    assert prompt["adapter"] == origin["adapter"] == every_method.artefact("warmup").key
    assert prompt["weights"] != origin["weights"]
    assert any(test.variant == "prompt" for test in comparison.tests)
    assert not [note for note in comparison.notes if "identical" in note]


def test_a_variants_whole_model_is_exported(every_method: Audit, tmp_path: Path) -> None:
    for variant in ("npo", "origin"):
        every_method.export_model(variant, tmp_path / variant)
        card = (tmp_path / variant / "README.md").read_text(encoding="utf8")
        assert "a whole model" in card and f"# {variant} of {every_method.folder.id}" in card
        assert (tmp_path / variant / "model.safetensors").exists() and (tmp_path / variant / "tokenizer.json").exists()
    assert "Removal set: none" in card
    for variant in ("prompt", "base", "nonsense"):
        with pytest.raises(ReviewError, match=f"no trained variant '{variant}'"):
            every_method.export_model(variant, tmp_path / variant)


def test_stopping_influence_and_a_dev_set_are_carried_out(finished_audit: Audit, tmp_path: Path) -> None:
    """A variant whose first epoch breaks the capability limit is the origin again, says so, and is not compared."""
    rough = UnlearnConfig(
        retain_weight=0.0,
        by_influence=True,
        stop=StopConfig(max_perplexity_ratio=1.0),
        training=TrainingConfig(epochs=2, learning_rate=0.2, batch_size=4),
    )
    gentle = UnlearnConfig(stop=StopConfig(parity=False, max_perplexity_ratio=100.0), training=TrainingConfig(epochs=2, batch_size=4))
    mitigation = replace(finished_audit.config.mitigation, methods=("npo", "simnpo"), npo=rough, simnpo=gentle)
    audit = Audit.from_config(replace(finished_audit.config, name="stopped", mitigation=mitigation), tmp_path / "workspace").run()
    comparison = audit.compare()
    npo, simnpo = (open_artefact(audit.folder.path, "mitigation", comparison.provenance[v]["adapter"]) for v in ("npo", "simnpo"))
    assert (npo.facts["kept_epoch"], npo.facts["ended"]) == (0, "capability") and len(npo.facts["dev"]) == 2
    assert (simnpo.facts["kept_epoch"], simnpo.facts["ended"]) == (2, "all epochs") and len(simnpo.facts["dev"]) == 3
    assert comparison.provenance["npo"]["weights"] == comparison.provenance["origin"]["weights"]
    assert any("identical" in note for note in comparison.notes)
    assert not [test for test in comparison.tests if test.variant == "npo"]
    assert {"stopping.jsonl", "steps.jsonl"} <= set(npo.files)


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


def test_the_simulated_auditor_does_not_judge_what_has_no_label(tmp_path: Path, tiny_model_folder: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    config = tiny_config(data, tiny_model_folder)
    table = pd.read_csv(config.corpus.path)
    table["biased"] = table["biased"].where(table.index % 2 == 0).astype("Int64")  # every second is unknown
    table.to_csv(config.corpus.path, index=False)
    audit = Audit.from_config(config, tmp_path / "workspace")
    with pytest.raises(ReviewError, match="have no known label"):
        audit.run()
    assert audit.log.actions() == []


def test_a_contrast_without_all_twins_is_refused_before_the_work(tmp_path: Path, tiny_model_folder: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    config = tiny_config(data, tiny_model_folder)
    table = pd.read_csv(config.probes.path)
    table.loc[3, "twin"] = None
    table.to_csv(config.probes.path, index=False)
    audit = Audit.from_config(replace(config, scores=replace(config.scores, kind="contrast")), tmp_path / "workspace")
    with pytest.raises(DataError, match="not every probe has a twin"):
        audit.run()
    assert not audit.plan()["warmup"].done


def test_a_source_that_is_gone_is_said_and_the_results_are_shown(tmp_path: Path, tiny_model_folder: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    audit = Audit.from_config(tiny_config(data, tiny_model_folder), tmp_path / "workspace")
    Pipeline(audit.folder).analyse(until="probes")
    Path(audit.config.corpus.path).unlink()
    after = plan(audit.folder)
    assert after["corpus"].done and any("corpus" in note for note in after.notes)


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
