"""Fixtures that several test modules share."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest

from biasdiff_core.attribution.baselines import MINILM_WHEEL
from biasdiff_core.audit import Audit
from biasdiff_core.workspace.audits import SHIPPED_FILE, WORKSPACE_VARIABLE
from biasdiff_ui.boot import SHIPPED_AUDITS
from tests.test_baselines import tiny_encoder
from tests.tiny_audit import save_model, tiny_config


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random tiny Llama and its tokenizer; use it as `ModelConfig(name=str(folder))`."""
    return save_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def finished_audit(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Audit:
    """A finished audit of 40 examples, made by the real pipeline: analysis, simulated decisions, retrain, NPO, random control, report.

    Shared by the whole session: nothing may be written to it (see `finished_workspace`).
    """
    root = tmp_path_factory.mktemp("finished")
    data = root / "data"
    data.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, at first use
        return Audit.from_config(tiny_config(data, tiny_model_folder), root / "workspace").run()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace that the app and the command line use: the shipped audits were installed there and deleted again."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / SHIPPED_FILE).write_text(json.dumps([path.name for path in SHIPPED_AUDITS.iterdir()]), encoding="utf8")
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(folder))
    return folder


@pytest.fixture
def finished_workspace(workspace: Path, finished_audit: Audit) -> Path:
    """A workspace of the test's own that holds a copy of the finished audit and its decisions."""
    shutil.copytree(finished_audit.folder.workspace, workspace, dirs_exist_ok=True)
    return workspace


@pytest.fixture
def encoder_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel of the sentence encoder's name with a random tiny BERT in it, found before the real one."""
    package = tmp_path / "wheels" / MINILM_WHEEL
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    tiny_encoder(package / "model")
    monkeypatch.syspath_prepend(str(tmp_path / "wheels"))
