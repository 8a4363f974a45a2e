"""What is kept beside the database for the time when it takes nothing. Everything here blocks.

The ballast is a file that gives a full disk the room in which the log can say so and be swept. The
spool keeps the ends of requests, which hold nothing personal, until the database has them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gateway.audit.canonical import Object

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
