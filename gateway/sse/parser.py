"""The event-stream parser of a client: WHATWG HTML, server-sent events, section 9.2.6, in full.

Unlike `gateway.sse.decoder`, which relays blocks as bytes, this reads ids, `retry` and comments and
gives out decoded events. It does no I/O, and its cost is linear however the input is cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

_BOM = b"\xef\xbb\xbf"
_MAX_RETRY_MS = 10**9
_MAX_RETRY_DIGITS = 9


class EventTooLargeError(ValueError):
    """One event has more bytes than the parser was told to hold."""


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event.

    `id` is the last event id at that moment, as `MessageEvent.lastEventId`; `has_id` says whether
    this very event gave it.
    """

    type: str
    data: str
    id: str = ""
    has_id: bool = False

    def json(self) -> object:
        """`data`, read as JSON.

        Raises:
            ValueError: it isn't JSON.
        """
        return orjson.loads(self.data)


class EventParser:
    """Events of one connection.

    `last_event_id` is where the client stands; a stream without ids keeps it. `max_bytes` bounds
    the data lines of one event, and any other single line.
    """

    def __init__(self, *, max_bytes: int, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        #: Comment lines so far: the usual heartbeat.
        self.comments = 0
        self._max_bytes = max_bytes
        self._head: bytes | None = b""  # what may become a BOM; None once the stream has begun
        self._swallow_lf = False
        self._line: list[bytes] = []  # pieces of the line that hasn't ended
        self._line_bytes = 0
        self._reset_event()
        self._id = last_event_id

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes. An event without its empty line is never given out.

        Raises:
            EventTooLargeError: the stream can't be read on.
        """
        if self._head is not None:
            chunk = self._without_bom(self._head + chunk)
        if not chunk:
            return []
        if self._swallow_lf:
            chunk = chunk.removeprefix(b"\n")
            self._swallow_lf = False
        if b"\r" in chunk:
            self._swallow_lf = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = chunk.split(b"\n")
        events = [event for line in lines if (event := self._end_line(line)) is not None]
        self._hold(rest)
        return events

    def _without_bom(self, head: bytes) -> bytes:
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._line.append(piece)
            self._line_bytes += len(piece)
            self._check_size(self._line_bytes)

    def _end_line(self, end: bytes) -> Event | None:
        if self._line:
            self._hold(end)
            end = b"".join(self._line)
            self._line, self._line_bytes = [], 0
        if not end:
            return self._dispatch()
        self._check_size(len(end))
        if end.startswith(b":"):
            self.comments += 1
            return None
        name, _, value = end.partition(b":")
        self._field(name, value.removeprefix(b" "))
        return None

    def _field(self, name: bytes, value: bytes) -> None:
        match name:
            case b"data":
                self._data.append(value)
                self._data_bytes += len(value) + 1
            case b"event":
                self._type = _text(value)
            case b"id" if b"\0" not in value:
                self._id = _text(value)
                self._has_id = True
            case b"retry" if value.isdigit():
                is_short = len(value) <= _MAX_RETRY_DIGITS
                self.retry_ms = int(value) if is_short else _MAX_RETRY_MS

    def _dispatch(self) -> Event | None:
        self.last_event_id = self._id
        event = None
        if self._data:
            data = _text(b"\n".join(self._data))
            event = Event(self._type or "message", data, self._id, self._has_id)
        self._reset_event()
        return event

    def _reset_event(self) -> None:
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._type = ""
        self._has_id = False

    def _check_size(self, line_bytes: int) -> None:
        if self._data_bytes + line_bytes > self._max_bytes:
            raise EventTooLargeError(f"an event has more than {self._max_bytes} bytes")


def _text(value: bytes) -> str:
    # Line by line is the same as all at once: no line end is part of a character's bytes.
    return value.decode("utf-8", "replace")
