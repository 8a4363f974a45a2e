"""A reader: one response, one integer cursor on the log, no queue.

It is the only writer of its response and writes whole events, everything that is ready joined into
one write; so nothing, a heartbeat least of all, lands inside an event. Whoever appends to the log
writes for a reader that keeps up, in the same step: waking a task for each event costs more than
the event. The reader's own task waits for what takes time: a client that is full, and the end.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from typing import Protocol

from gateway.stream.live import LiveStream
from gateway.stream.log import CursorTrimmedError
from gateway.stream.wires.base import Beat

_WRITE_MAX_BYTES = 64 * 1024


class Sink(Protocol):
    """Where a reader writes: a response."""

    def push(self, frames: bytes) -> bool:
        """Writes at once; whether the client has room for more.

        Raises:
            ConnectionResetError: the client has gone.
        """
        ...

    def push_last(self, frames: bytes) -> bool:
        """The same for what ends the response as it should; nothing is pushed after it.

        Raises:
            ConnectionResetError: the client has gone.
        """
        ...

    def begin(self) -> None:
        """Says that nothing is there to be pushed just now, so that what waits for it may go.

        Raises:
            ConnectionResetError: the client has gone.
        """
        ...

    async def drained(self) -> None:
        """Waits until the client has room again.

        Raises:
            ConnectionResetError: the client has gone, or took nothing for too long.
        """
        ...

    async def flush(self, *, is_end: bool) -> None:
        """Waits until the client's connection has taken everything.

        `is_end` says that nothing follows, and that this is as it should be.
        """
        ...

    def break_off(self) -> None:
        """Closes the connection so that the client sees that something is missing."""
        ...

    def abort(self) -> None:
        """The same at once, whatever still waits for the client to take it."""
        ...


class Reader:
    """Copies a stream to one client.

    Args:
        interval_s: Least time between two writes; the first token and the end are never held.
        max_age_s: After 0.8 to 1 times this the connection is closed between two events, and the
            client goes on with another one; 0 is never.
        advanced: Called when the cursor of a paused stream's reader has moved.
    """

    __slots__ = (
        "_advanced",
        "_beats",
        "_error",
        "_hold",
        "_interval_s",
        "_is_aged",
        "_is_full",
        "_leave_at",
        "_sink",
        "_stream",
        "_waiter",
        "cursor",
        "last_write",
    )

    def __init__(
        self,
        stream: LiveStream,
        sink: Sink,
        *,
        interval_s: float,
        advanced: Callable[[], None],
        cursor: int = 0,
        max_age_s: float = 0,
    ) -> None:
        self._stream = stream
        self._sink = sink
        self._interval_s = interval_s
        self._advanced = advanced
        self._waiter: asyncio.Future[None] | None = None
        self._hold: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        self._beats = 0
        self._is_full = False
        self.cursor = cursor
        self.last_write = time.monotonic()
        # Jittered, so that clients don't all come back at once.
        age_s = max_age_s * random.uniform(0.8, 1)  # noqa: S311
        self._leave_at = self.last_write + age_s if max_age_s else math.inf
        self._is_aged = False

    async def run(self) -> None:
        """Returns when the end of the stream has been written, or the client has gone.

        Cancelled, it leaves the stream as it is: what happens then is the hub's policy.
        """
        stream = self._stream
        stream.readers.append(self)
        stream.note_read()
        stream.look_again()
        stream.log.listen(self._more)
        try:
            await self._copy()
            is_whole = self._ends_cleanly()
            await self._sink.flush(is_end=is_whole)
            if not is_whole:
                self._sink.break_off()
        except CursorTrimmedError:
            self._sink.break_off()  # too slow for `detach`; its last id lets it come back
        except ConnectionResetError:
            pass  # a client that leaves is normal life
        finally:
            self._release()
            stream.log.unlisten(self._more)
            stream.readers.remove(self)
            self._advanced()

    def tick(self, now: float, heartbeat_s: float) -> None:
        """Writes a heartbeat where one is due; 0 is none. Sees to the end of a connection that is
        too old."""
        if now >= self._leave_at:
            self._is_aged = True
            self._wake()
        elif heartbeat_s and not self._is_full and now - self.last_write >= heartbeat_s:
            self._beat()

    def due(self, heartbeat_s: float) -> float:
        """When `tick` may have something to do, unless something is written before."""
        if not heartbeat_s:
            return self._leave_at
        return min(self._leave_at, self.last_write + heartbeat_s)

    def lapse(self) -> None:
        """The log has passed it by: disconnects the client, also one that takes nothing."""
        self._sink.abort()

    async def _copy(self) -> None:
        self._pump()
        self._sink.begin()
        while not self._is_aged:
            if self._error is not None:
                raise self._error
            if self._is_full:
                await self._sink.drained()
                self.last_write = time.monotonic()
                self._is_full = False
                self._pump()
            elif self._stream.log.is_closed:
                return
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter

    def _more(self, after: int, last: int, newest: bytes) -> None:
        """The log has got more: writes it at once where nothing stands in the way.

        Each event of each stream comes through here, so calls are spared.
        """
        stream = self._stream
        if (
            after != self.cursor
            or self._is_full
            or self._interval_s
            or len(newest) > _WRITE_MAX_BYTES
            or self._error is not None
            or stream.log.is_closed
        ):
            self._pump()
            return
        self.cursor, self.last_write = last, stream.last_event
        try:
            if not self._sink.push(newest):
                self._is_full = True
                self._wake()
        except ConnectionResetError as error:
            self._error = error
            self._wake()
        if stream.is_paused:
            self._advanced()

    def _pump(self) -> None:
        """Writes what the log has, as far as the client has room and the update mode allows."""
        if self._is_full or self._error is not None or (self._interval_s and self._is_held()):
            return
        log = self._stream.log
        last = log.last
        try:
            while self.cursor < last and not self._is_full:
                frames, self.cursor = log.read(self.cursor, _WRITE_MAX_BYTES)
                self.last_write = time.monotonic()
                is_last = log.is_closed and self.cursor == last and self._ends_cleanly()
                push = self._sink.push_last if is_last else self._sink.push
                self._is_full = not push(frames)
        except (CursorTrimmedError, ConnectionResetError) as error:
            self._error = error
        if self._stream.is_paused:
            self._advanced()
        if self._is_full or self._error is not None or log.is_closed:
            self._wake()

    def _ends_cleanly(self) -> bool:
        """Whether the response may be closed in good order once all is written."""
        ending = None if self._is_aged else self._stream.ending
        return ending is not None and self._stream.wire.ends_cleanly(ending)

    def _beat(self) -> None:
        self._beats += 1
        stream = self._stream
        beat = Beat(time.time(), stream.duration_s, stream.remaining_s, self._beats)
        try:
            self.last_write = time.monotonic()
            self._is_full = not self._sink.push(stream.wire.heartbeat(beat))
        except ConnectionResetError as error:
            self._error = error
        if self._is_full or self._error is not None:
            self._wake()

    def _is_held(self) -> bool:
        """Update modes: lets events gather, but never the first token, the end or a full log."""
        if self.cursor < self._stream.wire.lead_events or self._is_urgent():
            self._release()
            return False
        if self._hold is None and self.cursor < self._stream.log.last:
            wait_s = self.last_write + self._interval_s - time.monotonic()
            if wait_s > 0:
                loop = asyncio.get_running_loop()
                self._hold = loop.call_later(wait_s, self._interval_over)
        return self._hold is not None

    def _interval_over(self) -> None:
        self._hold = None
        self._pump()

    def _release(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None

    def _is_urgent(self) -> bool:
        log = self._stream.log
        return log.is_closed or log.is_full

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
