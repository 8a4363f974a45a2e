"""A reader: one response, one integer cursor on the log, no queue.

It is the only writer of its response and writes whole events, everything that is ready joined into
one write; so nothing, a heartbeat least of all, lands inside an event.
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
from gateway.stream.wire import Beat

_WRITE_MAX_BYTES = 64 * 1024


class Sink(Protocol):
    """Where a reader writes: a response."""

    async def write_frames(self, frames: bytes) -> None:
        """Writes and, while the client takes less than it is sent, waits.

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
        advanced: Called when the cursor has moved.
    """

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
        self._is_held = False
        self._is_beat_due = False
        self._beats = 0
        self._is_writing = False
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
        stream.readers.add(self)
        stream.was_read = True
        stream.log.listen(self._wake)
        try:
            await self._copy()
            ending = None if self._is_aged else stream.ending
            is_whole = ending is not None and stream.wire.ends_cleanly(ending)
            await self._sink.flush(is_end=is_whole)
            if not is_whole:
                self._sink.break_off()
        except CursorTrimmedError:
            self._sink.break_off()  # too slow for `detach`; its last id lets it come back
        except ConnectionResetError:
            pass  # a client that leaves is normal life
        finally:
            stream.log.unlisten(self._wake)
            stream.readers.discard(self)
            self._advanced()

    def tick(self, now: float, heartbeat_s: float) -> None:
        """Asks for a heartbeat if nothing has been written for `heartbeat_s` (0: never), and for
        the end of a connection that is too old."""
        if now >= self._leave_at:
            self._is_aged = True
            self._wake()
        if heartbeat_s and not self._is_writing and now - self.last_write >= heartbeat_s:
            self._is_beat_due = True
            self._wake()

    def lapse(self) -> None:
        """The log has passed it by: disconnects the client, also one that takes nothing."""
        self._sink.abort()

    async def _copy(self) -> None:
        log = self._stream.log
        while not self._is_aged:
            frames, cursor = log.read(self.cursor, _WRITE_MAX_BYTES)
            if frames:
                await self._hold_back()
                frames, cursor = log.read(self.cursor, _WRITE_MAX_BYTES)
                self.cursor = cursor
                await self._write(frames)
                self._advanced()
            elif log.is_closed:
                return
            elif self._is_beat_due:
                await self._write(self._stream.wire.heartbeat(self._beat()))
            else:
                await self._wait()

    async def _write(self, data: bytes) -> None:
        self._is_beat_due = False
        self._is_writing = True
        try:
            await self._sink.write_frames(data)
        finally:
            self._is_writing = False
        self.last_write = time.monotonic()

    async def _hold_back(self) -> None:
        """Update modes: lets events gather, but never the first token, the end or a full log."""
        if not self._interval_s or self.cursor < self._stream.wire.lead_events or self._is_urgent():
            return
        wait_s = self.last_write + self._interval_s - time.monotonic()
        if wait_s <= 0:
            return
        self._is_held = True
        timer = asyncio.get_running_loop().call_later(wait_s, self._release)
        try:
            await self._wait()
        finally:
            timer.cancel()
            self._is_held = False

    def _release(self) -> None:
        self._is_held = False
        self._wake()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._is_held and not self._is_urgent():
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _is_urgent(self) -> bool:
        log = self._stream.log
        return log.is_closed or log.is_full

    def _beat(self) -> Beat:
        self._beats += 1
        stream = self._stream
        return Beat(time.time(), stream.duration_s, stream.remaining_s, self._beats)
