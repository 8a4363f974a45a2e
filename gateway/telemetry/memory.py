"""What this process holds in memory, and how much more that is than at its start."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """The resident set. Where there is no /proc, the largest that it has ever been."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")


class Memory:
    """Counts from `mark`, which the gateway calls once it serves."""

    def __init__(self) -> None:
        self.start_bytes = resident_bytes()

    def mark(self) -> None:
        self.start_bytes = resident_bytes()

    def growth_bytes(self) -> int:
        """Negative if memory was given back."""
        return resident_bytes() - self.start_bytes
