"""Whether the time can be believed: a clock set forward would have everything swept at once.

A leap of more than a day stops sweeps for a day, in every process and over restarts: the record of
it, `audit.clock`, says so. That long there is time to notice, or to say that the clock is right.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.canonical import Json
from gateway.audit.log import AuditLog
from gateway.audit.policy import DAY_S, Cls
from gateway.errors import AuditError

#: Further than this the wall clock may not run ahead of the monotonic one, or of the log.
MAX_LEAP_MS = DAY_S * 1000
_LEAP = "audit.clock"


class ClockGuard:
    """Compares the wall clock with the monotonic one, and with what was heard before the start."""

    def __init__(
        self,
        log: AuditLog,
        clock: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._clock = clock
        self._monotonic = monotonic
        self._base = (clock(), monotonic())
        self._has_asked = False
        self._told_ms: int | None = None

    async def check(self) -> None:
        """
        Raises:
            AuditError: `clock_jumped`: nothing may be swept for a day.
            AuditStoreError: the store is away.
            TimeoutError: the leap couldn't be recorded.
        """
        leap_ms = self._leap_ms()
        if not self._has_asked:
            self._told_ms = await self._log.store.run(_last_told)
            leap_ms = max(leap_ms, self._log.silence_ms)
            self._has_asked = True
        now = self._clock()
        if leap_ms > MAX_LEAP_MS:
            self._base, self._told_ms = (now, self._monotonic()), now
            fields: dict[str, Json] = {"offset_ms": leap_ms, "action": "sweep_refused"}
            await self._log.record(_LEAP, fields)
        if self._told_ms is not None and now - self._told_ms < MAX_LEAP_MS:
            raise AuditError("clock_jumped", "the clock was set forward by more than a day")

    def _leap_ms(self) -> int:
        wall, monotonic = self._base
        return self._clock() - wall - round((self._monotonic() - monotonic) * 1000)


def _last_told(connection: sa.Connection) -> int | None:
    """When a leap was recorded last."""
    records = tables.records
    query = sa.select(sa.func.max(records.c.ts)).where(
        records.c.cls == Cls.AUDIT.value, records.c.type == _LEAP
    )
    told_ms: int | None = connection.scalar(query)
    return told_ms
