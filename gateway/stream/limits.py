"""What a stream may take: the clocks that end it, and how much of it there may be.

Values only: the hub looks at the clocks and counts, the producer holds to its bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.stream.model import CLIENT_GONE, DURATION_CAP, Ending, error_ending

if TYPE_CHECKING:
    from gateway.stream.live import LiveStream


@dataclass(frozen=True, slots=True)
class Clocks:
    """All in seconds; 0 switches one off."""

    first_token_s: float
    idle_s: float
    heartbeat_s: float
    session_s: float = 0  #: without a reader and without an event

    @property
    def tick_s(self) -> float:
        """How often to look: an eighth of the shortest clock, within 25 to 250 ms."""
        shortest = min(
            (s for s in (self.first_token_s, self.idle_s, self.heartbeat_s) if s), default=2
        )
        return min(0.25, max(0.025, shortest / 8))

    def deadlines(self, stream: LiveStream) -> list[tuple[float, Ending]]:
        """When the stream's clocks run out, as it is now, and how it then ends; the first of those
        that are over counts."""
        found = []
        if stream.max_duration_s:
            found.append((stream.started + stream.max_duration_s, DURATION_CAP))
        if (left_at := stream.detached_since) is not None:
            if (patience_s := stream.patience_s) is not None:
                found.append((left_at + patience_s, CLIENT_GONE))
            if self.session_s:
                quiet_since = max(stream.last_event, left_at)
                found.append((quiet_since + self.session_s, error_ending("timeout")))
        if stream.first_event is None:
            if self.first_token_s:
                due = stream.started + self.first_token_s
                found.append((due, error_ending("upstream_timeout")))
        elif self.idle_s and not stream.is_paused:
            found.append((stream.last_event + self.idle_s, error_ending("upstream_idle")))
        return found


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a producer may hold."""

    event_max_bytes: int
    pauses: bool  #: when the log is full: pause the backend, else let the slow reader lapse


@dataclass(frozen=True, slots=True)
class Limits:
    max_streams: int  #: 0 is no limit
    log_max_bytes: int
    bounds: Bounds
    reader_max_age_s: float = 0  #: of a typed stream's connection; 0 is no limit
    max_readers: int = 64  #: of one stream; 0 is no limit
    resume_ttl_s: float = 600  #: how long an ended stream can be read
