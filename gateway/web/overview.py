"""What operators see: the state of everything, once a second, made once for all who watch.

It names no person: owners are pseudonyms that a restart changes. Nothing is made while nobody
watches, but for the points of the last hour.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import orjson

from gateway.errors import TooManyRequests
from gateway.sse.decoder import encode_event
from gateway.stream.live import LiveStream
from gateway.telemetry.history import STEP_S, Watch
from gateway.web.health import report
from gateway.web.services import Services

EVERY_S = 1.0
_MAX_ROWS = 200
#: A backend that says nothing for so long is shown as silent.
_SILENCE_S = 3.0
_MAX_VIEWERS = 16
_COUNTERS = {
    "endings": "sluice_streams_total",
    "limited": "sluice_rate_limited_total",
    "resumes": "sluice_resumes_total",
    "backend_errors": "sluice_upstream_errors_total",
}


class Overview:
    """Snapshots for up to 16 viewers, whoever is slow gets fewer of them."""

    def __init__(self, services: Services, watch: Watch) -> None:
        self._services = services
        self._watch = watch
        self._pepper = os.urandom(16)
        self._viewers = 0
        self._turn = asyncio.Event()
        self._frame = b""
        self._is_over = False

    async def run(self) -> None:
        """Looks around every second, for ever."""
        while True:
            self._look()
            await asyncio.sleep(EVERY_S)

    def close(self) -> None:
        """Sends the viewers away, since the gateway is about to end."""
        self._is_over = True
        self._turn.set()

    @contextmanager
    def viewing(self) -> Iterator[None]:
        """
        Raises:
            TooManyRequests: `too_many_viewers`.
        """
        if self._viewers >= _MAX_VIEWERS:
            raise TooManyRequests(
                "Too many are watching.", code="too_many_viewers", retry_after_s=5
            )
        self._viewers += 1
        try:
            yield
        finally:
            self._viewers -= 1

    async def frames(self) -> AsyncIterator[bytes]:
        """The last hour and the present as events, then the present every second."""
        yield _event("history", self.history()) + _event("overview", self.snapshot())
        while not self._is_over:
            await self._turn.wait()
            yield self._frame

    def history(self) -> dict[str, object]:
        return {"step_s": STEP_S, "points": self._watch.history.points()}

    def snapshot(self) -> dict[str, object]:
        """Everything but the history, as it is now."""
        services, now = self._services, time.monotonic()
        timings = self._watch.timings
        counts = {name: services.metrics.counts(of) for name, of in _COUNTERS.items()}
        return {
            "at": round(time.time() * 1000),
            "health": report(services),
            "controls": services.controls.state,
            "backend": services.upstream.base_url,
            "first_token": timings.first_tokens.percentiles(now),
            "gap": timings.gaps.percentiles(now),
            "point": self._watch.history.latest,
            "streams": self._streams(now),
            **counts,
        }

    def _look(self) -> None:
        running = self._services.hub.running()
        self._watch.tick(running, time.monotonic(), time.time())
        if self._viewers:
            self._frame = _event("overview", self.snapshot())
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()

    def _streams(self, now: float) -> dict[str, object]:
        running = self._services.hub.running()
        rows = [self._row(stream, now) for stream in running[:_MAX_ROWS]]
        return {"total": len(running), "rows": rows}

    def _row(self, stream: LiveStream, now: float) -> dict[str, object]:
        first_s = stream.first_token_s
        return {
            "id": stream.id,
            "state": _state(stream, now),
            "owner": self._pseudonym(stream.origin.owner),
            "route": stream.origin.route,
            "age_ms": round((now - stream.started) * 1000),
            "first_token_ms": None if first_s is None else round(first_s * 1000),
            "chunks": stream.wire.total_chunks,
            "tokens": stream.wire.total_tokens or None,
            "rate": round(self._watch.timings.rate(stream.id), 1),
            "readers": len(stream.readers),
        }

    def _pseudonym(self, owner: str) -> str:
        digest = hashlib.blake2b(owner.encode(errors="replace"), key=self._pepper, digest_size=4)
        return digest.hexdigest()


def _state(stream: LiveStream, now: float) -> str:
    if stream.is_paused:
        return "paused"
    if not stream.is_attached:
        return "detached"
    if stream.first_event is None:
        return "waiting"
    return "silent" if now - stream.last_event >= _SILENCE_S else "streaming"


def _event(name: str, data: object) -> bytes:
    return encode_event(name, orjson.dumps(data))
