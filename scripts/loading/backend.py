"""A backend to measure with: stamps each event, and costs a few microseconds for it.

It speaks just enough HTTP/1.1 for a gateway's requests, answers every POST as an OpenAI-style chat
stream, and takes the demo backend's options `tokens`, `pace`, `first`, `size`, `stall` and `stamp`
in the question: `[mock: tokens=250 pace=20 stamp=text]`. For anything richer there is
`scripts/mock_upstream.py`. `GET /stats` says what it saw and what it spent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.loading import process
from scripts.loading.ticker import Speaker, Ticker

_OPTIONS = re.compile(rb"\[mock:([^\]]*)\]")
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_BEFORE = (
    b'data: {"id":"chatcmpl-load","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"load","choices":[{"index":0,"delta":{"content":"'
)
_AFTER = b'"},"logprobs":null,"finish_reason":null}]}\n\n'
_END = (
    b'data: {"id":"chatcmpl-load","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"load","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
_LAST_CHUNK = b"0\r\n\r\n"
#: A stamp in the text: `@` and 19 digits of CLOCK_MONOTONIC in nanoseconds.
_STAMP = b"@%019d"
_NO_STAMP = b"@" + b"-" * 19
#: What is handed to the transport at once when events are sent as fast as taken. Each event stays a
#: chunk of its own, as from a backend that writes them one by one.
_BLOCK_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Script:
    """What one request asked for: milliseconds, seconds, counts."""

    tokens: int = 20
    pace: float = 0.0
    first: float = 0.0
    size: int = 48
    stall: int = 0
    tag: int = -1
    stamp: bool = False

    @property
    def padding(self) -> bytes:
        return b"x" * max(0, self.size - len(_NO_STAMP))


@lru_cache(maxsize=8192)
def script(options: bytes) -> Script:
    """Options between spaces, as in the demo backend; those of no interest here are passed over."""
    words = dict(word.partition("=")[::2] for word in options.decode().split())
    return Script(
        tokens=int(words.get("tokens", 20)),
        pace=float(words.get("pace", 0)),
        first=float(words.get("first", 0)),
        size=int(words.get("size", 48)),
        stall=int(words.get("stall", 0)),
        tag=int(words.get("tag", -1)),
        stamp=words.get("stamp", "0") != "0",
    )


def event(stamp: bytes, padding: bytes) -> bytes:
    return b"".join((_BEFORE, stamp, padding, _AFTER))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@lru_cache(maxsize=64)
def _whole(count: int, padding: bytes) -> bytes:
    """A short answer without stamps, ready to be written."""
    return _HEAD + chunk(event(_NO_STAMP, padding)) * count + chunk(_END) + _LAST_CHUNK


@dataclass(slots=True)
class Ledger:
    """What `/stats` tells: streams begun and finished, and when clients with a tag were gone."""

    streams: int = 0
    finished: int = 0
    open: int = 0
    gone_ns: dict[int, int] | None = None

    def left(self, tag: int) -> None:
        if tag >= 0:
            if self.gone_ns is None:
                self.gone_ns = {}
            self.gone_ns[tag] = time.monotonic_ns()


class Answer(asyncio.Protocol):
    """One connection, and the answer that runs on it."""

    def __init__(self, server: Backend) -> None:
        self._server = server
        self._received = b""
        self._script: Script | None = None
        self._left = 0
        self._blocks: Iterator[bytes] = iter(())
        self._is_paused = False
        self.group: dict[Speaker, None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        if self._script is not None:
            self._server.ledger.left(self._script.tag)
            self._over()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head, body = self._received[:end], self._received[end + 4 :]
        length = _LENGTH.search(head)
        if length and len(body) < int(length[1]):
            return
        if not length and _CHUNKED.search(head) and not body.endswith(_LAST_CHUNK):
            return
        self._received = b""
        if head.startswith(b"POST"):
            self._begin(body)
        else:
            self._server.reply(self._transport, head)

    def _begin(self, body: bytes) -> None:
        found = _OPTIONS.search(body)
        wanted = script(found[1] if found else b"")
        self._server.ledger.streams += 1
        if not wanted.pace and not wanted.stall and not wanted.stamp and wanted.tokens <= 256:
            self._transport.write(_whole(wanted.tokens, wanted.padding))
            self._server.ledger.finished += 1
            return
        self._server.ledger.open += 1
        self._script = wanted
        self._padding = wanted.padding
        self._left = wanted.stall or wanted.tokens
        self._transport.write(_HEAD)
        if wanted.first:
            self._server.loop.call_later(wanted.first, self._start)
        else:
            self._start()

    def _start(self) -> None:
        wanted = self._script
        if wanted is None:
            return  # the client went first
        if wanted.pace:
            self.say()
            if self._left:
                self._server.ticker(wanted.pace / 1000).add(self)
        else:
            self._blocks = self._all(wanted)
            self.resume_writing()

    def say(self) -> None:
        """Writes the next event, stamped now; the last is followed by the end."""
        assert self._script is not None
        data = chunk(event(_STAMP % time.monotonic_ns(), self._padding))
        self._left -= 1
        if self._left:
            self._transport.write(data)
        elif self._script.stall:
            self._transport.write(data)
            self._leave_group()
        else:
            self._transport.write(data + chunk(_END) + _LAST_CHUNK)
            self._finish()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        """Writes until the transport has enough."""
        self._is_paused = False
        for block in self._blocks:
            self._transport.write(block)
            if self._is_paused:
                return

    def _all(self, wanted: Script) -> Iterator[bytes]:
        """The whole answer, as fast as it is taken."""
        plain = chunk(event(_NO_STAMP, self._padding))
        a_block = max(1, _BLOCK_BYTES // len(plain))
        block = plain * a_block
        while self._left:
            count = min(a_block, self._left)
            self._left -= count
            if wanted.stamp:
                yield chunk(event(_STAMP % time.monotonic_ns(), self._padding)) * count
            else:
                yield block if count == a_block else plain * count
        if not wanted.stall:
            self._finish()
            yield chunk(_END) + _LAST_CHUNK

    def _finish(self) -> None:
        self._server.ledger.finished += 1
        self._over()

    def _over(self) -> None:
        self._server.ledger.open -= 1
        self._script = None
        self._blocks = iter(())
        self._leave_group()

    def _leave_group(self) -> None:
        if self.group is not None:
            self.group.pop(self, None)
            self.group = None


class Backend:
    """Makes a protocol for each connection, and keeps what they share."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ledger = Ledger()
        self._tickers: dict[float, Ticker] = {}

    def __call__(self) -> Answer:
        return Answer(self)

    def ticker(self, pace_s: float) -> Ticker:
        if pace_s not in self._tickers:
            self._tickers[pace_s] = Ticker(self.loop, pace_s)
        return self._tickers[pace_s]

    def reply(self, transport: asyncio.Transport, head: bytes) -> None:
        """`/stats`, and an empty object to anything else, such as a gateway's probe."""
        body = self._stats() if b" /stats" in head else b"{}"
        transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )

    def _stats(self) -> bytes:
        ledger = self.ledger
        gone = ledger.gone_ns or {}
        return json.dumps(
            {
                "streams": ledger.streams,
                "finished": ledger.finished,
                "open": ledger.open,
                "gone_ns": gone,
                "cpu_s": process.cpu_s(os.getpid()),
            }
        ).encode()


async def serve(host: str, port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server = await loop.create_server(Backend(loop), host, port, backlog=8192)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"listening on http://{host}:{port}", flush=True)
    await ended.wait()
    server.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="A cheap backend to measure a gateway with.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    process.allow_many_connections()
    with asyncio.Runner(loop_factory=process.loop_factory()) as runner:
        runner.run(serve(options.host, options.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
