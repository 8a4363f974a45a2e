"""Cuts a backend's bytes into blocks and reads or writes the lines of one block.

WHATWG HTML, server-sent events, section 9.2.6, on bytes: nothing is decoded as text, so neither a
character cut by the network nor U+2028 or U+0085 can split anything. A block is all the bytes up to
and including its empty line. What a block means is `gateway.sse.dialects`' business.
"""

from __future__ import annotations

import re

from gateway.errors import UpstreamError

_BOM = b"\xef\xbb\xbf"
_END_OF_LINE = rb"(?>\r\n|\r|\n)"
_LINE = re.compile(rb"[^\r\n]*" + _END_OF_LINE)
_END_OF_BLOCK = re.compile(rb"(%b)(?>\r\n|\r|\n)" % _END_OF_LINE)
#: Empty lines, comments, `id` and `retry` in front of a block: nothing of it is ever given out.
_PREAMBLE = re.compile(rb"(?:(?:(?:id|retry)(?::[^\r\n]*+)?|:[^\r\n]*+)?%b)+" % _END_OF_LINE)
_PREAMBLE_STARTS = b"\r\n:ir"
_DATA = re.compile(rb"(?<![^\r\n])data(?:: ?([^\r\n]*))?(?![^\r\n])")
_EVENT = re.compile(rb"(?<![^\r\n])event(?:: ?([^\r\n]*))?(?![^\r\n])")
_EVENT_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class SseDecoder:
    """Blocks of an event stream, without what is hop-by-hop: `id`, `retry` and comments.

    Other lines keep their bytes and line ends. A block without a `data` line dispatches nothing and
    is dropped. Whichever way the input is cut, each byte is looked at a bounded number of times.

    `max_bytes` bounds one block, without the line ends that close it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._head: bytes | None = b""  # what may become a BOM; None once the stream has begun
        self._held = bytearray()
        self._has_cr = False
        self._swallow_lf = False
        self.is_between_blocks = False

    @property
    def has_fragment(self) -> bool:
        if self._head:
            return True
        held = bytes(self._held)
        return bool(held) and _PREAMBLE.fullmatch(held + b"\n") is None

    def feed(self, chunk: bytes) -> list[bytes]:
        if (
            chunk.startswith(b"data:")
            and chunk.find(b"\n") == len(chunk) - 2 <= self._max_bytes
            and chunk.endswith(b"\n")
            and not (self._held or self._head or self._swallow_lf or self._has_cr)
            and b"\r" not in chunk
        ):  # one `data` line and its end, as nearly every read is where tokens trickle
            self._head = None
            self.is_between_blocks = True
            return [chunk]
        blocks = self._cut(chunk)
        is_held = self._held or self._head or self._swallow_lf or self._has_cr
        self.is_between_blocks = not is_held
        return blocks

    def _cut(self, chunk: bytes) -> list[bytes]:
        if self._head is not None:
            chunk = self._without_bom(self._head + chunk)
        if self._swallow_lf and chunk:
            self._swallow_lf = False
            chunk = chunk.removeprefix(b"\n")
        if not chunk:
            return []
        self._has_cr = self._has_cr or b"\r" in chunk
        scan = 0
        if self._held:
            scan = max(len(self._held) - 2, 0)  # the longest line end that may have begun
            self._held += chunk
            if not self._holds_end(scan):
                self._drop_preamble(chunk)
                self._check_size(len(self._held) - 2)
                return []
            chunk = bytes(self._held)
            self._held.clear()
        if not self._has_cr and (blocks := self._cut_plain(chunk)) is not None:
            return blocks
        eol = self._only_line_end(chunk)
        blocks, rest = self._cut_at(eol, chunk, scan) if eol else self._cut_any(chunk, scan)
        if rest < len(chunk):
            self._held += memoryview(chunk)[rest:]
            self._check_size(len(self._held) - 2)
        return blocks

    def _cut_plain(self, chunk: bytes) -> list[bytes] | None:
        """The blocks if all are the usual ones, the same one or two lines each; else None.

        Where all line ends are accounted for, there is nothing hop-by-hop. A tenth of the cost of
        `_cut_at` where many come at once.
        """
        end = len(chunk)
        if not chunk.endswith(b"\n\n"):
            end = chunk.rfind(b"\n\n") + 2
            if end < 2 or end + 1 == len(chunk):  # a line end more may belong to the block
                return None
        whole = chunk[:end]
        if whole.startswith(b"data:"):
            blocks = _data_alone(whole)
        elif whole.startswith(b"event:"):
            blocks = _event_and_data(whole)
        else:
            return None
        if not blocks:
            return None
        if end > self._max_bytes:
            self._check_size(max(map(len, blocks)) - 2)
        if end < len(chunk):
            self._held += memoryview(chunk)[end:]
            self._check_size(len(self._held) - 2)
        return blocks

    def _without_bom(self, head: bytes) -> bytes:
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _holds_end(self, scan: int) -> bool:
        if self._has_cr:
            return _END_OF_BLOCK.search(self._held, scan) is not None
        return self._held.find(b"\n\n", scan) >= 0

    def _drop_preamble(self, chunk: bytes) -> None:
        """Forgets heartbeat lines between blocks, or they would add up to an event too large."""
        # Only once `chunk` ends a line: a long comment that comes byte by byte would otherwise be
        # read anew for each of them.
        if b"\n" in chunk or b"\r" in chunk:
            del self._held[: _skip_preamble(self._held, 0)]

    def _only_line_end(self, chunk: bytes) -> bytes | None:
        """The one kind of line end in `chunk`, LF or CRLF; None for any other or a mixture."""
        if not self._has_cr:
            return b"\n"
        pairs = chunk.count(b"\r\n")
        return b"\r\n" if pairs == chunk.count(b"\n") == chunk.count(b"\r") else None

    def _cut_at(self, eol: bytes, chunk: bytes, scan: int) -> tuple[list[bytes], int]:
        """The blocks in `chunk`, all of whose lines end with `eol`, and where the rest begins."""
        blocks = []
        end_of_block = eol + eol
        start = _skip_preamble(chunk, 0)
        while (end := chunk.find(end_of_block, max(start, scan))) >= 0:
            self._check_size(end - start)
            block = chunk[start : end + len(end_of_block)]
            if _is_clean(block, eol) or (block := _clean(block)):
                blocks.append(block)
            start = _skip_preamble(chunk, end + len(end_of_block))
        return blocks, start

    def _cut_any(self, chunk: bytes, scan: int) -> tuple[list[bytes], int]:
        """The blocks in `chunk` with any mixture of line ends, and where the rest begins."""
        blocks = []
        start = _skip_preamble(chunk, 0)
        while end := _END_OF_BLOCK.search(chunk, max(start, scan)):
            self._check_size(end.start() - start)
            block = chunk[start : end.end()]
            if end.end() == len(chunk) and block.endswith(b"\r"):
                # Its LF, if there is one, comes with the next chunk. The block doesn't wait for it.
                self._swallow_lf = True
                if end[1] == b"\r\n":
                    block += b"\n"  # as this backend ends its lines, whichever way TCP cuts them
            if block := _clean(block):
                blocks.append(block)
            start = _skip_preamble(chunk, end.end())
        return blocks, start

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise _too_large(self._max_bytes)


class LineDecoder:
    """Lines of newline-delimited JSON (Ollama), without their ends; empty lines are dropped."""

    is_between_blocks = False  # its lines lose their ends, so none comes back as it is

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = bytearray()

    @property
    def has_fragment(self) -> bool:
        return bool(self._held.strip())

    def feed(self, chunk: bytes) -> list[bytes]:
        if b"\n" not in chunk:
            self._held += chunk
            self._check_size(len(self._held) - 1)
            return []
        first, *lines = chunk.split(b"\n")
        lines.insert(0, bytes(self._held + first))
        self._held = bytearray(lines.pop())
        lines = [line.removesuffix(b"\r") for line in lines if line.strip()]
        self._check_size(max(map(len, lines), default=0))
        self._check_size(len(self._held) - 1)
        return lines

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise _too_large(self._max_bytes)


def _data_alone(chunk: bytes) -> list[bytes]:
    """The blocks if each is a `data` line, else none. All the line ends must be accounted for."""
    blocks = chunk.count(b"\n\ndata:") + 1
    if chunk.count(b"\n") != 2 * blocks:
        return []
    # A search for two line ends is eight times as slow as one for a single byte.
    return [line + b"\n\n" for line in chunk.split(b"\n")[:-1:2]]


def _event_and_data(chunk: bytes) -> list[bytes]:
    """The same for blocks of an `event` and a `data` line."""
    blocks = chunk.count(b"\n\nevent:") + 1
    if chunk.count(b"\n") != 3 * blocks or chunk.count(b"\ndata:") != blocks:
        return []
    if blocks == 1:
        return [chunk]
    lines = chunk.split(b"\n")
    return [b"%b\n%b\n\n" % pair for pair in zip(lines[:-1:3], lines[1::3], strict=True)]


def block_data(block: bytes) -> bytes:
    """The value of the block's `data` lines, joined with LF, one leading space removed of each."""
    return b"\n".join(_DATA.findall(block))


