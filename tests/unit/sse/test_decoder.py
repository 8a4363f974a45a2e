"""Blocks out of bytes: the cases of the event stream standard, one by one."""

from __future__ import annotations

import pytest

from gateway.errors import UpstreamError
from gateway.sse.decoder import LineDecoder, SseDecoder, block_data, block_event, encode_event

MIB = 1024 * 1024
BOM = b"\xef\xbb\xbf"


def cut(data: bytes, *, max_bytes: int = MIB) -> list[bytes]:
    return SseDecoder(max_bytes).feed(data)


def cut_bytewise(data: bytes) -> list[bytes]:
    return feed_in_pieces(SseDecoder(MIB), data, size=1)


def feed_in_pieces(decoder: SseDecoder | LineDecoder, data: bytes, *, size: int) -> list[bytes]:
    return [block for i in range(0, len(data), size) for block in decoder.feed(data[i : i + size])]


class TestBom:
    def test_one_leading_bom_is_removed(self) -> None:
        assert cut(BOM + b"data: a\n\n") == [b"data: a\n\n"]

    def test_bom_cut_into_bytes_is_removed(self) -> None:
        assert cut_bytewise(BOM + b"data: a\n\n") == [b"data: a\n\n"]

    def test_second_bom_belongs_to_the_first_field_name(self) -> None:
        assert cut(BOM + BOM + b"data: a\ndata: b\n\n") == [BOM + b"data: a\ndata: b\n\n"]
        assert cut(BOM + BOM + b"data: a\n\n") == []

    def test_later_bom_stays(self) -> None:
        assert cut(b"data: a\n\n" + BOM + b"x: 1\ndata: b\n\n") == [
            b"data: a\n\n",
            BOM + b"x: 1\ndata: b\n\n",
        ]

    def test_start_that_only_looks_like_a_bom_stays(self) -> None:
        assert cut_bytewise(b"\xef\xbbx: 1\ndata: a\n\n") == [b"\xef\xbbx: 1\ndata: a\n\n"]

    def test_half_a_bom_at_the_end_is_a_fragment(self) -> None:
        decoder = SseDecoder(MIB)
        assert not decoder.has_fragment
        decoder.feed(b"\xef\xbb")
        assert decoder.has_fragment


class TestLineEnds:
    @pytest.mark.parametrize("eol", [b"\n", b"\r", b"\r\n"])
    def test_each_kind_ends_a_line_and_keeps_its_bytes(self, eol: bytes) -> None:
        blocks = [eol.join([b"event: x", b"data: a", b"", b""]), eol.join([b"data: b", b"", b""])]
        assert cut(b"".join(blocks)) == blocks
        assert cut_bytewise(b"".join(blocks)) == blocks

    @pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\n\r", b"\n\r"])
    def test_every_mixture_ends_a_block(self, end: bytes) -> None:
        assert cut(b"data: a" + end + b"data: b\n\n") == [b"data: a" + end, b"data: b\n\n"]

    def test_crlf_is_one_line_end(self) -> None:
        assert cut(b"data: a\r\ndata: b\r\n\r\n") == [b"data: a\r\ndata: b\r\n\r\n"]
        assert cut_bytewise(b"data: a\r\ndata: b\r\n\r\n") == [b"data: a\r\ndata: b\r\n\r\n"]

    def test_block_does_not_wait_for_the_second_half_of_its_crlf(self) -> None:
        decoder = SseDecoder(MIB)
        assert decoder.feed(b"data: a\r\n\r") == [b"data: a\r\n\r\n"]
        assert decoder.feed(b"\ndata: b\r\n\r\n") == [b"data: b\r\n\r\n"]

    def test_cr_dispatches_at_the_end_of_a_chunk(self) -> None:
        decoder = SseDecoder(MIB)
        assert decoder.feed(b"data: a\r\r") == [b"data: a\r\r"]
        assert decoder.feed(b"data: b\r\r") == [b"data: b\r\r"]

    def test_lf_that_follows_a_dispatching_cr_is_no_line_of_its_own(self) -> None:
        decoder = SseDecoder(MIB)
        assert decoder.feed(b"data: a\n\r") == [b"data: a\n\r"]
        assert decoder.feed(b"") == []
        assert decoder.feed(b"\n") == []
        assert not decoder.has_fragment
        assert decoder.feed(b"data: b\n\n") == [b"data: b\n\n"]

    def test_lone_cr_within_a_line_ends_it(self) -> None:
        assert cut(b"data: a\rid: 5\ndata: b\n\n") == [b"data: a\rdata: b\n\n"]

    def test_block_stays_closed_when_the_line_between_cr_and_lf_is_removed(self) -> None:
        assert cut(b"data: a\rid: 5\n\n") == [b"data: a\r\n\n"]

    @pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1e"])
    def test_other_separators_split_nothing(self, odd: str) -> None:
        block = f"data: a{odd}{odd}b\n\n".encode()
        assert cut(block) == cut_bytewise(block) == [block]
        assert block_data(block) == f"a{odd}{odd}b".encode()


