"""Where logs are kept: SQLite or PostgreSQL, with one set of statements.

What is written to a log goes through `gateway.audit.ledger`; this opens the database and reads.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.export import Tombstone
from gateway.audit.merkle import TILE_WIDTH, NodeReader, leaf_hash, tiled
from gateway.audit.migrations import MIGRATIONS
from gateway.audit.record import Personal
from gateway.database import RAISED, Database, failure
from gateway.database.sqlite import Sqlite
from gateway.errors import Unavailable

FILE = "audit.sqlite3"
_BLOCKS = 4
#: A file of this size is written anew within a second or two.
REWRITE_BYTES = 128 * 1024 * 1024
_T = TypeVar("_T")


class AuditStoreError(Unavailable):
    """The store couldn't do it. `detail` is the driver's word for the reason."""

    code = "audit_unavailable"

    def __init__(self, detail: str) -> None:
        super().__init__(f"The audit store failed ({detail}).", retry_after_s=5)
        self.detail = detail


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """What a database or its driver raises, as an `AuditStoreError`."""
    try:
        yield
    except RAISED as error:
        raise AuditStoreError(failure(error)[0]) from error


@dataclass(frozen=True, slots=True)
class LogInfo:
    """One log of the deployment."""

    id: int
    origin: str
    kind: str
    state: str
    instance: str
    size: int
    opened_ms: int
    seen_ms: int


@dataclass(frozen=True, slots=True)
class Stored:
    """One record as it is kept: with its body, or only its leaf."""

    seq: int
    leaf: bytes
    body: bytes | None
    personal: Sequence[Personal]


def make_store(database_url: str | None, data_dir: Path) -> AuditStore:
    """PostgreSQL if there is a URL, else a file in `data_dir`. Connects to nothing yet.

    Raises:
        SettingsError: the URL isn't one of PostgreSQL.
    """
    if database_url is None:
        file = Sqlite(data_dir / FILE, MIGRATIONS, name="audit", is_lasting=True)
        return AuditStore(file, is_shared=False)
    from gateway.database.postgres import Postgres, postgres_url  # takes as long as the rest

    return AuditStore(Postgres(postgres_url(database_url), MIGRATIONS), is_shared=True)


class AuditStore:
    """The database of the logs. Every method but `close` may raise `AuditStoreError`.

    `is_shared`: processes on other machines may write to it too.
    """

    def __init__(self, database: Database, *, is_shared: bool) -> None:
        self.database = database
        self.is_shared = is_shared

    async def open(self) -> None:
        """Makes the tables, or brings them up to date.

        Raises:
            SettingsError: what is there can't be used.
        """
        async with translated():
            await self.database.prepare()

    async def close(self) -> None:
        await self.database.close()

    async def run(self, work: Callable[[sa.Connection], _T], *, writes: bool = False) -> _T:
        """Does `work` in one transaction; see `gateway.database.Database.run`."""
        async with translated():
            return await self.database.run(work, writes=writes)

    @asynccontextmanager
    async def alone(self, purpose: str) -> AsyncIterator[bool]:
        """See `gateway.database.Database.alone`."""
        async with AsyncExitStack() as stack:
            async with translated():
                is_alone = await stack.enter_async_context(self.database.alone(purpose))
            yield is_alone

    async def tidy(self, pages: int) -> None:
        """Gives up to so many freed pages back: 250 take some 5 ms."""
        async with translated():
            await self.database.tidy(pages)

    async def scrub(self, *, is_patient: bool = False) -> bool:
        """Leaves nothing of what was erased in the files; whether it could. While a large file is
        written anew no record can be stored, so that this is done only if `is_patient`."""
        limit = math.inf if is_patient else REWRITE_BYTES
        async with translated():
            return await self.database.scrub(rewrites_up_to=limit)

    async def logs(self) -> list[LogInfo]:
        """Every log that isn't dropped, the catalogue among them, in the order of their opening."""
        return await self.run(all_logs)

    async def records(self, log_id: int, start: int, end: int) -> list[Stored]:
        """Records from `start` to before `end`, pruned ones too; those of whole blocks that are
        nothing but a tile are left out."""
        return await self.run(partial(read_records, log_id=log_id, start=start, end=end))

    async def checkpoints(self, log_id: int) -> list[tuple[int, str]]:
        """Time and note of each, by size and then by time."""
        return await self.run(partial(read_checkpoints, log_id=log_id))


