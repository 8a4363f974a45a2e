"""What a database is to the store of streams, and what its failures become.

`gateway.stream.sql` and `gateway.stream.tables` have the statements, which are the same for both;
`gateway.stream.sqlite` and `gateway.stream.postgres` connect, lock and tidy.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import asyncpg  # type: ignore[import-untyped]
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from gateway.stream.store import StoreError

_TRANSIENT_SQLITE = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT),
}
#: Connection, rolled back, resources, wrong state, operator, system; and a stream swept meanwhile.
_TRANSIENT_SQLSTATES = ("08", "25006", "40", "53", "55", "57", "58", "23503")
_RAISED = (
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

    async def run(self, work: Callable[[sa.Connection], _T], *, writes: bool = False) -> _T:
        """Does `work` in a transaction, away from the event loop; what it returns.

        Who only reads isn't kept waiting by who writes. On cancellation the transaction is either
        rolled back or carried to its end, and never left open.
        """
        ...

    async def prepare(self) -> None:
        """Makes the tables and whatever they need, or brings them up to date."""
        ...

    async def tidy(self) -> None: ...

    async def claim(self) -> None: ...

    async def claim_lost(self) -> None: ...

    async def close(self) -> None:
        """Gives the claim back too."""
        ...


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """What a database or its driver raises, as a `StoreError`."""
    try:
        yield
    except DBAPIError as error:
        raise _as_store_error(error.orig or error) from error
    except _RAISED as error:
        raise _as_store_error(error) from error


def _as_store_error(error: BaseException) -> StoreError:
    state = getattr(error, "sqlstate", None)
    if isinstance(error, sqlite3.Error):
        state = getattr(error, "sqlite_errorname", None)
        is_transient = getattr(error, "sqlite_errorcode", 0) & 0xFF in _TRANSIENT_SQLITE
    elif isinstance(error, StatementError):
        is_transient = False  # a value that can't be bound
    else:
        is_transient = state is None or str(state).startswith(_TRANSIENT_SQLSTATES)
    detail = state or type(error).__name__
    return StoreError(f"The stream store failed ({detail}).", is_transient=is_transient)
