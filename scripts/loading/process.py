"""What a process and its children cost: CPU and memory, as the kernel counts them; and pinning."""

from __future__ import annotations

import asyncio
import os
import re
import resource
from collections.abc import Callable, Iterable
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def cpu_s(pid: int) -> float:
    """User and system seconds of a process, its living descendants and those it has reaped.

    Counted in ticks, mostly of 10 ms: measure over seconds.
    """
    return sum(_ticks(each) for each in family(pid)) / _TICKS_PER_S


def memory_bytes(pid: int) -> int:
    """Proportional set size (PSS) of a process and its descendants."""
    return sum(_pss_kib(each) for each in family(pid)) * 1024


def family(pid: int) -> list[int]:
    """The process and all its living descendants; empty if it has gone."""
    found, fresh = [], [pid] if (_PROC / str(pid)).exists() else []
    while fresh:
        found += fresh
        fresh = [child for parent in fresh for child in _children(parent)]
    return found


def busy_s() -> list[float]:
    """Seconds since boot in which each core worked for anybody, other guests included."""
    lines = (_PROC / "stat").read_text().splitlines()
    cores = [line.split()[1:] for line in lines if re.match(r"cpu\d", line)]
    return [(sum(map(int, row[:8])) - int(row[3]) - int(row[4])) / _TICKS_PER_S for row in cores]


def pin(pid: int, cpus: Iterable[int]) -> None:
    """Confines every thread of a process to `cpus`; what it starts later inherits that."""
    for thread in _threads(pid):
        os.sched_setaffinity(int(thread.name), cpus)


def own_pid() -> int:
    return os.getpid()


def cpu_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def allow_many_connections() -> None:
    """Raises the soft limit of open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in _threads(pid):
        try:
            found += [int(word) for word in (thread / "children").read_text().split()]
        except OSError:
            continue
    return found


def _threads(pid: int) -> list[Path]:
    try:
        return list((_PROC / str(pid) / "task").iterdir())
    except OSError:
        return []


def _ticks(pid: int) -> int:
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime


def _pss_kib(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