def at_one_moment(connection: sa.Connection) -> None:
    """Has the transaction, which has done nothing yet and only reads, see everything as it is now.
    SQLite's always do."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def all_logs(connection: sa.Connection) -> list[LogInfo]:
    columns = [tables.logs.c[name] for name in LogInfo.__slots__]
    query = sa.select(*columns).where(tables.logs.c.state != "dropped").order_by(columns[0])
    return [LogInfo(*row) for row in connection.execute(query)]


def read_records(connection: sa.Connection, log_id: int, start: int, end: int) -> list[Stored]:
    found: dict[int, Stored] = {}
    for row in connection.execute(_between(tables.records, log_id, start, end)):
        found[row.seq] = Stored(row.seq, leaf_hash(row.body), row.body, [])
    for row in connection.execute(_between(tables.pruned, log_id, start, end)):
        found.setdefault(row.seq, Stored(row.seq, row.leaf, None, ()))
    for row in connection.execute(_between(tables.personal, log_id, start, end)):
        if (record := found.get(row.seq)) is not None and isinstance(record.personal, list):
            record.personal.append(Personal(row.field, row.value, row.salt))
    return [found[seq] for seq in sorted(found)]


def read_checkpoints(connection: sa.Connection, log_id: int) -> list[tuple[int, str]]:
    table = tables.checkpoints
    query = sa.select(table.c.ts, table.c.note).where(table.c.log == log_id)
    ordered = query.order_by(table.c.size, table.c.ts)
    return [(row.ts, row.note) for row in connection.execute(ordered)]


def last_checkpoints(connection: sa.Connection, within_ms: int) -> list[tuple[int, str]]:
    """When those were signed that were signed last, of whichever log, and their notes; in order."""
    table = tables.checkpoints
    since = sa.select(sa.func.max(table.c.ts) - within_ms).scalar_subquery()
    query = sa.select(table.c.ts, table.c.note).where(table.c.ts >= since).order_by(table.c.ts)
    return [(row.ts, row.note) for row in connection.execute(query)]


def newest_checkpoints(connection: sa.Connection) -> list[str]:
    """The note of the largest tree of each log that was ever signed."""
    table = tables.checkpoints
    query = sa.select(table.c.log, table.c.note).order_by(table.c.log, table.c.size, table.c.ts)
    return list({row.log: row.note for row in connection.execute(query)}.values())


def read_tiles(connection: sa.Connection, log_id: int) -> Iterator[tuple[int, bytes]]:
    """Index and hash of every full block of 256 records."""
    table = tables.tiles
    query = sa.select(table.c.idx, table.c.hash).where(table.c.log == log_id, table.c.level == 8)
    return ((row.idx, row.hash) for row in connection.execute(query.order_by(table.c.idx)))


def read_tombstones(connection: sa.Connection, log_id: int) -> list[Tombstone]:
    table = tables.tombstones
    query = sa.select(table.c.seq, table.c.field, table.c.day).where(table.c.log == log_id)
    return [Tombstone(*row) for row in connection.execute(query)]


def node_reader(connection: sa.Connection, log_id: int) -> NodeReader:
    """The tree's nodes, for proofs and for a start after a crash."""

    @lru_cache(maxsize=_BLOCKS)
    def block(start: int) -> list[bytes]:
        return _leaves(connection, log_id, start, start + TILE_WIDTH)

    def stored(level: int, start: int, end: int) -> Sequence[bytes]:
        if level:
            table = tables.tiles
            query = sa.select(table.c.hash).where(
                table.c.log == log_id,
                table.c.level == level,
                table.c.idx.between(start, end - 1),
            )
            hashes = list(connection.scalars(query.order_by(table.c.idx)))
        elif len(whole := block(start - start % TILE_WIDTH)) == TILE_WIDTH:
            hashes = whole[start % TILE_WIDTH :][: end - start]
        else:
            hashes = _leaves(connection, log_id, start, end)
        if len(hashes) != end - start:
            raise LookupError(level, start, end)
        return hashes

    return tiled(stored)


def _leaves(connection: sa.Connection, log_id: int, start: int, end: int) -> list[bytes]:
    """Without the personal values, which not everybody may read."""
    found = {
        row.seq: leaf_hash(row.body)
        for row in connection.execute(_between(tables.records, log_id, start, end))
    }
    for row in connection.execute(_between(tables.pruned, log_id, start, end)):
        found.setdefault(row.seq, row.leaf)
    return [found[seq] for seq in sorted(found)]


def keep_checkpoint(connection: sa.Connection, log_id: int, size: int, ts: int, note: str) -> None:
    values = {"log": log_id, "size": size, "ts": ts, "note": note}
    connection.execute(sa.insert(tables.checkpoints).values(values))


def _between(table: sa.Table, log_id: int, start: int, end: int) -> sa.Select[tuple[object, ...]]:
    where = (table.c.log == log_id) & table.c.seq.between(start, end - 1)
    return sa.select(table).where(where).order_by(table.c.seq)
