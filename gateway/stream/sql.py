"""The store of streams in SQLite or PostgreSQL: one set of statements for both.

Only the databases' ways of connecting, locking and tidying differ: `_Sqlite` and `_Postgres`.
Nothing here blocks the event loop: aiosqlite works in threads of its own, asyncpg on the network.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, TypeVar

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
from gateway.stream.cipher import Cipher
from gateway.stream.migrations import Migrations
from gateway.stream.model import ENDING_REASONS, Status, StreamId, error_ending
from gateway.stream.store import (
    Appended,
    Change,
    Created,
    Ended,
    Segment,
    SessionStore,
    StoreError,
    StreamRecord,
    without_overlap,
)

_BUSY_S = 5
_STATEMENT_S = 10
_MIGRATION_S = 120
_CONNECTIONS = 4
_SWEEP_STREAMS = 100
_VACUUM_PAGES = 1000
_WAL_LIMIT_BYTES = 64 * 1024 * 1024
#: Names our lock among others in the same PostgreSQL database.
_ADVISORY_LOCK = 0x51_0C_E5
_TRANSIENT_SQLITE = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT),
}
#: Connection, rolled back, resources, wrong state, operator, system; and a stream swept meanwhile.
_TRANSIENT_SQLSTATES = ("08", "25006", "40", "53", "55", "57", "58", "23503")

_T = TypeVar("_T")
_Row = Mapping[str, object]

_metadata = sa.MetaData()
_sessions = sa.Table(
    "stream_sessions",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),
    *(sa.Column(name, sa.Text) for name in ("owner", "trace_id", "route", "conversation_id")),
    *(sa.Column(name, sa.Text) for name in ("idempotency_key", "status", "reason")),
    *(sa.Column(name, sa.LargeBinary) for name in ("fingerprint", "message")),
    *(sa.Column(name, sa.Boolean) for name in ("with_ids", "retryable", "estimated")),
    *(sa.Column(name, sa.BigInteger) for name in ("created_at_ms", "ended_at_ms")),
    *(sa.Column(name, sa.BigInteger) for name in ("expires_at_ms", "total_chunks")),
    *(sa.Column(name, sa.BigInteger) for name in ("total_tokens", "input_tokens", "last_seq")),
    *(sa.Column(name, sa.Text) for name in ("instance", "ended_by")),
)
_segments = sa.Table(
    "stream_segments",
    _metadata,
    sa.Column("stream_id", sa.Text, sa.ForeignKey(_sessions.c.id), primary_key=True),
    sa.Column("first", sa.BigInteger, primary_key=True),
    sa.Column("last", sa.BigInteger),
    sa.Column("size", sa.BigInteger),
    sa.Column("data", sa.LargeBinary),
)
_OURS = ("instance", "ended_by")
_COLUMNS = [column for column in _sessions.c if column.name not in _OURS]
_COUNTS = ("total_chunks", "total_tokens", "input_tokens", "estimated", "last_seq")
_END = ("status", "reason", "message", "retryable", "ended_at_ms", "expires_at_ms", "ended_by")
_the_stream = _sessions.c.id == sa.bindparam("stream")
_is_active = _sessions.c.status == Status.ACTIVE.value


def _set(names: Iterable[str]) -> dict[str, sa.BindParameter[object]]:
    return {name: sa.bindparam(f"new_{name}", type_=_sessions.c[name].type) for name in names}


_PROGRESS = (
    sa.update(_sessions)
    .where(_the_stream, _is_active, _sessions.c.last_seq < sa.bindparam("new_last_seq"))
    .values(_set(_COUNTS))
)
_FINISH = sa.update(_sessions).where(_the_stream, _is_active).values(_set([*_COUNTS, *_END]))
_INTERRUPT = sa.update(_sessions).where(_the_stream, _is_active).values(_set(_END))


class _Database(Protocol):
    """What SQLite and PostgreSQL do differently."""

    engine: AsyncEngine
    #: The same pool, for transactions that write.
    writer: AsyncEngine

    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """The dialect's own, for its `ON CONFLICT`."""
        ...

    async def prepare(self, migrations: Migrations) -> None: ...

    async def tidy(self) -> None: ...


class _Sqlite:
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

    async def prepare(self, migrations: Migrations) -> None:
        lock = await asyncio.to_thread(self._lock)
        try:
            await self._check()
            async with self.writer.begin() as connection:
                await connection.run_sync(migrations.apply)
        finally:
            await asyncio.to_thread(os.close, lock)

    async def tidy(self) -> None:
        # Frees one page a step, and only a script is stepped to its end.
        async with self.engine.execution_options(sluice_begin="").connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            if raw is not None:
                await raw.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")

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


