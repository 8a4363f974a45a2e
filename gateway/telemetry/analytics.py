"""Analytics: how streams lived, without whose they were or what they said.

Each stream that ends leaves a few lines of NDJSON under a name that is drawn for the purpose and
stands nowhere else; docs/analytics.md lists the events. Lines wait in memory for a second and are
then written by a thread, so that the disk holds up nobody.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

import orjson

from gateway.settings import Settings
from gateway.telemetry.pages import Pages

logger = logging.getLogger("sluice.analytics")

#: Streams whose lines wait to be written; further ones are left out, and counted.
_MAX_WAITING = 10_000
_GATHER_S = 1.0
#: What `at` is rounded down to: enough for a trend, too little to tell who it was from a log.
_MINUTE_S = 60


class Moment(Protocol):
    @property
    def what(self) -> str: ...
    @property
    def at(self) -> float: ...


class Origin(Protocol):
    @property
    def route(self) -> str: ...


class Ending(Protocol):
    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...


class Wire(Protocol):
    @property
    def total_chunks(self) -> int: ...
    @property
    def total_tokens(self) -> int: ...


class Stream(Protocol):
    """A stream that has ended; times are of `time.monotonic`, `created_at` is of `time.time`."""

    created_at: float
    started: float

    @property
    def moments(self) -> Sequence[Moment]: ...
    @property
    def origin(self) -> Origin: ...
    @property
    def ending(self) -> Ending | None: ...
    @property
    def wire(self) -> Wire: ...
    @property
    def duration_s(self) -> float: ...
    @property
    def first_token_s(self) -> float | None: ...


def pages_of(settings: Settings) -> Pages:
    """Where a gateway with these settings writes, and its commands read."""
    return Pages(settings.data_dir / "analytics", "streams", settings.analytics_max_bytes)


class Analytics:
    """Writes to `pages` what the hub tells; `reasons` are the endings that are no user's words."""

    def __init__(self, pages: Pages, reasons: frozenset[str]) -> None:
        self.pages = pages
        self.left_out = 0
        self._reasons = reasons
        self._waiting: deque[bytes] = deque()
        self._came = asyncio.Event()
        self._has_failed = False
        self._writing = asyncio.Lock()

    def stream_started(self, stream: Stream) -> None:
        """It is told of when it has ended."""

    def stream_ended(self, stream: Stream) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            self.left_out += 1
            return
        lines = (orjson.dumps(event) for event in _life(stream, self._reasons))
        self._waiting.append(b"".join(line + b"\n" for line in lines))
        self._came.set()

    async def run(self) -> None:
        """Writes what comes, for ever."""
        while True:
            await self._came.wait()
            await asyncio.sleep(_GATHER_S)
            await self.flush()

    async def flush(self) -> None:
        """Writes what waits. What can't be written is lost, and said once in the log."""
        async with self._writing:
            await self._write()

    async def _write(self) -> None:
        self._came.clear()
        lines = list(self._waiting)
        self._waiting.clear()
        if not lines:
            return
        try:
            await asyncio.to_thread(self.pages.append, b"".join(lines))
        except OSError as error:
            if not self._has_failed:
                logger.warning("analytics.failed", extra={"problem": error.strerror})
            self._has_failed = True
            self.left_out += len(lines)
        else:
            self._has_failed = False


def _life(stream: Stream, reasons: frozenset[str]) -> Iterator[dict[str, object]]:
    name = os.urandom(8).hex()
    minute = int(stream.created_at) // _MINUTE_S * _MINUTE_S
    at = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(minute))
    yield {"stream": name, "event": "started", "ms": 0, "at": at, "route": stream.origin.route}
    told = [(moment.at - stream.started, moment.what) for moment in stream.moments]
    if stream.first_token_s is not None:
        told.append((stream.first_token_s, "first_token"))
    for seconds, what in sorted(told):
        yield {"stream": name, "event": what, "ms": _ms(seconds)}
    if (ending := stream.ending) is not None:
        yield {
            "stream": name,
            "event": "ended",
            "ms": _ms(stream.duration_s),
            "status": str(ending.status),
            "reason": ending.reason if ending.reason in reasons else "custom",
            "events": stream.wire.total_chunks,
            "tokens": stream.wire.total_tokens,
        }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
