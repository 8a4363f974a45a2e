"""Everything about a running gateway that helps to find a fault, and nothing of anybody.

Streams stand in it without their ids, which would let whoever holds the bundle read them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import asdict

from aiohttp import hdrs, web

from gateway.stream.live import LiveStream
from gateway.telemetry.about import settings_to_share, versions
from gateway.telemetry.delivery import drawn
from gateway.web.admin import PATH as ADMIN_PATH
from gateway.web.health import report, told
from gateway.web.response import json_response
from gateway.web.services import SERVICES, Services

PATH = f"{ADMIN_PATH}/diagnostics"
_MAX_STREAMS = 1000


async def diagnostics(request: web.Request) -> web.StreamResponse:
    if request.method != hdrs.METH_GET:
        raise web.HTTPMethodNotAllowed(request.method, (hdrs.METH_GET,))
    made_of = await asyncio.to_thread(versions)  # which reads files
    return json_response({"versions": made_of, **_diagnosis(request.app[SERVICES])})


def _diagnosis(services: Services) -> dict[str, object]:
    running, now = services.hub.running(), time.monotonic()
    faults = services.faults.latest(len(services.faults))
    return {
        "settings": settings_to_share(services.settings),
        "controls": services.controls.state,
        "health": report(services),
        "errors": [told(fault) for fault in faults],
        "streams": [_row(stream, now) for stream in running[:_MAX_STREAMS]],
        "tasks": _tasks(),
    }


def _row(stream: LiveStream, now: float) -> dict[str, object]:
    first_s = stream.first_token_s
    return {
        "trace_id": drawn(stream.origin.trace_id),
        "route": stream.origin.route,
        "age_ms": _ms(now - stream.started),
        "silent_ms": _ms(now - stream.last_event),
        "first_token_ms": None if first_s is None else _ms(first_s),
        "events": stream.wire.total_chunks,
        "buffered_bytes": stream.log.bytes,
        "readers": [stream.log.last - reader.cursor for reader in stream.readers],
        "paused": stream.is_paused,
        "moments": [
            {**asdict(moment), "at": _ms(moment.at - stream.started)} for moment in stream.moments
        ],
    }


def _tasks() -> dict[str, int]:
    """How many of a kind there are; the name of a stream's own task ends in its id."""
    names = (task.get_name() for task in asyncio.all_tasks())
    return Counter("producer" if name.startswith("producer ") else name for name in names)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