class TestFields:
    def test_ids_retry_and_comments_are_removed_and_all_else_kept(self) -> None:
        block = b": c\nid: 1\nevent: x\nid\nretry: 5\nfoo: bar\nretry\n:\ndata: a\nbaz\nid:\n\n"
        assert cut(block) == [b"event: x\nfoo: bar\ndata: a\nbaz\n\n"]

    def test_fields_that_only_begin_alike_are_kept(self) -> None:
        block = b"idx: 1\nretrying\ndatab\n id: 1\nID: 2\nData: 3\ndata: a\n\n"
        assert cut(block) == [block]

    @pytest.mark.parametrize(
        "block", [b"event: x\n\n", b"id: 5\n\n", b"retry: 1\n\n", b": c\n\n", b"Data: a\n\n", b"\n"]
    )
    def test_block_without_data_dispatches_nothing(self, block: bytes) -> None:
        assert cut(block + b"data: a\n\n") == [b"data: a\n\n"]
        assert cut_bytewise(block + b"data: a\n\n") == [b"data: a\n\n"]

    @pytest.mark.parametrize(
        "block", [b"data\n\n", b"data:\n\n", b"data: \n\n", b"event: x\ndata\n\n"]
    )
    def test_empty_data_is_an_event(self, block: bytes) -> None:
        assert cut(block) == [block]
        assert block_data(block) == b""

    def test_nul_and_invalid_utf8_pass_unchanged(self) -> None:
        block = b"event: \x00\ndata: \x00\xff\xfe\xc3\n\n"
        assert cut(block) == cut_bytewise(block) == [block]

    def test_id_with_nul_is_removed_too(self) -> None:
        assert cut(b"id: a\x00b\ndata: a\n\n") == [b"data: a\n\n"]

    def test_character_cut_by_the_network_stays_whole(self) -> None:
        block = "data: Grüße 👋🏽\n\n".encode()
        assert cut_bytewise(block) == [block]

    def test_usual_block_is_given_out_without_a_copy(self) -> None:
        block = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
        assert cut(block)[0] is block


class TestEnd:
    def test_block_without_its_empty_line_is_never_given_out(self) -> None:
        decoder = SseDecoder(MIB)
        assert decoder.feed(b"data: a\n\ndata: [DONE]\n") == [b"data: a\n\n"]
        assert decoder.has_fragment

    @pytest.mark.parametrize("rest", [b"", b"\n", b"\r\n", b": bye", b": bye\n", b"id: 7\n"])
    def test_what_dispatches_nothing_is_no_fragment(self, rest: bytes) -> None:
        decoder = SseDecoder(MIB)
        decoder.feed(b"data: a\n\n" + rest)
        assert not decoder.has_fragment

    @pytest.mark.parametrize("rest", [b"d", b"event: x\n", b"i", b"data: a", b"\nfoo"])
    def test_what_was_lost_is_a_fragment(self, rest: bytes) -> None:
        decoder = SseDecoder(MIB)
        decoder.feed(b"data: a\n\n" + rest)
        assert decoder.has_fragment


class TestBound:
    def test_block_of_exactly_the_bound_passes(self) -> None:
        for eol in (b"\n", b"\r\n"):
            block = b"data: 3456789" + eol + eol
            assert cut(block, max_bytes=13) == [block]

    @pytest.mark.parametrize("eol", [b"\n", b"\r", b"\r\n"])
    @pytest.mark.parametrize("size", [1, 2, 1000])
    def test_larger_block_is_refused_however_it_is_cut(self, eol: bytes, size: int) -> None:
        block = b"data: 3456789x" + eol + eol
        with pytest.raises(UpstreamError) as caught:
            feed_in_pieces(SseDecoder(13), block, size=size)
        assert caught.value.code == "event_too_large"
        assert not caught.value.retryable

    def test_block_that_never_ends_is_refused(self) -> None:
        with pytest.raises(UpstreamError, match="more than 1000 bytes"):
            feed_in_pieces(SseDecoder(1000), b"x" * 1200, size=4)

    @pytest.mark.parametrize("beat", [b":\n", b":\r\n", b":\r", b": ping\n\n", b"\n", b"id: 1\n"])
    def test_heartbeats_between_blocks_never_add_up(self, beat: bytes) -> None:
        decoder = SseDecoder(100)
        for _ in range(1000):
            assert decoder.feed(beat) == []
        assert decoder.feed(beat * 1000) == []
        assert decoder.feed(b"data: a\n\n") == [b"data: a\n\n"]


