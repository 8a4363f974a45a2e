"""The gateway as an application: its middleware, what runs beside the requests, start and end."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

from aiohttp import web

from gateway.assembly import make_services
from gateway.audit.assembly import journal_of
from gateway.audit.log import AuditLog
from gateway.audit.retention import Sweeper
from gateway.erasures import Forgetting
from gateway.errors import SettingsError, UpstreamError
from gateway.settings import Settings
from gateway.stream.claim import DirectoryClaim
from gateway.stream.hub import Hub
from gateway.stream.upkeep import Upkeep
from gateway.tasks import TaskOwner
from gateway.web.admin import OVERVIEW
from gateway.web.condition import add_state_metrics, watch
from gateway.web.middleware.arrival import put_trace_headers
from gateway.web.middleware.audit import hold_response
from gateway.web.middleware.cors import put_cors_headers
from gateway.web.middleware.limits import put_rate_headers
from gateway.web.middleware.passage import passage
from gateway.web.overview import Overview
from gateway.web.routing import add_routes
from gateway.web.server import Runner, check_parser, listen
from gateway.web.services import SERVICES, Services

logger = logging.getLogger("sluice")


def make_app(settings: Settings) -> web.Application:
    """The gateway as an aiohttp application.

    Raises:
        SettingsError: no backend is set, or a file that the settings name can't be used.
    """
    check_parser()
    if settings.upstream_url is None:
        raise SettingsError("UPSTREAM_URL: there must be a backend to stand in front of")
    services = make_services(settings, settings.upstream_url)
    app = web.Application(middlewares=[passage])
    app[SERVICES] = services
    add_state_metrics(services)
    if services.watch is not None:
        app[OVERVIEW] = Overview(services, services.watch)
        app.on_shutdown.append(_send_viewers_away)
    app.on_response_prepare.extend(
        [hold_response, put_trace_headers, put_rate_headers, put_cors_headers]
    )
    app.cleanup_ctx.append(_run_services)
    add_routes(app, settings)
    return app


async def _send_viewers_away(app: web.Application) -> None:
    app[OVERVIEW].close()


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends what still runs at once.

    Raises:
        SettingsError: it can't start.
    """
    app = make_app(settings)
    stop = _signals()
    runner = Runner(app, settings)
    await runner.setup()
    try:
        address = await listen(runner, settings)
        services = app[SERVICES]
        logger.info("gateway.started", extra=_start_fields(services, address))
        await _warn_if_unreachable(services)
        _spare_the_collector()
        services.vitals.memory.mark()
        await stop.wait()
        logger.info("gateway.stopping", extra={"streams": len(services.hub)})
        stop.clear()
        await _drain(services.hub, settings.shutdown_grace_seconds, stop)
    finally:
        await runner.cleanup()
    logger.info("gateway.stopped")


def _spare_the_collector() -> None:
    """Takes what the imports and the start have left, for good, out of its rounds.

    A full one over these 120,000 objects holds up every stream for 25 ms. A stream's own objects
    die by their counts; the default thresholds would look through them after every few streams.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def _drain(hub: Hub, grace_s: float, stop: asyncio.Event) -> None:
    """Lets the streams finish; another signal ends them at once."""
    tasks = TaskOwner()
    draining = tasks.spawn(hub.drain(grace_s), name="drain")
    forced = tasks.spawn(stop.wait(), name="second signal")
    await asyncio.wait({draining, forced}, return_when=asyncio.FIRST_COMPLETED)
    await tasks.cancel()
    await hub.drain(0)


async def _run_services(app: web.Application) -> AsyncIterator[None]:
    services = app[SERVICES]
    upkeep = _make_upkeep(services)
    async with DirectoryClaim(services.settings.data_dir):
        try:
            if services.recorder is not None:
                await services.recorder.log.open()
            is_open = await upkeep.open()
            forgetting = _make_forgetting(services)
            await forgetting.check()
            async with _all_running(services, upkeep.run(is_open=is_open)) as tasks:
                tasks.spawn(forgetting.run(), name="erasures")
                if OVERVIEW in app:
                    tasks.spawn(app[OVERVIEW].run(), name="overview")
                yield
        finally:
            if services.recorder is not None:
                await services.recorder.close()
            await services.store.close()


@asynccontextmanager
async def _all_running(
    services: Services, upkeep: Coroutine[object, object, None]
) -> AsyncIterator[TaskOwner]:
    tasks = TaskOwner()
    tasks.spawn(_tick(services), name="ticker")
    tasks.spawn(upkeep, name="store")
    if services.recorder is not None:
        tasks.spawn(services.recorder.log.run(), name="audit")
        _spawn_sweeps(tasks, services, services.recorder.log)
    if services.analytics is not None:
        tasks.spawn(services.analytics.run(), name="analytics")
    await services.upstream.start()
    services.keeper.start()
    services.vitals.memory.mark()
    yield tasks
    await tasks.cancel()
    await services.hub.drain(0)
    await services.keeper.close()
    if services.analytics is not None:
        await services.analytics.flush()
    if services.spans is not None:
        await services.spans.close()
    services.conversations.close()
    await services.authenticator.close()
    await services.upstream.close()
    services.flags.close()


def _spawn_sweeps(tasks: TaskOwner, services: Services, log: AuditLog) -> None:
    if every_s := services.settings.audit_sweep_seconds:
        sweeper = Sweeper(log, services.metrics, every_s=every_s)
        tasks.spawn(sweeper.run(), name="audit sweeps")


async def _tick(services: Services) -> None:
    """The one coarse ticker that serves all clocks."""
    due = time.monotonic()
    while True:
        due += services.hub.tick_s
        await asyncio.sleep(services.hub.tick_s)
        now = time.monotonic()
        services.metrics.loop_lag.observe(max(0.0, now - due))
        due = now
        services.hub.tick(now)
        services.stalls.tick(now)
        services.presence.tick()
        services.counts.sweep()
        services.conversations.tick()
        watch(services, now)
        if services.recorder is not None:
            services.recorder.tick()
            services.metrics.audit_queue.set(services.recorder.log.depth)


def _make_forgetting(services: Services) -> Forgetting:
    log = services.recorder.log if services.recorder is not None else None
    journal = journal_of(services.settings)
    return Forgetting(journal, log, services.store, services.hub, services.conversations)


def _make_upkeep(services: Services) -> Upkeep:
    settings = services.settings
    return Upkeep(
        services.store,
        ttl_s=settings.resume_ttl_seconds,
        sweep_s=settings.stream_cleanup_interval_ms / 1000,
        max_bytes=settings.stream_store_max_bytes,
        interrupted=services.observer.stream_interrupted,
    )


def _signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _start_fields(services: Services, address: str) -> dict[str, object]:
    return {
        "address": address,
        "upstream": services.upstream.base_url,
        "streaming_enabled": services.settings.enable_sse_streaming,
        "rollout_percent": services.settings.sse_streaming_rollout_percent,
    }


async def _warn_if_unreachable(services: Services) -> None:
    """The backend of a sidecar may come up later, so this is no reason not to start."""
    try:
        async with asyncio.timeout(services.settings.upstream_connect_seconds or None):
            await services.upstream.probe()
    except (UpstreamError, TimeoutError):
        logger.warning("upstream.unreachable", extra={"upstream": services.upstream.base_url})
