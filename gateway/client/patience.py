"""Waiting that has a limit, and that another task may cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from gateway.client.errors import Dropped, StreamError

_Result = TypeVar("_Result")


class Patience:
    """One waiting at a time. No task is made: what is awaited runs in the one that waits."""

    def __init__(self) -> None:
        self._timer: asyncio.Timeout | None = None

    async def within(self, limit_s: float | None, awaited: Awaitable[_Result]) -> _Result:
        """Waits for at most `limit_s`, or less once it is hurried.

        Raises:
            Dropped: the time is over.
        """
        try:
            async with asyncio.timeout(limit_s) as self._timer:
                return await awaited
        except TimeoutError as error:
            raise Dropped(StreamError("silent", f"nothing came for {limit_s} s")) from error
        finally:
            self._timer = None

    def hurry(self, seconds: float) -> None:
        """Whoever waits now waits for at most so long."""
        if self._timer is None or self._timer.expired():
            return
        until = asyncio.get_running_loop().time() + seconds
        when = self._timer.when()
        self._timer.reschedule(until if when is None else min(when, until))
