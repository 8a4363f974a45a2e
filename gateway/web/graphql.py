"""Streams over GraphQL: look at them, stop one, follow one's life.

strawberry is loaded with the first request for `/graphql`, in a thread, since that takes a quarter
of a second. The rules are REST's (`gateway.web.streams`): the same owner, the same answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import import_module

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.errors import GatewayError
from gateway.web.resume import find_owned, owned_streams
from gateway.web.streams import describe, stop_as_asked

PATH = "/graphql"


class GraphQL:
    """The handler of `/graphql`."""

    def __init__(self) -> None:
        self._loading = asyncio.Lock()
        self._view: Handler | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """
        Raises:
            GatewayError: `graphql_unavailable`, strawberry isn't installed.
        """
        async with self._loading:
            if self._view is None:
                self._view = await asyncio.to_thread(_load_view)
        return await self._view(request)


def _load_view() -> Handler:
    try:
        schema = import_module("gateway.web.graphql_schema")
    except ImportError as error:
        raise GatewayError(
            "GraphQL isn't installed here; it is the extra `graphql`.",
            code="graphql_unavailable",
            status=501,
        ) from error
    view: Handler = schema.make_view()
    return view


async def find(request: web.Request, stream_id: str) -> dict[str, object] | None:
    """One stream of the client's, described; None if there is no such."""
    try:
        return describe(await find_owned(request, stream_id))
    except GatewayError:
        return None


async def find_all(request: web.Request, conversation_id: str) -> list[dict[str, object]]:
    found = await owned_streams(request, conversation_id)
    return [describe(stream) for stream in reversed(found)]


async def terminate(request: web.Request, asked: dict[str, object]) -> dict[str, object]:
    """The same as `POST /api/terminate-stream`, errors in the answer."""
    try:
        stream = await stop_as_asked(request, asked)
    except GatewayError as error:
        return {"success": False, "error": error.message}
    described = describe(stream)
    return {
        "success": True,
        "sessionId": described["stream_id"],
        "partialResponse": described["text"],
        "tokenCount": described["total_tokens"],
    }


async def follow(request: web.Request, stream_id: str) -> AsyncIterator[dict[str, object]]:
    """What a stream is now, when it has said its first word, and what it is at its end."""
    stream = await find_owned(request, stream_id)
    yield describe(stream)
    changed = asyncio.Event()

    def note(_after: int, _last: int, _newest: bytes) -> None:
        changed.set()

    stream.log.listen(note)
    try:
        was_silent = stream.first_event is None
        while stream.is_active:
            changed.clear()
            if was_silent and stream.first_event is not None:
                was_silent = False
                yield describe(stream)
            await changed.wait()
        yield describe(stream)
    finally:
        stream.log.unlisten(note)
