"""The databases that a store of streams can live in: how each connects, locks and tidies.

`gateway.stream.sql` has the statements, which are the same for both. What their drivers raise
becomes a `StoreError` here.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import asyncpg  # type: ignore[import-untyped]
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    NoSuchModuleError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from gateway.errors import SettingsError
from gateway.stream.migrations import migrate
from gateway.stream.store import StoreError

_BUSY_S = 5
_STATEMENT_S = 10
_MIGRATION_S = 120
_CONNECTIONS = 4
_VACUUM_PAGES = 1000
_WAL_LIMIT_BYTES = 64 * 1024 * 1024
#: Names our lock among others in the same PostgreSQL database.
_ADVISORY_LOCK = 0x51_0C_E5
_CLAIM_LOCK = 0x51_0C_E6
_LOCK_NOT_AVAILABLE = "55P03"
#: How long to wait for another's claim, and after what silence (15 s, then twice 5 s) the server
#: takes one back whose machine has vanished.
_CLAIM_SETTINGS = (
    "lock_timeout = '5s'",
    "tcp_keepalives_idle = 15",
    "tcp_keepalives_interval = 5",
    "tcp_keepalives_count = 2",
)
_CLAIM_CHECK_S = 15
_CLAIMED = "DATABASE_URL: another gateway uses this database; give each one its own"
_TRANSIENT_SQLITE = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT),
}
#: Connection, rolled back, resources, wrong state, operator, system; and a stream swept meanwhile.
_TRANSIENT_SQLSTATES = ("08", "25006", "40", "53", "55", "57", "58", "23503")


class Database(Protocol):
    """What SQLite and PostgreSQL do differently."""

    engine: AsyncEngine
    #: The same pool, for transactions that write.
    writer: AsyncEngine

    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """The dialect's own, for its `ON CONFLICT`."""
        ...

    async def prepare(self) -> None:
        """Makes the tables and whatever they need, or brings them up to date."""
        ...

    async def tidy(self) -> None: ...

    async def claim(self) -> None: ...

    async def claim_lost(self) -> None: ...

    async def unclaim(self) -> None: ...


class Sqlite:
    """A file in write-ahead mode: a crash of the process loses nothing that was committed, one of
    the machine perhaps the last moments (`synchronous=NORMAL`), and neither damages it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.engine = create_async_engine(
            sa.URL.create("sqlite+aiosqlite", database=str(path)),
            hide_parameters=True,
            pool_size=_CONNECTIONS,
            max_overflow=0,
            connect_args={"timeout": _BUSY_S, "isolation_level": None},
        )
        # A read that turns into a write can't wait for another writer: so say it at the start.
        self.writer = self.engine.execution_options(sluice_begin="BEGIN IMMEDIATE")
        sa.event.listen(self.engine.sync_engine, "connect", _set_up_sqlite)
        sa.event.listen(self.engine.sync_engine, "begin", _begin_sqlite)

    def insert(self, table: sa.Table) -> sqlite.Insert:
        return sqlite.insert(table)

    async def prepare(self) -> None:
        lock = await asyncio.to_thread(self._lock)
        try:
            await self._check()
            async with self.writer.begin() as connection:
                await migrate(connection)
        finally:
            await asyncio.to_thread(os.close, lock)

    async def tidy(self) -> None:
        # Frees one page a step, and only a script is stepped to its end.
        async with self.engine.execution_options(sluice_begin="").connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            if raw is not None:
                await raw.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")

    async def claim(self) -> None:
        """The claim to the directory that the file is in is enough: see `gateway.stream.claim`."""

    async def claim_lost(self) -> None:
        await asyncio.Event().wait()

    async def unclaim(self) -> None: ...

    def _lock(self) -> int:
        """Held while the file is made ready: switching to WAL doesn't wait for others."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            lock = os.open(f"{self._path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            reason = f"DATA_DIR: {self._path} can't be written: {error.strerror}"
            raise SettingsError(reason) from error
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock

    async def _check(self) -> None:
        try:
            await self._pragma("auto_vacuum=INCREMENTAL")
            await self._pragma("journal_mode=WAL")
            is_sound = await self._pragma("quick_check(1)") == "ok"
        except DBAPIError as error:
            if _sqlite_code(error) not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise
            is_sound = False
        if not is_sound:
            raise SettingsError(
                f"DATA_DIR: {self._path} is damaged; move it away to start with an empty store"
            )

    async def _pragma(self, text: str) -> object:
        async with self.engine.execution_options(sluice_begin="").connect() as connection:
            result = await connection.exec_driver_sql(f"PRAGMA {text}")
            return result.fetchall()[0][0] if result.returns_rows else None


