"""Requests that no gateway should pass on, each with the one verdict that it must get."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

HOST = b"Host: gateway\r\n"
LINE = b"GET /x HTTP/1.1\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b'{"a":1}'
CHUNK = b"7\r\n" + BODY + b"\r\n"
END = b"0\r\n\r\n"
#: What an attacker hopes that the gateway or the backend takes for a request of its own.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: gateway\r\n\r\n"

BAD_HTTP = ("bad_http",)
#: Whole, the parser refuses it at once; in packets the body has begun when it goes wrong.
BAD_BODY = ("bad_http", "body_incomplete")


@dataclass(frozen=True, slots=True)
class Hostile:
    """`codes` holds what the answer's code may be."""

    name: str
    request: bytes
    codes: tuple[str, ...] = BAD_HTTP
    status: int = 400


def _post(headers: bytes, body: bytes = BODY) -> bytes:
    return POST + headers + b"\r\n" + body


def _get(headers: bytes) -> bytes:
    return LINE + HOST + headers + b"\r\n"


def _line(line: bytes) -> bytes:
    return line + b"\r\n" + HOST + b"\r\n"


def _numbered(count: int, value: bytes = b"b") -> bytes:
    return b"".join(b"X-%d: %b\r\n" % (number, value) for number in range(count))


