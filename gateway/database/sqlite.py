"""A store's database in a file: SQLite, in two threads of its own.

Each transaction is handed to a thread as a whole. A driver that hands over every statement, fetch
and close costs more than the statements do.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError

from gateway.database import Parameters
from gateway.database.guard import FileGuard
from gateway.database.migrations import Migrations
from gateway.database.worker import Worker
from gateway.errors import SettingsError

_BUSY_S = 5
_SCRUBS = 3
_WAL_LIMIT_BYTES = 64 * 1024 * 1024
_QUICK = ("synchronous=NORMAL", "foreign_keys=ON")
_LASTING = ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON")
_T = TypeVar("_T")


class Sqlite:
    """A file in write-ahead mode: a crash of the process loses nothing that was committed, one of
    the machine perhaps the last moments, and neither damages it.

    Args:
        name: What its threads are called.
        is_lasting: Nothing that was committed is lost with the machine either, at the cost of a
            sync each time, and what was deleted is overwritten.
    """

    def __init__(
        self, path: Path, migrations: Migrations, *, name: str = "store", is_lasting: bool = False
    ) -> None:
        self._path = path
        self._migrations = migrations
        self._engine = sa.create_engine(
            sa.URL.create("sqlite+pysqlite", database=str(path)),
            hide_parameters=True,
            poolclass=sa.NullPool,
            connect_args={"timeout": _BUSY_S, "isolation_level": None, "check_same_thread": False},
        )
        pragmas = _LASTING if is_lasting else _QUICK
        sa.event.listen(self._engine, "connect", partial(_set_up, pragmas))
        self._guard = FileGuard(Path(f"{path}.lock"), patience_s=_BUSY_S)
        # A read that turns into a write can't wait for another writer: so say it at the start.
        self._writer = _Lane(self._engine, f"{name} writer", "BEGIN IMMEDIATE", self._guard)
        self._reader = _Lane(self._engine, f"{name} reader", "BEGIN", self._guard)

    @property
    def dialect(self) -> sa.Dialect:
        return self._engine.dialect

    def insert(self, table: sa.Table) -> sqlite.Insert:
        return sqlite.insert(table)

    def execute(self, connection: sa.Connection, text: str, rows: Sequence[Parameters]) -> int:
        # SQLAlchemy's own way there takes several times what SQLite needs for a small batch.
        return _driver(connection).executemany(text, rows).rowcount

    async def run(
        self,
        work: Callable[[sa.Connection], _T],
        *,
        writes: bool = False,
        is_patient: bool = False,
        autocommit: bool = False,
    ) -> _T:
        lane = self._writer if writes else self._reader
        return await lane.run(work, is_patient=is_patient, autocommit=autocommit)

    async def prepare(self) -> None:
        await self._writer.worker.run(self._prepare)

    async def tidy(self, pages: int = 1000) -> None:
        # Frees one page a step, and only a script is stepped to its end; it commits first.
        script = f"PRAGMA incremental_vacuum({pages})"
        await self._writer.run(lambda connection: _driver(connection).executescript(script).close())

    async def scrub(self, *, rewrites_up_to: float = math.inf) -> bool:
        """`secure_delete` isn't enough: where pages were split or joined, copies of what stood on
        them stay behind. The write-ahead log is emptied in any case."""
        work = partial(self._scrub, rewrites_up_to=rewrites_up_to)
        return await self._writer.worker.run(work)

    @asynccontextmanager
    async def alone(self, purpose: str) -> AsyncIterator[bool]:
        """By a lock on a file beside the database."""
        lock = await asyncio.to_thread(self._try_lock, purpose)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                os.close(lock)

    async def claim(self) -> None:
        """The claim to the directory that the file is in is enough: see `gateway.stream.claim`."""

    async def claim_lost(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()
        self._guard.close()

    def _prepare(self) -> None:
        """Alone with the file: switching to WAL doesn't wait for others."""
        self._make()
        with self._guard:
            self._check()
            self._writer.transact(self._migrate)

    def _scrub(self, *, rewrites_up_to: float) -> bool:
        with self._guard:
            rewrites = self._path.stat().st_size <= rewrites_up_to
            if rewrites:
                self._writer.outside("VACUUM")
            truncate = "PRAGMA wal_checkpoint(TRUNCATE)"
            is_empty = any(self._writer.outside(truncate) == 0 for _ in range(_SCRUBS))
        return rewrites and is_empty

    def _migrate(self, connection: sa.Connection) -> None:
        if not self._migrations.is_current(connection):
            self._migrations.load().apply(connection)

    def _make(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in (self._path, Path(f"{self._path}.lock")):
                os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except OSError as error:
            reason = f"DATA_DIR: {self._path} can't be written: {error.strerror}"
            raise SettingsError(reason) from error

    def _try_lock(self, purpose: str) -> int | None:
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        lock = os.open(f"{self._path}.{purpose}", flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _check(self) -> None:
        try:
            self._pragma("auto_vacuum=INCREMENTAL")
            self._pragma("journal_mode=WAL")
            is_sound = self._pragma("quick_check(1)") == "ok"
        except DBAPIError as error:
            code = int(getattr(error.orig, "sqlite_errorcode", 0)) & 0xFF
            if code not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise
            is_sound = False
        if not is_sound:
            raise SettingsError(
                f"DATA_DIR: {self._path} is damaged; move it away to start with an empty store"
            )

    def _pragma(self, text: str) -> object:
        with self._engine.connect() as connection:
            result = connection.exec_driver_sql(f"PRAGMA {text}")
            return result.fetchall()[0][0] if result.returns_rows else None


class _Lane:
    """A thread and its connection, which both last from the first transaction until `close`."""

    def __init__(self, engine: sa.Engine, name: str, begin: str, guard: FileGuard) -> None:
        self.worker = Worker(name)
        self._engine = engine
        self._begin = begin
        self._guard = guard
        self._entry = guard if "IMMEDIATE" in begin else nullcontext()
        self._connection: sa.Connection | None = None

    async def run(
        self,
        work: Callable[[sa.Connection], _T],
        *,
        is_patient: bool = False,
        autocommit: bool = False,
    ) -> _T:
        transact = partial(self.transact, work, autocommit=autocommit)
        return await self.worker.run(transact, is_patient=is_patient)

    def transact(self, work: Callable[[sa.Connection], _T], *, autocommit: bool = False) -> _T:
        """In the lane's thread only.

        The driver begins and ends; SQLAlchemy's transaction, if `work` makes it begin one, is only
        told. Each of the driver's calls may wait for the interpreter: with `autocommit` there are
        two fewer, and a first token comes a twelfth sooner (docs/load.md).
        """
        if self._connection is None:
            self._connection = self._engine.connect()
        connection = self._connection
        driver = _driver(connection)
        with self._entry:
            if not autocommit:
                driver.execute(self._begin)
            try:
                result = work(connection)
                driver.commit()
            finally:
                driver.rollback()
                connection.rollback()
        return result

    def outside(self, statement: str) -> object:
        """One statement outside of any transaction, in the lane's thread only; its first value."""
        if self._connection is None:
            self._connection = self._engine.connect()
        row = _driver(self._connection).execute(statement).fetchone()
        return row[0] if row is not None else None

    async def close(self) -> None:
        await self.worker.run(self._disconnect)
        await self.worker.close()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with self._guard:  # the last one to go empties the write-ahead log
                connection.close()


def _driver(connection: sa.Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - the engine's
    return driver


def _set_up(pragmas: Sequence[str], connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in (*pragmas, f"journal_size_limit={_WAL_LIMIT_BYTES}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
