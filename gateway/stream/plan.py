"""What a new stream shall be: the request's part, before the hub starts it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.sse.dialects.base import Dialect
from gateway.stream.answer import Ask
from gateway.stream.live import Origin, Recording
from gateway.stream.model import StreamId
from gateway.stream.wires.base import Wire


@dataclass(frozen=True, slots=True)
class Claim:
    """One client's word that two requests are the same: draft-ietf-httpapi-idempotency-key."""

    owner: str
    path: str
    key: str

    @property
    def stored(self) -> str:
        """What the store knows it by, besides its owner."""
        return f"{self.path} {self.key}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a new stream shall be."""

    origin: Origin
    dialect: Dialect
    make_wire: Callable[[StreamId], Wire]
    ask: Ask
    with_ids: bool
    grace_s: float | None
    max_duration_s: float
    fingerprint: bytes = b""
    claim: Claim | None = None
    retry_key: bytes = b""
    stream_id: StreamId | None = None  #: a new one, if its maker had to know it before
    recording: Recording | None = None
