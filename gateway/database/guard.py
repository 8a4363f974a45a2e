"""A lock on a file beside a database, for whoever writes to it or moves its log into it.

SQLite before 3.51.3 may damage a database when one process writes while another resets the
write-ahead log (sqlite.org/wal.html, "the WAL-reset bug"); a command that works beside a running
gateway is another process. Uncontended it costs two system calls of a microsecond.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from pathlib import Path
from types import TracebackType

_WAIT_S = 0.002


class FileGuard:
    """Held while its context is open; whoever holds it may enter again, in the same thread."""

    def __init__(self, path: Path, *, patience_s: float) -> None:
        self._path = path
        self._patience_s = patience_s
        self._own = threading.RLock()
        self._depth = 0
        self._lock = -1

    def __enter__(self) -> None:
        """
        Raises:
            sqlite3.OperationalError: SQLITE_BUSY: another process has held it for all this time.
            OSError: the file can't be made.
        """
        self._own.acquire()
        try:
            if not self._depth:
                self._take()
        except BaseException:
            self._own.release()
            raise
        self._depth += 1

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if not self._depth:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._own.release()

    def close(self) -> None:
        """Gives the file back; it is opened again by the next who enters."""
        with self._own:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _take(self) -> None:
        if self._lock < 0:
            self._lock = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + self._patience_s
        while not self._try():
            if time.monotonic() > end:
                raise _busy()
            time.sleep(_WAIT_S)

    def _try(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _busy() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    error.sqlite_errorname = "SQLITE_BUSY"
    return error
