"""A statement that takes many rows at a time, compiled once for its database: SQLAlchemy's own way
to an execution costs several times what SQLite needs for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter

import sqlalchemy as sa

from gateway.database import Database, Parameters


class Statement:
    """
    Args:
        statement: Of two parameters or more.
        prefix: What the parameters' names have before those of the rows.
    """

    def __init__(self, statement: sa.UpdateBase, database: Database, *, prefix: str = "") -> None:
        compiled = statement.compile(dialect=database.dialect)
        names = getattr(compiled, "positiontup", ())
        self._text = str(compiled)
        self._tuple_of = itemgetter(*(name.removeprefix(prefix) for name in names))
        self._database = database

    def execute(self, connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> int:
        """How many rows that changed; of several -1, where the database doesn't say. Each row
        names every parameter."""
        return self.execute_tuples(connection, list(map(self._tuple_of, rows)))

    def execute_tuples(self, connection: sa.Connection, rows: Sequence[Parameters]) -> int:
        """The same in less time, for rows in the parameters' order: of an insert, the columns'."""
        return self._database.execute(connection, self._text, rows) if rows else 0
