"""`sluice analytics export`: what is kept of how streams lived, as NDJSON. No gateway need run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from gateway.settings import Settings
from gateway.telemetry.analytics import pages_of

_FAILED = 1


def export(settings: Settings, options: argparse.Namespace) -> int:
    """Writes everything to a file, or to standard output."""
    pieces = pages_of(settings).read()
    try:
        if options.out is None:
            sys.stdout.buffer.writelines(pieces)
        else:
            _write(options.out, pieces)
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"error: {error.filename or options.out}: {error.strerror}", file=sys.stderr)
        return _FAILED
    return 0


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(pieces)
