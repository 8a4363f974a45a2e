"""A client for streams that survive: reconnects, resumes, notices silence, stops.

    async with open_stream(url, method="POST", json={"query": "…"}) as stream:
        async for event in stream:
            …

It understands everything that Sluice sends, and works with any source of server-sent events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import aiohttp

from gateway.client.conduct import Conduct, State, Timing
from gateway.client.errors import StreamError, StreamGapError
from gateway.client.events import Answer, is_heartbeat, is_terminal
from gateway.client.retry import Retry
from gateway.client.source import Headers, Question
from gateway.client.stream import EventStream
from gateway.sse.parser import Event

__all__ = [
    "Answer",
    "Event",
    "EventStream",
    "Retry",
    "State",
    "StreamError",
    "StreamGapError",
    "Timing",
    "is_heartbeat",
    "is_terminal",
    "open_stream",
]

_DEFAULT_RETRY = Retry()
_DEFAULT_TIMING = Timing()
_MAX_EVENT_BYTES = 16 << 20


def open_stream(  # noqa: PLR0913 - a public face: every option has a name and a default
    url: str,
    *,
    method: str = "GET",
    json: object = None,
    headers: Headers | None = None,
    session: aiohttp.ClientSession | None = None,
    last_event_id: str | None = None,
    idempotency_key: str | None = None,
    stop_url: str | None = None,
    is_terminal: Callable[[Event], bool] = is_terminal,
    retry: Retry = _DEFAULT_RETRY,
    silence_s: float | Literal["auto"] = "auto",
    max_event_bytes: int = _MAX_EVENT_BYTES,
    timing: Timing = _DEFAULT_TIMING,
) -> EventStream:
    """A stream to enter with `async with`, which connects, and then to iterate.

    Args:
        json: The body; serialised once.
        headers: A mapping, or an async callable that is asked before each attempt, and once more
            after a 401.
        session: Stays open; without one, the stream has its own.
        last_event_id: Goes on after this event.
        idempotency_key: Made for a POST that has none.
        stop_url: Where `stop` sends a POST with `sessionId`, instead of a DELETE to the stream.
        is_terminal: Whether an event is the stream's last.
        silence_s: Seconds without a byte after which the connection counts as dead, 0 for never;
            `auto`: 2.5 heartbeats within 10 to 120 s, before that what the server says, or 60 s.
        max_event_bytes: One event's data.
    """
    question = Question.make(
        url, method, json, headers, idempotency_key=idempotency_key, stop_url=stop_url
    )
    conduct = Conduct(is_terminal, retry, silence_s, max_event_bytes, timing)
    return EventStream(question, conduct, session=session, last_event_id=last_event_id or "")
