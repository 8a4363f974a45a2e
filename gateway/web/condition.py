"""The gateway's condition: its state in figures, for the health report, the log and the metrics."""

from __future__ import annotations

import time
from functools import partial

from gateway.telemetry.health import Alert, Reading, Severity, alerts
from gateway.upstream.breaker import State
from gateway.web.services import Services


def current_alerts(services: Services) -> list[Alert]:
    """What is wrong just now, the critical first."""
    return alerts(read(services, time.monotonic()), services.vitals.rules)


def watch(services: Services, now: float) -> None:
    """Tells in the log of what has gone wrong, or is right again; looks every few seconds."""
    if services.vitals.alarm.is_due(now):
        found = alerts(read(services, now), services.vitals.rules)
        services.vitals.alarm.look(found, now)


def read(services: Services, now: float) -> Reading:
    settings, recorder = services.settings, services.recorder
    share = services.vitals.outcomes.share(now)
    return Reading(
        memory_growth_bytes=services.vitals.memory.growth_bytes(),
        ended=share.ended,
        failed=share.failed,
        sessions=len(services.hub),
        max_sessions=settings.max_stream_sessions,
        buffered_bytes=services.hub.buffered_bytes,
        max_buffered_bytes=settings.buffer_total_bytes,
        is_backend_away=services.breaker.state is not State.CLOSED,
        is_store_away=services.keeper.is_degraded,
        is_audit_away=recorder is not None and recorder.log.is_away,
        audit_holds_answers=recorder is not None and recorder.is_strict,
    )


def add_state_metrics(services: Services) -> None:
    """The gauges that are read when somebody asks for the metrics."""
    settings, hub, keeper = services.settings, services.hub, services.keeper
    state = services.metrics.state
    state(
        "sluice_connections_active",
        "Clients that read a stream now.",
        lambda: sum(len(stream.readers) for stream in hub.running()),
    )
    state(
        "sluice_sessions_limit",
        "Streams that there may be at once; 0 is no limit.",
        lambda: settings.max_stream_sessions,
    )
    state("sluice_buffers_bytes", "What all logs hold.", lambda: hub.buffered_bytes)
    state(
        "sluice_buffers_limit_bytes",
        "What all logs may hold; 0 is no limit.",
        lambda: settings.buffer_total_bytes,
    )
    state(
        "sluice_upstream_breaker_open",
        "1 while the backend is left alone, since it failed again and again.",
        lambda: services.breaker.state is not State.CLOSED,
    )
    state("sluice_store_away", "1 while the database is away.", lambda: keeper.is_degraded)
    state("sluice_store_queue", "Streams that wait to be written.", lambda: keeper.queued)
    state(
        "sluice_audit_away",
        "1 while the audit log can't be written.",
        lambda: services.recorder is not None and services.recorder.log.is_away,
    )
    state(
        "sluice_memory_growth_bytes",
        "How much more memory is resident than at the start.",
        services.vitals.memory.growth_bytes,
    )
    for severity in Severity:
        state(
            f"sluice_alerts_{severity}",
            f"Alerts of the health report that are {severity}.",
            partial(_count_alerts, services, severity),
        )


def _count_alerts(services: Services, severity: Severity) -> int:
    return sum(alert.severity is severity for alert in current_alerts(services))
