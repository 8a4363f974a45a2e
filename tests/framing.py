"""The bytes around an answer: heads, chunks, blocks."""

from __future__ import annotations

from typing import Literal

Framing = Literal["chunked", "length", "close"]

LAST_CHUNK = b"0\r\n\r\n"


def chunked(data: bytes) -> bytes:
    """`data` as one chunk; nothing for nothing, since an empty chunk ends a body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def response_head(
    status: str = "200 OK",
    *headers: str,
    content_type: str = "application/json",
    framing: Framing = "chunked",
    length: int = 0,
) -> bytes:
    """A response's head; `headers` are whole lines such as `Retry-After: 1`."""
    how = {
        "chunked": "Transfer-Encoding: chunked",
        "length": f"Content-Length: {length}",
        "close": "Connection: close",
    }
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {content_type}", how[framing], *headers)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def sse_head(*headers: str, framing: Framing = "chunked", length: int = 0) -> bytes:
    """The head of an event stream."""
    content_type = "text/event-stream; charset=utf-8"
    return response_head(
        "200 OK", *headers, content_type=content_type, framing=framing, length=length
    )


def json_response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer."""
    return response_head(status, *headers, framing="length", length=len(body)) + body


def blocks(stream: bytes) -> list[bytes]:
    """The blocks of a recorded stream, each with its blank line."""
    return [part + b"\n\n" for part in stream.split(b"\n\n") if part]
