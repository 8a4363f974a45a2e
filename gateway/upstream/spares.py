"""Connections to the backend that are opened ahead, so that a question waits for no handshake.

Envoy calls it preconnecting. Only while questions come: each that took a connection on which
nothing had been asked before has it replaced. A spare that nobody takes is closed when its time in
the pool is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp
from aiohttp.connector import Connection

from gateway.tasks import TaskOwner
from gateway.upstream.connection import UpstreamConnection

#: An answer has just begun, and its first event shall not wait for this.
_DELAY_S = 0.003


class Spares:
    """Keeps `count` connections ready; `connect` gives one of the pool, or a new one."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], count: int) -> None:
        self._connect = connect
        self._count = count
        self._tasks = TaskOwner()

    def refill(self) -> None:
        """Opens what is missing, in a task of its own."""
        if self._count and not self._tasks:
            self._tasks.spawn(self._refill(), name="spare connections")

    async def close(self) -> None:
        """What is being opened is closed; the pool closes what it has."""
        await self._tasks.cancel()

    async def _refill(self) -> None:
        await asyncio.sleep(_DELAY_S)
        taken: list[Connection] = []
        try:
            # A backend that isn't there is noticed by who has something to ask.
            with suppress(aiohttp.ClientError, OSError):
                while len(taken) < self._count:
                    taken.append(await self._connect())
        finally:
            for connection in taken:
                if isinstance(connection.protocol, UpstreamConnection):
                    connection.protocol.has_waited = True
                connection.release()
