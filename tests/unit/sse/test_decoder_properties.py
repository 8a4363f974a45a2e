"""However the network cuts a stream, the blocks are those of the standard's own algorithm."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.sse.decoder import LineDecoder, SseDecoder, block_data, block_event

PIECES = [
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b":", b" ", b"\x00", b"\xff", b"\xef\xbb\xbf"),
    *(b"data: a", b"data", b"data:", b"event: x", b"id: 1", b"id", b"retry: 5", b"retry", b": c"),
    *("\u2028".encode(), "\u0085".encode(), b"foo: bar", b"idx", b"ids: 1", b"database"),
]
streams = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join) | st.binary(max_size=60)


def lines_of(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Each line with its end, and what follows the last of them: one byte at a time."""
    lines = []
    line = b""
    i = 0
    while i < len(data):
        if data[i : i + 2] == b"\r\n":
            lines.append((line, b"\r\n"))
            line = b""
            i += 1
        elif data[i : i + 1] in (b"\r", b"\n"):
            lines.append((line, data[i : i + 1]))
            line = b""
        else:
            line += data[i : i + 1]
        i += 1
    return lines, line


def reference_blocks(data: bytes) -> list[bytes]:
    blocks = []
    kept: list[tuple[bytes, bytes]] = []
    for line, end in lines_of(data.removeprefix(b"\xef\xbb\xbf"))[0]:
        name = line.split(b":")[0]
        if line and (name in (b"id", b"retry") or line.startswith(b":")):
            continue
        kept.append((line, end))
        if line:
            continue
        if any(text.split(b":")[0] == b"data" for text, _ in kept):
            blocks.append(b"".join(text + its_end for text, its_end in kept))
        kept = []
    return blocks


def reference_event(block: bytes) -> tuple[bytes, bytes]:
    event = b""
    data = []
    for line, _ in lines_of(block)[0]:
        name, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if name == b"event":
            event = value
        elif name == b"data":
            data.append(value)
    return event, b"\n".join(data)


def unended(block: bytes) -> bytes:
    """Up to the block's last line end, whose exact bytes may depend on where a chunk ended."""
    return block.rstrip(b"\r\n")


def in_pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    decoder = SseDecoder(1000)
    blocks = []
    for size in sizes:
        blocks += decoder.feed(data[:size])
        data = data[size:]
    return blocks + decoder.feed(data)


@given(streams)
def test_blocks_of_a_whole_stream_are_those_of_the_reference(data: bytes) -> None:
    given_out = SseDecoder(1000).feed(data)
    expected = reference_blocks(data)
    assert [unended(block) for block in given_out] == [unended(block) for block in expected]
    assert all(len(lines_of(block)[0]) >= 2 for block in given_out)
    assert all(lines_of(block)[0][-1][0] == b"" for block in given_out)
    assert all(lines_of(block)[1] == b"" for block in given_out)


@given(streams)
def test_data_and_event_are_those_of_the_reference(data: bytes) -> None:
    for block in SseDecoder(1000).feed(data):
        assert (block_event(block), block_data(block)) == reference_event(block)


@given(streams, st.lists(st.integers(0, 8), max_size=40))
def test_blocks_do_not_depend_on_how_the_stream_is_cut(data: bytes, sizes: list[int]) -> None:
    whole = SseDecoder(1000).feed(data)
    cut = in_pieces(data, sizes)
    assert [unended(block) for block in cut] == [unended(block) for block in whole]
    assert [reference_event(block) for block in cut] == [reference_event(block) for block in whole]


@given(
    st.lists(st.sampled_from([piece for piece in PIECES if not {10, 13} & set(piece)])),
    st.sampled_from([b"\n", b"\r", b"\r\n"]),
    st.lists(st.integers(0, 8), max_size=40),
)
def test_with_one_kind_of_line_end_every_byte_is_the_same(
    lines: list[bytes], eol: bytes, sizes: list[int]
) -> None:
    data = b"".join(line + eol + (eol if i % 3 else b"") for i, line in enumerate(lines))
    assert in_pieces(data, sizes) == SseDecoder(1000).feed(data) == reference_blocks(data)


@given(streams, st.lists(st.integers(0, 8), max_size=40))
def test_fragment_is_told_however_the_stream_is_cut(data: bytes, sizes: list[int]) -> None:
    whole, cut = SseDecoder(1000), SseDecoder(1000)
    whole.feed(data)
    for size in sizes:
        cut.feed(data[:size])
        data = data[size:]
    cut.feed(data)
    assert cut.has_fragment == whole.has_fragment


@given(st.text(), st.lists(st.integers(0, 8), max_size=40))
def test_no_text_within_a_json_string_splits_a_block(text: str, sizes: list[int]) -> None:
    block = b"data: " + json.dumps({"content": text}, ensure_ascii=False).encode("utf-8") + b"\n\n"
    assert in_pieces(block, sizes) == [block]
    assert json.loads(block_data(block)) == {"content": text}


@settings(max_examples=50)
@given(st.binary(max_size=60), st.lists(st.integers(0, 8), max_size=40))
def test_lines_do_not_depend_on_how_they_are_cut(data: bytes, sizes: list[int]) -> None:
    whole, decoder = LineDecoder(1000), LineDecoder(1000)
    expected = whole.feed(data)
    lines = []
    rest = data
    for size in sizes:
        lines += decoder.feed(rest[:size])
        rest = rest[size:]
    assert lines + decoder.feed(rest) == expected
    assert expected == [x.removesuffix(b"\r") for x in data.split(b"\n")[:-1] if x.strip()]
    assert decoder.has_fragment == whole.has_fragment
