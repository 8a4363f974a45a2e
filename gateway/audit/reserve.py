"""What is kept beside the database for the time when it takes nothing.

The ballast is a file that gives a full disk the room in which the log can say so and be swept. The
spool keeps the ends of requests, which hold nothing personal, until the database has them. Both
block; a log's reserve has them work in threads.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from gateway.audit.canonical import Object
from gateway.audit.ledger import Entry

logger = logging.getLogger("sluice.audit")

_RID = "rid"


class Ballast:
    """A file of `size` bytes, given up when the disk is full. 0 is none."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    def make(self) -> bool:
        """Makes it again once there is twice the room that it takes; whether it is there."""
        if not self._size or (self._path.exists() and self._path.stat().st_size == self._size):
            return True
        with suppress(OSError):
            if shutil.disk_usage(self._path.parent).free < 2 * self._size:
                return False
            self._allocate()
            return True
        self.release()
        return False

    def release(self) -> bool:
        """Gives the room back; whether there was any."""
        is_there = self._path.exists()
        self._path.unlink(missing_ok=True)
        return is_there

    def _allocate(self) -> None:
        descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._size)
        finally:
            os.close(descriptor)


class Spool:
    """Lines of JSON, one for each end, synced."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, ends: Iterable[Object]) -> None:
        """Durable when it returns.

        Raises:
            OSError: and then perhaps some are.
        """
        data = b"".join(json.dumps(end).encode() + b"\n" for end in ends)
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self) -> dict[str, Object]:
        """What an earlier process has kept, by its request; a line that broke off is left out."""
        found: dict[str, Object] = {}
        with suppress(FileNotFoundError):
            for line in self._path.read_bytes().splitlines():
                with suppress(ValueError, TypeError, KeyError):
                    end = json.loads(line)
                    found[str(end[_RID])] = end
        return found

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)


class Reserve:
    """The ballast and the spool of one log."""

    def __init__(self, folder: Path, ballast_bytes: int) -> None:
        self._spool = Spool(folder / "audit.spool")
        self._ballast = Ballast(folder / "audit.ballast", ballast_bytes)
        self._spooled: set[str] = set()
        self.is_disk_full = False

    def prepare(self) -> None:
        """Makes the ballast. Blocks.

        Raises:
            OSError: the folder can't be used.
        """
        self._ballast.make()

    async def release(self) -> None:
        """The disk is full: gives the ballast's room to the log."""
        self.is_disk_full = True
        await asyncio.to_thread(self._ballast.release)

    async def refill(self) -> None:
        """The disk counts as full until there is room for the ballast again."""
        if self.is_disk_full:
            self.is_disk_full = not await asyncio.to_thread(self._ballast.make)

    async def keep_ends(self, waiting: Sequence[Entry]) -> None:
        """Keeps those of `waiting` that are ends, each once."""
        ends = [
            one.draft.fields
            for one in waiting
            if one.start is not None and not one.has_no_use and one.rid not in self._spooled
        ]
        if not ends:
            return
        self._spooled |= {str(end[_RID]) for end in ends}
        try:
            await asyncio.to_thread(self._spool.keep, ends)
        except OSError as error:
            logger.warning("audit.spool_failed", extra={"problem": type(error).__name__})

    async def forget_ends(self) -> None:
        """The store has those that were kept."""
        if self._spooled:
            self._spooled.clear()
            await self.drop_ends()

    async def ends(self) -> dict[str, Object]:
        """Those that were kept, by their request, an earlier process's too."""
        return await asyncio.to_thread(self._spool.read)

    async def drop_ends(self) -> None:
        await asyncio.to_thread(self._spool.clear)
