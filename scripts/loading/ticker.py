"""Paces many streams with one timer: each has its own place within the pause, so they spread.

The loop's timers count in milliseconds, in which a hundred streams would share one and arrive as a
burst; so the kernel's `timerfd` ticks every tenth of one.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from typing import Protocol

_LEAST_STEP_S = 0.0001
_CLOCK_MONOTONIC = 1
#: A multiple of no group count in use: neighbours in arrival are far apart in time.
_STRIDE = 7919


class Speaker(Protocol):
    group: dict[Speaker, None] | None

    def say(self) -> None: ...


class Ticker:
    """Streams of one pace, in groups that speak in turn; ticks only while there are any."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pace_s: float) -> None:
        self._loop = loop
        count = max(1, round(pace_s / _LEAST_STEP_S))
        self._groups: list[dict[Speaker, None]] = [{} for _ in range(count)]
        self._step_s = pace_s / count
        self._turn = 0
        self._next = 0
        self._timer = -1

    def add(self, speaker: Speaker) -> None:
        """From now on `speaker` says something once in a pause, until it leaves its group."""
        group = self._groups[self._next]
        group[speaker] = None
        speaker.group = group
        self._next = (self._next + _STRIDE) % len(self._groups)
        if self._timer < 0:
            self._timer = _timer_fd(self._step_s)
            self._loop.add_reader(self._timer, self._tick)

    def _tick(self) -> None:
        for _ in range(struct.unpack("q", os.read(self._timer, 8))[0]):
            for speaker in list(self._groups[self._turn]):
                speaker.say()
            self._turn += 1
            if self._turn == len(self._groups):
                self._turn = 0
                if not any(self._groups):
                    self._stop()
                    return

    def _stop(self) -> None:
        self._loop.remove_reader(self._timer)
        os.close(self._timer)
        self._timer = -1


def _timer_fd(step_s: float) -> int:
    """A file that becomes readable every `step_s`."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
    nanoseconds = max(1, round(step_s * 1e9))
    period = divmod(nanoseconds, 1_000_000_000)
    if descriptor < 0 or libc.timerfd_settime(
        descriptor, 0, struct.pack("4q", *period, *period), None
    ):
        raise OSError(ctypes.get_errno(), "timerfd")
    return descriptor
