"""The tables of the stream store, and the statements of its writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from gateway.database import Database
from gateway.database.statement import Statement
from gateway.stream.model import Status
from gateway.stream.rows import COUNTS, END, Row

metadata = sa.MetaData()
sessions = sa.Table(
    "stream_sessions",
    metadata,
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
segments = sa.Table(
    "stream_segments",
    metadata,
    sa.Column("stream_id", sa.Text, sa.ForeignKey(sessions.c.id), primary_key=True),
    sa.Column("first", sa.BigInteger, primary_key=True),
    sa.Column("last", sa.BigInteger),
    sa.Column("size", sa.BigInteger),
    sa.Column("data", sa.LargeBinary),
)
_ACTIVE: sa.ColumnElement[str] = sa.literal_column(f"'{Status.ACTIVE.value}'")
#: With the word in the statement, so that the index of active streams serves it.
is_active = sessions.c.status == _ACTIVE

#: A parameter named as a column isn't ours to name, for SQLAlchemy.
_PREFIX = "new_"


class Statements:
    """The statements of a batch."""

    def __init__(self, database: Database) -> None:
        statement = partial(Statement, database=database, prefix=_PREFIX)
        self.begin = statement(_begin(database))
        self.append = statement(_append(database))
        in_order = sessions.c.last_seq < _parameters([sessions.c.last_seq])["last_seq"]
        self.progress = statement(_update(COUNTS).where(in_order))
        self.end = statement(_update([*COUNTS, *END]))
        self.interrupt = statement(_update(END))


def _begin(database: Database) -> sa.Insert:
    """Makes a stream as it is by now; one that runs already only goes forward to that."""
    insert = database.insert(sessions).values(_parameters(sessions.c))
    new = insert.excluded
    goes_on = (new.status != _ACTIVE) | (sessions.c.last_seq < new.last_seq)
    return insert.on_conflict_do_update(
        index_elements=["id"],
        set_={name: new[name] for name in (*COUNTS, *END)},
        where=is_active & goes_on,
    )


def _append(database: Database) -> sa.Insert:
    """Adds a segment, unless its stream is gone."""
    parameters = _parameters(segments.c)
    its_stream = sa.exists().where(sessions.c.id == parameters["stream_id"])
    insert = database.insert(segments).from_select(
        list(parameters), sa.select(*parameters.values()).where(its_stream)
    )
    # A repeated write may have more to say than the first, which perhaps was committed.
    newer = {name: insert.excluded[name] for name in ("last", "size", "data")}
    return insert.on_conflict_do_update(
        index_elements=["stream_id", "first"],
        set_=newer,
        where=segments.c.last < insert.excluded.last,
    )


def _update(names: Iterable[str]) -> sa.Update:
    the_stream = sessions.c.id == _parameters([sessions.c.id])["id"]
    values = _parameters(sessions.c[name] for name in names)
    return sa.update(sessions).where(the_stream, is_active).values(values)


def _parameters(columns: Iterable[sa.Column[Any]]) -> dict[str, sa.BindParameter[Any]]:
    return {one.name: sa.bindparam(f"{_PREFIX}{one.name}", type_=one.type) for one in columns}


def fetch(connection: sa.Connection, query: sa.Select[*tuple[object, ...]]) -> list[Row]:
    """The rows by their columns' names."""
    return [dict(row) for row in connection.execute(query).mappings()]


def slices(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    """A statement takes only so many parameters."""
    return (ids[start : start + 500] for start in range(0, len(ids), 500))
