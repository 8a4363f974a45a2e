"""One connection of a stream: a response that is one, read event by event."""

from __future__ import annotations

from dataclasses import dataclass

import aiohttp

from gateway.client.errors import Dropped, StreamError
from gateway.client.events import is_heartbeat
from gateway.sse.parser import Event, EventParser, EventTooLargeError


@dataclass(frozen=True, slots=True)
class Batch:
    """What came at once; `is_beat` if that was a heartbeat and nothing else."""

    events: list[Event]
    is_beat: bool


class Connection:
    """
    Raises:
        StreamError: the response isn't an event stream.
    """

    def __init__(
        self, response: aiohttp.ClientResponse, *, max_event_bytes: int, last_event_id: str
    ) -> None:
        if response.content_type != "text/event-stream":
            message = f"got {response.content_type}"
            raise StreamError("wrong_content_type", message, status=response.status)
        self._response = response
        self._parser = EventParser(max_bytes=max_event_bytes, last_event_id=last_event_id)

    @property
    def last_event_id(self) -> str:
        """The id that was received last, also by itself without an event."""
        return self._parser.last_event_id

    @property
    def retry_ms(self) -> int | None:
        return self._parser.retry_ms

    async def read(self) -> Batch:
        """Waits for bytes; they need not complete an event.

        Raises:
            Dropped: the connection has ended, well or not.
            StreamError: an event is too large.
        """
        try:
            chunk = await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise Dropped(StreamError("connection_lost", str(error))) from error
        if not chunk:
            raise Dropped(StreamError("ended_early", "the stream ended without its last event"))
        comments = self._parser.comments
        try:
            events = self._parser.feed(chunk)
        except EventTooLargeError as error:
            raise StreamError("event_too_large", str(error)) from error
        is_beat = self._parser.comments > comments if not events else all(map(is_heartbeat, events))
        return Batch(events, is_beat)

    def close(self, *, is_over: bool) -> None:
        """Leaves; after the end (`is_over`) the connection may serve another request."""
        if is_over:
            self._response.release()
        else:
            self._response.close()