class _Postgres:
    """A server; connections that it dropped are made anew."""

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self.engine = self._connect(_STATEMENT_S, pool_size=_CONNECTIONS, max_overflow=0)
        self.writer = self.engine

    def insert(self, table: sa.Table) -> postgresql.Insert:
        return postgresql.insert(table)

    async def prepare(self, migrations: Migrations) -> None:
        engine = self._connect(_MIGRATION_S, poolclass=NullPool)
        async with engine.begin() as connection:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            await connection.run_sync(migrations.apply)

    async def tidy(self) -> None:
        """Its own autovacuum does that."""

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


def make_store(
    database_url: str | None, data_dir: Path, cipher: Cipher, *, instance: str = ""
) -> SessionStore:
    """PostgreSQL if there is a URL, else `streams.sqlite3` in `data_dir`. Connects to nothing yet.

    `instance` names this process among those that share the store, the same after a restart.

    Raises:
        SettingsError: the URL isn't one of PostgreSQL. It is never quoted: it may hold a password.
    """
    if database_url is None:
        return SqlStore(_Sqlite(data_dir / "streams.sqlite3"), cipher, instance)
    return SqlStore(_Postgres(_postgres_url(database_url)), cipher, instance)


class SqlStore:
    """The `SessionStore` in a database."""

    def __init__(self, database: _Database, cipher: Cipher, instance: str) -> None:
        self._database = database
        self._cipher = cipher
        self._instance = instance
        # Tells our own end from another's, when a write is repeated.
        self._token = secrets.token_hex(8)

    async def open(self) -> None:
        migrations = await asyncio.to_thread(Migrations)
        async with _translated():
            await self._database.prepare(migrations)

    async def close(self) -> None:
        await self._database.engine.dispose()

    async def write(self, batch: Sequence[Change]) -> frozenset[StreamId]:
        ends = [change.record for change in batch if isinstance(change, Ended)]

        async def write(connection: AsyncConnection) -> frozenset[StreamId]:
            created = [c.record for c in batch if isinstance(c, Created)]
            await self._create(connection, created)
            known = await self._known(connection, {_stream_of(change) for change in batch})
            appended = [c for c in batch if isinstance(c, Appended) and c.record.id in known]
            await self._append(connection, appended)
            return await self._finish(connection, ends)

        return await self._run(write, writes=True)

    async def load(self, stream_id: StreamId) -> StreamRecord | None:
        found = await self._find(_sessions.c.id == _clean(stream_id), limit=1)
        return found[0] if found else None

    async def segments(self, stream_id: StreamId, after_seq: int) -> list[Segment]:
        query = (
            sa.select(_segments.c.first, _segments.c.data)
            .where(_segments.c.stream_id == _clean(stream_id), _segments.c.last > after_seq)
            .order_by(_segments.c.first)
        )
        rows = await self._run(lambda connection: _fetch(connection, query))
        return list(without_overlap(self._segment(stream_id, row) for row in rows))

    async def find_by_conversation(
        self, owner: str | None, conversation_id: str, limit: int
    ) -> list[StreamRecord]:
        where = _sessions.c.conversation_id == _clean(conversation_id)
        if owner is not None:
            where &= _sessions.c.owner == _clean(owner)
        return await self._find(where, limit=limit)

    async def find_by_idempotency(self, owner: str, key: str) -> StreamRecord | None:
        where = (_sessions.c.owner == _clean(owner)) & (_sessions.c.idempotency_key == _clean(key))
        found = await self._find(where, limit=1)
        return found[0] if found else None

    async def end_interrupted(self, now_ms: int, ttl_ms: int) -> list[StreamRecord]:
        ending = error_ending("interrupted")
        query = sa.select(_sessions.c.id).where(_is_active, _sessions.c.instance == self._instance)

        async def end(connection: AsyncConnection) -> list[str]:
            ids = [str(row["id"]) for row in await _fetch(connection, query)]
            await _each(
                connection,
                _INTERRUPT,
                [
                    {
                        "stream": stream_id,
                        "new_status": ending.status.value,
                        "new_reason": _stored_reason(ending.reason),
                        "new_message": self._sealed_message(stream_id, ending.message),
                        "new_retryable": ending.retryable,
                        "new_ended_at_ms": now_ms,
                        "new_expires_at_ms": now_ms + ttl_ms,
                        "new_ended_by": self._token,
                    }
                    for stream_id in ids
                ],
            )
            return ids

        ids = await self._run(end, writes=True)
        mine = _sessions.c.ended_by == self._token
        return [
            record
            for some in _slices(ids)
            for record in await self._find(_sessions.c.id.in_(some) & mine, limit=len(some))
        ]

    async def sweep(self, now_ms: int, max_bytes: int) -> int:
        oldest = sa.select(_sessions.c.id).order_by(_sessions.c.expires_at_ms).limit(_SWEEP_STREAMS)
        gone = await self._delete_all(oldest.where(_sessions.c.expires_at_ms <= now_ms))
        while max_bytes and (excess := await self._stored_bytes() - max_bytes) > 0:
            removed = await self._delete(await self._oldest(excess))
            if not removed:
                break
            gone += removed
        if gone:
            async with _translated():
                await self._database.tidy()
        return gone

    async def erase(self, owner: str) -> int:
        mine = sa.select(_sessions.c.id).where(_sessions.c.owner == _clean(owner))
        return await self._delete_all(mine.limit(_SWEEP_STREAMS))

    async def ping(self) -> None:
        await self._run(
            lambda connection: _fetch(connection, sa.select(sa.literal(1).label("one")))
        )

    async def _create(self, connection: AsyncConnection, records: list[StreamRecord]) -> None:
        statement = self._database.insert(_sessions).on_conflict_do_nothing()
        await _each(connection, statement, [self._new_row(record) for record in records])

    async def _known(self, connection: AsyncConnection, ids: Iterable[str]) -> set[object]:
        found: set[object] = set()
        for some in _slices(sorted(ids)):
            query = sa.select(_sessions.c.id).where(_sessions.c.id.in_(some))
            found.update(row["id"] for row in await _fetch(connection, query))
        return found

    async def _append(self, connection: AsyncConnection, appended: list[Appended]) -> None:
        insert = self._database.insert(_segments)
        # A repeated write may have more to say than the first, which perhaps was committed.
        newer = {name: insert.excluded[name] for name in ("last", "size", "data")}
        statement = insert.on_conflict_do_update(
            index_elements=["stream_id", "first"],
            set_=newer,
            where=_segments.c.last < insert.excluded.last,
        )
        await _each(connection, statement, [self._segment_row(c.segment) for c in appended])
        rows = [self._counts(change.record) for change in appended]
        await _each(connection, _PROGRESS, rows)

    async def _finish(
        self, connection: AsyncConnection, records: list[StreamRecord]
    ) -> frozenset[StreamId]:
        rows = [{**self._counts(record), **self._ending(record)} for record in records]
        await _each(connection, _FINISH, rows)
        won: set[object] = set()
        for some in _slices([record.id for record in records]):
            query = sa.select(_sessions.c.id).where(
                _sessions.c.id.in_(some), _sessions.c.ended_by == self._token
            )
            won.update(row["id"] for row in await _fetch(connection, query))
        return frozenset(record.id for record in records if record.id not in won)

    async def _find(self, where: sa.ColumnElement[bool], *, limit: int) -> list[StreamRecord]:
        newest = sa.select(*_COLUMNS).where(where).order_by(_sessions.c.created_at_ms.desc())
        rows = await self._run(lambda connection: _fetch(connection, newest.limit(limit)))
        return [self._record(row) for row in rows]

    async def _delete_all(self, some: sa.Select[tuple[str]]) -> int:
        gone = 0
        while True:
            rows = await self._run(lambda connection: _fetch(connection, some))
            removed = await self._delete([str(row["id"]) for row in rows])
            gone += removed
            if len(rows) < _SWEEP_STREAMS:
                return gone

    async def _delete(self, ids: list[str]) -> int:
        async def delete(connection: AsyncConnection) -> int:
            statement = sa.delete(_sessions).where(_sessions.c.id.in_(ids))
            return (await connection.execute(statement)).rowcount

        return await self._run(delete, writes=True) if ids else 0

    async def _stored_bytes(self) -> int:
        query = sa.select(sa.func.coalesce(sa.func.sum(_segments.c.size), 0).label("bytes"))
        rows = await self._run(lambda connection: _fetch(connection, query))
        return int(str(rows[0]["bytes"]))

    async def _oldest(self, excess: int) -> list[str]:
        """The ended streams to delete so that so many bytes go; not more than one batch."""
        size = sa.func.coalesce(sa.func.sum(_segments.c.size), 0).label("bytes")
        query = (
            sa.select(_sessions.c.id, size)
            .join(_segments, isouter=True)
            .where(_sessions.c.status != Status.ACTIVE.value)
            .group_by(_sessions.c.id, _sessions.c.ended_at_ms)
            .order_by(_sessions.c.ended_at_ms)
            .limit(_SWEEP_STREAMS)
        )
        ids: list[str] = []
        for row in await self._run(lambda connection: _fetch(connection, query)):
            if excess <= 0:
                break
            ids.append(str(row["id"]))
            excess -= int(str(row["bytes"]))
        return ids

    async def _run(
        self, work: Callable[[AsyncConnection], Awaitable[_T]], *, writes: bool = False
    ) -> _T:
        """`work` in a transaction; once more if the connection turns out to be dead."""
        engine = self._database.writer if writes else self._database.engine
        async with _translated():
            try:
                async with engine.begin() as connection:
                    return await work(connection)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            async with engine.begin() as connection:
                return await work(connection)

    def _new_row(self, record: StreamRecord) -> dict[str, object]:
        return {
            "id": record.id,
            "owner": _clean(record.owner),
            "trace_id": _clean(record.trace_id),
            "route": _clean(record.route),
            "conversation_id": _clean(record.conversation_id),
            "idempotency_key": _clean(record.idempotency_key),
            "fingerprint": record.fingerprint,
            "with_ids": record.with_ids,
            "status": Status.ACTIVE.value,
            "reason": None,
            "message": self._sealed_message(record.id, ""),
            "retryable": False,
            "created_at_ms": record.created_at_ms,
            "total_chunks": 0,
            "estimated": False,
            "last_seq": 0,
            "instance": self._instance,
        }

    def _counts(self, record: StreamRecord) -> dict[str, object]:
        counts = {f"new_{name}": getattr(record, name) for name in _COUNTS}
        return {"stream": record.id, **counts}

    def _ending(self, record: StreamRecord) -> dict[str, object]:
        return {
            "new_status": record.status.value,
            "new_reason": _stored_reason(record.reason),
            "new_message": self._sealed_message(record.id, record.message),
            "new_retryable": record.retryable,
            "new_ended_at_ms": record.ended_at_ms,
            "new_expires_at_ms": record.expires_at_ms,
            "new_ended_by": self._token,
        }

    def _record(self, row: _Row) -> StreamRecord:
        reason = row["reason"]
        if isinstance(reason, str) and reason.lower() in ENDING_REASONS:
            reason = reason.lower()
        sealed = row["message"]
        assert isinstance(sealed, bytes)  # noqa: S101 - the column's type
        message = self._cipher.open(sealed, f"{row['id']}.message").decode()
        values = {**row, "status": Status(str(row["status"])), "reason": reason, "message": message}
        return StreamRecord(**values)  # type: ignore[arg-type]

    def _segment_row(self, segment: Segment) -> dict[str, object]:
        place = f"{segment.stream_id}.{segment.first}"
        data = self._cipher.seal(segment.pack(), place)
        return {
            "stream_id": segment.stream_id,
            "first": segment.first,
            "last": segment.last,
            "size": len(data),
            "data": data,
        }

    def _segment(self, stream_id: StreamId, row: _Row) -> Segment:
        first, data = row["first"], row["data"]
        assert isinstance(first, int)  # noqa: S101 - the columns' types
        assert isinstance(data, bytes)  # noqa: S101
        return Segment.unpack(stream_id, first, self._cipher.open(data, f"{stream_id}.{first}"))

    def _sealed_message(self, stream_id: str, message: str) -> bytes:
        return self._cipher.seal(message.encode("utf-8", "replace"), f"{stream_id}.message")


async def _fetch(connection: AsyncConnection, query: sa.Select[*tuple[object, ...]]) -> list[_Row]:
    return [dict(row) for row in (await connection.execute(query)).mappings()]


async def _each(
    connection: AsyncConnection, statement: sa.Executable, rows: list[dict[str, object]]
) -> None:
    if rows:
        await connection.execute(statement, rows)


def _stream_of(change: Change) -> StreamId:
    return change.record.id


def _slices(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    """A statement takes only so many parameters."""
    return (ids[start : start + 500] for start in range(0, len(ids), 500))


def _clean(text: str | None) -> str | None:
    """Text as both databases can hold it: no NUL, no half of a surrogate pair."""
    if text is None:
        return None
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _stored_reason(reason: str | None) -> str | None:
    """The endings' words in capitals; a user's own words as they are."""
    return reason.upper() if reason in ENDING_REASONS else _clean(reason)


def _postgres_url(text: str) -> sa.URL:
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
async def _translated() -> AsyncIterator[None]:
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


def _sqlite_code(error: DBAPIError) -> int:
    return int(getattr(error.orig, "sqlite_errorcode", 0)) & 0xFF
