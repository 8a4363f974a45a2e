"""What a store of streams keeps, and what it can do: records, segments and the changes to them.

`gateway.stream.sql` is the store that there is; `gateway.stream.keeper` writes to it. Nothing here
does any I/O. Times are integer milliseconds of UTC.
"""

from __future__ import annotations

import secrets
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from gateway.errors import SettingsError, Unavailable
from gateway.stream.model import Status, StreamId
from gateway.stream.run import lengths_of


class StoreError(Unavailable):
    """The store couldn't do it; the message quotes nothing that was stored or asked.

    `is_transient` says that the same may succeed later without anybody's help.
    """

    code = "store_unavailable"

    def __init__(self, message: str, *, is_transient: bool) -> None:
        super().__init__(message, retry_after_s=5 if is_transient else None)
        self.is_transient = is_transient


_LENGTH_BYTES = 4


class Progress(NamedTuple):
    """How far a stream is; see `StreamRecord`, of which this is a part, made in a tenth of the time
    for what is written once a second."""

    id: StreamId
    total_chunks: int
    total_tokens: int | None
    input_tokens: int | None
    estimated: bool
    last_seq: int


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One stream, without its events.

    `estimated` says that `total_tokens` was counted here, not by the backend. `expires_at_ms` is
    None as long as the stream runs. `last_seq` is the last event's number, 0 before the first.
    """

    id: StreamId
    owner: str
    trace_id: str
    route: str
    created_at_ms: int
    with_ids: bool = True
    conversation_id: str | None = None
    fingerprint: bytes = b""
    idempotency_key: str | None = None
    status: Status = Status.ACTIVE
    reason: str | None = None
    message: str = ""
    retryable: bool = False
    ended_at_ms: int | None = None
    expires_at_ms: int | None = None
    total_chunks: int = 0
    total_tokens: int | None = None
    input_tokens: int | None = None
    estimated: bool = False
    last_seq: int = 0

    @property
    def is_active(self) -> bool:
        return self.status is Status.ACTIVE


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive events of one stream as they were sent, and the length of each.

    They are in pieces to be joined: a megabyte is soon compressed, but not soon copied.
    `first` of a stream's segments follows the `last` before it, unless the store was away for so
    long that the log had dropped events: then the gap shows.
    """

    stream_id: StreamId
    first: int
    last: int
    pieces: Sequence[bytes]
    lengths: array[int]

    @classmethod
    def of(cls, stream_id: StreamId, first: int, frames: Sequence[bytes]) -> Segment:
        lengths = lengths_of(frames)
        return cls(stream_id, first, first + len(lengths) - 1, [b"".join(frames)], lengths)

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(map(len, self.pieces))

    def after(self, seq: int) -> list[bytes]:
        """The events that follow `seq`, each by itself."""
        skipped = max(0, seq + 1 - self.first)
        position = sum(self.lengths[:skipped])
        data = b"".join(self.pieces)
        frames = []
        for length in islice(self.lengths, skipped, None):
            frames.append(data[position : position + length])
            position += length
        return frames

    def pack(self) -> list[bytes]:
        """Their count and lengths, as 32 bits each, and themselves: to be joined."""
        head = array("I", (len(self.lengths),)) + self.lengths
        if sys.byteorder == "big":
            head.byteswap()
        return [head.tobytes(), *self.pieces]

    @classmethod
    def unpack(cls, stream_id: StreamId, first: int, packed: bytes) -> Segment:
        """The counterpart of `pack`, joined.

        Raises:
            StoreError: that is no segment.
        """
        lengths = array("I")
        count = int.from_bytes(packed[:_LENGTH_BYTES], "little")
        position = _LENGTH_BYTES * (count + 1)
        if len(packed) < position:
            raise damaged()
        lengths.frombytes(packed[_LENGTH_BYTES:position])
        if sys.byteorder == "big":
            lengths.byteswap()
        data = packed[position:]
        if sum(lengths) != len(data):
            raise damaged()
        return cls(stream_id, first, first + count - 1, [data], lengths)


