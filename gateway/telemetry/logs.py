"""Structured log lines: an event name and fields, never content nor anything personal."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from pythonjsonlogger.orjson import OrjsonFormatter

_RENAMED = {"levelname": "level", "message": "event", "name": "logger"}


class TextFormatter(logging.Formatter):
    """One line for people: time, level, event and the fields behind it."""

    _STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        fields = [
            f"{name}={value}"
            for name, value in vars(record).items()
            if name not in self._STANDARD and value is not None
        ]
        return " ".join([line, *fields])


def configure_logging(level: str, form: str, stream: TextIO | None = None) -> None:
    """Sends every log line of the process to `stream` (standard error) in one form.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: `json`, one object a line, or `text`.
    """
    _drop_what_no_line_shows()
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_formatter(form))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Its messages can quote what a client sent; what matters of them is logged here.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    for noisy in ("alembic", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def set_level(level: str) -> None:
    """Changes the least severity that is logged, while the process runs."""
    logging.getLogger().setLevel(level.upper())


def _drop_what_no_line_shows() -> None:
    """Neither form shows who called, from which thread or process; finding that out is half of a
    line's cost. The way is that of the logging HOWTO, "Optimization"."""
    logging._srcfile = None  # noqa: SLF001
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _formatter(form: str) -> logging.Formatter:
    if form == "text":
        return TextFormatter("%(asctime)s %(levelname)-7s %(message)s")
    return OrjsonFormatter(
        "%(levelname)s %(name)s %(message)s", rename_fields=_RENAMED, timestamp="time"
    )
