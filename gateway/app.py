"""The composition root: makes every part from the settings and ties them together."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from gateway.audit.assembly import journal_of, make_recorder
from gateway.audit.log import AuditLog
from gateway.audit.recorder import Recorder
from gateway.audit.retention import Sweeper
from gateway.backoff import Backoff
from gateway.erasures import Forgetting
from gateway.errors import SettingsError, UpstreamError
from gateway.flags import Flags
from gateway.keys import KeyRing, pepper_path
from gateway.limit.concurrency import OwnerLeases
from gateway.limit.memory import BoundedMemoryStorage
from gateway.limit.rate import RateLimiter
from gateway.settings import Settings
from gateway.sse.dialects import provider_dialect
from gateway.stream.archive import Archive
from gateway.stream.cipher import Cipher
from gateway.stream.claim import DirectoryClaim
from gateway.stream.conversations import Conversations
from gateway.stream.hub import Hub, Observers
from gateway.stream.keeper import Keeper
from gateway.stream.limits import Bounds, Clocks, Limits
from gateway.stream.log import LogBudget
from gateway.stream.model import ENDING_REASONS, ERROR_REASONS
from gateway.stream.sql import make_store
from gateway.stream.store import SessionStore, instance_name
from gateway.stream.timed import TimedStore
from gateway.stream.upkeep import Upkeep
from gateway.tasks import TaskOwner
from gateway.telemetry.analytics import Analytics, pages_of
from gateway.telemetry.faults import Faults
from gateway.telemetry.history import Watch
from gateway.telemetry.logs import set_level
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.observer import StreamObserver
from gateway.telemetry.vitals import Vitals
from gateway.tokens import AdminToken, ApiKeyAuthenticator, Authenticator, NoAuthentication
from gateway.tokens.links import Links, link_key_path
from gateway.upstream.breaker import Breaker
from gateway.upstream.client import UpstreamClient
from gateway.upstream.retry import Retrying
from gateway.web.admin import OVERVIEW
from gateway.web.condition import add_state_metrics, watch
from gateway.web.controls import Controls
from gateway.web.middleware.access import access
from gateway.web.middleware.admission import admission
from gateway.web.middleware.audit import audit, hold_response
from gateway.web.middleware.cors import put_cors_headers
from gateway.web.middleware.errors import errors
from gateway.web.middleware.limits import put_rate_headers
from gateway.web.middleware.presence import presence
from gateway.web.middleware.trace import put_trace_headers, trace
from gateway.web.outlet import StallWatch
from gateway.web.overview import Overview
from gateway.web.presence import PresenceWatch
from gateway.web.routing import add_routes
from gateway.web.server import Runner, check_parser, listen
from gateway.web.services import SERVICES, Services

if TYPE_CHECKING:
    from gateway.telemetry.spans import Spans

logger = logging.getLogger("sluice")


def make_app(settings: Settings) -> web.Application:
    """The gateway as an aiohttp application.

    Raises:
        SettingsError: no backend is set, or a file that the settings name can't be used.
    """
    check_parser()
    if settings.upstream_url is None:
        raise SettingsError("UPSTREAM_URL: there must be a backend to stand in front of")
    services = _make_services(settings, settings.upstream_url)
    app = web.Application(
        middlewares=[
            presence,
            trace,
            access,
            audit,
            errors,
            admission,
        ]
    )
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


def _make_services(settings: Settings, upstream_url: str) -> Services:
    metrics = Metrics()
    faults = _make_faults(settings, metrics)
    flags = Flags(settings)
    observer = StreamObserver(metrics, faults, ENDING_REASONS)
    vitals = Vitals.from_settings(settings)
    history = Watch(metrics, ERROR_REASONS) if settings.admin_token is not None else None
    lives = _make_analytics(settings)
    spans = _make_spans(settings)
    told = (observer, vitals.outcomes, history, lives, spans)
    counts = BoundedMemoryStorage()
    budget = LogBudget(settings.buffer_total_bytes)
    store = TimedStore(_make_store(settings), metrics.note_store)
    backoff = _make_backoff(settings)
    keeper = Keeper(store, backoff=backoff, watch=faults)
    upstream = UpstreamClient(upstream_url, connect_s=settings.upstream_connect_seconds)
    breaker = Breaker(
        settings.breaker_failure_threshold, settings.breaker_reset_seconds, watch=faults
    )
    hub = Hub(
        clocks=Clocks(
            first_token_s=settings.upstream_first_token_seconds,
            idle_s=settings.upstream_idle_seconds,
            heartbeat_s=settings.heartbeat_interval,
            session_s=settings.stream_session_timeout_ms / 1000,
        ),
        limits=Limits(
            max_streams=settings.max_stream_sessions,
            log_max_bytes=settings.stream_buffer_bytes,
            bounds=Bounds(settings.event_max_bytes, settings.backpressure_policy == "pause"),
            reader_max_age_s=settings.connection_max_age_seconds,
            max_readers=settings.stream_max_readers,
            resume_ttl_s=settings.resume_ttl_seconds,
        ),
        budget=budget,
        observer=Observers(*(one for one in told if one is not None)),
        keeper=keeper,
        archive=Archive(store, provider_dialect, budget),
    )
    return Services(
        settings=settings,
        hub=hub,
        store=store,
        keeper=keeper,
        upstream=upstream,
        breaker=breaker,
        retrying=Retrying(
            upstream.ask,
            backoff,
            breaker=breaker,
            clock_s=settings.upstream_first_token_seconds,
            watch=faults,
        ),
        flags=flags,
        controls=Controls(settings, flags, partial(_set_debug, settings)),
        rate=RateLimiter(settings.rate_limit, counts),
        counts=counts,
        leases=OwnerLeases(settings.stream_max_per_owner),
        authenticator=_make_authenticator(settings),
        admin=_make_admin_token(settings),
        links=Links.load(link_key_path(settings.data_dir)),
        conversations=Conversations(
            settings.session_timeout_ms / 1000, settings.cleanup_interval_ms / 1000
        ),
        metrics=metrics,
        faults=faults,
        observer=observer,
        vitals=vitals,
        analytics=lives,
        spans=spans,
        watch=history,
        stalls=StallWatch(settings.write_stall_seconds),
        presence=PresenceWatch(),
        recorder=_make_recorder(settings, metrics),
    )


def _make_analytics(settings: Settings) -> Analytics | None:
    if not settings.analytics_max_bytes:
        return None
    return Analytics(pages_of(settings), ENDING_REASONS)


def _make_spans(settings: Settings) -> Spans | None:
    """
    Raises:
        SettingsError: the extra isn't installed.
    """
    if settings.otlp_traces_url is None:
        return None
    try:
        from gateway.telemetry.spans import Spans
    except ImportError as error:
        raise SettingsError("OTLP_TRACES_URL needs the extra: sluice-gateway[otel]") from error
    return Spans(settings.otlp_traces_url, ENDING_REASONS)


def _make_recorder(settings: Settings, metrics: Metrics) -> Recorder | None:
    """
    Raises:
        SettingsError: the log can't be kept as the settings say.
    """
    if settings.audit_mode == "off":
        return None
    return make_recorder(settings, metrics, instance_name(settings.data_dir))


def _make_store(settings: Settings) -> SessionStore:
    url, key = settings.database_url, settings.partial_encryption_key
    return make_store(
        url.get_secret_value() if url is not None else None,
        settings.data_dir,
        Cipher.from_setting(key.get_secret_value() if key is not None else None),
        instance=instance_name(settings.data_dir),
    )


def _make_backoff(settings: Settings) -> Backoff:
    return Backoff(
        max_retries=settings.stream_error_max_retries,
        base_delay_ms=settings.stream_error_base_delay_ms,
        max_delay_ms=settings.stream_error_max_delay_ms,
        multiplier=settings.stream_error_backoff_multiplier,
    )


def _make_faults(settings: Settings, metrics: Metrics) -> Faults:
    return Faults(
        metrics,
        size=settings.stream_error_log_buffer_size,
        counts=settings.stream_error_enable_metrics,
        logs=settings.stream_error_enable_logging,
    )


def _make_admin_token(settings: Settings) -> AdminToken:
    token = settings.admin_token
    return AdminToken(token.get_secret_value() if token is not None else None)


def _set_debug(settings: Settings, is_on: bool) -> None:
    set_level("debug" if is_on else settings.log_level)


def _make_authenticator(settings: Settings) -> Authenticator:
    if settings.auth_mode == "api_key" and settings.api_keys_file is not None:
        ring = KeyRing.load(settings.api_keys_file, pepper_path(settings.data_dir))
        return ApiKeyAuthenticator(ring)
    if settings.auth_mode == "jwt":
        return _make_token_verifier(settings)
    return NoAuthentication()


def _make_token_verifier(settings: Settings) -> Authenticator:
    from gateway.tokens.jwks import FileKey, KeySource, RemoteKeys
    from gateway.tokens.verifier import TokenVerifier

    source: KeySource
    if settings.jwt_public_key_file is not None:
        source = FileKey(settings.jwt_public_key_file)
    else:
        source = RemoteKeys(_fetcher(settings.jwt_jwks_url or ""))
    return TokenVerifier(source, audience=settings.jwt_audience, issuer=settings.jwt_issuer)


def _fetcher(url: str) -> Callable[[], Awaitable[bytes]]:
    """Reads the issuer's keys. A session of its own each time, since that is once in minutes."""

    async def fetch() -> bytes:
        timeout = aiohttp.ClientTimeout(total=5)
        async with (
            aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            return await response.read()

    return fetch


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
