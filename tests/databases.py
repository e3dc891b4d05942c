"""Databases to test on: SQLite always, PostgreSQL when BIASDIFF_TEST_POSTGRES_URL names a server where schemas may be made."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

BACKENDS = [
    "sqlite",
    pytest.param(
        "postgresql",
        marks=pytest.mark.skipif("BIASDIFF_TEST_POSTGRES_URL" not in os.environ, reason="BIASDIFF_TEST_POSTGRES_URL names no server"),
    ),
]


@contextmanager
def fresh_url(backend: str, folder: Path) -> Iterator[str]:
    """URL of an empty database; on PostgreSQL a schema of its own, dropped afterwards."""
    if backend == "sqlite":
        yield f"sqlite:///{folder / 'biasdiff.db'}"
        return
    server = sa.make_url(os.environ["BIASDIFF_TEST_POSTGRES_URL"]).set(drivername="postgresql+psycopg")
    name = f"test_{uuid.uuid4().hex}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.schema.CreateSchema(name))
        yield server.update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(hide_password=False)
        connection.execute(sa.schema.DropSchema(name, cascade=True))
    engine.dispose()
