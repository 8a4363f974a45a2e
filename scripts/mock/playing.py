"""Gives one answer, at the pace and with the trouble that was asked for."""

from __future__ import annotations

import asyncio
import socket
import struct
import time

from aiohttp import web

from scripts.mock.answers import Answer
from scripts.mock.behaviour import Behaviour, Trouble
from scripts.mock.dialects.base import Identity, Speaker
from scripts.mock.replies import reply
from scripts.mock.stats import Stats

_COMMENT = b": keep-alive\n\n"
#: `SO_LINGER` on, for no time: closing sends a reset.
_NO_LINGER = struct.pack("ii", 1, 0)


class Performance:
    """One streamed answer. Each token costs one write and one sleep."""

    def __init__(self, speaker: Speaker, behaviour: Behaviour, identity: Identity) -> None:
        self._speaker = speaker
        self._behaviour = behaviour
        self._identity = identity
        self._is_sse = speaker.media_type == "text/event-stream"
        self._response = web.StreamResponse(
            headers={"Content-Type": speaker.media_type, "Cache-Control": "no-cache"}
        )

    async def give(self, request: web.Request, answer: Answer, stats: Stats) -> web.StreamResponse:
        """Streams `answer`; returns when it is over or the planned trouble has happened.

        Raises:
            CancelledError, ConnectionError: the client went away.
        """
        await asyncio.sleep(self._behaviour.head)
        await self._response.prepare(request)
        await self._wait(self._behaviour.first)
        trouble, after = self._behaviour.trouble or (None, None)
        await self._say(answer.pieces[:after], stats)
        if trouble is not None:
            await self._get_into(trouble, request)
        else:
            ending = self._speaker.closing()
            await self._write(ending if answer.pieces else self._speaker.opening() + ending)
        return self._response

    async def _say(self, pieces: tuple[str, ...], stats: Stats) -> None:
        """Keeps the average pace: after a late wake-up the next pause is the shorter."""
        clock = asyncio.get_running_loop().time
        due = clock()
        before = self._speaker.opening()
        for piece in pieces:
            delay = due - clock()
            await asyncio.sleep(delay if delay > 0 else 0)
            await self._write(before + self._token(piece))
            stats.chunks += 1
            before = b""
            due += self._pause_s()

    def _token(self, piece: str) -> bytes:
        if not self._behaviour.stamp:
            return self._speaker.token(piece)
        now = time.monotonic_ns()
        if self._behaviour.stamp == "text":
            piece = f"{piece}@{now}"
        return self._speaker.token(piece, b',"x_emitted_ns":%d' % now)

    def _pause_s(self) -> float:
        pace, jitter = self._behaviour.pace / 1000, self._behaviour.jitter
        return pace * self._identity.between(1 - jitter, 1 + jitter) if jitter else pace

    async def _wait(self, seconds: float | None) -> None:
        """Sleeps, for ever with `None`, and says so now and then where that was asked for."""
        every = self._behaviour.comments
        if not every or not self._is_sse:
            await _sleep(seconds)
            return
        left = float("inf") if seconds is None else seconds
        while left > every:
            await asyncio.sleep(every)
            await self._write(_COMMENT)
            left -= every
        await asyncio.sleep(left)

    async def _get_into(self, trouble: Trouble, request: web.Request) -> None:
        match trouble:
            case "stall":
                await self._wait(None)
            case "cut":
                self._response.force_close()
            case "error":
                await self._write(self._speaker.error())
            case "drop" | "reset":
                end_connection(request, with_reset=trouble == "reset")

    async def _write(self, data: bytes) -> None:
        await self._response.write(
            data.replace(b"\n", b"\r\n") if self._behaviour.crlf and self._is_sse else data
        )


async def give_whole(
    request: web.Request, speaker: Speaker, behaviour: Behaviour
) -> web.StreamResponse:
    """Answers a request that doesn't stream, after the first token's silence."""
    await asyncio.sleep(behaviour.head + behaviour.first)
    trouble, _ = behaviour.trouble or (None, None)
    if trouble == "stall":
        await _sleep(None)
    if trouble in ("cut", "drop", "reset"):
        end_connection(request, with_reset=trouble == "reset")
    return reply(speaker.whole())


def end_connection(request: web.Request, *, with_reset: bool) -> None:
    """Closes the connection in the middle of the response, by FIN or by RST."""
    transport = request.transport
    if transport is None:
        return
    if not with_reset:
        transport.close()
        return
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


async def _sleep(seconds: float | None) -> None:
    if seconds is None:
        await asyncio.Event().wait()
    else:
        await asyncio.sleep(seconds)
