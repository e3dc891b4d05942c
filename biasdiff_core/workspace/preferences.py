"""What an auditor has chosen for their own view, like the keys of the review card: kept by name, no part of any audit."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from biasdiff_core.workspace.database import Database
from biasdiff_core.workspace.database import preferences as table

CHAIN = "preferences"


def preference(db: Database, auditor: str, name: str) -> Any:
    """What the auditor has chosen for `name`, as plain values; None where nothing was."""
    with db.read() as connection:
        value = connection.execute(sa.select(table.c.value).where(table.c.auditor == auditor, table.c.name == name)).scalar()
    return None if value is None else json.loads(value)


def prefer(db: Database, auditor: str, name: str, value: Any) -> None:
    """Keep the auditor's choice for `name`, in place of an earlier one. `value`: plain values, as JSON has them."""
    with db.write(CHAIN) as connection:
        connection.execute(table.delete().where(table.c.auditor == auditor, table.c.name == name))
        connection.execute(table.insert().values(auditor=auditor, name=name, value=json.dumps(value, allow_nan=False)))
