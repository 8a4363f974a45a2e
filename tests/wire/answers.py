"""A strict HTTP client for these tests: whole answers as bytes, and whether they ended in order.

What a lenient client forgives is what these tests look for, so nothing here is forgiving: framing
is read to the letter, and a body that only stops isn't a body that ended.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.framing import blocks

_ID = re.compile(rb"id: ([A-Za-z0-9_-]{16})\.([1-9][0-9]*)\n")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `body` is without the framing; `raw` is all that came."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    #: Whether it ended as its framing demands: last chunk, length, or FIN if there is neither.
    is_whole: bool
    was_reset: bool
    raw: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the typed route."""

    id: bytes
    name: str
    data: dict[str, Any]


async def ask(
    port: int,
    path: str,
    body: object,
    *,
    version: str = "1.1",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Posts `body` as JSON on a connection of its own and reads until the server closes it."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, request(path, body, version=version, headers=headers))
        raw, was_reset = bytearray(), False
        try:
            while data := await loop.sock_recv(sock, 1 << 16):
                raw += data
        except ConnectionResetError:
            was_reset = True
    return parsed(bytes(raw), was_reset=was_reset)


def request(
    path: str, body: object, *, version: str = "1.1", headers: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of a POST after whose answer the server shall close."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {
        "Host": "gateway",
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        **(headers or {}),
    }
    lines = [f"POST {path} HTTP/{version}", *(f"{name}: {value}" for name, value in fields.items())]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode() + content


def parsed(raw: bytes, *, was_reset: bool) -> Answer:
    """Reads one answer from all the bytes of its connection."""
    head, mark, rest = raw.partition(b"\r\n\r\n")
    assert mark, f"no whole head: {raw!r}"
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (x.partition(":") for x in lines)]
    names = {name.lower(): value for name, value in headers}
    if names.get("transfer-encoding") == "chunked":
        assert first.startswith("HTTP/1.1")
        body, is_whole = unchunked(rest)
    elif "content-length" in names:
        size = int(names["content-length"])
        assert len(rest) <= size
        body, is_whole = rest, len(rest) == size
    else:
        body, is_whole = rest, not was_reset
    return Answer(int(first.split(" ")[1]), headers, body, is_whole, was_reset, raw)


def unchunked(data: bytes) -> tuple[bytes, bool]:
    """A chunked body, as far as it has come, and whether it has ended."""
    body = bytearray()
    while True:
        line, mark, rest = data.partition(b"\r\n")
        if not mark:
            return bytes(body), False
        size = int(line, 16)
        if size == 0:
            assert b"\r\n".startswith(rest), "something follows the last chunk"
            return bytes(body), rest == b"\r\n"
        body += rest[:size]
        if len(rest) < size + 2:
            return bytes(body), False
        assert rest[size : size + 2] == b"\r\n"
        data = rest[size + 2 :]


def events(body: bytes) -> list[Event]:
    """The typed events, heartbeats too; nothing but whole events may be there."""
    assert body.endswith(b"\n\n"), body[-80:]
    found = []
    for block in blocks(body):
        fields = [line.split(b": ", 1) for line in block.removesuffix(b"\n\n").split(b"\n")]
        values = dict(fields)
        assert len(values) == len(fields)
        assert set(values) <= {b"id", b"retry", b"event", b"data"}
        found.append(
            Event(values.get(b"id", b""), values[b"event"].decode(), json.loads(values[b"data"]))
        )
    return found


def without_ids(body: bytes) -> bytes:
    """`body` without its id lines, which must be of one stream and count from 1 without a gap."""
    seen = _ID.findall(body)
    assert len({sid for sid, _ in seen}) <= 1
    assert [int(seq) for _, seq in seen] == list(range(1, len(seen) + 1))
    return _ID.sub(b"", body)
