"""The store of streams in SQLite or PostgreSQL: one set of statements for both.

How each connects, locks and tidies is in `gateway.stream.database`.
Nothing here blocks the event loop: aiosqlite works in threads of its own, asyncpg on the network.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.stream.cipher import Cipher
from gateway.stream.database import Database, Postgres, Sqlite, postgres_url, translated
from gateway.stream.model import Status, StreamId, error_ending
from gateway.stream.rows import COUNTS, Row, Rows, clean, stored_reason
from gateway.stream.store import (
    Appended,
    Change,
    Created,
    Ended,
    Segment,
    SessionStore,
    StreamRecord,
    without_overlap,
)

_SWEEP_STREAMS = 100
_T = TypeVar("_T")

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
_END = ("status", "reason", "message", "retryable", "ended_at_ms", "expires_at_ms", "ended_by")
_the_stream = _sessions.c.id == sa.bindparam("stream")
_is_active = _sessions.c.status == Status.ACTIVE.value


def _set(names: Iterable[str]) -> dict[str, sa.BindParameter[object]]:
    return {name: sa.bindparam(f"new_{name}", type_=_sessions.c[name].type) for name in names}


_PROGRESS = (
    sa.update(_sessions)
    .where(_the_stream, _is_active, _sessions.c.last_seq < sa.bindparam("new_last_seq"))
    .values(_set(COUNTS))
)
_FINISH = sa.update(_sessions).where(_the_stream, _is_active).values(_set([*COUNTS, *_END]))
_INTERRUPT = sa.update(_sessions).where(_the_stream, _is_active).values(_set(_END))


def make_store(
    database_url: str | None, data_dir: Path, cipher: Cipher, *, instance: str = ""
) -> SessionStore:
    """PostgreSQL if there is a URL, else `streams.sqlite3` in `data_dir`. Connects to nothing yet.

    `instance` names this process among those that share the store, the same after a restart.

    Raises:
        SettingsError: the URL isn't one of PostgreSQL. It is never quoted: it may hold a password.
    """
    if database_url is None:
        return SqlStore(Sqlite(data_dir / "streams.sqlite3"), cipher, instance)
    return SqlStore(Postgres(postgres_url(database_url)), cipher, instance)


class SqlStore:
    """The `SessionStore` in a database."""

    def __init__(self, database: Database, cipher: Cipher, instance: str) -> None:
        self._database = database
        self._rows = Rows(cipher, instance)

    async def open(self) -> None:
        async with translated():
            await self._database.prepare()

    async def claim(self) -> None:
        async with translated():
            await self._database.claim()

    async def claim_lost(self) -> None:
        await self._database.claim_lost()

    async def close(self) -> None:
        await self._database.unclaim()
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
        found = await self._find(_sessions.c.id == clean(stream_id), limit=1)
        return found[0] if found else None

    async def segments(self, stream_id: StreamId, after_seq: int) -> list[Segment]:
        query = (
            sa.select(_segments.c.first, _segments.c.data)
            .where(_segments.c.stream_id == clean(stream_id), _segments.c.last > after_seq)
            .order_by(_segments.c.first)
        )
        rows = await self._run(lambda connection: _fetch(connection, query))
        return list(without_overlap(self._rows.segment(stream_id, row) for row in rows))

    async def find_by_conversation(
        self, owner: str | None, conversation_id: str, limit: int
    ) -> list[StreamRecord]:
        where = _sessions.c.conversation_id == clean(conversation_id)
        if owner is not None:
            where &= _sessions.c.owner == clean(owner)
        return await self._find(where, limit=limit)

    async def find_by_idempotency(self, owner: str, key: str) -> StreamRecord | None:
        where = (_sessions.c.owner == clean(owner)) & (_sessions.c.idempotency_key == clean(key))
        found = await self._find(where, limit=1)
        return found[0] if found else None

    async def end_interrupted(self, now_ms: int, ttl_ms: int) -> list[StreamRecord]:
        ending = error_ending("interrupted")
        query = sa.select(_sessions.c.id).where(
            _is_active, _sessions.c.instance == self._rows.instance
        )

        async def end(connection: AsyncConnection) -> list[str]:
            ids = [str(row["id"]) for row in await _fetch(connection, query)]
            await _each(
                connection,
                _INTERRUPT,
                [
                    {
                        "stream": stream_id,
                        "new_status": ending.status.value,
                        "new_reason": stored_reason(ending.reason),
                        "new_message": self._rows.sealed_message(stream_id, ending.message),
                        "new_retryable": ending.retryable,
                        "new_ended_at_ms": now_ms,
                        "new_expires_at_ms": now_ms + ttl_ms,
                        "new_ended_by": self._rows.token,
                    }
                    for stream_id in ids
                ],
            )
            return ids

        ids = await self._run(end, writes=True)
        mine = _sessions.c.ended_by == self._rows.token
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
            async with translated():
                await self._database.tidy()
        return gone

    async def erase(self, owner: str) -> int:
        mine = sa.select(_sessions.c.id).where(_sessions.c.owner == clean(owner))
        return await self._delete_all(mine.limit(_SWEEP_STREAMS))

    async def ping(self) -> None:
        await self._run(
            lambda connection: _fetch(connection, sa.select(sa.literal(1).label("one")))
        )

    async def _create(self, connection: AsyncConnection, records: list[StreamRecord]) -> None:
        statement = self._database.insert(_sessions).on_conflict_do_nothing()
        await _each(connection, statement, [self._rows.new_row(record) for record in records])

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
        await _each(connection, statement, [self._rows.segment_row(c.segment) for c in appended])
        rows = [self._rows.counts(change.record) for change in appended]
        await _each(connection, _PROGRESS, rows)

    async def _finish(
        self, connection: AsyncConnection, records: list[StreamRecord]
    ) -> frozenset[StreamId]:
        rows = [{**self._rows.counts(record), **self._rows.ending(record)} for record in records]
        await _each(connection, _FINISH, rows)
        won: set[object] = set()
        for some in _slices([record.id for record in records]):
            query = sa.select(_sessions.c.id).where(
                _sessions.c.id.in_(some), _sessions.c.ended_by == self._rows.token
            )
            won.update(row["id"] for row in await _fetch(connection, query))
        return frozenset(record.id for record in records if record.id not in won)

    async def _find(self, where: sa.ColumnElement[bool], *, limit: int) -> list[StreamRecord]:
        newest = sa.select(*_COLUMNS).where(where).order_by(_sessions.c.created_at_ms.desc())
        rows = await self._run(lambda connection: _fetch(connection, newest.limit(limit)))
        return [self._rows.record(row) for row in rows]

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
        async with translated():
            try:
                async with engine.begin() as connection:
                    return await work(connection)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            async with engine.begin() as connection:
                return await work(connection)


async def _fetch(connection: AsyncConnection, query: sa.Select[*tuple[object, ...]]) -> list[Row]:
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
