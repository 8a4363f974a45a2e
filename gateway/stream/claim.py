"""The claim of one process to its data directory, for as long as the process lives.

A second process would take the streams that the first one runs for what a crash has left.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path
from types import TracebackType

from gateway.errors import SettingsError


class DirectoryClaim:
    """Held while the context is open. The kernel takes it back from a process that dies."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._lock = -1

    async def __aenter__(self) -> None:
        """
        Raises:
            SettingsError: another process has it, or the directory can't be written.
        """
        self._lock = await asyncio.to_thread(self._take)

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(os.close, self._lock)

    def _take(self) -> int:
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._data_dir / "gateway.lock"
            lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError(f"DATA_DIR: {self._data_dir}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise SettingsError(f"DATA_DIR: {self._data_dir}: {_reason(error)}") from error
        return lock


def _reason(error: OSError) -> str:
    if isinstance(error, BlockingIOError):
        return "another gateway runs on this directory; give each one its own"
    return error.strerror or "it can't be locked"
