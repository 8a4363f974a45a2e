"""The provider routes, `/v1/*`: the official SDKs' own paths, bytes unchanged.

A generation request that asks for a stream becomes one of ours; everything else is a plain proxy.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from gateway.errors import BadRequest
from gateway.identity import rollout_key
from gateway.sse.dialects import provider_dialect
from gateway.sse.dialects.base import Dialect
from gateway.stream.live import Origin
from gateway.stream.model import StreamId
from gateway.stream.plan import Plan
from gateway.stream.wires.provider import ProviderWire
from gateway.upstream.client import UpstreamRequest
from gateway.web.audited import QUESTION, Question, begin
from gateway.web.body import is_json, parse_json_object, read_body
from gateway.web.forward import asking
from gateway.web.idempotency import begin_or_attach
from gateway.web.proxy import proxied_headers, relay_answer, relay_request, send_to_backend
from gateway.web.question_text import question_of
from gateway.web.responses import answer_response_call
from gateway.web.resume import fingerprint
from gateway.web.routes import is_generation
from gateway.web.services import IDENTITY, SERVICES, TRACE
from gateway.web.streaming import read_manner


async def provider(request: web.Request) -> web.StreamResponse:
    services = request.app[SERVICES]
    if not _is_enabled(request):
        return await relay_request(request)
    if (answer := await answer_response_call(request)) is not None:
        return answer
    dialect = provider_dialect(request.rel_url.raw_path)
    if dialect is None or not is_generation(request) or not is_json(request):
        return await relay_request(request)
    body = await read_body(request, services.settings.request_max_bytes)
    asked = parse_json_object(body)
    request[QUESTION] = Question(
        request.path, question_of(asked, body), model=_text(asked.get("model"))
    )
    if not _asks_for_stream(asked):
        await begin(request)
        return await send_to_backend(request, _upstream_request(request, body))
    manner = read_manner(request, default_grace_s=0)
    answering = begin_or_attach(
        request, _plan(request, dialect, body, manner.grace_s), manner, relay_answer
    )
    del body, asked  # which this would hold as long as the answer runs, as it would a plan
    return await answering


def _plan(request: web.Request, dialect: Dialect, body: bytes, grace_s: float | None) -> Plan:
    services, trace_id = request.app[SERVICES], request[TRACE].trace_id

    def make_wire(stream_id: StreamId) -> ProviderWire:
        return ProviderWire(dialect, trace_id=trace_id)

    return Plan(
        origin=Origin(request[IDENTITY].owner, trace_id, request.path),
        dialect=dialect,
        make_wire=make_wire,
        ask=asking(services, _upstream_request(request, body), request[TRACE]),
        with_ids=services.settings.stream_ids and _wants_ids(request.headers),
        grace_s=grace_s,
        fingerprint=fingerprint(request, body),
        max_duration_s=services.settings.provider_stream_max_seconds,
    )


def _upstream_request(request: web.Request, body: bytes) -> UpstreamRequest:
    return UpstreamRequest(request.method, request.raw_path, proxied_headers(request), body)


def _is_enabled(request: web.Request) -> bool:
    key = rollout_key(request[IDENTITY], request.headers.get("X-User-Id"), None)
    return request.app[SERVICES].controls.streams_for(key)


def _asks_for_stream(body: Mapping[str, object]) -> bool:
    return body.get("stream") is True


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _wants_ids(headers: Mapping[str, str]) -> bool:
    value = headers.get("Stream-Ids", "on").strip().lower()
    if value not in ("on", "off"):
        raise BadRequest("Say on or off.", code="invalid_header", param="Stream-Ids")
    return value == "on"