TABLE = (
    # Lengths
    Hostile(
        "cl and te", _post(b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n")
    ),
    Hostile(
        "te and cl", _post(b"Transfer-Encoding: chunked\r\nContent-Length: 7\r\n", b"0\r\n\r\n")
    ),
    Hostile("two lengths", _post(b"Content-Length: 7\r\nContent-Length: 8\r\n")),
    Hostile("one length twice", _post(b"Content-Length: 7\r\nContent-Length: 7\r\n")),
    Hostile("list of lengths", _post(b"Content-Length: 7, 7\r\n")),
    Hostile("length with plus", _post(b"Content-Length: +7\r\n")),
    Hostile("negative length", _post(b"Content-Length: -7\r\n")),
    Hostile("hexadecimal length", _post(b"Content-Length: 0x7\r\n")),
    Hostile("length with underscore", _post(b"Content-Length: 1_0\r\n")),
    Hostile("fraction of a length", _post(b"Content-Length: 7.0\r\n")),
    Hostile("length in arabic digits", _post("Content-Length: \u0667\r\n".encode())),
    Hostile("no length", _post(b"Content-Length: \r\n")),
    Hostile("length beyond 64 bits", _post(b"Content-Length: 99999999999999999999\r\n")),
    # Transfer codings
    Hostile("chunked twice", _post(b"Transfer-Encoding: chunked\r\n" * 2, CHUNK + END)),
    Hostile("chunked, chunked", _post(b"Transfer-Encoding: chunked, chunked\r\n", CHUNK + END)),
    Hostile("chunked, identity", _post(b"Transfer-Encoding: chunked, identity\r\n", CHUNK + END)),
    Hostile("xchunked", _post(b"Transfer-Encoding: xchunked\r\n", CHUNK + END)),
    Hostile("chunkedx", _post(b"Transfer-Encoding: chunkedx\r\n", CHUNK + END)),
    Hostile("only gzip", _post(b"Transfer-Encoding: gzip\r\n", CHUNK + END)),
    Hostile("space before colon", _post(b"Transfer-Encoding : chunked\r\n", CHUNK + END)),
    Hostile(
        "vertical tab before chunked", _post(b"Transfer-Encoding: \x0bchunked\r\n", CHUNK + END)
    ),
    Hostile("quoted chunked", _post(b'Transfer-Encoding: "chunked"\r\n', CHUNK + END)),
    Hostile(
        "gzip, chunked",
        _post(b"Transfer-Encoding: gzip, chunked\r\n", CHUNK + END),
        ("bad_transfer_encoding",),
    ),
    Hostile(
        "identity, chunked",
        _post(b"Transfer-Encoding: identity, chunked\r\n", CHUNK + END),
        ("bad_transfer_encoding",),
    ),
    Hostile("no coding", _post(b"Transfer-Encoding: \r\n", SMUGGLED), ("bad_transfer_encoding",)),
    Hostile(
        "chunked on HTTP/1.0",
        CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + CHUNK + END,
        ("bad_transfer_encoding",),
    ),
    # Line ends and bytes of headers
    Hostile("lf between headers", LINE + b"Host: gateway\nX: y\r\n\r\n"),
    Hostile("lf everywhere", b"GET /x HTTP/1.1\nHost: gateway\n\n"),
    Hostile("cr between headers", LINE + b"Host: gateway\rX: y\r\n\r\n"),
    Hostile("cr in a value", _get(b"X: a\rb\r\n")),
    Hostile("nul in a value", _get(b"X: a\0b\r\n")),
    Hostile("control in a value", _get(b"X: a\x01b\r\n")),
    Hostile("delete in a value", _get(b"X: a\x7fb\r\n")),
    Hostile("nul in a name", _get(b"X\0: ab\r\n")),
    Hostile("folded header", _get(b"X: a\r\n b\r\n")),
    Hostile("folded first header", LINE + b" Host: gateway\r\n\r\n"),
    Hostile("header without colon", _get(b"Foo\r\n")),
    Hostile("header without name", _get(b": a\r\n")),
    Hostile("space in a name", _get(b"X Y: a\r\n")),
    Hostile("quotes in a name", _get(b'"X": a\r\n')),
    Hostile("latin letter in a name", _get(b"X\xe9: a\r\n")),
    Hostile("latin letter in a trace id", _get(b"X-Trace-ID: a\xff\r\n"), ("bad_header",)),
    Hostile("utf-8 in a credential", _get("Authorization: Bearer é\r\n".encode()), ("bad_header",)),
    Hostile("our header with underscores", _get(b"X_Trace_Id: a\r\n"), ("bad_header",)),
    # Chunks
    Hostile("chunk size not hexadecimal", CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", BAD_BODY),
    Hostile("chunk longer than its size", CHUNKED + b"2\r\n{}xx0\r\n\r\n", BAD_BODY),
    Hostile("chunk size with 0x", CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n", BAD_BODY),
    Hostile("negative chunk size", CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n", BAD_BODY),
    Hostile("chunk size with plus", CHUNKED + b"+2\r\n{}\r\n0\r\n\r\n", BAD_BODY),
    Hostile("chunk size with underscore", CHUNKED + b"0_2\r\n{}\r\n0\r\n\r\n", BAD_BODY),
    Hostile("chunk size beyond 64 bits", CHUNKED + b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n", BAD_BODY),
    Hostile("lf after a chunk size", CHUNKED + b"2\n{}\r\n0\r\n\r\n", BAD_BODY),
    Hostile("lf after a chunk", CHUNKED + b"2\r\n{}\n0\r\n\r\n", BAD_BODY),
    Hostile("lf in a chunk extension", CHUNKED + b"2;a=\nb\r\n{}\r\n0\r\n\r\n", BAD_BODY),
    Hostile(
        "length in the trailers", CHUNKED + CHUNK + b"0\r\nContent-Length: 5\r\n\r\n", BAD_BODY
    ),
    Hostile(
        "coding in the trailers",
        CHUNKED + CHUNK + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        BAD_BODY,
    ),
    # The request line
    Hostile("absolute target", _line(b"GET http://evil.example/x HTTP/1.1"), ("bad_target",)),
    Hostile("absolute target of ours", _line(b"GET http://gateway/x HTTP/1.1"), ("bad_target",)),
    Hostile("fragment", _line(b"GET /x#f HTTP/1.1"), ("bad_target",)),
    Hostile("non-ascii target", _line("GET /é HTTP/1.1".encode())),
    Hostile("target without slash", _line(b"GET x HTTP/1.1")),
    Hostile("control in the target", _line(b"GET /\x01 HTTP/1.1")),
    Hostile("nul in the target", _line(b"GET /\0 HTTP/1.1")),
    Hostile("delete in the target", _line(b"GET /\x7f HTTP/1.1")),
    Hostile("space in the target", _line(b"GET /a b HTTP/1.1")),
    Hostile("tab for a space", _line(b"GET\t/x HTTP/1.1")),
    Hostile("space at the line's end", _line(b"GET /x HTTP/1.1 ")),
    Hostile("asterisk for GET", _line(b"GET * HTTP/1.1")),
    Hostile("method with a sign", _line(b"GE<T /x HTTP/1.1")),
    Hostile("method in small letters", _line(b"get /x HTTP/1.1")),
    Hostile("unknown method", _line(b"FOO /x HTTP/1.1")),
    Hostile("TRACE", _line(b"TRACE /x HTTP/1.1"), ("method_not_allowed",), 405),
    Hostile("CONNECT", _line(b"CONNECT gateway:80 HTTP/1.1"), ("method_not_allowed",), 405),
    # Versions
    Hostile("HTTP/0.9", _line(b"GET /x HTTP/0.9"), ("bad_version",)),
    Hostile("HTTP/2.0", _line(b"GET /x HTTP/2.0"), ("bad_version",)),
    Hostile("no version", _line(b"GET /x"), ("bad_version",)),
    Hostile("HTTP/1.2", _line(b"GET /x HTTP/1.2")),
    Hostile("HTTP/1.10", _line(b"GET /x HTTP/1.10")),
    Hostile("version in arabic digits", _line("GET /x HTTP/\u0661.1".encode())),
    Hostile("version in small letters", _line(b"GET /x http/1.1")),
    Hostile("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Hostile("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    # Hosts
    Hostile("no host", LINE + b"\r\n"),
    Hostile("host twice", LINE + HOST * 2 + b"\r\n"),
    Hostile("two hosts", LINE + HOST + b"Host: evil.example\r\n\r\n"),
    Hostile("empty host", LINE + b"Host: \r\n\r\n", ("bad_host",)),
    Hostile("host with a space", LINE + b"Host: a b\r\n\r\n", ("bad_host",)),
    Hostile("host with a path", LINE + b"Host: a/b@c\r\n\r\n", ("bad_host",)),
    Hostile("host with a user", LINE + b"Host: u@gateway\r\n\r\n", ("bad_host",)),
    # Bodies where none may be
    Hostile("GET with a body", _get(b"Content-Length: 2\r\n") + b"{}", ("unexpected_body",)),
    Hostile(
        "GET with chunks",
        _get(b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n",
        ("unexpected_body",),
    ),
    # Wishes
    Hostile("unknown expectation", _get(b"Expect: <b>\r\n"), ("bad_expectation",), 417),
    Hostile(
        "websocket",
        _get(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\n")
        + SMUGGLED,
        ("upgrade_not_supported",),
        501,
    ),
)

#: Too long for every way of cutting them.
LARGE = (
    Hostile("long target", _line(b"GET /" + b"a" * 9000 + b" HTTP/1.1")),
    Hostile("long header", _get(b"X: " + b"a" * 20_000 + b"\r\n")),
    Hostile("200 headers", _get(_numbered(200))),
    Hostile("300 trailers", CHUNKED + CHUNK + b"0\r\n" + _numbered(300) + b"\r\n", BAD_BODY),
    Hostile("100 kB of headers", _get(_numbered(100, b"a" * 1000)), ("headers_too_large",), 431),
)

_LENGTHS = (b"0", b"5", b"44", b"+5", b"5,5", b"0x5", b"5 5")
_CODINGS = (
    b"chunked",
    b" chunked",
    b"\tchunked",
    b"Chunked",
    b"chunked\t",
    b"xchunked",
    b"chunked, identity",
    b"identity",
    b"chunked;q=1",
    b"x",
    b",chunked",
    b"chunked,",
)
_NAMES = (b"Transfer-Encoding", b"transfer-encoding", b"TRANSFER-ENCODING")


def smuggling() -> Iterator[bytes]:
    """Two framings on one request, in every order and spelling, and a request hidden behind."""
    for length in _LENGTHS:
        for coding in _CODINGS:
            for name in _NAMES[: 1 + len(coding) % 3]:
                lines = (b"Content-Length: " + length, name + b":" + coding)
                yield from (
                    _post(b"\r\n".join(order) + b"\r\n", b"0\r\n\r\n" + SMUGGLED)
                    for order in (lines, lines[::-1])
                )
