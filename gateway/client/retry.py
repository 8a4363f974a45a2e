"""When to ask again, and how long to wait before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: `retry:` is a wish for the usual case; longer ones would leave people before a dead page.
_MAX_SERVER_RETRY_S = 60.0
_RETRYABLE = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Retry:
    """Full jitter: attempt n waits a random time up to `min(max_s, base_s * 2**n)`.

    `max_attempts` counts reconnections in a row that brought no event; None has no limit. A
    `Retry-After` of more than `max_retry_after_s` isn't waited for: the error carries it.
    """

    base_s: float = 1.0
    max_s: float = 30.0
    max_attempts: int | None = 3
    max_retry_after_s: float = 300.0

    def allows(self, attempt: int) -> bool:
        """Whether attempt number `attempt`, from 1, may be made."""
        return self.max_attempts is None or attempt <= self.max_attempts

    def ceiling_s(self, attempt: int) -> float:
        """The longest time to wait before attempt number `attempt`, from 1."""
        return min(self.max_s, self.base_s * 2.0 ** min(attempt - 1, 64))

    def accepts(self, status: int, retry_after_s: float | None) -> bool:
        """Whether a refusal with this status may be followed by another attempt."""
        if retry_after_s is not None and retry_after_s > self.max_retry_after_s:
            return False
        if status == 409:
            return retry_after_s is not None
        return status in _RETRYABLE or 500 <= status <= 599


def server_floor_s(retry_ms: int | None, retry_after_s: float | None) -> float:
    """The least time that the server asks to wait."""
    retry_s = min((retry_ms or 0) / 1000, _MAX_SERVER_RETRY_S)
    return max(retry_s, retry_after_s or 0.0)


def parse_retry_after(value: str | None) -> float | None:
    """Seconds of a `Retry-After`, given as a number or as a date (RFC 9110, section 10.2.3)."""
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
