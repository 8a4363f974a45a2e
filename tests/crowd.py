"""A backend for a crowd: a process that serves a thousand streams at once, all of them together.

    python -m tests.crowd --size 1000 --port 9000

No stream goes on before all have been asked for. A `steady` one then sends its tokens in turn with
the others, a `flood` sends as long as it is taken. `GET /` tells how many are asked for and paused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
from collections.abc import Sequence

from tests.framing import LAST_CHUNK, chunked, json_response, sse_head

TOKENS = 40
DONE = b"data: [DONE]\n\n"
_SEND_BUFFER_BYTES = 16 * 1024
_FLOOD = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 8000)
_ASKED = re.compile(rb"crowd-(\d+)-(steady|flood)")
#: Streams that get their token before the process looks at its sockets again.
_IN_A_TURN = 25


def question(number: int, kind: str) -> str:
    """What to ask: the stream's own number, and `steady` or `flood`."""
    return f"crowd-{number}-{kind}"


def token(number: int, turn: int) -> str:
    return f"{number}.{turn} "


def block(number: int, turn: int) -> bytes:
    data = {"choices": [{"index": 0, "delta": {"content": token(number, turn)}}]}
    return b"data: %b\n\n" % json.dumps(data).encode()


class Crowd:
    def __init__(self, size: int) -> None:
        self._size = size
        self._steady: list[Stream] = []
        self._floods: list[Stream] = []
        self._all_have_come = asyncio.Event()

    def join(self, stream: Stream) -> None:
        (self._steady if stream.kind == "steady" else self._floods).append(stream)
        if len(self._steady) + len(self._floods) >= self._size:
            self._all_have_come.set()

    def report(self) -> bytes:
        paused = sum(stream.is_paused for stream in self._floods)
        asked = len(self._steady) + len(self._floods)
        return json.dumps({"asked": asked, "paused": paused}).encode()

    async def run(self) -> None:
        await self._all_have_come.wait()
        for turn in range(TOKENS):
            await self._pour()
            for at, stream in enumerate(self._steady):
                stream.write(chunked(block(stream.number, turn)))
                if at % _IN_A_TURN == 0:
                    await asyncio.sleep(0)
        for stream in self._steady:
            stream.write(chunked(DONE) + LAST_CHUNK)
        while True:
            await self._pour()
            await asyncio.sleep(0.02)

    async def _pour(self) -> None:
        """What the floods take just now."""
        for stream in self._floods:
            for _ in range(8):
                if not stream.is_paused:
                    stream.write(chunked(_FLOOD))
            await asyncio.sleep(0)


class Stream(asyncio.Protocol):
    """One connection, and the stream that is asked for on it."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._request = b""
        self.number = 0
        self.kind = ""
        self.is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._request += data
        if self._request.startswith(b"GET / ") and b"\r\n\r\n" in self._request:
            self._request = b""
            self.write(json_response(self._crowd.report()))
        elif not self.kind and (asked := _ASKED.search(self._request)):
            self.number, self.kind = int(asked[1]), asked[2].decode()
            self.write(sse_head())
            self._crowd.join(self)

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_paused = False

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


async def serve(size: int, port: int) -> None:
    crowd = Crowd(size)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stream(crowd), "127.0.0.1", port, backlog=2048)
    async with server:
        await crowd.run()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A backend for a crowd.")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    asyncio.run(serve(options.size, options.port))


if __name__ == "__main__":
    main()
