"""The shelf: streams that have ended and can still be read, for a time and as memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.stream.live import LiveStream
from gateway.stream.model import StreamId


class Shelf:
    """Ended streams in the order of their ends; `ttl_s` 0 keeps none.

    `is_unwritten` tells whether something of a stream is nowhere but in memory.
    """

    def __init__(self, ttl_s: float, is_unwritten: Callable[[LiveStream], bool]) -> None:
        self._ttl_s = ttl_s
        self._is_unwritten = is_unwritten
        self._streams: dict[StreamId, LiveStream] = {}

    def __iter__(self) -> Iterator[LiveStream]:
        return iter(self._streams.values())

    def get(self, stream_id: StreamId) -> LiveStream | None:
        return self._streams.get(stream_id)

    def put(self, stream: LiveStream) -> None:
        self._streams[stream.id] = stream
        self.settle(stream)

    def remove(self, stream: LiveStream) -> bool:
        """Drops one that nobody reads; whether it isn't there any more."""
        if not stream.is_attached and stream.id in self._streams:
            self._drop(stream)
        return stream.id not in self._streams

    def settle(self, stream: LiveStream) -> None:
        """A reader has left: without a time to be kept, the stream goes with the last one."""
        if not self._ttl_s and not stream.is_attached and stream.id in self._streams:
            self._drop(stream)

    def expire(self, now: float) -> int:
        """Drops what ended before the window, but nothing that somebody is reading; how many."""
        overdue = [stream for stream in self._overdue(now) if not stream.is_attached]
        for stream in overdue:
            self._drop(stream)
        return len(overdue)

    def drop_oldest(self, *, even_unwritten: bool = False) -> bool:
        """Makes room: drops the oldest stream that nobody reads, if there is one.

        What the store has can still be read from there; the rest goes only if `even_unwritten`.
        """
        unread = (stream for stream in self._streams.values() if not stream.is_attached)
        if not even_unwritten:
            unread = (stream for stream in unread if not self._is_unwritten(stream))
        oldest = next(unread, None)
        if oldest is not None:
            self._drop(oldest)
        return oldest is not None

    def _overdue(self, now: float) -> Iterator[LiveStream]:
        for stream in self._streams.values():
            if stream.ended is None or now - stream.ended < self._ttl_s:
                return
            yield stream

    def _drop(self, stream: LiveStream) -> None:
        del self._streams[stream.id]
        stream.log.release()
