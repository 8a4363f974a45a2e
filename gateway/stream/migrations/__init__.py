"""The steps that bring the stream tables of an older release up to date, one module a step.

Most starts find nothing to do, so Alembic, a fifth of a start's time, is loaded only if needed. The
steps are applied on the store's own connection.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from gateway.stream.migrations.steps import Steps

#: Of its own, since other tables may live in the same database.
VERSION_TABLE = "stream_schema_version"
#: A step's number begins its file's name.
NEWEST = max(file.name for file in Path(__file__).parent.glob("versions/0*.py"))[:4]
_version = sa.table(VERSION_TABLE, sa.column("version_num", sa.Text))


def is_current(connection: sa.Connection) -> bool:
    """Whether nothing is missing. The caller holds a lock until what is missing is applied."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return False
    return list(connection.scalars(sa.select(_version.c.version_num))) == [NEWEST]


def load_steps() -> Steps:
    """Reads files."""
    from gateway.stream.migrations.steps import Steps

    return Steps()
