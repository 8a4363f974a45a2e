"""What an erasure means outside the log: stored answers, and what a running gateway still holds.

The erasure journal tells all of it (`gateway.audit.journal`): at a start, of what a restored backup
has brought back; later, of what a command has erased beside the running gateway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.audit.erasure import Eraser
from gateway.audit.journal import Journal
from gateway.audit.log import AuditLog
from gateway.audit.store import AuditStoreError
from gateway.errors import AuditError, SettingsError
from gateway.stream.model import StreamId
from gateway.stream.store import SessionStore, StoreError

if TYPE_CHECKING:
    from gateway.stream.conversations import Conversations
    from gateway.stream.hub import Hub

logger = logging.getLogger("sluice.audit")

_LOOK_S = 1.0
_RETRY_S = 5.0


class StoredAnswers:
    """The answers that the stream store keeps, as an erasure sees them."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def erase(self, streams: Sequence[str]) -> int:
        return await self._store.erase([StreamId(one) for one in streams])


async def erase_returned(journal: Journal, log: AuditLog | None, store: SessionStore) -> int:
    """Erases what was erased before and is there again; how many values and answers. Without an
    audit log only answers.

    Raises:
        SettingsError: the journal can't be read, so nobody knows what may be shown.
        AuditStoreError, StoreError: one of the stores is away.
        TimeoutError: what was done couldn't be recorded in time.
    """
    try:
        if log is not None:
            return await Eraser(log, journal, StoredAnswers(store)).check()
        known = await asyncio.to_thread(journal.read)
    except (AuditError, OSError) as error:
        raise SettingsError(f"AUDIT_ERASURES_FILE: {error}") from error
    return await store.erase([StreamId(one.id) for one in known.streams])


class Forgetting:
    """Keeps a running gateway's memory to the journal."""

    def __init__(
        self,
        journal: Journal,
        log: AuditLog | None,
        store: SessionStore,
        hub: Hub,
        conversations: Conversations,
    ) -> None:
        self._journal = journal
        self._log = log
        self._store = store
        self._hub = hub
        self._conversations = conversations
        self._is_checked = False
        self._seen: tuple[int, int] | None = None

    async def check(self) -> None:
        """At the start, before anybody is served; a store that is away is checked when it is back.

        Raises:
            SettingsError: the journal can't be read.
        """
        if self._log is not None and self._log.origin is None:
            return
        self._seen = await asyncio.to_thread(self._journal.stamp)
        try:
            again = await erase_returned(self._journal, self._log, self._store)
        except (AuditStoreError, StoreError, TimeoutError) as error:
            logger.warning("audit.unchecked", extra={"problem": type(error).__name__})
            return
        self._is_checked = True
        if again:
            logger.warning("audit.restored", extra={"count": again})

    async def run(self) -> None:
        """Goes on until cancelled."""
        while not self._is_checked:
            await asyncio.sleep(_RETRY_S)
            await self._check_late()
        while True:
            await asyncio.sleep(_LOOK_S)
            stamp = await asyncio.to_thread(self._journal.stamp)
            if stamp != self._seen and await self._forget():
                self._seen = stamp

    async def _check_late(self) -> None:
        """It serves already, so what would have refused the start is only told."""
        try:
            await self.check()
        except SettingsError as error:
            logger.error("audit.unchecked", extra={"problem": str(error)})  # noqa: TRY400

    async def _forget(self) -> bool:
        """Whether nothing of what was erased is in memory any more."""
        try:
            known = await asyncio.to_thread(self._journal.read)
        except (AuditError, OSError) as error:
            logger.error("audit.unchecked", extra={"problem": str(error)})  # noqa: TRY400
            return True
        is_done = True
        for one in known.streams:
            stream = self._hub.find(StreamId(one.id))
            if stream is not None:
                origin = stream.origin
                if origin.conversation_id is not None:
                    self._conversations.delete(origin.owner, origin.conversation_id)
                is_done &= self._hub.forget(stream)
        return is_done
