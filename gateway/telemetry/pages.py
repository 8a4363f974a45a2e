"""Lines in two files of bounded size: the older one goes when the newer one is full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

_PIECE_BYTES = 64 * 1024


class Pages:
    """`folder/name.ndjson` and the one before, `folder/name.1.ndjson`, `max_bytes` together.

    Both block: to be called in a thread. One process appends; others may read meanwhile.
    """

    def __init__(self, folder: Path, name: str, max_bytes: int) -> None:
        self._newer = folder / f"{name}.ndjson"
        self._older = folder / f"{name}.1.ndjson"
        self._max_bytes = max_bytes

    def append(self, lines: bytes) -> None:
        """Adds whole lines.

        Raises:
            OSError: they can't be written.
        """
        self._newer.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._newer, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            # A crash or a full disk may have cut off the last line.
            is_cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            file.write(b"\n" + lines if is_cut else lines)
        if size + len(lines) > self._max_bytes // 2:
            self._newer.replace(self._older)

    def read(self) -> Iterator[bytes]:
        """All lines in pieces, the oldest first; what was cut off is left out.

        Raises:
            OSError: they can't be read.
        """
        with ExitStack() as opened:
            # In this order: if one takes the other's place meanwhile, it is seen twice, not never.
            newer, older = (_open(path, opened) for path in (self._newer, self._older))
            for file in (older, newer):
                if file is None or (file is older and newer and _is_same(file, newer)):
                    continue
                while lines := file.readlines(_PIECE_BYTES):
                    yield b"".join(line for line in lines if _is_whole(line))


def _open(path: Path, opened: ExitStack) -> BinaryIO | None:
    try:
        return opened.enter_context(path.open("rb"))
    except FileNotFoundError:
        return None


def _is_same(one: BinaryIO, other: BinaryIO) -> bool:
    return os.path.sameopenfile(one.fileno(), other.fileno())


def _is_whole(line: bytes) -> bool:
    return line.startswith(b"{") and line.endswith(b"}\n")
