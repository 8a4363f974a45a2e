"""Whether the time can be believed: a clock set forward would have everything swept at once.

A leap of more than a day stops sweeps for a day, in every process and over restarts: the record of
it, `audit.clock`, says so. That long there is time to notice, or to say that the clock is right.
The process that has seen a clock leap sees it put right, too, and then sweeps go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.canonical import Json, decode
from gateway.audit.log import AuditLog
from gateway.audit.policy import DAY_S, Cls
from gateway.errors import AuditError

#: Further than this the wall clock may not run ahead of the monotonic one, or of the log.
MAX_LEAP_MS = DAY_S * 1000
_LEAP = "audit.clock"
_REFUSED, _RESUMED = "sweep_refused", "sweep_resumed"


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
        self._base = self._now()
        self._before: tuple[int, float] | None = None  #: where the clock would be without its leap
        self._has_asked = False
        self._told_ms: int | None = None

    async def check(self) -> None:
        """
        Raises:
            AuditError: `clock_jumped`: nothing may be swept for a day.
            AuditStoreError: the store is away.
            TimeoutError: the leap couldn't be recorded.
        """
        leap_ms = self._ahead_of(self._base)
        if not self._has_asked:
            self._told_ms = await self._log.store.run(_last_told)
            leap_ms = max(leap_ms, self._log.silence_ms)
            self._has_asked = True
        now, monotonic = self._now()
        if leap_ms > MAX_LEAP_MS:
            self._before = self._before or (now - leap_ms, monotonic)
            self._base, self._told_ms = (now, monotonic), now
            await self._tell(leap_ms, _REFUSED)
        elif self._before is not None and self._ahead_of(self._before) <= MAX_LEAP_MS:
            self._base, self._before, self._told_ms = (now, monotonic), None, None
            await self._tell(leap_ms, _RESUMED)
        if self._told_ms is not None and now - self._told_ms < MAX_LEAP_MS:
            raise AuditError("clock_jumped", "the clock was set forward by more than a day")

    def _now(self) -> tuple[int, float]:
        return self._clock(), self._monotonic()

    def _ahead_of(self, then: tuple[int, float]) -> int:
        """How much further the wall clock has come since than the monotonic one."""
        wall, monotonic = then
        return self._clock() - wall - round((self._monotonic() - monotonic) * 1000)

    async def _tell(self, leap_ms: int, action: str) -> None:
        fields: dict[str, Json] = {"offset_ms": leap_ms, "action": action}
        await self._log.record(_LEAP, fields)


def _last_told(connection: sa.Connection) -> int | None:
    """When a leap was recorded last, unless the clock was put right after it."""
    records = tables.records
    query = sa.select(records.c.ts, records.c.body).where(
        records.c.cls == Cls.AUDIT.value, records.c.type == _LEAP
    )
    newest = (records.c.ts.desc(), records.c.log.desc(), records.c.seq.desc())
    row = connection.execute(query.order_by(*newest).limit(1)).first()
    if row is None or decode(bytes(row.body)).get("action") == _RESUMED:
        return None
    return int(row.ts)
