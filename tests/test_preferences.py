"""Preferences: kept by auditor and name, in both databases, the last choice holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from biasdiff_core.workspace.database import DATABASE_VARIABLE, database
from biasdiff_core.workspace.preferences import prefer, preference
from tests.databases import BACKENDS, fresh_url


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_choice_is_kept_for_its_auditor_alone(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh_url(backend, tmp_path) as url:
        monkeypatch.setenv(DATABASE_VARIABLE, url)
        db = database(tmp_path)
        assert preference(db, "Ana", "goal") is None
        prefer(db, "Ana", "goal", 50)
        prefer(db, "Ana", "keys", {"on": False, "of": {"skip": "ß"}})
        prefer(db, "Bo", "goal", 7)
        prefer(db, "Ana", "goal", None)
        assert preference(db, "Ana", "goal") is None
        assert preference(db, "Ana", "keys") == {"on": False, "of": {"skip": "ß"}}
        assert preference(db, "Bo", "goal") == 7
        db.close()
