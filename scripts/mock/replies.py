"""JSON in and out."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from aiohttp import web


async def read_object(request: web.Request) -> dict[str, object]:
    """The request's body.

    Raises:
        ValueError: it is no JSON object.
    """
    value = orjson.loads(await request.read())
    if isinstance(value, dict):
        return value
    raise ValueError("the body must be a JSON object")


def reply(
    data: Mapping[str, object], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=orjson.dumps(data), status=status, headers=headers, content_type="application/json"
    )
