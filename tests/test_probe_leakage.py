"""Probes are held against all that the evaluation scores, as its files and settings are now: in an audit and without one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from biasdiff_core.attribution.nearness import EVALUATION, NEARNESS_FILE, SETTINGS
from biasdiff_core.audit import Audit
from biasdiff_core.cli import main
from biasdiff_core.config import AuditConfig, SeatConfig, StereoSetConfig
from biasdiff_core.errors import DataError
from biasdiff_core.evaluation.stereoset import ContextTest
from biasdiff_core.pipeline import Pipeline
from biasdiff_core.plan import nearness_stage, plan
from biasdiff_core.workspace.artefacts import digest_file, stage_key
from tests.app_pages import open_page
from tests.test_app import shown
from tests.test_probe_quality import flagged
from tests.test_seat import SETS
from tests.test_seat import write as write_seat
from tests.test_stereoset import row as stereoset_row
from tests.test_stereoset import write as write_stereoset
from tests.tiny_audit import tiny_config

PLANTED = "Of course women spoil every meeting."  # one of the tiny audit's probes


def with_suite(config: AuditConfig, suite: str, folder: Path) -> AuditConfig:
    """The audit that also scores one suite, whose file holds PLANTED."""
    folder.mkdir(exist_ok=True)
    if suite == "stereoset":
        test = ContextTest(id="t", target="t", bias_type="gender", stereotype=PLANTED, anti_stereotype="Men do.", unrelated="Tea does.")
        chosen: dict[str, Any] = {"stereoset": StereoSetConfig(path=write_stereoset(folder / "dev.json", [stereoset_row(test)]))}
    else:
        write_seat(folder, "sent-own", {**SETS, "attr2": [PLANTED]})
        chosen = {"seat": SeatConfig(path=str(folder))}
    return replace(config, evaluation=replace(config.evaluation, **chosen))


@pytest.mark.parametrize("suite", ["stereoset", "seat"])
def test_a_probe_that_stands_in_a_suite_is_flagged(suite: str, tiny_model_folder: Path, tmp_path: Path, encoder_wheel: None) -> None:
    (tmp_path / "data").mkdir()
    plain = tiny_config(tmp_path / "data", tiny_model_folder)
    audits = [Audit.from_config(config, tmp_path / "w") for config in (plain, with_suite(plain, suite, tmp_path / suite))]
    for audit, found in zip(audits, ([], [PLANTED]), strict=True):
        Pipeline(audit.folder).analyse(until="probes")
        leaks = audit.leakage().in_evaluation
        assert isinstance(leaks, tuple) and [leak.found for leak in leaks] == found
        audit.compare_meanings()
        nearness = pd.read_parquet(audit.folder.path / "nearness" / nearness_stage(audit.folder).key / NEARNESS_FILE)
        assert (PLANTED in nearness[nearness["place"] == EVALUATION]["found"].tolist()) == bool(found)
        quality = audit.probe_quality()
        assert flagged(quality, "copied_evaluation").startswith("1 of 12 probes stand in the evaluation") == bool(found)
        assert quality["near_evaluation"].n == 12


@pytest.mark.parametrize("suite", ["stereoset", "seat"])
def test_meanings_are_compared_anew_for_another_file_of_a_suite(suite: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    plain = tiny_config(tmp_path / "data", tiny_model_folder)
    folder = Audit.from_config(plain, tmp_path / "w").folder
    corpus, probes, pairs = plan(folder)["corpus"].key, plan(folder)["probes"].key, digest_file(tmp_path / "data" / "pairs.csv")
    settings = SETTINGS | {"crows_pairs": plain.evaluation.crows_pairs, "stereoset": None, "seat": None}
    assert nearness_stage(folder).key == stage_key("nearness", settings, {"corpus": corpus, "probes": probes, "pairs": pairs})
    folder = Audit.from_config(with_suite(plain, suite, tmp_path / suite), tmp_path / "w").folder
    before = nearness_stage(folder)
    path = next((tmp_path / suite).iterdir())
    path.write_text(path.read_text().replace(PLANTED, "Tea is served."))
    assert nearness_stage(folder).key != before.key and plan(folder)["probes"].key == probes


def test_meanings_are_compared_anew_for_another_choice_of_pairs(tiny_model_folder: Path, tmp_path: Path) -> None:
    """The file is the same, but fewer of its pairs are scored: a paraphrase among the others is none of the evaluation."""
    (tmp_path / "data").mkdir()
    config = tiny_config(tmp_path / "data", tiny_model_folder)
    fewer = replace(config.evaluation, crows_pairs=replace(config.evaluation.crows_pairs, pairs=10))
    folders = [Audit.from_config(chosen, tmp_path / "w").folder for chosen in (config, replace(config, evaluation=fewer))]
    assert nearness_stage(folders[0]).inputs == nearness_stage(folders[1]).inputs
    assert nearness_stage(folders[0]).key != nearness_stage(folders[1]).key


def test_leakage_is_that_into_the_evaluation_as_its_file_is_now(tiny_model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    plain = tiny_config(tmp_path / "data", tiny_model_folder)
    audit = Audit.from_config(with_suite(plain, "stereoset", tmp_path / "suite"), tmp_path / "w")
    Pipeline(audit.folder).analyse(until="probes")
    file, probes = tmp_path / "suite" / "dev.json", audit.artefact("probes").key
    leaks = audit.leakage().in_evaluation
    assert isinstance(leaks, tuple) and [leak.found for leak in leaks] == [PLANTED]
    file.write_text(file.read_text().replace(PLANTED, "Tea is served."))
    assert audit.leakage().in_evaluation == ()
    assert audit.probe_quality()["copied_evaluation"].value == 0.0
    assert audit.artefact("probes").key == probes  # so no gradients are taken anew
    file.write_text("{")
    assert isinstance(audit.leakage().in_evaluation, DataError)
    assert audit.leakage().in_corpus == ()


def test_the_corpus_page_names_the_probes_that_the_evaluation_scores_now(tiny_model_folder: Path, tmp_path: Path, workspace: Path) -> None:
    (tmp_path / "data").mkdir()
    plain = tiny_config(tmp_path / "data", tiny_model_folder)
    audit = Audit.from_config(with_suite(plain, "stereoset", tmp_path / "suite"), workspace)
    Pipeline(audit.folder).analyse(until="probes")
    leaking = open_page(audit, "corpus")
    assert [box.label for box in leaking.expander if box.label.startswith("Probes")] == ["Probes that stand in the evaluation: 1"]
    file = tmp_path / "suite" / "dev.json"
    file.write_text(file.read_text().replace(PLANTED, "Tea is served."))
    assert "Probes that stand in the evaluation: none." in shown(open_page(audit, "corpus"))
    file.write_text("{")
    assert "Probes that stand in the evaluation: not known." in shown(open_page(audit, "corpus"))


def test_a_faulty_file_of_the_evaluation_is_refused_before_the_warm_up(tiny_model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    audit = Audit.from_config(with_suite(tiny_config(tmp_path / "data", tiny_model_folder), "seat", tmp_path / "seat"), tmp_path / "w")
    next((tmp_path / "seat").iterdir()).write_text("{")
    with pytest.raises(DataError, match="seat"):
        Pipeline(audit.folder).analyse()
    assert not list(audit.folder.path.glob("warmup/*"))


@pytest.mark.parametrize("suite", ["stereoset", "seat"])
def test_files_are_held_against_all_that_an_audit_would_score(
    suite: str, tiny_model_folder: Path, tmp_path: Path, encoder_wheel: None
) -> None:
    (tmp_path / "data").mkdir()
    config = with_suite(tiny_config(tmp_path / "data", tiny_model_folder), suite, tmp_path / suite)
    # All pairs, as without an audit.
    scored = replace(config.evaluation, crows_pairs=replace(config.evaluation.crows_pairs, pairs=None))
    audit = Audit.from_config(replace(config, evaluation=scored), tmp_path / "w")
    Pipeline(audit.folder).analyse(until="probes")
    audit.compare_meanings()
    columns = {"--twin-column": config.probes.twin_column, "--bias-type-column": config.probes.bias_type_column}
    files = {"--probes": config.probes.path, "--corpus": config.corpus.path, "--crows-pairs": scored.crows_pairs.path}
    options = {**columns, **files, f"--{suite}": getattr(scored, suite).path}
    printed = CliRunner().invoke(main, ["probes", "check", "--json", *(str(part) for option in options.items() for part in option)])
    assert printed.exit_code == 0, printed.output
    found = {metric["name"]: metric["value"] for metric in json.loads(printed.stdout)["metrics"]}
    assert found["probes.copied_evaluation"] == pytest.approx(100 / 12)
    assert found == {metric.name: metric.value for metric in audit.probe_quality().metrics}


def test_a_file_of_the_evaluation_that_is_not_there_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, tiny_model_folder)
    arguments = [
        "probes",
        "check",
        "--probes",
        config.probes.path,
        "--corpus",
        config.corpus.path,
        "--stereoset",
        str(tmp_path / "no.json"),
    ]
    printed = CliRunner().invoke(main, arguments)
    assert printed.exit_code == 2 and "no.json" in printed.stderr
