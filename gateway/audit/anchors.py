"""The way out for what must be kept elsewhere: checkpoints, and lines for a log shipper.

Lines hold nothing personal and no commitment. They go to standard output, apart from the log lines
on standard error. All of it happens in a thread, since a pipe that is full or a command may block.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.audit.canonical import Object, decode, encode, to_text
from gateway.audit.export import checkpoint as checkpoint_line
from gateway.audit.note import Note
from gateway.audit.record import Record
from gateway.database.worker import Worker
from gateway.tasks import TaskOwner

logger = logging.getLogger("sluice.audit")

_COMMAND_S = 30
_MAX_WAITING = 1000
_TOLD = ("rid", "outcome", "status", "ttft_ms")
_STDOUT = 1


@dataclass(frozen=True, slots=True)
class Places:
    """Where copies go.

    Args:
        prints_checkpoints, prints_records: To standard output.
        file: Gets a line for each checkpoint.
        command: Gets each note on its standard input.
    """

    prints_checkpoints: bool = True
    prints_records: bool = False
    file: Path | None = None
    command: Sequence[str] = ()


class Anchors:
    """Sends copies, one after another."""

    def __init__(self, places: Places, *, output: int | None = None) -> None:
        self._places = places
        self._output = output
        self._worker = Worker("audit copies")
        self._tasks = TaskOwner()
        self._is_full = False

    def checkpoint(self, note: Note, ts: int) -> None:
        """Sends a checkpoint to every place."""
        self._spawn(partial(self._send, note, ts))

    def records(self, log: str, records: Sequence[Record]) -> None:
        if self._places.prints_records:
            self._spawn(partial(self._print, b"".join(_line(log, one) for one in records)))

    async def close(self) -> None:
        """Waits for what is under way."""
        await self._tasks.join()
        await self._worker.close()

    def _spawn(self, work: partial[None]) -> None:
        was_full, self._is_full = self._is_full, len(self._tasks) >= _MAX_WAITING
        if self._is_full:
            if not was_full:
                logger.warning("audit.copy_failed", extra={"problem": "queue_full"})
            return
        self._tasks.spawn(self._worker.run(work), name="audit copy")

    def _send(self, note: Note, ts: int) -> None:
        line, places = checkpoint_line(note, ts), self._places
        try:
            if places.prints_checkpoints:
                self._print(line)
            if places.file is not None:
                _append(places.file, line)
            if places.command:
                subprocess.run(  # noqa: S603 - the operator's own command
                    places.command,
                    input=str(note).encode(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=_COMMAND_S,
                    check=True,
                )
        except (OSError, subprocess.SubprocessError) as error:
            logger.warning("audit.copy_failed", extra={"problem": type(error).__name__})

    def _print(self, data: bytes) -> None:
        if self._output is None:
            sys.stdout.flush()
        descriptor = _STDOUT if self._output is None else self._output
        while data:
            data = data[os.write(descriptor, data) :]


def _append(path: Path, line: bytes) -> None:
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(log: str, record: Record) -> bytes:
    body = decode(record.body)
    line: Object = {
        "kind": "line",
        "log": log,
        "seq": record.seq,
        "ts": record.ts,
        "cls": record.cls.value,
        "type": record.type,
        "leaf": to_text(record.leaf),
    }
    line |= {name: body[name] for name in _TOLD if name in body}
    return encode(line) + b"\n"
