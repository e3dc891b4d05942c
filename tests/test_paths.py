"""Relative paths of an audit mean the same from every folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from biasdiff_core.audit import Audit
from biasdiff_core.config import ModelConfig, ProbeConfig, SeatConfig
from biasdiff_core.config.paths import anchored
from biasdiff_core.model.source import locate
from tests.tiny_audit import tiny_config, write_corpus


def test_an_audit_is_the_same_from_another_folder(tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
    config = tiny_config(here, tiny_model_folder)
    (here / "models").mkdir()
    (here / "models" / "m").symlink_to(tiny_model_folder)
    monkeypatch.chdir(here)
    relative = replace(config, model=ModelConfig(name="models/m"), corpus=replace(config.corpus, path="corpus.csv"))
    audit = Audit.from_config(relative, tmp_path / "workspace")
    keys = [stage.key for stage in audit.plan().stages]
    write_corpus(elsewhere / "corpus.csv").write_text("text\nof another corpus\n", encoding="utf8")
    monkeypatch.chdir(elsewhere)
    again = Audit.open(audit.folder.id, tmp_path / "workspace")
    assert [stage.key for stage in again.plan().stages] == keys and locate(again.config.model).kind == "folder"


def test_names_ids_and_paths_of_nothing_stay_as_they_are(tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path, tiny_model_folder)
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "bundled", "paper", "saved"):
        (tmp_path / name).mkdir()
    named = replace(
        config,
        model=ModelConfig(name="org/model", adapter="nowhere"),
        corpus=replace(config.corpus, path="demo"),
        probes=ProbeConfig(path="saved#train"),
        evaluation=replace(config.evaluation, seat=SeatConfig(path="owner/name@main#test")),
    )
    found = anchored(named)
    assert found.probes.path == f"{tmp_path}/saved#train"
    assert replace(found, probes=named.probes) == named
