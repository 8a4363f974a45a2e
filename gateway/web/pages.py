"""The pages that the gateway serves itself: plain files, no build step, no outside request."""

from __future__ import annotations

from importlib import resources

from aiohttp import web

from gateway.web.services import SERVICES

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}
#: Taken out where there is no dashboard.
_TO_DASHBOARD = b'    <a href="/dashboard">Dashboard</a>\n'
_FOLDER = resources.files("gateway").joinpath("static")
_FILES = {
    path.name: path.read_bytes()
    for path in _FOLDER.iterdir()
    if path.name.rpartition(".")[2] in _TYPES
}


async def playground(request: web.Request) -> web.StreamResponse:
    page = _file("playground.html")
    if not request.app[SERVICES].admin.is_set:
        page.body = _FILES["playground.html"].replace(_TO_DASHBOARD, b"")
    return page


async def dashboard(request: web.Request) -> web.StreamResponse:
    """The page alone shows nothing; what it shows, it asks for with the admin token."""
    if not request.app[SERVICES].admin.is_set:
        raise web.HTTPNotFound
    return _file("dashboard.html")


async def static(request: web.Request) -> web.StreamResponse:
    """One of a fixed set of files, read at the start: no path of a request touches the disk."""
    name = request.match_info["name"]
    if name not in _FILES:
        raise web.HTTPNotFound
    return _file(name)


def _file(name: str) -> web.Response:
    return web.Response(
        body=_FILES[name],
        headers={
            "Content-Type": f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8",
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        },
    )
