"""The steps that bring the stream tables of an older release up to date, one module a step.

Most starts find nothing to do, so Alembic, a fifth of a start's time, is loaded only if needed, in
a thread, since that reads files. The steps are applied on the store's own connection.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

if TYPE_CHECKING:
    from gateway.stream.migrations.steps import Steps

#: Of its own, since other tables may live in the same database.
VERSION_TABLE = "stream_schema_version"
#: A step's number begins its file's name.
NEWEST = max(file.name for file in Path(__file__).parent.glob("versions/0*.py"))[:4]
_version = sa.table(VERSION_TABLE, sa.column("version_num", sa.Text))


async def migrate(connection: AsyncConnection) -> None:
    """Applies what is missing, in the connection's transaction. The caller holds a lock.

    Raises:
        SettingsError: a newer release has changed the tables.
    """
    if await connection.run_sync(_is_current):
        return
    steps = await asyncio.to_thread(_load)
    await connection.run_sync(steps.apply)


def _is_current(connection: sa.Connection) -> bool:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return False
    return list(connection.scalars(sa.select(_version.c.version_num))) == [NEWEST]


def _load() -> Steps:
    from gateway.stream.migrations.steps import Steps

    return Steps()