class CountingBuffer(bytearray):
    """Counts the bytes that a decoder adds and looks at."""

    work = 0

    def __iadd__(self, more: object) -> CountingBuffer:
        assert isinstance(more, (bytes, memoryview))
        CountingBuffer.work += len(more)
        return super().__iadd__(more)  # type: ignore[return-value]

    def find(self, sub: bytes, start: int = 0) -> int:  # type: ignore[override]
        CountingBuffer.work += len(self) - start
        return super().find(sub, start)


def test_large_event_in_single_bytes_costs_a_constant_per_byte() -> None:
    block = b"data: " + b"x" * MIB + b"\n\n"
    decoder = SseDecoder(2 * MIB)
    decoder._held = CountingBuffer()
    CountingBuffer.work = 0
    assert feed_in_pieces(decoder, block, size=1) == [block]
    assert CountingBuffer.work < 5 * len(block)


class TestLineDecoder:
    def test_lines_are_given_out_without_their_ends(self) -> None:
        assert LineDecoder(MIB).feed(b'{"a":1}\n{"b":2}\r\n\n \n{"c":3}\n') == [
            b'{"a":1}',
            b'{"b":2}',
            b'{"c":3}',
        ]

    def test_cutting_changes_nothing(self) -> None:
        data = '{"a":"\u2028é"}\r\n\n{"b":2}\n{"c"'.encode()
        whole = LineDecoder(MIB)
        bytewise = LineDecoder(MIB)
        blocks = feed_in_pieces(bytewise, data, size=1)
        assert blocks == whole.feed(data) == ['{"a":"\u2028é"}'.encode(), b'{"b":2}']
        assert whole.has_fragment
        assert bytewise.has_fragment

    def test_unfinished_line_is_a_fragment_and_an_empty_one_is_not(self) -> None:
        decoder = LineDecoder(MIB)
        assert decoder.feed(b'{"a":1}\n\r') == [b'{"a":1}']
        assert not decoder.has_fragment
        assert decoder.feed(b'\n{"done":true}') == []
        assert decoder.has_fragment

    @pytest.mark.parametrize("size", [1, 3, 100])
    def test_line_over_the_bound_is_refused_however_it_is_cut(self, size: int) -> None:
        assert feed_in_pieces(LineDecoder(8), b"12345678\r\n", size=size) == [b"12345678"]
        with pytest.raises(UpstreamError) as caught:
            feed_in_pieces(LineDecoder(8), b"123456789\n", size=size)
        assert caught.value.code == "event_too_large"


class TestOneBlock:
    def test_data_lines_are_joined_and_lose_one_space(self) -> None:
        block = b"id: s.1\nevent: x\ndata:  a\ndata:b\ndata\ndatab: no\ndata: c: d\n\n"
        assert block_data(block) == b" a\nb\n\nc: d"

    @pytest.mark.parametrize("eol", [b"\n", b"\r", b"\r\n"])
    def test_data_and_event_are_found_whatever_ends_the_lines(self, eol: bytes) -> None:
        block = eol.join([b"id: s.1", b"event:  x", b"data: a", b"data:b", b"", b""])
        assert block_data(block) == b"a\nb"
        assert block_event(block) == b" x"

    def test_last_event_line_counts(self) -> None:
        assert block_event(b"event: a\nevent: b\ndata: event: c\n\n") == b"b"
        assert block_event(b"event: a\nevent\ndata\n\n") == b""
        assert block_event(b"data: a\n\n") == b""

    def test_block_of_our_own_is_written(self) -> None:
        assert encode_event("start", b'{"a":1}') == b'event: start\ndata: {"a":1}\n\n'
        assert encode_event(None, b"[DONE]") == b"data: [DONE]\n\n"

    @pytest.mark.parametrize("name", ["", "a b", "a\n", "a:b", "é", "a\r"])
    def test_name_that_would_break_the_line_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="name"):
            encode_event(name, b"{}")

    @pytest.mark.parametrize("data", [b"a\nb", b"a\r", b"\n"])
    def test_data_of_several_lines_is_refused(self, data: bytes) -> None:
        with pytest.raises(ValueError, match="one line"):
            encode_event("x", data)
