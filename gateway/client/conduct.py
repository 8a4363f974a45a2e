"""How a stream behaves, and the states that it is in."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from gateway.client.retry import Retry
from gateway.sse.parser import Event


class State(StrEnum):
    IDLE = "idle"
    CONNECTING = "connecting"
    OPEN = "open"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Timing:
    """Clock, chance and patience, for tests to replace."""

    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    #: How long a stopped stream is still read for its last event.
    stop_wait_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Conduct:
    """What `open_stream` was told."""

    is_terminal: Callable[[Event], bool]
    retry: Retry
    silence_s: float | Literal["auto"]
    max_event_bytes: int
    timing: Timing
