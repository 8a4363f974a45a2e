"""What the handlers need, made once in `gateway.assembly`, and what middlewares leave for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.audit.recorder import Recorder
from gateway.flags import Flags
from gateway.identity import Identity
from gateway.limit.concurrency import OwnerLeases
from gateway.limit.memory import BoundedMemoryStorage
from gateway.limit.rate import RateLimiter, RateVerdict
from gateway.settings import Settings
from gateway.stream.conversations import Conversations
from gateway.stream.hub import Hub
from gateway.stream.keeper import Keeper
from gateway.stream.store import SessionStore
from gateway.telemetry.analytics import Analytics
from gateway.telemetry.faults import Faults
from gateway.telemetry.history import Watch
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.observer import StreamObserver
from gateway.telemetry.trace import TraceContext
from gateway.telemetry.vitals import Vitals
from gateway.tokens import AdminToken, Authenticator
from gateway.tokens.links import Links
from gateway.upstream.breaker import Breaker
from gateway.upstream.client import UpstreamClient
from gateway.upstream.retry import Retrying
from gateway.web.controls import Controls
from gateway.web.outlet import StallWatch
from gateway.web.presence import PresenceWatch

if TYPE_CHECKING:
    from gateway.telemetry.spans import Spans


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    hub: Hub
    store: SessionStore
    keeper: Keeper
    upstream: UpstreamClient
    breaker: Breaker
    retrying: Retrying  #: asks the same backend, for what can be asked twice
    flags: Flags
    controls: Controls
    rate: RateLimiter
    counts: BoundedMemoryStorage  #: what the rate limiter counts in, for its sweeps
    leases: OwnerLeases
    authenticator: Authenticator
    admin: AdminToken
    links: Links
    conversations: Conversations
    metrics: Metrics
    faults: Faults
    observer: StreamObserver
    vitals: Vitals
    analytics: Analytics | None  #: none with `ANALYTICS_MAX_BYTES=0`
    spans: Spans | None  #: none without `OTLP_TRACES_URL`
    watch: Watch | None  #: none without `ADMIN_TOKEN`
    stalls: StallWatch
    presence: PresenceWatch
    recorder: Recorder | None  #: none with `AUDIT_MODE=off`


SERVICES = web.AppKey("services", Services)

TRACE = web.RequestKey("trace", TraceContext)
IDENTITY = web.RequestKey("identity", Identity)
RATE = web.RequestKey("rate", RateVerdict)
