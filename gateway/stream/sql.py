"""The store of streams in SQLite or PostgreSQL: one set of statements for both.

What is asked of the database is a plain function of a connection, and `Database.run` carries out
each one as a whole, in one transaction: see `gateway.database`. What a batch writes is in
`gateway.stream.batch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from gateway.database import Database
from gateway.database.sqlite import Sqlite
from gateway.stream.batch import Batch
from gateway.stream.cipher import Cipher
from gateway.stream.database import translated
from gateway.stream.migrations import MIGRATIONS
from gateway.stream.model import StreamId
from gateway.stream.rows import Row, Rows, clean
from gateway.stream.store import Change, Segment, SessionStore, StreamRecord, without_overlap
from gateway.stream.tables import Statements, fetch, is_active, segments, sessions, slices

_SWEEP_STREAMS = 100
_OURS = ("instance", "ended_by")
_COLUMNS = [column for column in sessions.c if column.name not in _OURS]
_T = TypeVar("_T")


def make_store(
    database_url: str | None, data_dir: Path, cipher: Cipher, *, instance: str = ""
) -> SessionStore:
    """PostgreSQL if there is a URL, else `streams.sqlite3` in `data_dir`. Connects to nothing yet.

    `instance` names this process among those that share the store, the same after a restart.

    Raises:
        SettingsError: the URL isn't one of PostgreSQL. It is never quoted: it may hold a password.
    """
    if database_url is None:
        return SqlStore(Sqlite(data_dir / "streams.sqlite3", MIGRATIONS), cipher, instance)
    from gateway.database.postgres import Postgres, postgres_url  # takes as long as the rest

    return SqlStore(Postgres(postgres_url(database_url), MIGRATIONS), cipher, instance)


class SqlStore:
    """The `SessionStore` in a database."""

    def __init__(self, database: Database, cipher: Cipher, instance: str) -> None:
        self._database = database
        self._rows = Rows(cipher, instance)
        self._statements = Statements(database)

    async def open(self) -> None:
        async with translated():
            await self._database.prepare()

    async def claim(self) -> None:
        async with translated():
            await self._database.claim()

    async def claim_lost(self) -> None:
        await self._database.claim_lost()

    async def close(self) -> None:
        await self._database.close()

    async def write(self, batch: Sequence[Change]) -> frozenset[StreamId]:
        made = Batch(batch, self._rows)
        write = partial(made.write, statements=self._statements)
        async with translated():
            return await self._database.run(
                write, writes=True, is_patient=made.is_patient, autocommit=made.is_one_row
            )

    async def load(self, stream_id: StreamId) -> StreamRecord | None:
        found = await self._find(sessions.c.id == clean(stream_id), limit=1)
        return found[0] if found else None

    async def segments(self, stream_id: StreamId, after_seq: int) -> list[Segment]:
        query = (
            sa.select(segments.c.first, segments.c.data)
            .where(segments.c.stream_id == clean(stream_id), segments.c.last > after_seq)
            .order_by(segments.c.first)
        )
        rows = await self._run(partial(fetch, query=query))
        return list(without_overlap(self._rows.segment(stream_id, row) for row in rows))

    async def find_by_conversation(
        self, owner: str | None, conversation_id: str, limit: int
    ) -> list[StreamRecord]:
        where = sessions.c.conversation_id == clean(conversation_id)
        if owner is not None:
            where &= sessions.c.owner == clean(owner)
        return await self._find(where, limit=limit)

    async def find_by_idempotency(self, owner: str, key: str) -> StreamRecord | None:
        where = (sessions.c.owner == clean(owner)) & (sessions.c.idempotency_key == clean(key))
        found = await self._find(where, limit=1)
        return found[0] if found else None

    async def end_interrupted(self, now_ms: int, ttl_ms: int) -> list[StreamRecord]:
        end = partial(self._end_interrupted, now_ms=now_ms, ttl_ms=ttl_ms)
        return [self._rows.record(row) for row in await self._run(end, writes=True)]

    async def sweep(self, now_ms: int, max_bytes: int) -> int:
        oldest = sa.select(sessions.c.id).order_by(sessions.c.expires_at_ms).limit(_SWEEP_STREAMS)
        gone = await self._delete_all(oldest.where(sessions.c.expires_at_ms <= now_ms))
        while max_bytes and (excess := await self._run(_stored_bytes) - max_bytes) > 0:
            removed = await self._run(partial(_delete_oldest, excess=excess), writes=True)
            if not removed:
                break
            gone += removed
        if gone:
            async with translated():
                await self._database.tidy()
        return gone

    async def owners(self) -> list[str]:
        rows = await self._run(partial(fetch, query=sa.select(sessions.c.owner).distinct()))
        return [str(row["owner"]) for row in rows]

    async def owned(self, owner: str) -> list[StreamRecord]:
        query = sa.select(*_COLUMNS).where(sessions.c.owner == clean(owner))
        rows = await self._run(partial(fetch, query=query.order_by(sessions.c.created_at_ms)))
        return [self._rows.record(row) for row in rows]

    async def erase(self, streams: Sequence[StreamId]) -> int:
        gone = 0
        for some in slices([str(clean(one)) for one in streams]):
            gone += await self._run(partial(_delete_these, ids=some), writes=True)
        if gone:
            async with translated():
                await self._database.scrub()
        return gone

    async def ping(self) -> None:
        await self._run(partial(fetch, query=sa.select(sa.literal(1).label("one"))))

    async def _find(self, where: sa.ColumnElement[bool], *, limit: int) -> list[StreamRecord]:
        newest = sa.select(*_COLUMNS).where(where).order_by(sessions.c.created_at_ms.desc())
        rows = await self._run(partial(fetch, query=newest.limit(limit)))
        return [self._rows.record(row) for row in rows]

    async def _delete_all(self, some: sa.Select[tuple[str]]) -> int:
        gone = 0
        while removed := await self._run(partial(_delete, some=some), writes=True):
            gone += removed
            if removed < _SWEEP_STREAMS:
                break
        return gone

    def _end_interrupted(self, connection: sa.Connection, now_ms: int, ttl_ms: int) -> list[Row]:
        left = is_active & (sessions.c.instance == self._rows.instance)
        ids = [str(row["id"]) for row in fetch(connection, sa.select(sessions.c.id).where(left))]
        rows = [self._rows.interruption(stream_id, now_ms, ttl_ms) for stream_id in ids]
        self._statements.interrupt.execute(connection, rows)
        mine = sa.select(*_COLUMNS).where(sessions.c.ended_by == self._rows.token)
        return [
            row
            for some in slices(ids)
            for row in fetch(connection, mine.where(sessions.c.id.in_(some)))
        ]

    async def _run(self, work: Callable[[sa.Connection], _T], *, writes: bool = False) -> _T:
        async with translated():
            return await self._database.run(work, writes=writes)


def _delete(connection: sa.Connection, some: sa.Select[tuple[str]]) -> int:
    """How many; their segments go with them."""
    ids = [row["id"] for row in fetch(connection, some)]
    return _delete_these(connection, ids)


def _delete_these(connection: sa.Connection, ids: Sequence[object]) -> int:
    if not ids:
        return 0
    return connection.execute(sa.delete(sessions).where(sessions.c.id.in_(ids))).rowcount


def _stored_bytes(connection: sa.Connection) -> int:
    query = sa.select(sa.func.coalesce(sa.func.sum(segments.c.size), 0))
    return int(connection.execute(query).scalar_one())


def _delete_oldest(connection: sa.Connection, excess: int) -> int:
    """Of those that have ended, so that so many bytes go; not more than one batch."""
    size = sa.func.coalesce(sa.func.sum(segments.c.size), 0).label("bytes")
    query = (
        sa.select(sessions.c.id, size)
        .join(segments, isouter=True)
        .where(~is_active)
        .group_by(sessions.c.id, sessions.c.ended_at_ms)
        .order_by(sessions.c.ended_at_ms)
        .limit(_SWEEP_STREAMS)
    )
    ids: list[object] = []
    for row in fetch(connection, query):
        if excess <= 0:
            break
        ids.append(row["id"])
        excess -= int(str(row["bytes"]))
    return _delete_these(connection, ids)
