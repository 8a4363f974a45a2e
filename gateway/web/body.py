"""Reads the bodies that the gateway must understand, within bounds of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
from aiohttp import StreamReader, hdrs, web

from gateway.errors import BadRequest
from gateway.heads import NO_HEADERS
from gateway.queues import NOTHING
from gateway.web.services import SERVICES

_JSON_TYPES = ("application/json",)


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        BadRequest: `body_too_large`, `body_timeout`, `body_incomplete` or `unsupported_encoding`.
    """
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise BadRequest(
            "The body must not be compressed.", code="unsupported_encoding", status=415
        )
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    if request.content.is_eof() and request.content.exception() is None:
        return _whole(request.content.read_nowait(), max_bytes)  # it came with the head
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(request.app[SERVICES].settings.request_body_seconds or None):
            async for chunk in body_chunks(request):
                size += len(chunk)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                chunks.append(chunk)
    except TimeoutError:
        raise BadRequest("The body came too slowly.", code="body_timeout", status=408) from None
    except web.RequestPayloadError as error:
        raise BadRequest("The body broke off.", code="body_incomplete") from error
    return b"".join(chunks)


def _whole(body: bytes, max_bytes: int) -> bytes:
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return body


async def body_chunks(request: web.Request) -> AsyncIterator[bytes]:
    """The body, piece by piece as it comes.

    Raises:
        web.RequestPayloadError: it broke off, or its HTTP went wrong. A reader of aiohttp's that
            another piece has just woken doesn't see that, and would call it the end.
    """
    async for chunk in request.content.iter_any():
        yield chunk
    if (error := request.content.exception()) is not None:
        raise error


def let_go(request: web.Request) -> None:
    """Gives back what nobody needs while the answer runs, and the body has been read."""
    # The time after the answer gets a timer of its own.
    request.protocol.keep_alive(True)
    content = request.content
    if type(content) is StreamReader and content.at_eof():
        content._buffer = NOTHING  # noqa: SLF001
    # Who asks, and what for, is known by now.
    request._message = request._message._replace(headers=NO_HEADERS)  # noqa: SLF001
    request._headers = NO_HEADERS  # noqa: SLF001
    request._cache.clear()  # noqa: SLF001 - what aiohttp has read in them


def is_json(request: web.Request) -> bool:
    media_type = request.content_type.lower()
    return media_type in _JSON_TYPES or media_type.endswith("+json")


def parse_json_object(body: bytes) -> dict[str, object]:
    """
    Raises:
        BadRequest: `invalid_json` or `invalid_type`.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body isn't valid JSON.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_type")
    return value


def _too_large(max_bytes: int) -> BadRequest:
    return BadRequest(f"The body is over {max_bytes} bytes.", code="body_too_large", status=413)
