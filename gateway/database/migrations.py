"""The steps that bring the tables of an older release up to date, one module a step.

Most starts find nothing to do, so Alembic, a fifth of a start's time, is loaded only if needed. The
steps are applied on the store's own connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from gateway.database.steps import Steps


@dataclass(frozen=True)
class Migrations:
    """The steps of one store.

    Args:
        folder: Holds `versions/`, where a step's number begins its file's name.
        version_table: Of its own, since other tables may live in the same database.
        store: What the tables are of, for a message.
    """

    folder: Path
    version_table: str
    store: str

    @cached_property
    def newest(self) -> str:
        """The number of the last step."""
        return max(file.name for file in self.folder.glob("versions/0*.py"))[:4]

    def is_current(self, connection: sa.Connection) -> bool:
        """Whether nothing is missing. The caller holds a lock until what is missing is applied."""
        if not sa.inspect(connection).has_table(self.version_table):
            return False
        version = sa.table(self.version_table, sa.column("version_num", sa.Text))
        return list(connection.scalars(sa.select(version.c.version_num))) == [self.newest]

    def load(self) -> Steps:
        """Reads files."""
        from gateway.database.steps import Steps

        return Steps(self)
