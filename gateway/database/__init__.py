"""The databases that stores are kept in: what SQLite and PostgreSQL do differently.

The statements are the stores' own and the same for both; `gateway.database.sqlite` and
`gateway.database.postgres` connect, lock and tidy.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

import asyncpg  # type: ignore[import-untyped]
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

_TRANSIENT_SQLITE = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT),
}
#: Connection, rolled back, resources, wrong state, operator, system; a row swept meanwhile.
_TRANSIENT_SQLSTATES = ("08", "25006", "40", "53", "55", "57", "58", "23503")
#: What a database or its driver raises.
RAISED = (
    *(SQLAlchemyError, sqlite3.Error),
    *(asyncpg.PostgresError, asyncpg.InterfaceError, OSError),
)
_T = TypeVar("_T")
Parameters = tuple[object, ...]


class Database(Protocol):
    """What SQLite and PostgreSQL do differently."""

    @property
    def dialect(self) -> sa.Dialect: ...

    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """The dialect's own, for its `ON CONFLICT`."""
        ...

    def execute(self, connection: sa.Connection, text: str, rows: Sequence[Parameters]) -> int:
        """Executes a compiled statement for each row; how many that changed, -1 if it can't say."""
        ...

    async def run(
        self,
        work: Callable[[sa.Connection], _T],
        *,
        writes: bool = False,
        is_patient: bool = False,
        autocommit: bool = False,
    ) -> _T:
        """Does `work` in a transaction, away from the event loop; what it returns.

        Who only reads isn't kept waiting by who writes. Work that `is_patient` lets the event loop
        go first, where both share a processor. With `autocommit` each statement is a transaction
        by itself: for work that writes by one alone. On cancellation the transaction is either
        rolled back or carried to its end, and never left open.
        """
        ...

    async def prepare(self) -> None:
        """Makes the tables and whatever they need, or brings them up to date."""
        ...

    def alone(self, purpose: str) -> AbstractAsyncContextManager[bool]:
        """Whether nobody else is at this purpose, in any process; others are kept out meanwhile."""
        ...

    async def tidy(self, pages: int = 1000) -> None:
        """Gives up to so many freed pages back."""
        ...

    async def scrub(self, *, rewrites_up_to: float = math.inf) -> bool:
        """Leaves nothing of what was deleted in the files, as far as this can be done from here;
        whether it could. A database of up to so many bytes is written anew for it, and nobody else
        writes meanwhile."""
        ...

    async def claim(self) -> None: ...

    async def claim_lost(self) -> None: ...

    async def close(self) -> None:
        """Gives the claim back too."""
        ...


def failure(error: BaseException) -> tuple[str, bool]:
    """What one of `RAISED` means: the driver's word for it, and whether the same may succeed later
    without anybody's help."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    state = getattr(error, "sqlstate", None)
    if isinstance(error, sqlite3.Error):
        state = getattr(error, "sqlite_errorname", None)
        is_transient = getattr(error, "sqlite_errorcode", 0) & 0xFF in _TRANSIENT_SQLITE
    elif isinstance(error, StatementError):
        is_transient = False  # a value that can't be bound
    else:
        is_transient = state is None or str(state).startswith(_TRANSIENT_SQLSTATES)
    return str(state or type(error).__name__), is_transient
