"""A store's database on a server: PostgreSQL, which the event loop speaks to."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from gateway.database import Parameters
from gateway.database.migrations import Migrations
from gateway.errors import SettingsError

_CONNECT_S = 5
_STATEMENT_S = 10
_MIGRATION_S = 120
_CONNECTIONS = 4
#: Names our lock among others in the same database.
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
_T = TypeVar("_T")


class Postgres:
    """A server; connections that it dropped are made anew."""

    def __init__(self, url: sa.URL, migrations: Migrations) -> None:
        self._url = url
        self._migrations = migrations
        self.engine = self._connect(_STATEMENT_S, pool_size=_CONNECTIONS, max_overflow=0)
        self._claim: AsyncConnection | None = None

    @property
    def dialect(self) -> sa.Dialect:
        return self.engine.dialect

    def insert(self, table: sa.Table) -> postgresql.Insert:
        return postgresql.insert(table)

    def execute(self, connection: sa.Connection, text: str, rows: Sequence[Parameters]) -> int:
        # Of several executions at once the driver doesn't count what they changed.
        parameters = rows[0] if len(rows) == 1 else list(rows)
        return connection.exec_driver_sql(text, parameters).rowcount

    async def run(
        self,
        work: Callable[[sa.Connection], _T],
        *,
        writes: bool = False,
        is_patient: bool = False,
        autocommit: bool = False,
    ) -> _T:
        try:
            return await self._transact(work, autocommit=autocommit)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        return await self._transact(work, autocommit=autocommit)  # on a connection that isn't dead

    async def _transact(self, work: Callable[[sa.Connection], _T], *, autocommit: bool) -> _T:
        """With `autocommit` one answer of the server's is waited for in place of three."""
        async with self.engine.connect() as connection:
            if autocommit:
                return await connection.run_sync(lambda one: work(_autocommitting(one)))
            async with connection.begin():
                return await connection.run_sync(work)

    async def prepare(self) -> None:
        engine = self._connect(_MIGRATION_S, poolclass=NullPool)
        async with engine.begin() as connection:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            if not await connection.run_sync(self._migrations.is_current):
                steps = await asyncio.to_thread(self._migrations.load)
                await connection.run_sync(steps.apply)

    async def tidy(self, pages: int = 1000) -> None:
        """Its own autovacuum does that."""

    async def scrub(self, *, rewrites_up_to: float = math.inf) -> bool:
        """Not from here: its vacuum, the archive of its log and its replicas are the server's."""
        return False

    @asynccontextmanager
    async def alone(self, purpose: str) -> AsyncIterator[bool]:
        """By a lock that ends with a connection of its own."""
        key = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:7])
        engine = self._connect(_STATEMENT_S, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            locked = sa.select(sa.func.pg_try_advisory_lock(sa.cast(key, sa.BigInteger)))
            yield bool(await connection.scalar(locked))

    async def claim(self) -> None:
        """By a lock that the server takes back when the connection ends, however that comes.

        A process that was killed may have left its connection for a moment, so this waits a little.
        """
        await self._unclaim()
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

    async def close(self) -> None:
        await self._unclaim()
        await self.engine.dispose()

    async def _unclaim(self) -> None:
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
        limits = {"timeout": _CONNECT_S, "command_timeout": patience_s + 1}
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


def _autocommitting(connection: sa.Connection) -> sa.Connection:
    """The same, until it goes back to the pool."""
    return connection.execution_options(isolation_level="AUTOCOMMIT")


async def _answers(connection: AsyncConnection) -> bool:
    try:
        await connection.execute(sa.select(sa.literal(1)))
    except (SQLAlchemyError, OSError):
        return False
    return True


def _sqlstate(error: DBAPIError) -> object:
    return getattr(error.orig, "sqlstate", None)
