"""How long to wait before trying again, for whatever is tried: the store, the backend."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Longer after each failure, `max_delay_ms` after `max_retries`, where one still tries."""

    max_retries: int = 3
    base_delay_ms: float = 1000
    max_delay_ms: float = 10_000
    multiplier: float = 2

    def delay_s(self, failures: int) -> float:
        """After so many failures in a row, at least one; jittered down by up to a half."""
        delay_ms = self.max_delay_ms
        if failures <= self.max_retries:
            delay_ms = min(delay_ms, self.base_delay_ms * self.multiplier ** (failures - 1))
        return delay_ms / 1000 * random.uniform(0.5, 1)  # noqa: S311
