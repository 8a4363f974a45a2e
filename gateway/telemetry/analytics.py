"""Analytics: how streams lived, without whose they were or what they said.

Each stream that ends leaves a few lines of NDJSON under a name that is drawn for the purpose and
stands nowhere else; docs/analytics.md lists the events. What they tell waits in memory for a second
and is then written by a thread, so that neither disk nor spelling holds up anybody.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

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


class _Life(NamedTuple):
    """What is told of a stream. The stream itself would hold its events."""

    created_at: float
    started: float
    route: str
    moments: Sequence[Moment]
    first_token_s: float | None
    duration_s: float
    status: str
    reason: str
    events: int
    tokens: int


def pages_of(settings: Settings) -> Pages:
    """Where a gateway with these settings writes, and its commands read."""
    return Pages(settings.data_dir / "analytics", "streams", settings.analytics_max_bytes)


class Analytics:
    """Writes to `pages` what the hub tells; `reasons` are the endings that are no user's words."""

    def __init__(self, pages: Pages, reasons: frozenset[str]) -> None:
        self.pages = pages
        self.left_out = 0
        self._reasons = reasons
        self._waiting: list[_Life] = []
        self._came = asyncio.Event()
        self._has_failed = False
        self._writing = asyncio.Lock()

    def stream_started(self, stream: Stream) -> None:
        """It is told of when it has ended."""

    def stream_ended(self, stream: Stream) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            self.left_out += 1
            return
        self._waiting.append(_life_of(stream))
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
        lives, self._waiting = self._waiting, []
        if not lives:
            return
        try:
            await asyncio.to_thread(self._append, lives)
        except OSError as error:
            if not self._has_failed:
                logger.warning("analytics.failed", extra={"problem": error.strerror})
            self._has_failed = True
            self.left_out += len(lives)
        else:
            self._has_failed = False

    def _append(self, lives: Sequence[_Life]) -> None:
        told = (event for life in lives for event in _told(life, self._reasons))
        self.pages.append(b"".join(orjson.dumps(event) + b"\n" for event in told))


def _life_of(stream: Stream) -> _Life:
    ending, wire = stream.ending, stream.wire
    return _Life(
        created_at=stream.created_at,
        started=stream.started,
        route=stream.origin.route,
        moments=stream.moments,
        first_token_s=stream.first_token_s,
        duration_s=stream.duration_s,
        status="" if ending is None else str(ending.status),
        reason="" if ending is None else ending.reason,
        events=wire.total_chunks,
        tokens=wire.total_tokens,
    )


def _told(life: _Life, reasons: frozenset[str]) -> Iterator[dict[str, object]]:
    name = os.urandom(8).hex()
    minute = int(life.created_at) // _MINUTE_S * _MINUTE_S
    at = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(minute))
    yield {"stream": name, "event": "started", "ms": 0, "at": at, "route": life.route}
    told = [(moment.at - life.started, moment.what) for moment in life.moments]
    if life.first_token_s is not None:
        told.append((life.first_token_s, "first_token"))
    for seconds, what in sorted(told):
        yield {"stream": name, "event": what, "ms": _ms(seconds)}
    yield {
        "stream": name,
        "event": "ended",
        "ms": _ms(life.duration_s),
        "status": life.status,
        "reason": life.reason if life.reason in reasons else "custom",
        "events": life.events,
        "tokens": life.tokens,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
