"""A whole log as the lines of an export, read bit by bit. docs/audit-format.md, "An export"."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

import sqlalchemy as sa

from gateway.audit import export, holds, note
from gateway.audit.merkle import TILE_WIDTH
from gateway.audit.note import Verifier
from gateway.audit.store import (
    AuditStore,
    LogInfo,
    read_checkpoints,
    read_tiles,
    read_tombstones,
)

_RECORDS = 16 * TILE_WIDTH


async def lines(store: AuditStore, log: LogInfo, keys: Sequence[Verifier]) -> AsyncIterator[bytes]:
    """`keys` are those that a reader may trust, under the log's name."""
    yield export.header(log.origin, log.size, time.time_ns() // 1_000_000, keys)
    for line in await store.run(partial(_rest, log_id=log.id)):
        yield line
    in_force = await store.run(holds.in_force)
    for start in range(0, log.size, _RECORDS):
        end = min(start + _RECORDS, log.size)
        held = await store.run(
            partial(holds.held_by, log_id=log.id, start=start, end=end, holds=in_force)
        )
        for one in await store.records(log.id, start, end):
            if one.body is None:
                yield export.pruned(one.seq, one.leaf)
            else:
                yield export.record(one.seq, one.body, one.personal, hold=held.get(one.seq))


def _rest(connection: sa.Connection, log_id: int) -> list[bytes]:
    """What isn't records."""
    return [
        *(
            export.checkpoint(note.parse(text), ts)
            for ts, text in read_checkpoints(connection, log_id)
        ),
        *(export.tombstone(one) for one in read_tombstones(connection, log_id)),
        *(export.tile(*one) for one in read_tiles(connection, log_id)),
    ]
