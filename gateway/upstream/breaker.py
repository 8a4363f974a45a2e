"""A circuit breaker: a backend that fails again and again is left alone for a while.

Its clients then hear so at once, instead of waiting for a clock each, and it gets one question to
show that it is back rather than all at a time. M. Nygard, "Release It!", chapter 5. Ours, since no
library for asyncio admits a single probe, and most take a client that leaves for a verdict.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Protocol

from gateway.errors import UpstreamError
from gateway.upstream.exchange import Exchange

#: The message of a cancellation that means that the backend took too long.
TIMED_OUT = "upstream_timeout"


class State(StrEnum):
    CLOSED = "closed"
    #: Everything is refused.
    OPEN = "open"
    #: The next question is the probe, or is on its way; all others are refused.
    HALF_OPEN = "half_open"


class Watch(Protocol):
    """Is told when the breaker changes; decides nothing."""

    def breaker_opened(self, *, failures: int, reset_s: float) -> None: ...

    def breaker_closed(self) -> None: ...


class Breaker:
    """Judges what comes of questions to one backend.

    An answer of 500 or more is a failure, and so is none: no connection, one that breaks off, a
    clock that runs out. Any other answer is a success, whatever becomes of it. A question that is
    given up, since its client has left, says nothing.

    Args:
        threshold: Failures in a row that open it; 0 is never.
        reset_s: How long it then stays open.
        clock: As `time.monotonic`.
    """

    def __init__(
        self,
        threshold: int,
        reset_s: float,
        watch: Watch,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold = threshold
        self._reset_s = reset_s
        self._watch = watch
        self._clock = clock
        self._open_until: float | None = None
        self._is_probing = False
        self.failures = 0  #: in a row, so far

    @property
    def state(self) -> State:
        if self._open_until is None:
            return State.CLOSED
        return State.HALF_OPEN if self._clock() >= self._open_until else State.OPEN

    @property
    def retry_after_s(self) -> float:
        """How long it stays open, in seconds; 0 where it isn't."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())

    async def judge(self, asking: Callable[[], Awaitable[Exchange]]) -> Exchange:
        """Asks, if it may, and notes what came of it.

        Raises:
            UpstreamError: `upstream_unavailable`, the backend is left alone; or what asking raised.
        """
        is_probe = self._admit()
        try:
            answer = await asking()
        except asyncio.CancelledError as error:
            # Who cancels for the sake of a clock says so.
            if TIMED_OUT in error.args:
                self._note_failure()
            raise
        except UpstreamError:
            self._note_failure()
            raise
        finally:
            if is_probe:
                self._is_probing = False
        if answer.status >= 500:
            self._note_failure()
        else:
            self._note_success()
        return answer

    def _admit(self) -> bool:
        """Whether it is the probe."""
        state = self.state
        if state is State.CLOSED:
            return False
        if state is State.OPEN or self._is_probing:
            raise UpstreamError(
                "The backend has failed repeatedly and is left alone for a while.",
                code="upstream_unavailable",
                status=503,
                retry_after_s=max(1, math.ceil(self.retry_after_s)),
            )
        self._is_probing = True
        return True

    def _note_failure(self) -> None:
        self.failures += 1
        if not self._threshold or self.failures < self._threshold or self.state is State.OPEN:
            return  # in the latter case it was asked before that
        was_closed = self._open_until is None
        self._open_until = self._clock() + self._reset_s
        if was_closed:
            self._watch.breaker_opened(failures=self.failures, reset_s=self._reset_s)

    def _note_success(self) -> None:
        self.failures = 0
        if self._open_until is not None:
            self._open_until = None
            self._watch.breaker_closed()