@dataclass(frozen=True, slots=True)
class Created:
    """A stream has begun. Its end, if it is there already, is a change of its own."""

    record: StreamRecord


@dataclass(frozen=True, slots=True)
class Appended:
    """Events have followed; the record has the counts up to them."""

    record: StreamRecord | Progress
    segment: Segment


@dataclass(frozen=True, slots=True)
class Ended:
    """A stream has ended as the record says; the first end that is written wins."""

    record: StreamRecord


Change = Created | Appended | Ended


class SessionStore(Protocol):
    """Keeps streams. Every method but `close` may raise `StoreError`."""

    async def open(self) -> None:
        """Makes the store ready and its tables current; several processes may do so at once.

        Raises:
            SettingsError: what is there can't be used: damaged, or written by a newer release.
        """
        ...

    async def claim(self) -> None:
        """Becomes the one process on it; waits some seconds for the claim of one that was killed.

        Raises:
            SettingsError: another process is there.
        """
        ...

    async def claim_lost(self) -> None:
        """Returns when the claim is lost, because the database was restarted perhaps."""
        ...

    async def close(self) -> None:
        """Gives the claim back too."""
        ...

    async def write(self, batch: Sequence[Change]) -> frozenset[StreamId]:
        """Writes everything or nothing; the streams whose end lost to an earlier one.

        May be repeated when nobody knows whether it succeeded. What concerns a stream that the
        store no longer has is left out, and its end counts as lost.
        """
        ...

    async def load(self, stream_id: StreamId) -> StreamRecord | None: ...

    async def segments(self, stream_id: StreamId, after_seq: int) -> list[Segment]:
        """What holds the events after `after_seq`: in order, no event twice, perhaps with gaps.

        The first may begin before; see `Segment.after`.
        """
        ...

    async def find_by_conversation(
        self, owner: str | None, conversation_id: str, limit: int
    ) -> list[StreamRecord]:
        """The newest first; of any owner if it is None."""
        ...

    async def find_by_idempotency(self, owner: str, key: str) -> StreamRecord | None:
        """The newest with that key."""
        ...

    async def end_interrupted(self, now_ms: int, ttl_ms: int) -> list[StreamRecord]:
        """Ends as `interrupted` what this instance left running when it died; kept for `ttl_ms`."""
        ...

    async def sweep(self, now_ms: int, max_bytes: int) -> int:
        """Deletes what has expired, then the oldest ended until `max_bytes` (0: no limit) hold.

        In small transactions, so that nobody waits long. Returns how many streams went.
        """
        ...

    async def owners(self) -> list[str]:
        """Everybody whose streams are there."""
        ...

    async def owned(self, owner: str) -> list[StreamRecord]:
        """Everything of an owner, the oldest first, also what has expired and isn't swept yet."""
        ...

    async def erase(self, streams: Sequence[StreamId]) -> int:
        """Deletes these, and leaves nothing of them in the database's files as far as that is in
        its power; how many there were."""
        ...

    async def ping(self) -> None:
        """Whether it answers."""
        ...


def instance_name(data_dir: Path) -> str:
    """What tells this process's streams from another's in a shared store, also after a crash.

    Raises:
        SettingsError: the directory can't be written.
    """
    file = data_dir / "instance"
    try:
        if not file.exists():
            data_dir.mkdir(parents=True, exist_ok=True)
            file.write_text(secrets.token_hex(8))
        return file.read_text().strip()
    except OSError as error:
        raise SettingsError(f"DATA_DIR: {data_dir}: {error.strerror}") from error


def without_overlap(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Segments ordered by `first`, no event twice.

    A write that was repeated after part of the log had been dropped can leave an overlap.
    """
    covered = 0
    for segment in segments:
        if segment.last <= covered:
            continue
        if segment.first <= covered:
            yield Segment.of(segment.stream_id, covered + 1, segment.after(covered))
        else:
            yield segment
        covered = segment.last


def damaged() -> StoreError:
    """What to raise for a segment that isn't what was stored."""
    return StoreError("A stored segment is damaged.", is_transient=False)
