"""The finished demo audit that comes with the project: small, whole, and in the app on a fresh workspace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from biasdiff_core.audit import Audit
from biasdiff_core.config.presets import demo
from biasdiff_core.workspace.audits import WORKSPACE_VARIABLE, audit_id, install_shipped
from biasdiff_ui.boot import SHIPPED_AUDITS

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted(path.parent for path in SHIPPED_AUDITS.glob("*/audit.yaml"))


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace in which the app was never opened."""
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(tmp_path / "workspace"))
    return tmp_path / "workspace"


def test_it_is_the_demo_of_the_quick_preset_and_under_2_mb() -> None:
    assert [path.name for path in SHIPPED] == [audit_id(demo("quick"))]
    assert sum(path.stat().st_size for path in SHIPPED[0].rglob("*") if path.is_file()) < 2_000_000


def test_on_a_fresh_workspace_the_app_shows_it_with_its_decisions(fresh: Path) -> None:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    assert not app.exception
    audit = Audit.open(SHIPPED[0].name)
    assert audit.plan().finished and len(audit.log.current()) == 210
    heads = [json.loads(path.read_text())["config"]["decisions_head"] for path in audit.folder.path.glob("removal/*/manifest.json")]
    assert audit.log.verify(heads) == []
    states = {finding.state for files in audit.folder.verify().values() for finding in files}
    assert states == {"ok", "archived"}


def test_once_deleted_it_stays_away(fresh: Path) -> None:
    (installed,) = install_shipped(SHIPPED_AUDITS, fresh)
    shutil.rmtree(installed.path)
    assert install_shipped(SHIPPED_AUDITS, fresh) == [] and not installed.path.exists()
