"""The producer: one task per stream, owned by the application and never by a request.

It asks the backend, cuts the bytes into blocks and appends what the wire makes of them. It stops
reading when the log is full, so that TCP stops the backend, and it closes the backend's connection
on every way out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from gateway.errors import GatewayError, UpstreamError
from gateway.sse.dialects.base import Decoder, Dialect
from gateway.stream.live import Answer, LiveStream, Opening
from gateway.stream.model import Ending, error_ending

logger = logging.getLogger(__name__)

Ask = Callable[[], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a producer may hold."""

    event_max_bytes: int
    pauses: bool  #: when the log is full: pause the backend, else let the slow reader lapse


class Producer:
    def __init__(self, stream: LiveStream, ask: Ask, dialect: Dialect, bounds: Bounds) -> None:
        self._stream = stream
        self._ask = ask
        self._dialect = dialect
        self._bounds = bounds
        self._room: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Runs the stream to its end. Cancelled, it closes the backend's connection at once."""
        stream = self._stream
        answer: Answer | None = None
        try:
            answer = await self._ask()
            if not self._is_stream(answer):
                if self._decline(answer):
                    answer = None
                return
            stream.open(Opening(headers=answer.headers))
            stream.end(await self._relay(answer))
            await answer.finish()
            answer = None
        except GatewayError as error:
            self._fail(error)
        except asyncio.CancelledError:
            stream.end(error_ending("server_shutdown"))
            raise
        except Exception:
            stream.open(Opening(error=GatewayError("Something went wrong in the gateway.")))
            stream.end(error_ending("interrupted"))
            raise
        finally:
            if answer is not None:
                answer.close()

    def make_room(self) -> None:
        """A reader has advanced or gone: reading may go on."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def _relay(self, answer: Answer) -> Ending:
        decoder = self._dialect.decoder(self._bounds.event_max_bytes)
        while True:
            chunk = await answer.read()
            if not chunk:
                return _broken_off(decoder)
            ending = self._append(decoder, chunk)
            if ending is not None:
                return ending
            await self._keep_within_bounds()

    def _append(self, decoder: Decoder, chunk: bytes) -> Ending | None:
        stream = self._stream
        blocks = decoder.feed(chunk)
        if blocks:
            stream.note_event(time.monotonic())
        for block in blocks:
            for event in stream.wire.feed(block):
                stream.log.append(event)
            if stream.wire.ending is not None:
                return stream.wire.ending
        return None

    async def _keep_within_bounds(self) -> None:
        if not self._stream.log.is_full:
            return
        if self._bounds.pauses or self._stream.awaits_reader:
            await self._pause()
        else:
            await asyncio.sleep(0)  # who keeps up takes what is new before it goes
            self._stream.log.trim(self._stream.log.last)
            self._stream.drop_lapsed()

    async def _pause(self) -> None:
        if self._has_room():
            return
        stream = self._stream
        stream.is_paused = True
        try:
            while not self._has_room():
                self._room = asyncio.get_running_loop().create_future()
                await self._room
        finally:
            stream.is_paused = False
            stream.last_event = time.monotonic()

    def _has_room(self) -> bool:
        log = self._stream.log
        log.trim(self._stream.lead_cursor)
        return not log.is_full

    def _is_stream(self, answer: Answer) -> bool:
        media_type, _, parameters = answer.headers.get("Content-Type", "").partition(";")
        if answer.status != 200 or media_type.strip().lower() not in self._dialect.stream_types:
            return False
        _refuse_what_cannot_be_relayed(answer.headers, parameters)
        return True

    def _decline(self, answer: Answer) -> bool:
        """Hands an answer that isn't a stream to the request, if that still waits for one."""
        stream = self._stream
        is_taken = stream.is_attached and not stream.is_committed
        if is_taken:
            stream.open(Opening(declined=answer))
        message = f"The backend answered with status {answer.status} instead of a stream."
        may_help = answer.status in (408, 429) or answer.status >= 500
        stream.end(error_ending("upstream_error").because(message, retryable=may_help))
        return is_taken

    def _fail(self, error: GatewayError) -> None:
        is_upstream = isinstance(error, UpstreamError)
        ending = error_ending(error.code if is_upstream else "upstream_error")
        retryable = error.retryable if isinstance(error, UpstreamError) else None
        self._stream.open(Opening(error=error))
        self._stream.end(ending.because(error.message, retryable=retryable))


def _broken_off(decoder: Decoder) -> Ending:
    ending = error_ending("upstream_truncated")
    if decoder.has_fragment:
        return ending.because("The backend's answer broke off within an event.")
    return ending.because("The backend's answer ended without its terminal event.")


def _refuse_what_cannot_be_relayed(headers: Mapping[str, str], parameters: str) -> None:
    if headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise UpstreamError("The backend compressed its stream though asked not to.")
    for parameter in parameters.lower().split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8"):
            raise UpstreamError("The backend's stream isn't UTF-8.", retryable=False)
