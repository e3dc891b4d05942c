"""The hash chain of an audit's actions: one link an action, each link holding the hash of the one before.

A link is a plain record: number (from 1), action_id, kind, auditor, created, selection, undoes, decisions, previous_hash
and hash = SHA-256 of the canonical JSON of all the others.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from biasdiff_core.workspace import database as tables
from biasdiff_core.workspace.artefacts import digest_json

GENESIS = "0" * 64
HEADER = ("number", "action_id", "kind", "auditor", "created", "selection", "undoes", "previous_hash")
DECISION = ("example_id", "verdict", "auditor", "reason", "created", "inspected")

Link = Mapping[str, Any]


def link_hash(link: Link) -> str:
    """SHA-256 (64 hex digits) over the link's fields without its own hash. Raises KeyError when one is missing."""
    decisions = [{name: row[name] for name in DECISION} for row in link["decisions"]]
    return digest_json({**{name: link[name] for name in HEADER}, "decisions": decisions})


def head(connection: Connection, audit: str) -> tuple[int, str]:
    """Number and hash of the last link; `(0, GENESIS)` of an empty chain."""
    columns = tables.actions.c
    last = connection.execute(
        sa.select(columns.number, columns.hash).where(columns.audit == audit).order_by(columns.number.desc()).limit(1)
    )
    row = last.first()
    return (row.number, row.hash) if row else (0, GENESIS)


def insert(connection: Connection, audit: str, links: Sequence[Link]) -> None:
    """Write whole links as they are, decisions in one `executemany`."""
    names = (*HEADER, "hash")
    headers = [{name: link[name] for name in names} for link in links]
    for header in headers:
        header.update(audit=audit, selection=json.dumps(header["selection"], ensure_ascii=False))
    rows = [
        {"action_id": link["action_id"], "position": position, "audit": audit, **{name: row[name] for name in DECISION}}
        for link in links
        for position, row in enumerate(link["decisions"])
    ]
    connection.execute(tables.actions.insert(), headers)
    if rows:
        connection.execute(tables.decisions.insert(), rows)


def headers(connection: Connection, audit: str, after: int = 0) -> list[dict[str, Any]]:
    """The links with a number above `after`, in order, with the `count` of their decisions in place of these."""
    columns, rows = tables.actions.c, tables.decisions.c
    wanted = (
        sa.select(*(columns[name] for name in (*HEADER, "hash")), sa.func.count(rows.position).label("count"))
        .outerjoin(tables.decisions, columns.action_id == rows.action_id)
        .where(columns.audit == audit, columns.number > after)
        .group_by(columns.action_id)
        .order_by(columns.number)
    )
    return [{**row, "selection": json.loads(row["selection"])} for row in connection.execute(wanted).mappings()]


def read(connection: Connection, audit: str, after: int = 0) -> list[dict[str, Any]]:
    """The links with a number above `after`, in order, as they stand in the database."""
    columns, rows = tables.actions.c, tables.decisions.c
    links = {header["action_id"]: {**header, "decisions": []} for header in headers(connection, audit, after)}
    of_actions = (
        sa.select(rows.action_id, *(rows[name] for name in DECISION))
        .join(tables.actions, columns.action_id == rows.action_id)
        .where(columns.audit == audit, columns.number > after)
        .order_by(columns.number, rows.position)
    )
    for action_id, *values in connection.execute(of_actions):
        links[action_id]["decisions"].append(dict(zip(DECISION, values, strict=True)))
    return list(links.values())


def verdict_counts(connection: Connection, audit: str) -> dict[str, dict[str, int]]:
    """How many decisions of each verdict each action holds, by its id."""
    rows = tables.decisions.c
    wanted = sa.select(rows.action_id, rows.verdict, sa.func.count()).where(rows.audit == audit).group_by(rows.action_id, rows.verdict)
    found: dict[str, dict[str, int]] = {}
    for action_id, verdict, number in connection.execute(wanted.order_by(sa.func.min(rows.position))):
        found.setdefault(action_id, {})[verdict] = number
    return found


def orphans(connection: Connection, audit: str) -> int:
    """How many decisions of the audit belong to none of its actions (none may)."""
    rows, columns = tables.decisions.c, tables.actions.c
    its_actions = sa.select(columns.action_id).where(columns.audit == audit)
    lost = sa.select(sa.func.count()).where(rows.audit == audit, rows.action_id.not_in(its_actions))
    return int(connection.execute(lost).scalar_one())


def misfits(links: Iterable[Link], known_heads: Collection[str] = ()) -> list[str]:
    """What does not fit in a chain, first link first; empty when all does.

    A chain by itself cannot show that its newest links were cut off: `known_heads` are hashes noted elsewhere (of frozen
    removal sets), and each must still be the hash of a link.
    """
    found, previous, hashes = [], GENESIS, {GENESIS}
    for number, link in enumerate(links, start=1):
        name = f"action {link['number']} ({link['action_id']}, {link['kind']} by {link['auditor']}, {link['created']})"
        if link["number"] != number:
            found.append(f"{name}: number {number} was expected")
        if link["previous_hash"] != previous:
            found.append(f"{name}: it follows {link['previous_hash'][:12]}…, but the action before has {previous[:12]}…")
        if link_hash(link) != link["hash"]:
            found.append(f"{name}: its content gives the hash {link_hash(link)[:12]}…, recorded is {link['hash'][:12]}…")
        previous = link["hash"]
        hashes.add(previous)
    return found + [f"no action has the hash {known[:12]}… that a frozen removal set names" for known in known_heads if known not in hashes]
