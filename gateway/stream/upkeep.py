"""The store's upkeep beside the keeper's writes: opening it, holding the claim to it, sweeping."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import SettingsError
from gateway.stream.store import SessionStore, StoreError, StreamRecord

logger = logging.getLogger("sluice")

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Upkeep:
    """
    Args:
        ttl_s: How long what a crash interrupted can be read.
        max_bytes: What the store may hold; 0 is no limit.
        interrupted: Is told of each stream that a crash had left running.
    """

    store: SessionStore
    ttl_s: float
    sweep_s: float
    max_bytes: int
    interrupted: Callable[[StreamRecord], None]

    async def open(self) -> bool:
        """Claims and opens the store and ends what a crash left; whether the store was there.

        Raises:
            SettingsError: what is there can't be used, or another process uses it.
        """
        try:
            await self.store.claim()
            await self.store.open()
            ended = await self.store.end_interrupted(_now_ms(), round(self.ttl_s * 1000))
        except StoreError as error:
            logger.warning("store.unavailable", extra={"problem": error.message})
            return False
        for record in ended:
            self.interrupted(record)
        level = logging.INFO if ended else logging.DEBUG
        logger.log(level, "store.opened", extra={"interrupted": len(ended)})
        return True

    async def run(self, *, is_open: bool) -> None:
        """Goes on until cancelled; a store that wasn't there at the start is tried again."""
        while not is_open:
            await asyncio.sleep(_RETRY_S)
            is_open = await self._open_late()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep(), name="store sweep")
            group.create_task(self._hold_claim(), name="store claim")

    async def _open_late(self) -> bool:
        """It serves already, so what would have refused the start is only told."""
        try:
            return await self.open()
        except SettingsError as error:
            logger.error("store.refused", extra={"problem": str(error)})  # noqa: TRY400
            return False

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.sweep_s)
            try:
                await self.store.sweep(_now_ms(), self.max_bytes)
            except StoreError as error:
                logger.warning("store.unavailable", extra={"problem": error.message})

    async def _hold_claim(self) -> None:
        while True:
            await self.store.claim_lost()
            logger.warning("store.claim_lost")
            await self._claim_again()
            logger.info("store.claim_taken")

    async def _claim_again(self) -> None:
        while True:
            try:
                return await self.store.claim()
            except StoreError:
                pass  # it is away, as the keeper tells
            except SettingsError as error:
                logger.error("store.refused", extra={"problem": str(error)})  # noqa: TRY400
            await asyncio.sleep(_RETRY_S)


def _now_ms() -> int:
    return round(time.time() * 1000)
