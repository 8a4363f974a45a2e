"""A disk for tests that fill it up. Only root may mount one: elsewhere such a test fails."""

from __future__ import annotations

import errno
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted() -> Iterator[Path]:
    """A file system of 64 MiB, which a server that runs as somebody else may write to."""
    with tempfile.TemporaryDirectory(prefix="disk-") as folder:
        options = ("-t", "tmpfs", "-o", "size=64m,mode=0777", "tmpfs", folder)
        done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.partition("\n")[0]
            pytest.fail(f"a small disk can't be mounted: {reason}", pytrace=False)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def fill(filler: Path) -> None:
    """To the last byte, by a file that gives the room back when it is removed."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
