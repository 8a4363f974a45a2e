"""What kind of route a request has found, told by the route's name.

`public.*` is for everybody; `chat.*` the typed route and its aliases; `provider` is `/v1/*`;
`streams.one.*` is about one stream and takes a link in place of a credential; `admin.*` is for
whoever holds the operator's token; `backend` is every other path, which passes as it is.
"""

from __future__ import annotations

from urllib.parse import unquote

from aiohttp import hdrs, web

from gateway.sse.dialects import provider_dialect

#: The query parameter that holds a capability link's token.
LINK = "link"


def resolved(path: str) -> str:
    """The path that a lenient server may take `path` for: decoded, without empty segments, `.`
    and `..`, in lower case."""
    segments: list[str] = []
    for segment in unquote(unquote(path)).replace("\\", "/").lower().split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments)


def is_public(request: web.Request) -> bool:
    return _name(request).startswith("public.")


def is_admin(request: web.Request) -> bool:
    """Whether this is for the operator, whose token then counts alone."""
    return _name(request).startswith("admin.")


def takes_link(request: web.Request) -> bool:
    """Whether this names its stream by a link, which then says alone what may be done."""
    return LINK in request.query and _name(request).startswith("streams.one.")


def is_generation(request: web.Request) -> bool:
    """Whether this asks a model for an answer, which costs money."""
    name = _name(request)
    if name == "provider":
        is_known = provider_dialect(request.rel_url.raw_path) is not None
        return is_known and request.method == hdrs.METH_POST
    return name.startswith("chat.")


def is_proxied_as_is(request: web.Request) -> bool:
    return _name(request) == "backend"


def _name(request: web.Request) -> str:
    return request.match_info.route.name or ""
