"""A batch of changes as the rows of its statements: what one transaction has to do, and no more.

The rows are made where the batch is, so that the thread that writes them holds the interpreter only
for as long as the database's driver needs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import sqlalchemy as sa

from gateway.stream.model import StreamId
from gateway.stream.rows import Row, Rows
from gateway.stream.store import Appended, Change, Created, Progress, Segment, StreamRecord
from gateway.stream.tables import Statements, fetch, sessions, slices


@dataclass(slots=True)
class _Story:
    """All that a batch says of one stream: how it began, how far it is now, and how it ended."""

    begun: StreamRecord | None = None
    counts: StreamRecord | Progress | None = None
    ended: StreamRecord | None = None
    segments: list[Segment] = field(default_factory=list)

    def hear(self, change: Change) -> None:
        if isinstance(change, Created):
            self.begun = change.record
            return
        self.counts = change.record
        if isinstance(change, Appended):
            self.segments.append(change.segment)
        else:
            self.ended = change.record


class Batch:
    """A stream that begins and ends within a batch is one row, and one of each segment."""

    def __init__(self, changes: Iterable[Change], rows: Rows) -> None:
        self._token = rows.token
        self._begun: list[Row] = []
        self._segments: list[Row] = []
        self._progress: list[Row] = []
        self._ended: list[Row] = []
        self._ends: list[StreamId] = []
        for story in _stories(changes):
            self._add(story, rows)

    @property
    def is_patient(self) -> bool:
        """Whether no client waits for it, as for the record of a new stream."""
        return not self._begun

    @property
    def is_one_row(self) -> bool:
        """Whether one statement, executed once, is all that it takes."""
        rows = (self._begun, self._segments, self._progress, self._ended)
        return sum(map(len, rows)) == 1

    def write(self, connection: sa.Connection, statements: Statements) -> frozenset[StreamId]:
        """The streams whose end lost to another one, or that are gone."""
        begun = statements.begin.execute(connection, self._begun)
        statements.append.execute(connection, self._segments)
        statements.progress.execute(connection, self._progress)
        ended = statements.end.execute(connection, self._ended)
        if (begun, ended) == (len(self._begun), len(self._ended)):
            return frozenset()
        return self._lost(connection)  # or perhaps none: not every database counts

    def _add(self, story: _Story, rows: Rows) -> None:
        values: dict[str, object] = {} if story.begun is None else rows.begun(story.begun)
        if story.counts is not None:
            values |= rows.counts(story.counts)
        if story.ended is not None:
            values |= rows.ending(story.ended)
            self._ends.append(story.ended.id)
        of_its_kind = self._progress if story.ended is None else self._ended
        (of_its_kind if story.begun is None else self._begun).append(values)
        self._segments += map(rows.segment_row, story.segments)

    def _lost(self, connection: sa.Connection) -> frozenset[StreamId]:
        won: set[object] = set()
        for some in slices(self._ends):
            query = sa.select(sessions.c.id).where(
                sessions.c.id.in_(some), sessions.c.ended_by == self._token
            )
            won.update(row["id"] for row in fetch(connection, query))
        return frozenset(stream_id for stream_id in self._ends if stream_id not in won)


def _stories(changes: Iterable[Change]) -> Iterable[_Story]:
    stories: dict[StreamId, _Story] = {}
    for change in changes:
        story = stories.get(change.record.id)
        if story is None:
            story = stories[change.record.id] = _Story()
        story.hear(change)
    return stories.values()
