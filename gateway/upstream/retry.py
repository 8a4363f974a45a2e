"""Asks the backend again where it isn't there, or says that it can't answer just now.

Only before anything of an answer has come, and within the first-token clock: an answer that has
begun is never asked for twice. The waits are cancelled with the task that asks.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Protocol

from aiohttp import hdrs

from gateway.backoff import Backoff
from gateway.errors import UpstreamError
from gateway.upstream.breaker import Breaker
from gateway.upstream.client import UpstreamRequest
from gateway.upstream.exchange import Exchange

_REFUSALS = (502, 503, 504)
_NOT_CONNECTED = ("upstream_unavailable", "upstream_timeout")


class Watch(Protocol):
    """Is told of retries; decides nothing."""

    def backend_failed(self, trace_id: str, problem: str, *, attempt: int, delay_s: float) -> None:
        """It is asked again in `delay_s`; `problem` is an error's code, or `http_503`."""
        ...

    def backend_retried(self, *, succeeded: bool) -> None:
        """It was asked again; no success is what would be retried once more."""
        ...


@dataclass(frozen=True, slots=True)
class _Failure:
    """What ends a try: an error, or an answer that says come back later."""

    error: UpstreamError | None = None
    answer: Exchange | None = None

    @property
    def problem(self) -> str:
        if self.error is not None:
            return self.error.code
        return f"http_{self.answer.status}" if self.answer is not None else ""

    def pass_on(self) -> Exchange:
        """
        Raises:
            UpstreamError: there was no answer.
        """
        if self.answer is None:
            raise self.error or UpstreamError("The backend can't be reached.")
        return self.answer


class Retrying:
    """Asks until the backend answers, the retries are used up or the clock is over.

    Args:
        ask: Asks once.
        breaker: Judges the outcome of each question, retries included.
        clock_s: The first-token clock; 0 is none.
    """

    def __init__(
        self,
        ask: Callable[[UpstreamRequest], Awaitable[Exchange]],
        backoff: Backoff,
        *,
        breaker: Breaker,
        clock_s: float,
        watch: Watch,
    ) -> None:
        self._ask_once = ask
        self._backoff = backoff
        self._breaker = breaker
        self._clock_s = clock_s or math.inf
        self._watch = watch

    async def ask(self, request: UpstreamRequest, trace_id: str) -> Exchange:
        """Asks as `UpstreamClient.ask` does; the last answer passes as it is.

        The request's body must be bytes, or there must be none. Connection errors and 502, 503 and
        504 are retried. `Retry-After` lengthens a wait; beyond the longest one, or the clock, the
        answer passes at once. Cancelled, it leaves no connection.

        Raises:
            UpstreamError: see `UpstreamClient.ask` and `Breaker.judge`.
        """
        return await self._breaker.judge(partial(self._ask, request, trace_id))

    async def _ask(self, request: UpstreamRequest, trace_id: str) -> Exchange:
        deadline = time.monotonic() + self._clock_s
        attempt = 0
        while True:
            outcome = await self._try(request)
            if attempt:
                self._watch.backend_retried(succeeded=not isinstance(outcome, _Failure))
            if not isinstance(outcome, _Failure):
                return outcome
            attempt += 1
            delay_s = self._delay_s(attempt, outcome)
            if delay_s is None or time.monotonic() + delay_s >= deadline:
                return outcome.pass_on()
            if outcome.answer is not None:
                outcome.answer.close()
            self._watch.backend_failed(trace_id, outcome.problem, attempt=attempt, delay_s=delay_s)
            await asyncio.sleep(delay_s)

    async def _try(self, request: UpstreamRequest) -> Exchange | _Failure:
        try:
            answer = await self._ask_once(request)
        except UpstreamError as error:
            if error.code not in _NOT_CONNECTED:
                raise
            return _Failure(error=error)
        return _Failure(answer=answer) if answer.status in _REFUSALS else answer

    def _delay_s(self, attempt: int, failure: _Failure) -> float | None:
        """How long to wait before the next try; None if there is none."""
        backoff = self._backoff
        if attempt > backoff.max_retries:
            return None
        wished_s = _retry_after_s(failure.answer.headers) if failure.answer is not None else 0.0
        if wished_s > backoff.max_delay_ms / 1000:
            return None
        return max(backoff.delay_s(attempt), wished_s)


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """RFC 9110 §10.2.3: seconds or a date; 0 for neither."""
    value = headers.get(hdrs.RETRY_AFTER, "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
