"""What this process holds in memory, and how much more that is than at its start."""

from __future__ import annotations

import os
import resource
import sys
from functools import cache


def resident_bytes() -> int:
    """The resident set. Where there is no /proc, the largest that it has ever been.

    Two microseconds, and no wait for a disk: the kernel makes the text when it is read.
    """
    statm = _statm(os.getpid())
    if statm is None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    pages = int(os.pread(statm, 128, 0).split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@cache
def _statm(pid: int) -> int | None:
    """A descriptor that stays open; one for each process, since a child has its parent's too."""
    try:
        return os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


class Memory:
    """Counts from `mark`, which the gateway calls once it serves."""

    def __init__(self) -> None:
        self.start_bytes = resident_bytes()

    def mark(self) -> None:
        self.start_bytes = resident_bytes()

    def growth_bytes(self) -> int:
        """Negative if memory was given back."""
        return resident_bytes() - self.start_bytes
