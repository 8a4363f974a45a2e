"""The description of the routes for machines: OpenAPI 3.2, as it lies in the package.

A test asks the running gateway all that it says (tests/integration/test_openapi.py).
"""

from __future__ import annotations

from importlib import resources

from aiohttp import web

PATH = "/openapi.yaml"
_TEXT = resources.files("gateway").joinpath("static", "openapi.yaml").read_bytes()


async def description(request: web.Request) -> web.StreamResponse:
    # The media type is that of RFC 9512.
    return web.Response(body=_TEXT, headers={"Content-Type": "application/yaml"})
