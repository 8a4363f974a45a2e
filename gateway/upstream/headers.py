"""Which headers pass between the client and the backend (RFC 9110 §7.6)."""

from __future__ import annotations

from collections.abc import Mapping

from multidict import CIMultiDict, CIMultiDictProxy

Headers = CIMultiDict[str]

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
#: What the gateway reads itself, sets anew, or must not let a client forge.
_OWN_REQUEST_HEADERS = _HOP_BY_HOP | frozenset(
    {
        "accept-encoding",
        "content-length",
        "expect",
        "host",
        "idempotency-key",
        "last-event-id",
        "stream-ids",
        "traceparent",
        "x-performance-mode",
        "x-stream-on-disconnect",
        "x-trace-id",
    }
)
_CREDENTIALS = ("authorization", "x-api-key")
_HAS_LINES = (CIMultiDict, CIMultiDictProxy)
_OWN_RESPONSE_PREFIXES = ("access-control-", "ratelimit", "x-ratelimit-", "x-stream-")
_OWN_RESPONSE_HEADERS = _HOP_BY_HOP | frozenset(
    {
        "cache-control",
        "content-encoding",
        "content-length",
        "content-type",
        "traceparent",
        "x-accel-buffering",
        "x-heartbeat-interval",
        "x-silence-threshold",
        "x-trace-id",
    }
)


def forwarded(headers: Mapping[str, str]) -> Headers:
    """The request's end-to-end headers; what is the gateway's own is left to its caller."""
    kept = _end_to_end(headers, _OWN_REQUEST_HEADERS)
    kept["Accept-Encoding"] = "identity"
    return kept


def with_credential(
    headers: Headers, *, keep_client: bool, api_key: str | None, is_anthropic: bool
) -> Headers:
    """Puts the backend's credential in the place of the client's.

    `keep_client` leaves the client's own where the gateway has none to give.
    """
    if api_key is not None or not keep_client:
        for name in _CREDENTIALS:
            headers.popall(name, None)
    if api_key is not None:
        if is_anthropic:
            headers["X-Api-Key"] = api_key
        else:
            headers["Authorization"] = f"Bearer {api_key}"
    return headers


def returned(headers: Mapping[str, str]) -> Headers:
    """The end-to-end headers of a backend's answer that passes as it is."""
    return _end_to_end(headers, _HOP_BY_HOP)


def returned_with_stream(headers: Mapping[str, str]) -> Headers:
    """The backend's headers that ride on an event stream of ours, beside our own."""
    kept = _end_to_end(headers, _OWN_RESPONSE_HEADERS)
    for name in [name for name in kept if name.lower().startswith(_OWN_RESPONSE_PREFIXES)]:
        kept.popall(name, None)
    return kept


def _end_to_end(headers: Mapping[str, str], dropped: frozenset[str]) -> Headers:
    kept = CIMultiDict([item for item in headers.items() if item[0].lower() not in dropped])
    for name in _named_by_connection(headers):
        kept.popall(name, None)
    return kept


def _named_by_connection(headers: Mapping[str, str]) -> set[str]:
    """The headers that are meant for the next hop alone; there may be several lines of them."""
    if "Connection" not in headers:
        return set()
    lines = headers.getall("Connection") if isinstance(headers, _HAS_LINES) else ()
    return {name.strip() for line in lines for name in line.split(",")}
