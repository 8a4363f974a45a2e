"""Statements that are compiled once, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.store import AuditStore, make_store
from gateway.database.statement import Statement

KEPT = tables.policies


@pytest.fixture
async def store(tmp_path: Path, database_url: str | None) -> AsyncIterator[AuditStore]:
    store = make_store(database_url, tmp_path)
    await store.open()
    yield store
    await store.close()


async def test_rows_name_parameters_without_their_prefix(store: AuditStore) -> None:
    is_old = KEPT.c.first_ms == sa.bindparam("new_first_ms")
    update = sa.update(KEPT).where(is_old).values(rules=sa.bindparam("new_rules"))
    insert = Statement(sa.insert(KEPT), store.database)
    change = Statement(update, store.database, prefix="new_")

    def work(connection: sa.Connection) -> list[int]:
        insert.execute_tuples(connection, [("a", b"", 1), ("b", b"", 2), ("c", b"", 2)])
        insert.execute(connection, [{"first_ms": 3, "id": "d", "rules": b""}])
        return [
            change.execute(connection, rows)
            for rows in ([], [{"rules": b"x", "first_ms": 2}], [{"first_ms": 9, "rules": b"x"}])
        ]

    assert await store.run(work, writes=True) == [0, 2, 0]
    query = sa.select(KEPT).order_by(KEPT.c.id)
    found = await store.run(lambda connection: [tuple(row) for row in connection.execute(query)])
    assert found == [("a", b"", 1), ("b", b"x", 2), ("c", b"x", 2), ("d", b"", 3)]