def block_event(block: bytes) -> bytes:
    """The value of the block's last `event` line; empty where there is none."""
    names: list[bytes] = _EVENT.findall(block)
    return names[-1] if names else b""


def encode_event(event: str | None, data: bytes) -> bytes:
    """One block of our own; `data` is a single line, such as JSON without indentation.

    Raises:
        ValueError: `event` has characters other than letters, digits and `_.-`, or `data` has a
            line end.
    """
    if b"\n" in data or b"\r" in data:
        raise ValueError("an event's data must be one line")
    if event is None:
        return b"data: %b\n\n" % data
    if not _EVENT_NAME.fullmatch(event):
        raise ValueError("an event's name may have letters, digits and _.- only")
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data)


def _skip_preamble(data: bytes | bytearray, start: int) -> int:
    """Where the next block's first line of its own begins, or may begin."""
    if start == len(data) or data[start] not in _PREAMBLE_STARTS:
        return start
    preamble = _PREAMBLE.match(data, start)
    return preamble.end() if preamble else start


def _is_clean(block: bytes, eol: bytes) -> bool:
    """Whether a block with `eol` alone is the usual one or two lines, with nothing to remove."""
    last = len(block) - 2 * len(eol)
    first = block.find(eol)
    if block.startswith(b"data:"):
        return first == last
    data = first + len(eol)
    return (
        block.startswith(b"event:")
        and block.startswith(b"data:", data)
        and block.find(eol, data) == last
    )


def _clean(block: bytes) -> bytes:
    """`block` without its hop-by-hop lines; empty if it has no data and so dispatches nothing."""
    kept = [line for line in _LINE.findall(block) if not _is_hop_by_hop(line)]
    if not any(_DATA.match(line) for line in kept):
        return b""
    if kept[-1] == b"\n" and kept[-2].endswith(b"\r"):
        kept.append(b"\n")  # the line between them has gone, and CR LF is only one line end
    return b"".join(kept)


def _is_hop_by_hop(line: bytes) -> bool:
    if line.startswith((b":", b"id:", b"retry:")):
        return True
    return line.startswith((b"id", b"retry")) and line.rstrip(b"\r\n") in (b"id", b"retry")


def _too_large(max_bytes: int) -> UpstreamError:
    return UpstreamError(
        f"The backend sent an event of more than {max_bytes} bytes.",
        code="event_too_large",
        retryable=False,
    )
