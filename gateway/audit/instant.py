"""The time as the audit log writes it."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Milliseconds of UTC since 1970."""
    return time.time_ns() // 1_000_000
