"""The usual event of a stream: the same bytes as the one before, but for its piece of text.

Reading each event's JSON to find that it says a word and nothing else costs most of what the
gateway does with it. So one event that was read the plain way becomes a shape, two halves with a
hole between them, and whatever fills the hole of the same shape with plain characters says just
that: the halves are the same JSON, which a string without quotes and backslashes can't change.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson

_PROBE = "a probe"
_PROVEN = 8
#: No longer block is learnt: a stream keeps its shape for as long as it runs.
_MAX_BYTES = 4096


class UsualEvent:
    """The shape that a stream's usual event has at present.

    Args:
        text_of: Reads a block the plain way; `Translator.text_of`.
    """

    __slots__ = ("_head", "_hits", "_misses", "_patience", "_tail", "_text_of")

    def __init__(self, text_of: Callable[[bytes], str | None]) -> None:
        self._text_of = text_of
        self._head = self._tail = b""
        self._hits = 0
        self._misses = 0
        self._patience = 1

    def text_of(self, block: bytes) -> bytes | None:
        """The text in UTF-8, which is also what stands between the quotes; None if the block isn't
        of the shape, and is to be read the plain way."""
        head, tail = self._head, self._tail
        if (
            head
            and block.startswith(head)
            and block.endswith(tail)
            and len(block) > len(head) + len(tail)
        ):
            raw = block[len(head) : -len(tail)]
            if b'"' not in raw and b"\\" not in raw and _is_plain(raw):
                self._hits += 1
                return raw
        return None

    def learn(self, block: bytes) -> None:
        """Takes the shape of a block that was read the plain way, and passed for usual there.

        A stream whose events are all different is soon left alone: the next attempts come after
        twice as many misses each, unless a shape has proved useful.
        """
        if self._hits >= _PROVEN:
            self._patience = 1
        self._misses += 1
        if self._misses < self._patience:
            return
        self._misses = self._hits = 0
        self._patience *= 2
        self._head, self._tail = self._shape(block)

    def _shape(self, block: bytes) -> tuple[bytes, bytes]:
        """What stands before and behind the text; empty if that can't be told."""
        if len(block) > _MAX_BYTES or not (text := self._text_of(block)):
            return b"", b""
        head, quoted, tail = block.rpartition(orjson.dumps(text))
        if not quoted:
            return b"", b""
        head, tail = head + b'"', b'"' + tail
        is_hole = self._text_of(head + _PROBE.encode() + tail) == _PROBE
        return (head, tail) if is_hole else (b"", b"")


def _is_plain(raw: bytes) -> bool:
    """Whether JSON may have it in a string as it is; no for some rare characters that it may."""
    try:
        return raw.decode().isprintable()
    except UnicodeDecodeError:
        return False
