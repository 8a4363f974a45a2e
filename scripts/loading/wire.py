"""One client connection: sends a request, counts and times what comes, says how it ended.

Only whole lines are looked at, so a mark that two reads share is found once. All that one read
brings has the same time of receipt.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from scripts.loading.dechunk import Chunked, Sized, body_of
from scripts.loading.tally import Tally
from scripts.loading.targets import STAMP

_now = time.monotonic_ns


@dataclass(slots=True)
class Stream:
    """One stream as a client means to take it."""

    request: bytes
    mark: bytes
    terminal: bytes
    empty: bytes
    #: When it should have begun; what delays the load itself counts as the server's.
    intended_ns: int
    expected: int = 0
    is_stamped: bool = False
    #: Notes the time between its events.
    is_timed: bool = False
    #: Leaves after so many events; 0 stays.
    leave_after: int = 0
    #: Drops its connection after so many events and comes back with the last event's id.
    drop_after: int = 0
    #: Takes at most so many bytes a second; 0 takes all.
    bytes_per_s: int = 0
    tag: int = -1
    events: int = 0
    last_id: str = ""
    #: How it ended: ok, left, dropped, or what went wrong.
    ending: str = ""


Ended = Callable[["Wire", Stream], None]


class Wire(asyncio.Protocol):
    """Serves one stream after the other; `ended` is told of each, whatever its end."""

    def __init__(self, tally: Tally, ended: Ended) -> None:
        self._tally = tally
        self._ended = ended
        self._stream: Stream | None = None
        self._transport: asyncio.Transport | None = None
        self.is_reusable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    @property
    def is_busy(self) -> bool:
        return self._stream is not None

    def begin(self, stream: Stream) -> None:
        """Sends the request; the connection must be idle."""
        assert self._transport is not None
        self._stream = stream
        self._body: Chunked | Sized | None = None
        self._head = b""
        self._carry = b""
        self._last_ns = 0
        self._is_terminated = False
        self._is_talking = False
        self.is_reusable = False
        self._tally.open += 1
        self._transport.write(stream.request)

    def leave(self, ending: str = "left") -> None:
        """Closes the connection as a client does that goes away."""
        stream = self._stream
        if stream is None or self._transport is None:
            return
        if stream.tag >= 0:
            self._tally.left_ns[stream.tag] = _now()
        self._transport.close()
        self._end(ending)

    def data_received(self, data: bytes) -> None:
        now = _now()
        stream = self._stream
        if stream is None:
            return
        if self._body is None:
            data = self._read_head(data)
            if not data or self._body is None:
                return
        body = self._body.feed(data)
        if body:
            self._look_at(body, stream, now)
        if self._stream is stream and self._body.is_complete:
            self.is_reusable = True
            self._end(self._verdict(stream), now)
        elif stream.bytes_per_s:
            self._rest(len(data) / stream.bytes_per_s)

    def connection_lost(self, exc: Exception | None) -> None:
        stream = self._stream
        self._transport = None
        if stream is None:
            return
        until_close = isinstance(self._body, Sized) and exc is None
        self._end(self._verdict(stream) if until_close else "cut")

    def _read_head(self, data: bytes) -> bytes:
        """The rest of `data` after the response head, once that is whole."""
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return b""
        head, rest = self._head[:end].lower(), self._head[end + 4 :]
        if not head.startswith(b"http/1.1 200"):
            self._fail(head)
            return b""
        self._body = body_of(head)
        return rest

    def _fail(self, head: bytes) -> None:
        assert self._transport is not None
        self._transport.close()
        self._end(f"status {head[9:12].decode(errors='replace')}")

    def _look_at(self, body: bytes, stream: Stream, now: int) -> None:
        self._tally.bytes += len(body)
        data = self._carry + body if self._carry else body
        cut = data.rfind(b"\n") + 1
        if cut != len(data):
            self._carry, data = data[cut:], data[:cut]
        else:
            self._carry = b""
        if not data:
            return
        count = self._stamped(data, now) if stream.is_stamped else _marks(data, stream)
        if count:
            self._count(count, stream, now)
        if stream.drop_after:
            self._note_id(data, stream)
        if stream.terminal in data:
            self._is_terminated = True
        elif stream.leave_after and stream.events >= stream.leave_after:
            self.leave()
        elif stream.drop_after and stream.events >= stream.drop_after:
            self.leave("dropped")

    def _stamped(self, data: bytes, now: int) -> int:
        stamps = STAMP.findall(data)
        add = self._tally.latency_ns.append
        for stamp in stamps:
            add(now - int(stamp))
        return len(stamps)

    def _count(self, count: int, stream: Stream, now: int) -> None:
        tally = self._tally
        if not stream.events:
            tally.first_ns.append(now - stream.intended_ns)
        if not self._is_talking:
            self._is_talking = True
            tally.talking += 1
        elif stream.is_timed:
            tally.gap_ns.append(now - self._last_ns)
        if count > 1 and stream.is_timed:
            tally.gap_ns.extend([0] * (count - 1))
        self._last_ns = now
        stream.events += count
        tally.events += count

    def _note_id(self, data: bytes, stream: Stream) -> None:
        _, found, rest = data.rpartition(b"\nid: ")
        if found or data.startswith(b"id: "):
            line = (rest if found else data[4:]).split(b"\n", 1)[0]
            stream.last_id = line.strip().decode()

    def _verdict(self, stream: Stream) -> str:
        if not self._is_terminated:
            return "cut"
        if stream.expected and stream.events != stream.expected:
            return "miscounted"
        return "ok"

    def _rest(self, seconds: float) -> None:
        """Takes nothing for a while, so that the buffers on the way fill up."""
        if self._transport is None:
            return
        self._transport.pause_reading()
        asyncio.get_running_loop().call_later(seconds, self._take_on)

    def _take_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _end(self, ending: str, now: int = 0) -> None:
        stream, self._stream = self._stream, None
        assert stream is not None
        tally = self._tally
        tally.open -= 1
        tally.talking -= self._is_talking
        if ending != "dropped":  # it comes back, and is the same stream
            tally.endings[ending] += 1
        if ending == "ok":
            tally.completion_ns.append((now or _now()) - stream.intended_ns)
        stream.ending = ending
        self._ended(self, stream)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _marks(data: bytes, stream: Stream) -> int:
    count = data.count(stream.mark)
    return count - data.count(stream.empty) if stream.empty else count
