"""How records leave the store: their leaves stay, and of whole blocks of 256 one hash.

Functions of a connection, each small enough for one transaction beside others' commits.
docs/audit-format.md, "What may be missing".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.due import Task
from gateway.audit.explanations import Day
from gateway.audit.holds import in_force, is_held
from gateway.audit.merkle import TILE_HEIGHT, TILE_WIDTH, leaf_hash
from gateway.audit.ranges import Run, runs_of

_NONE: Mapping[int, Day] = MappingProxyType({})


def delete(
    connection: sa.Connection, task: Task, runs: Sequence[Run], closed: Mapping[int, Day] = _NONE
) -> int:
    """Takes what these runs name; how many. What has come under a hold since stays.

    The tombstones of the days in `closed` go with the records of these numbers, which closed them.
    """
    held = is_held(in_force(connection))
    gone = 0
    for start, end in runs:
        records = tables.records
        these = sa.and_(
            records.c.log == task.log.id,
            records.c.cls == task.cls.value,
            records.c.seq.between(start, end - 1),
            sa.not_(held),
        )
        if task.field is not None:
            gone += _delete_field(connection, task, these)
        else:
            query = sa.select(records.c.seq, records.c.body).where(these)
            gone += prune(connection, task.log.id, connection.execute(query).all())
    for seq, day in closed.items():
        _forget(connection, task.log.id, seq, day)
    return gone


def clear(connection: sa.Connection, most: int) -> bool:
    """Deletes up to so many rows of each table of the logs that were dropped; whether that was
    all of them."""
    logs = tables.logs
    dropped = connection.scalar(sa.select(logs.c.id).where(logs.c.state == "dropped").limit(1))
    if dropped is None:
        return True
    is_empty = True
    for column in (tables.pruned.c.seq, tables.tiles.c.idx, tables.checkpoints.c.size):
        these = column.table.c.log == dropped
        rows = sa.select(column).where(these).order_by(column)
        bound = connection.scalar(rows.offset(most).limit(1))
        is_empty &= bound is None
        these = these if bound is None else these & (column < bound)
        connection.execute(sa.delete(column.table).where(these))
    if is_empty:
        connection.execute(sa.delete(logs).where(logs.c.id == dropped))
    return False


def prune(connection: sa.Connection, log_id: int, rows: Sequence[sa.Row[int, bytes]]) -> int:
    """Takes these records, number and body of each, with their values."""
    if not rows:
        return 0
    leaves = [{"log": log_id, "seq": seq, "leaf": leaf_hash(body)} for seq, body in rows]
    connection.execute(sa.insert(tables.pruned), leaves)
    numbers = [seq for seq, _ in rows]
    for start, end in runs_of(numbers):
        for table in (tables.personal, tables.records):
            these = (table.c.log == log_id) & table.c.seq.between(start, end - 1)
            connection.execute(sa.delete(table).where(these))
    for block in sorted({seq // TILE_WIDTH for seq in numbers}):
        _collapse(connection, log_id, block)
    return len(rows)


def _forget(connection: sa.Connection, log_id: int, seq: int, day: Day) -> None:
    """The tombstones of a day, unless the record that closed it is still there."""
    stones, records = tables.tombstones, tables.records
    closing = sa.exists().where(records.c.log == log_id, records.c.seq == seq)
    those = (stones.c.log == day.log_id) & (stones.c.day == day.day)
    connection.execute(sa.delete(stones).where(those, sa.not_(closing)))


def _collapse(connection: sa.Connection, log_id: int, block: int) -> None:
    """Once no record of a full block is left, its one hash stands for its leaves."""
    tiles, records, pruned = tables.tiles, tables.records, tables.pruned
    inside = (block * TILE_WIDTH, (block + 1) * TILE_WIDTH - 1)
    tile = sa.exists().where(
        tiles.c.log == log_id, tiles.c.level == TILE_HEIGHT, tiles.c.idx == block
    )
    left = sa.exists().where(records.c.log == log_id, records.c.seq.between(*inside))
    these = (pruned.c.log == log_id) & pruned.c.seq.between(*inside)
    connection.execute(sa.delete(pruned).where(these, tile, sa.not_(left)))


def _delete_field(connection: sa.Connection, task: Task, these: sa.ColumnElement[bool]) -> int:
    personal = tables.personal
    values = sa.and_(
        personal.c.log == task.log.id,
        personal.c.field == task.field,
        personal.c.seq.in_(sa.select(tables.records.c.seq).where(these)),
    )
    return connection.execute(sa.delete(personal).where(values)).rowcount