class Postgres:
    """A server; connections that it dropped are made anew."""

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self.engine = self._connect(_STATEMENT_S, pool_size=_CONNECTIONS, max_overflow=0)
        self.writer = self.engine
        self._claim: AsyncConnection | None = None

    def insert(self, table: sa.Table) -> postgresql.Insert:
        return postgresql.insert(table)

    async def prepare(self) -> None:
        engine = self._connect(_MIGRATION_S, poolclass=NullPool)
        async with engine.begin() as connection:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            await migrate(connection)

    async def tidy(self) -> None:
        """Its own autovacuum does that."""

    async def claim(self) -> None:
        """By a lock that the server takes back when the connection ends, however that comes.

        A process that was killed may have left its connection for a moment, so this waits a little.
        """
        await self.unclaim()
        engine = self._connect(_STATEMENT_S, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        connection = await engine.connect()
        try:
            for setting in _CLAIM_SETTINGS:
                await connection.execute(sa.text(f"SET {setting}"))
            await connection.execute(sa.select(sa.func.pg_advisory_lock(_CLAIM_LOCK)))
        except BaseException as error:
            await connection.close()
            if isinstance(error, DBAPIError) and _sqlstate(error) == _LOCK_NOT_AVAILABLE:
                raise SettingsError(_CLAIMED) from None
            raise
        self._claim = connection

    async def claim_lost(self) -> None:
        if self._claim is None:
            return
        raw = (await self._claim.get_raw_connection()).driver_connection
        lost = asyncio.Event()
        if raw is not None:
            raw.add_termination_listener(lambda _: lost.set())
        while await _answers(self._claim):
            with suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), _CLAIM_CHECK_S)

    async def unclaim(self) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            with suppress(SQLAlchemyError, OSError):
                await claim.close()

    def _connect(self, patience_s: int, **pool: object) -> AsyncEngine:
        on_server = {
            "application_name": "sluice",
            "statement_timeout": str(patience_s * 1000),
            "idle_in_transaction_session_timeout": str(patience_s * 1000),
        }
        limits = {"timeout": _BUSY_S, "command_timeout": patience_s + 1}
        return create_async_engine(
            self._url,
            hide_parameters=True,
            connect_args={**limits, "server_settings": on_server},
            **pool,
        )


def postgres_url(text: str) -> sa.URL:
    """The URL for the driver. It is never quoted: it may hold a password.

    Raises:
        SettingsError: it isn't one of PostgreSQL.
    """
    problem = "DATABASE_URL: must look like postgresql://user:password@host:5432/name"
    try:
        url = sa.make_url(text)
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise SettingsError(problem) from None
    if url.drivername not in ("postgresql", "postgres") or not url.host or not url.database:
        raise SettingsError(problem)
    query = dict(url.query)
    options = {"ssl": query.pop("sslmode", "")} if "sslmode" in query else {}
    if query:
        raise SettingsError(f"DATABASE_URL: unknown parameter {min(query)}; sslmode is known")
    return url.set(drivername="postgresql+asyncpg", query=options)


def _set_up_sqlite(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in (
        "synchronous=NORMAL",
        "foreign_keys=ON",
        f"journal_size_limit={_WAL_LIMIT_BYTES}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    begin = connection.get_execution_options().get("sluice_begin", "BEGIN")
    if begin:
        connection.exec_driver_sql(begin)


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """What a database or its driver raises, as a `StoreError`."""
    try:
        yield
    except DBAPIError as error:
        raise _as_store_error(error.orig or error) from error
    except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
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


async def _answers(connection: AsyncConnection) -> bool:
    try:
        await connection.execute(sa.select(sa.literal(1)))
    except (SQLAlchemyError, OSError):
        return False
    return True


def _sqlstate(error: DBAPIError) -> object:
    return getattr(error.orig, "sqlstate", None)


def _sqlite_code(error: DBAPIError) -> int:
    return int(getattr(error.orig, "sqlite_errorcode", 0)) & 0xFF
