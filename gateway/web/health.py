"""Probes, the health report and the metrics."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime

from aiohttp import hdrs, web

import gateway
from gateway.telemetry.faults import Fault
from gateway.telemetry.health import grade
from gateway.telemetry.memory import resident_bytes
from gateway.web.condition import current_alerts
from gateway.web.response import json_response
from gateway.web.services import SERVICES, Services

#: The newest failures that the report names.
_LATEST = 20
_STARTED = time.monotonic()


async def live(request: web.Request) -> web.StreamResponse:
    """Liveness: the event loop turns."""
    return json_response({"status": "ok"})


async def ready(request: web.Request) -> web.StreamResponse:
    """Readiness: 503 from the moment the gateway is told to stop."""
    if request.app[SERVICES].hub.is_draining:
        return json_response({"status": "draining"}, status=503)
    return json_response({"status": "ok"})


async def health(request: web.Request) -> web.StreamResponse:
    services = request.app[SERVICES]
    return json_response(report(services), status=503 if services.hub.is_draining else 200)


def report(services: Services) -> dict[str, object]:
    """The gateway's state, without anything personal."""
    settings, alerts = services.settings, current_alerts(services)
    return {
        "status": _status(services),
        "version": gateway.__version__,
        "uptime_seconds": round(time.monotonic() - _STARTED, 1),
        "streaming_enabled": services.controls.is_streaming,
        "rollout_percent": services.controls.state.rollout_percent,
        "grade": grade(alerts),
        "alerts": [asdict(alert) for alert in alerts],
        "error_rate": _error_rate(services),
        "breaker": _breaker(services),
        "memory": {
            "resident_bytes": resident_bytes(),
            "growth_bytes": services.vitals.memory.growth_bytes(),
        },
        "sessions": {"active": len(services.hub), "limit": settings.max_stream_sessions},
        "store": {
            "degraded": services.keeper.is_degraded,
            "queued": services.keeper.queued,
            "unkept": services.keeper.unkept,
        },
        "errors": {
            "remembered": len(services.faults),
            "latest": [told(fault) for fault in services.faults.latest(_LATEST)],
        },
        "audit": _audit(services),
        "conversations": asdict(services.conversations.counts()),
        "buffers": {
            "used_bytes": services.hub.buffered_bytes,
            "limit_bytes": settings.buffer_total_bytes,
        },
    }


def _error_rate(services: Services) -> dict[str, object]:
    outcomes = services.vitals.outcomes
    share = outcomes.share(time.monotonic())
    return {
        "percent": round(share.percent, 2),
        "ended": share.ended,
        "failed": share.failed,
        "window_seconds": outcomes.window_s,
    }


def _breaker(services: Services) -> dict[str, object]:
    breaker = services.breaker
    return {
        "state": breaker.state,
        "failures": breaker.failures,
        "threshold": services.settings.breaker_failure_threshold,
        "retry_after_seconds": round(breaker.retry_after_s, 1),
    }


def told(fault: Fault) -> dict[str, object]:
    """A failure as JSON has it."""
    at = datetime.fromtimestamp(round(fault.at, 3), UTC)
    return {**asdict(fault), "at": at.isoformat(timespec="milliseconds")}


def _audit(services: Services) -> dict[str, object]:
    recorder = services.recorder
    if recorder is None:
        return {"mode": "off", "away": False, "waiting": 0, "log": None, "size": 0}
    log = recorder.log
    return {
        "mode": recorder.mode,
        "away": log.is_away,
        "waiting": log.depth,
        "log": log.origin,
        "size": log.size,
    }


def _status(services: Services) -> str:
    if services.hub.is_draining:
        return "draining"
    is_unrecorded = services.recorder is not None and services.recorder.log.is_away
    return "degraded" if services.keeper.is_degraded or is_unrecorded else "ok"


async def metrics(request: web.Request) -> web.StreamResponse:
    accept = request.headers.get(hdrs.ACCEPT, "")
    body, media_type = request.app[SERVICES].metrics.render_for(accept)
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: media_type, hdrs.VARY: hdrs.ACCEPT})
