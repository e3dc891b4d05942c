"""The record of jobs and human decisions: SQLite in WAL mode beside the audits, or PostgreSQL by `BIASDIFF_DATABASE_URL`.

SQLAlchemy Core, no ORM. A write takes its lock at once and is one transaction; a read never waits for a writer.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from biasdiff_core.errors import ArtefactError, ConfigError, MissingDependency

DATABASE_VARIABLE = "BIASDIFF_DATABASE_URL"
SCHEMA_VERSION = 1
BUSY_SECONDS = 30

metadata = sa.MetaData()

schema_version = sa.Table("schema_version", metadata, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("audit", sa.Text, nullable=False, index=True),
    sa.Column("command", sa.Text, nullable=False),  # JSON list of arguments
    sa.Column("auditor", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("pid", sa.Integer),
    sa.Column("pid_created", sa.Float),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("started", sa.Text, nullable=False),
    sa.Column("ended", sa.Text),
    sa.Column("exit_code", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Column("resumes", sa.Integer, sa.ForeignKey("jobs.id")),
)

# Times and selections are text: their bytes enter the hash chain, so no driver may rewrite them.
actions = sa.Table(
    "actions",
    metadata,
    sa.Column("action_id", sa.Text, primary_key=True),
    sa.Column("audit", sa.Text, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("auditor", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("selection", sa.Text, nullable=False),  # JSON
    sa.Column("undoes", sa.Text, sa.ForeignKey("actions.action_id")),
    sa.Column("previous_hash", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.UniqueConstraint("audit", "number"),
)

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("action_id", sa.Text, sa.ForeignKey("actions.action_id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("audit", sa.Text, nullable=False, index=True),
    sa.Column("example_id", sa.Text, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("auditor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("inspected", sa.Boolean, nullable=False),
)

preferences = sa.Table(
    "preferences",
    metadata,
    sa.Column("auditor", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),  # JSON
)


class Database:
    """One database, its tables made when they are missing (safe when many processes start at once).

    Raises ConfigError for a URL that cannot be used, ArtefactError when the tables are of a newer BiasDiff.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self._engine = _sqlite_engine(url) if url.get_backend_name() == "sqlite" else _postgresql_engine(url)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        snapshot = {} if self._is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._reader = self._engine.execution_options(**snapshot)
        self._writer = self._engine.execution_options(takes_write_lock=True)
        try:
            self._create_tables()
        except (DatabaseError, OSError) as error:
            cause = error.orig if isinstance(error, DatabaseError) else error
            raise ConfigError(f"The database {url} cannot be opened: {cause}.", f"Check {DATABASE_VARIABLE} and the server.") from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the data throughout and never waits for a writer."""
        with self._reader.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self, chain: str) -> Iterator[Connection]:
        """A transaction that holds the write lock from the start; committed on leaving, rolled back on an exception.

        `chain` names what is appended to: on PostgreSQL only writers of the same chain wait for each other, on SQLite
        all do. Raises ArtefactError when the lock is not free within 30 s.
        """
        with self._writer.connect() as connection:
            try:
                transaction = connection.begin()
                self._lock_chain(connection, chain)
            except OperationalError as error:
                raise ArtefactError(
                    f"The database {self.url} is busy: another process held its write lock for {BUSY_SECONDS} s.", "Try again."
                ) from error
            with transaction:
                yield connection

    def close(self) -> None:
        """Close the pooled connections."""
        self._engine.dispose()

    def _lock_chain(self, connection: Connection, chain: str) -> None:
        if not self._is_sqlite:
            connection.execute(sa.text(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'"))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"biasdiff {chain}", 0))))

    def _create_tables(self) -> None:
        with _one_process(self.url), self.write("schema") as connection:
            schema_version.create(connection, checkfirst=True)
            found = connection.execute(sa.select(schema_version.c.version)).scalar()
            if found is not None and found > SCHEMA_VERSION:
                raise ArtefactError(
                    f"The database {self.url} has schema {found}, but this BiasDiff knows {SCHEMA_VERSION} at most.", "Update BiasDiff."
                )
            metadata.create_all(connection)
            if found is None:
                connection.execute(schema_version.insert().values(version=SCHEMA_VERSION))


def database(workspace: Path) -> Database:
    """The database of a workspace, opened once a process: `$BIASDIFF_DATABASE_URL`, else `<workspace>/biasdiff.db`."""
    given = os.environ.get(DATABASE_VARIABLE)
    if given:
        return _opened(_parsed(given))
    workspace.mkdir(parents=True, exist_ok=True)
    return _opened(URL.create("sqlite", database=str(workspace.resolve() / "biasdiff.db")))


@cache
def _opened(url: URL) -> Database:
    return Database(url)


def _parsed(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ConfigError(f"{DATABASE_VARIABLE} is not a database URL.", "E.g. postgresql://user:password@host/name.") from error
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql") or not url.database or url.database == ":memory:":
        raise ConfigError(f"{DATABASE_VARIABLE} is {url}.", "Use postgresql://… or sqlite:////absolute/path.")
    return url.set(drivername="postgresql+psycopg") if backend == "postgresql" else url


def _postgresql_engine(url: URL) -> Engine:
    try:
        return sa.create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise MissingDependency("psycopg", "PostgreSQL", "pip install 'psycopg[binary]'") from error


def _sqlite_engine(url: URL) -> Engine:
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver shall begin nothing by itself
        connection.execute("PRAGMA foreign_keys = ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that turns into a writer fails at once when another wrote meanwhile: take the lock first.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("takes_write_lock") else "BEGIN")

    return engine


@contextmanager
def _one_process(url: URL) -> Iterator[None]:
    """SQLite refuses to change to WAL while others connect, whatever the busy timeout: let one process at a time do it."""
    if url.get_backend_name() != "sqlite":
        yield
        return
    path = Path(str(url.database))
    with path.with_name(f".{path.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _enable_wal(url)
        yield


def _enable_wal(url: URL) -> None:
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS}, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode = WAL").scalar()
    if mode != "wal":
        raise ConfigError(
            f"{url.database} cannot be put into WAL mode (it stays {mode!r}).", f"Use a local disk, or PostgreSQL by {DATABASE_VARIABLE}."
        )
