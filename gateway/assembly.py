"""The composition root: makes every part from the settings and ties them together.

Nothing runs yet: `gateway.app` starts what has a task or a connection, and ends it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import aiohttp

from gateway.audit.assembly import make_recorder
from gateway.audit.recorder import Recorder
from gateway.backoff import Backoff
from gateway.errors import SettingsError
from gateway.flags import Flags
from gateway.keys import KeyRing, pepper_path
from gateway.limit.concurrency import OwnerLeases
from gateway.limit.memory import BoundedMemoryStorage
from gateway.limit.rate import RateLimiter
from gateway.settings import Settings
from gateway.sse.dialects import provider_dialect
from gateway.stream.archive import Archive
from gateway.stream.cipher import Cipher
from gateway.stream.conversations import Conversations
from gateway.stream.hub import Hub, Observers
from gateway.stream.keeper import Keeper
from gateway.stream.limits import Bounds, Clocks, Limits
from gateway.stream.log import LogBudget
from gateway.stream.model import ENDING_REASONS, ERROR_REASONS
from gateway.stream.sql import make_store
from gateway.stream.store import SessionStore, instance_name
from gateway.stream.timed import TimedStore
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
from gateway.web.controls import Controls
from gateway.web.outlet import StallWatch
from gateway.web.presence import PresenceWatch
from gateway.web.services import Services

if TYPE_CHECKING:
    from gateway.telemetry.spans import Spans


def make_services(settings: Settings, upstream_url: str) -> Services:
    """
    Raises:
        SettingsError: something can't be made as the settings say.
    """
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
    upstream = UpstreamClient(
        upstream_url,
        connect_s=settings.upstream_connect_seconds,
        spares=settings.upstream_preconnect,
    )
    breaker = Breaker(
        settings.breaker_failure_threshold, settings.breaker_reset_seconds, watch=faults
    )
    hub = Hub(
        clocks=_make_clocks(settings),
        limits=_make_limits(settings),
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


def _make_clocks(settings: Settings) -> Clocks:
    return Clocks(
        first_token_s=settings.upstream_first_token_seconds,
        idle_s=settings.upstream_idle_seconds,
        heartbeat_s=settings.heartbeat_interval,
        session_s=settings.stream_session_timeout_ms / 1000,
    )


def _make_limits(settings: Settings) -> Limits:
    return Limits(
        max_streams=settings.max_stream_sessions,
        log_max_bytes=settings.stream_buffer_bytes,
        bounds=Bounds(settings.event_max_bytes, settings.backpressure_policy == "pause"),
        reader_max_age_s=settings.connection_max_age_seconds,
        max_readers=settings.stream_max_readers,
        resume_ttl_s=settings.resume_ttl_seconds,
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
