"""Refuses what the HTTP parser lets through but no gateway should pass on.

The parser itself refuses conflicting lengths, bad chunks, control bytes and the like; what is left
for us was measured with aiohttp 3.14.5.
"""

from __future__ import annotations

import re

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion10, HttpVersion11

from gateway.errors import BadFraming, BadRequest
from gateway.sse.dialects import provider_dialect
from gateway.web.routes import resolved
from gateway.web.services import SERVICES

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
#: A fragment, and all that isn't visible ASCII.
_FORBIDDEN_IN_TARGET = re.compile(r"[^!-~]|#")
_REFUSED_METHODS = ("TRACE", "CONNECT")
_SERVED_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
#: aiohttp bounds a single line and their number, which together is two megabytes.
_MAX_HEADERS_BYTES = 16 * 1024
_CONTINUE = "100-continue"


def check_framing(request: web.Request) -> None:
    """
    Raises:
        BadFraming: the request isn't one to be passed on.
        BadRequest: `bad_target`.
        HTTPMethodNotAllowed: a method that is never served.
    """
    _check_version(request)
    _check_host(request, request.app[SERVICES].settings.allowed_hosts)
    _check_method(request)
    _check_target(request)
    _check_body(request)
    _check_header_bytes(request)
    _check_wishes(request)


async def expect(request: web.Request) -> web.StreamResponse | None:
    """Lets a body come that waits to be asked for; `check_framing` refuses every other expectation.

    Routes need it, since aiohttp's own refuses before any middleware, quoting what it refuses.
    """
    if request.headers.get(hdrs.EXPECT, "").strip().lower() == _CONTINUE:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # it is no part of the answer
    return None


def _check_version(request: web.Request) -> None:
    if request.version not in (HttpVersion10, HttpVersion11):
        raise BadFraming("Only HTTP/1.0 and HTTP/1.1 are spoken here.", code="bad_version")


def _check_host(request: web.Request, allowed: tuple[str, ...]) -> None:
    host = request.headers.get(hdrs.HOST, "")
    if not host and request.version == HttpVersion10:
        return
    if not _HOST.fullmatch(host):
        raise BadFraming("The Host header isn't a host.", code="bad_host")
    if allowed and re.sub(r":\d+$", "", host).lower() not in allowed:
        raise BadFraming("This host isn't served here.", code="misdirected_request", status=421)


def _check_target(request: web.Request) -> None:
    target = request.raw_path
    if not target.startswith("/") and not (request.method == "OPTIONS" and target == "*"):
        raise BadFraming("The request target must be a path.", code="bad_target")
    if _FORBIDDEN_IN_TARGET.search(target):
        raise BadFraming("The request target has forbidden characters.", code="bad_target")
    path = request.rel_url.raw_path
    if provider_dialect(resolved(path)) is not None and provider_dialect(path) is None:
        # A backend that resolves paths would answer it, past every limit of ours.
        raise BadRequest("Spell this path plainly.", code="bad_target")


def _check_method(request: web.Request) -> None:
    if request.method in _REFUSED_METHODS:
        raise web.HTTPMethodNotAllowed(request.method, _SERVED_METHODS)


def _check_body(request: web.Request) -> None:
    encodings = [v.strip().lower() for v in request.headers.getall(hdrs.TRANSFER_ENCODING, ())]
    if encodings and (encodings != ["chunked"] or request.version == HttpVersion10):
        raise BadFraming("Transfer-Encoding must be chunked.", code="bad_transfer_encoding")
    has_body = bool(encodings) or request.headers.get(hdrs.CONTENT_LENGTH, "0").strip("0") != ""
    if has_body and request.method in ("GET", "HEAD"):
        raise BadFraming("This method takes no body.", code="unexpected_body")


def _check_header_bytes(request: web.Request) -> None:
    size = 0
    for name, value in request.headers.items():
        size += len(name) + len(value) + 4
        if not name.isascii() or ("_" in name and _is_ours(name)):
            raise BadFraming("A header's name is malformed.", code="bad_header")
        if not value.isascii():
            if _is_ours(name):
                raise BadFraming("A header has bytes that aren't ASCII.", code="bad_header")
            size += len(value.encode(errors="surrogateescape")) - len(value)
    if size > _MAX_HEADERS_BYTES:
        raise BadFraming("The headers are too large.", code="headers_too_large", status=431)


def _check_wishes(request: web.Request) -> None:
    """`Upgrade: h2c` is ignored, as RFC 9110 §7.8 allows: Java's client always offers it."""
    if request.headers.get(hdrs.EXPECT, _CONTINUE).strip().lower() != _CONTINUE:
        raise BadFraming("This expectation can't be met.", code="bad_expectation", status=417)
    if "websocket" in _words(request, hdrs.UPGRADE) and "upgrade" in _words(
        request, hdrs.CONNECTION
    ):
        raise BadFraming(
            "The gateway doesn't pass protocol upgrades such as WebSocket.",
            code="upgrade_not_supported",
            status=501,
        )


def _words(request: web.Request, name: str) -> list[str]:
    lines = request.headers.getall(name, ())
    return [word.strip().lower() for line in lines for word in line.split(",")]


def _is_ours(name: str) -> bool:
    lower = name.lower().replace("_", "-")
    return lower.startswith(_OUR_PREFIXES) or lower in _OUR_HEADERS


_OUR_PREFIXES = ("x-stream-", "x-trace", "x-user", "x-connection", "x-performance")
_OUR_HEADERS = frozenset(
    ("authorization", "idempotency-key", "last-event-id", "traceparent", "x-api-key")
)
