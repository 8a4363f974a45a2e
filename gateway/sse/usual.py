"""The usual event of a stream: the same bytes as the one before, but for its piece of text.

Reading each event's JSON to find that it says a word and nothing else costs most of what the
gateway does with it. So one event that was read the plain way becomes a shape, two halves with a
hole between them, and whatever fills the hole of the same shape with plain characters says just
that: the halves are the same JSON, which a string without quotes and backslashes can't change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter

import orjson

_PROBE = "a probe"
_PROVEN = 8
#: No longer block is learnt: a stream keeps its shape for as long as it runs.
_MAX_BYTES = 4096
_PLAIN_ASCII = bytes(set(range(0x20, 0x7F)) - {*b'"\\'})


class UsualEvent:
    """The shape that a stream's usual event has at present.

    Args:
        text_of: Reads a block the plain way; `Translator.text_of`.
    """

    __slots__ = ("_misses", "_patience", "_proven", "_text_of", "count", "head", "tail")

    def __init__(self, text_of: Callable[[bytes], str | None]) -> None:
        self._text_of = text_of
        self.head = self.tail = b""  #: what stands before the text and behind it
        self.count = 0  #: how many usual events there were
        self._proven = _PROVEN  # so many make the present shape one that has proved useful
        self._misses = 0
        self._patience = 1

    def text_of(self, block: bytes) -> bytes | None:
        """The text in UTF-8, which is also what stands between the quotes; None if the block isn't
        of the shape, and is to be read the plain way.

        Each event of each stream comes through here, so calls are spared.
        """
        head, tail = self.head, self.tail
        if (
            head
            and block.startswith(head)
            and block.endswith(tail)
            and len(block) > len(head) + len(tail)
        ):
            raw = block[len(head) : -len(tail)]
            try:
                if b'"' not in raw and b"\\" not in raw and raw.decode().isprintable():
                    self.count += 1
                    return raw
            except UnicodeDecodeError:
                pass
        return None

    def texts_of(self, chunk: bytes) -> list[bytes] | None:
        """The texts of the blocks in `chunk`; None if there is one that isn't of the shape, or
        isn't whole: then all of them are to be read the plain way."""
        head, tail = self.head, self.tail
        if not (head and chunk.startswith(head) and chunk.endswith(tail)):
            return None
        if len(chunk) <= len(head) + len(tail) or not tail.endswith(b"\n"):
            return None
        # Where the texts would be: searching for the bytes between two of them takes longer.
        lines = chunk.split(b"\n")[head.count(b"\n") : -1 : head.count(b"\n") + tail.count(b"\n")]
        hole = itemgetter(slice(len(head) - 1 - head.rfind(b"\n"), -tail.index(b"\n")))
        return self._proven_texts(list(map(hole, lines)), chunk)

    def texts_of_each(self, blocks: Sequence[bytes], joined: bytes) -> list[bytes] | None:
        """The same for blocks that are apart already, if they are; each text is one block's."""
        head, tail = self.head, self.tail
        if not (head and tail.endswith(b"\n")):
            return None
        hole = itemgetter(slice(len(head), -len(tail)))
        return self._proven_texts(list(map(hole, blocks)), joined)

    def _proven_texts(self, texts: list[bytes], chunk: bytes) -> list[bytes] | None:
        """The texts if the shape with each of them makes up `chunk`. Putting it together again
        takes a tenth of looking at each block."""
        head, tail = self.head, self.tail
        spelt = [head + texts[0], *texts[1:]]
        spelt[-1] += tail
        if (
            chunk != (tail + head).join(spelt)
            or not all(texts)
            # With something between them, or halves of characters could become whole.
            or not _is_plain(b" ".join(texts))
        ):
            return None
        self.count += len(texts)
        return texts

    def learn(self, block: bytes) -> None:
        """Takes the shape of a block that was read the plain way, and passed for usual there.

        A stream whose events are all different is soon left alone: the next attempts come after
        twice as many misses each, unless a shape has proved useful.
        """
        if self.count >= self._proven:
            self._patience = 1
        self._misses += 1
        if self._misses < self._patience:
            return
        self._misses, self._proven = 0, self.count + _PROVEN
        self._patience *= 2
        self.head, self.tail = self._shape(block)

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
    if not raw.translate(None, _PLAIN_ASCII):
        return True
    try:
        return b'"' not in raw and b"\\" not in raw and raw.decode().isprintable()
    except UnicodeDecodeError:
        return False
