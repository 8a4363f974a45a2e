"""Streams whose client vanished before its first byte, kept a moment for its SDK to ask again.

The official SDKs repeat a request whose connection or time-out failed, and say how often they did
(`X-Stainless-Retry-Count`) but not which one it was. So what counts is the same question of the
same client. Each departure can be taken up once: two repeats never share a stream.
"""

from __future__ import annotations

from gateway.stream.live import RETRY_GRACE_S, LiveStream
from gateway.stream.model import Status


class Abandoned:
    """By their retry keys, the longest gone first."""

    def __init__(self) -> None:
        self._streams: dict[bytes, list[LiveStream]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._streams.values()))

    def put(self, stream: LiveStream) -> None:
        """Its last reader has left; only one that is waited for is kept."""
        if stream.retry_key and not stream.was_read:
            self._streams.setdefault(stream.retry_key, []).append(stream)

    def take(self, key: bytes) -> LiveStream | None:
        """One that this key's repeat can read from its beginning; it isn't given again."""
        waiting = self._streams.get(key, [])
        while waiting:
            stream = waiting.pop(0)
            if _can_be_taken(stream):
                return stream
        return None

    def expire(self, now: float) -> None:
        """Forgets those whose SDK didn't ask again in time."""
        for key, waiting in list(self._streams.items()):
            waiting[:] = [stream for stream in waiting if _is_waited_for(stream, now)]
            if not waiting:
                del self._streams[key]


def _is_waited_for(stream: LiveStream, now: float) -> bool:
    return stream.detached_since is not None and now - stream.detached_since < RETRY_GRACE_S


def _can_be_taken(stream: LiveStream) -> bool:
    is_whole = stream.is_active or stream.status is Status.COMPLETED
    return is_whole and not stream.is_attached and not stream.was_read and stream.log.first == 1
