"""Refuses what the HTTP parser lets through but no gateway should pass on.

The parser itself refuses conflicting lengths, bad chunks, control bytes and the like; what is left
for us was measured with aiohttp 3.14.5.
"""

from __future__ import annotations

import re

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.typedefs import Handler

from gateway.errors import BadRequest
from gateway.web.services import SERVICES

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_REFUSED_METHODS = ("TRACE", "CONNECT")


@web.middleware
async def framing(request: web.Request, handler: Handler) -> web.StreamResponse:
    _check_version(request)
    _check_host(request, request.app[SERVICES].settings.allowed_hosts)
    _check_target(request)
    _check_method_and_body(request)
    _check_header_bytes(request)
    return await handler(request)


def _check_version(request: web.Request) -> None:
    if request.version not in (HttpVersion10, HttpVersion11):
        raise BadRequest("Only HTTP/1.0 and HTTP/1.1 are spoken here.", code="bad_version")


def _check_host(request: web.Request, allowed: tuple[str, ...]) -> None:
    host = request.headers.get(hdrs.HOST, "")
    if not host and request.version == HttpVersion10:
        return
    if not _HOST.fullmatch(host):
        raise BadRequest("The Host header isn't a host.", code="bad_host")
    if allowed and re.sub(r":\d+$", "", host).lower() not in allowed:
        raise BadRequest("This host isn't served here.", code="misdirected_request", status=421)


def _check_target(request: web.Request) -> None:
    target = request.raw_path
    if not target.startswith("/") and not (request.method == "OPTIONS" and target == "*"):
        raise BadRequest("The request target must be a path.", code="bad_target")
    if "#" in target or not target.isascii() or any(c <= " " or c == "\x7f" for c in target):
        raise BadRequest("The request target has forbidden characters.", code="bad_target")


def _check_method_and_body(request: web.Request) -> None:
    if request.method in _REFUSED_METHODS:
        raise BadRequest("This method isn't served.", code="method_not_allowed", status=405)
    encodings = [v.strip().lower() for v in request.headers.getall(hdrs.TRANSFER_ENCODING, ())]
    if encodings and (encodings != ["chunked"] or request.version == HttpVersion10):
        raise BadRequest("Transfer-Encoding must be chunked.", code="bad_transfer_encoding")
    has_body = bool(encodings) or request.headers.get(hdrs.CONTENT_LENGTH, "0").strip("0") != ""
    if has_body and request.method in ("GET", "HEAD"):
        raise BadRequest("This method takes no body.", code="unexpected_body")


def _check_header_bytes(request: web.Request) -> None:
    for name, value in request.raw_headers:
        if not name.isascii() or (b"_" in name and _is_ours(name)):
            raise BadRequest("A header's name is malformed.", code="bad_header")
        if not value.isascii() and _is_ours(name):
            raise BadRequest("A header has bytes that aren't ASCII.", code="bad_header")


def _is_ours(name: bytes) -> bool:
    lower = name.lower().replace(b"_", b"-")
    return lower.startswith(_OUR_PREFIXES) or lower in _OUR_HEADERS


_OUR_PREFIXES = (b"x-stream-", b"x-trace", b"x-user", b"x-connection", b"x-performance")
_OUR_HEADERS = frozenset(
    (b"authorization", b"idempotency-key", b"last-event-id", b"traceparent", b"x-api-key")
)
