"""The store's database in a file: SQLite, in two threads of its own.

Each transaction is handed to a thread as a whole. A driver that hands over every statement, fetch
and close costs more than the statements do.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError

from gateway.errors import SettingsError
from gateway.stream.migrations import is_current, load_steps
from gateway.stream.worker import Worker

_BUSY_S = 5
_VACUUM_PAGES = 1000
_WAL_LIMIT_BYTES = 64 * 1024 * 1024
_T = TypeVar("_T")


class Sqlite:
    """A file in write-ahead mode: a crash of the process loses nothing that was committed, one of
    the machine perhaps the last moments (`synchronous=NORMAL`), and neither damages it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A thread has at most one connection at a time.
        self.engine = sa.create_engine(
            sa.URL.create("sqlite+pysqlite", database=str(path)),
            hide_parameters=True,
            pool_size=2,
            max_overflow=0,
            pool_use_lifo=True,
            connect_args={"timeout": _BUSY_S, "isolation_level": None},
        )
        # A read that turns into a write can't wait for another writer: so say it at the start.
        self._writing = self.engine.execution_options(sluice_begin="BEGIN IMMEDIATE")
        self._bare = self.engine.execution_options(sluice_begin="")
        self._writer, self._reader = Worker("store writer"), Worker("store reader")
        sa.event.listen(self.engine, "connect", _set_up)
        sa.event.listen(self.engine, "begin", _begin)

    @property
    def dialect(self) -> sa.Dialect:
        return self.engine.dialect

    def insert(self, table: sa.Table) -> sqlite.Insert:
        return sqlite.insert(table)

    async def run(self, work: Callable[[sa.Connection], _T], *, writes: bool = False) -> _T:
        if writes:
            return await self._writer.run(partial(_transact, self._writing, work))
        return await self._reader.run(partial(_transact, self.engine, work))

    async def prepare(self) -> None:
        await self._writer.run(self._prepare)

    async def tidy(self) -> None:
        await self._writer.run(self._vacuum)

    async def claim(self) -> None:
        """The claim to the directory that the file is in is enough: see `gateway.stream.claim`."""

    async def claim_lost(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.run(self.engine.dispose)
        await self._writer.close()

    def _prepare(self) -> None:
        lock = self._lock()
        try:
            self._check()
            with self._writing.begin() as connection:
                if not is_current(connection):
                    load_steps().apply(connection)
        finally:
            os.close(lock)

    def _vacuum(self) -> None:
        # Frees one page a step, and only a script is stepped to its end.
        with self._bare.connect() as connection:
            raw = connection.connection.driver_connection
            if isinstance(raw, sqlite3.Connection):
                raw.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")

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
        with self._bare.connect() as connection:
            result = connection.exec_driver_sql(f"PRAGMA {text}")
            return result.fetchall()[0][0] if result.returns_rows else None


def _transact(engine: sa.Engine, work: Callable[[sa.Connection], _T]) -> _T:
    with engine.begin() as connection:
        return work(connection)


def _set_up(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in (
        "synchronous=NORMAL",
        "foreign_keys=ON",
        f"journal_size_limit={_WAL_LIMIT_BYTES}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    begin = connection.get_execution_options().get("sluice_begin", "BEGIN")
    if begin:
        connection.exec_driver_sql(begin)
