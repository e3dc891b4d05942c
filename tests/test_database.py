"""The database: made once by many processes, one writer at a time, readers never wait."""

from __future__ import annotations

import multiprocessing
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from biasdiff_core.errors import ArtefactError, ConfigError
from biasdiff_core.workspace import database as module
from biasdiff_core.workspace.database import DATABASE_VARIABLE, SCHEMA_VERSION, Database, database
from tests.databases import BACKENDS, fresh_url

LINK = {
    "audit": "a",
    "kind": "decide",
    "auditor": "Ann",
    "created": "2026-01-01",
    "selection": "null",
    "previous_hash": "0",
    "hash": "1",
}


@pytest.fixture(params=BACKENDS)
def db(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    with fresh_url(request.param, tmp_path) as url:
        monkeypatch.setenv(DATABASE_VARIABLE, url)
        opened = database(tmp_path)
        yield opened
        opened.close()


def _count(db: Database) -> int:
    with db.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(module.actions)).scalar_one())


def test_default_is_sqlite_in_wal_beside_the_audits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATABASE_VARIABLE, raising=False)
    opened = database(tmp_path / "new")
    assert database(tmp_path / "new") is opened
    with opened.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    assert (tmp_path / "new" / "biasdiff.db").exists()


def test_a_write_is_committed_whole_or_not_at_all(db: Database) -> None:
    with db.write("a") as connection:
        connection.execute(module.actions.insert(), [{**LINK, "number": 1, "action_id": "x"}])
    with pytest.raises(RuntimeError), db.write("a") as connection:
        connection.execute(module.actions.insert(), [{**LINK, "number": 2, "action_id": "y"}])
        raise RuntimeError
    assert _count(db) == 1


def test_a_reader_sees_one_state_and_waits_for_no_writer(db: Database) -> None:
    with db.read() as reader:
        before = reader.execute(sa.select(sa.func.count()).select_from(module.actions)).scalar_one()
        with db.write("a") as writer:
            writer.execute(module.actions.insert(), [{**LINK, "number": 1, "action_id": "x"}])
            assert _count(db) == 0
        after = reader.execute(sa.select(sa.func.count()).select_from(module.actions)).scalar_one()
    assert (before, after, _count(db)) == (0, 0, 1)


def test_a_number_occurs_once_an_audit_and_a_decision_needs_its_action(db: Database) -> None:
    with pytest.raises(IntegrityError), db.write("a") as connection:
        connection.execute(module.actions.insert(), [{**LINK, "number": 1, "action_id": "x"}, {**LINK, "number": 1, "action_id": "y"}])
    row = {"action_id": "none", "position": 0, "audit": "a", "example_id": "e", "verdict": "biased", "auditor": "Ann"}
    with pytest.raises(IntegrityError), db.write("a") as connection:
        connection.execute(module.decisions.insert(), [{**row, "reason": "", "created": "", "inspected": True}])


def test_a_writer_that_cannot_get_the_lock_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0)
    opened = Database(sa.make_url(f"sqlite:///{tmp_path / 'a.db'}"))
    with opened.write("a"), pytest.raises(ArtefactError, match="busy"), opened.write("a"):
        pass


def test_newer_schema_is_refused(db: Database) -> None:
    with db.write("schema") as connection:
        connection.execute(module.schema_version.update().values(version=SCHEMA_VERSION + 1))
    with pytest.raises(ArtefactError, match=f"schema {SCHEMA_VERSION + 1}.*knows {SCHEMA_VERSION}"):
        Database(db.url)


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/name", "sqlite://", "sqlite:///:memory:"])
def test_other_urls_are_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, url)
    with pytest.raises(ConfigError, match=DATABASE_VARIABLE):
        database(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, f"sqlite:///{tmp_path}/no/such/folder/a.db")
    with pytest.raises(ConfigError):
        database(tmp_path)
    (tmp_path / "b.db").write_bytes(b"not a database, but long enough to be read as one" * 100)
    monkeypatch.setenv(DATABASE_VARIABLE, f"sqlite:///{tmp_path / 'b.db'}")
    with pytest.raises(ConfigError, match="cannot be opened"):
        database(tmp_path)


def _open_and_append(folder: str, number: int) -> None:
    with database(Path(folder)).write("a") as connection:
        connection.execute(module.actions.insert(), [{**LINK, "number": number, "action_id": str(number)}])


def test_ten_processes_may_start_at_once(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if db.url.get_backend_name() == "sqlite":
        monkeypatch.delenv(DATABASE_VARIABLE)
    folder = tmp_path / "shared"
    # A test of the app leaves its script as the main module, which every spawned process would run first.
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open_and_append, args=(str(folder), number)) for number in range(10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 10
    assert _count(database(folder)) == 10


def test_the_file_can_be_read_by_any_sqlite_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATABASE_VARIABLE, raising=False)
    _open_and_append(str(tmp_path), 1)
    rows = sqlite3.connect(tmp_path / "biasdiff.db").execute("SELECT audit, number FROM actions").fetchall()
    assert rows == [("a", 1)]
