"""UUIDs of version 7 (RFC 9562 §5.7), which Python has from 3.14 on."""

from __future__ import annotations

import os
import uuid


def uuid7(now_ms: int) -> str:
    """A new one: the milliseconds in front, 74 random bits behind."""
    random = int.from_bytes(os.urandom(10), "big")
    high, low = random >> 68, random & (1 << 62) - 1
    return str(uuid.UUID(int=now_ms << 80 | 7 << 76 | high << 64 | 2 << 62 | low))
