"""A backend that brings each answer into the state its question names, and a port that is deaf."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from tests.backend import LAST_CHUNK, Exchange, chunked, json_response, sse_head

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
_FLOOD = "x" * 8000


@dataclass(frozen=True, slots=True)
class Script:
    """A dialect's events: before the text, of a piece of text, and after it."""

    opening: Callable[[str], list[bytes]]
    piece: Callable[[int, str], bytes]
    closing: Callable[[str], list[bytes]]


def _event(kind: str, **more: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **more}))


def _chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % orjson.dumps({"id": "c1", "choices": [choice]})


def _response(marker: str, status: str) -> dict[str, object]:
    return {"id": f"resp_{marker}", "object": "response", "status": status, "output": []}


_MESSAGE = {"id": "m1", "type": "message", "role": "assistant", "content": [], "usage": {}}
SCRIPTS = {
    CHAT: Script(
        lambda marker: [_chunk({"role": "assistant"})],
        lambda at, text: _chunk({"content": text}),
        lambda marker: [_chunk({}, "stop"), b"data: [DONE]\n\n"],
    ),
    MESSAGES: Script(
        lambda marker: [
            _event("message_start", message=_MESSAGE),
            _event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        ],
        lambda at, text: _event(
            "content_block_delta", index=0, delta={"type": "text_delta", "text": text}
        ),
        lambda marker: [
            _event("content_block_stop", index=0),
            _event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}),
            _event("message_stop"),
        ],
    ),
    RESPONSES: Script(
        lambda marker: [
            _event("response.created", sequence_number=0, response=_response(marker, "in_progress"))
        ],
        lambda at, text: _event("response.output_text.delta", sequence_number=at + 1, delta=text),
        lambda marker: [
            _event("response.completed", sequence_number=9, response=_response(marker, "completed"))
        ],
    ),
}
_MARKER = re.compile(rb"([a-z]+)-[0-9a-f]{12}")


class Stage:
    """A backend that brings each answer as far as the marker in its question says.

    `strays` are the requests without one: nothing but questions should get here.
    """

    def __init__(self) -> None:
        self.strays: list[str] = []
        self.exchanges: dict[str, Exchange] = {}

    async def __call__(self, exchange: Exchange) -> None:
        found = _MARKER.search(exchange.body)
        if found is None:
            self.strays.append(f"{exchange.method} {exchange.target}")
            await exchange.send(json_response(b"{}", "404 Not Found"))
            return
        marker = found[0].decode()
        self.exchanges[marker] = exchange
        await self._play(exchange, found[1].decode(), marker)

    async def _play(self, exchange: Exchange, state: str, marker: str) -> None:
        script = SCRIPTS[exchange.path]
        if state == "asked":
            return await exchange.stall()
        await exchange.send(sse_head())
        if state == "headed":
            return await exchange.stall()
        await exchange.send(*map(chunked, script.opening(marker)))
        if state == "opened":
            return await exchange.stall()
        for at in range(3):
            await exchange.send(chunked(script.piece(at, f"{at} ")))
        while state == "paused":
            await exchange.send(chunked(script.piece(3, _FLOOD)) * 10)
        if state == "completed":
            return await exchange.send(*map(chunked, script.closing(marker)), LAST_CHUNK)
        if state == "failed":
            return await exchange.close()
        return await exchange.stall()


@asynccontextmanager
async def deaf_listener() -> AsyncIterator[socket.socket]:
    """A port where connections are asked for and never made: its queue is full."""
    loop = asyncio.get_running_loop()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(2)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                try:
                    async with asyncio.timeout(0.05):
                        await loop.sock_connect(filler, listener.getsockname())
                except TimeoutError:
                    filler.close()
            yield listener
        finally:
            for filler in fillers:
                filler.close()


def connecting_sockets(port: int) -> int:
    """How many connections to a port of 127.0.0.1 wait to be made (Linux: `SYN_SENT` is 2)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2] == f"0100007F:{port:04X}" and row[3] == "02" for row in rows)
