"""The shortcuts of the hot path say what the plain way says, for whatever a backend may send."""

from __future__ import annotations

import copy
import json

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.sse.decoder import SseDecoder
from gateway.sse.dialects import DIALECTS, provider_dialect
from gateway.sse.dialects.base import Dialect, Verdict
from gateway.sse.dialects.common import is_incomplete
from gateway.sse.event import Text
from gateway.sse.usual import UsualEvent
from tests.recordings import ANTHROPIC_STREAM, CHAT_STREAM, RESPONSES_STREAM

_COMPLETIONS = provider_dialect("/v1/completions")
assert _COMPLETIONS is not None
_DIALECTS = {**DIALECTS, "openai-completions": _COMPLETIONS}
_RECORDED = {
    "openai": CHAT_STREAM,
    "openai-responses": RESPONSES_STREAM,
    "anthropic": ANTHROPIC_STREAM,
}

_odd = st.sampled_from(
    [None, "", 0, 1, True, [], {}, "x", "error", "stop", "length", [1], {"a": 1}, [{"id": "x"}]]
)
_text = st.one_of(
    st.text(max_size=8), st.sampled_from(['"', "\n", "\r", "\u2028", "👋🏽", "[DONE]"])
)


_USUAL = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
_CHAT = {"id": "c", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
_RESPONSE = {"type": "response.output_text.delta", "delta": "a"}
_MESSAGE = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
_PATHS = (
    *("error", "usage", "choices", "type", "delta", "delta.text", "delta.type"),
    *("choices.0.index", "choices.0.finish_reason", "choices.0.delta", "choices.0.delta.role"),
    *("choices.0.delta.content", "choices.0.delta.refusal", "choices.0.delta.tool_calls"),
)


@st.composite
def _objects(draw: st.DrawFn) -> object:
    """A usual event's data in which up to two things are odd."""
    data = json.loads(json.dumps(draw(st.sampled_from([_CHAT, _RESPONSE, _MESSAGE]))))
    for path in draw(st.lists(st.sampled_from(_PATHS), max_size=2)):
        _put(data, path.split("."), copy.deepcopy(draw(st.one_of(_odd, _text))))
    return data


def _put(place: object, path: list[str], value: object) -> None:
    """Puts `value` where the path leads, if it leads anywhere."""
    key, *rest = path
    if isinstance(place, list) and place and rest:
        _put(place[0], rest, value)
    elif isinstance(place, dict) and rest:
        _put(place.get(key), rest, value)
    elif isinstance(place, dict):
        place[key] = value


_names = st.sampled_from(
    [
        "",
        "",
        "",
        "event: response.output_text.delta\n",
        "event: content_block_delta\n",
        "event: error\n",
    ]
)


@st.composite
def _blocks(draw: st.DrawFn) -> bytes:
    data = json.dumps(draw(_objects()), ensure_ascii=draw(st.booleans()))
    damage = draw(st.sampled_from(["", "", "", "", "", "", "{", "\rdata: x", "\ndata: }", "\n: x"]))
    block = f"{draw(_names)}data: {data}{damage}\n\n"
    return block.encode("utf-8", "replace")


@pytest.mark.parametrize("name", _DIALECTS)
@settings(max_examples=200)
@given(block=_blocks())
@example(block=b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\r\n\r\n')
@example(block=b'data: {"choices":[{"index":0,"delta":{"content":"\\ud800"}}]}\n\n')
def test_text_of_a_block_is_what_the_translator_says_of_it(name: str, block: bytes) -> None:
    translator = _DIALECTS[name].translator()
    text = translator.text_of(block)
    assert text is None or translator.feed(block) == [Text(text)]


@pytest.mark.parametrize("name", _RECORDED)
def test_usual_text_takes_the_shortcut(name: str) -> None:
    translator = DIALECTS[name].translator()
    taken = [translator.text_of(block) for block in _cut(DIALECTS[name], _RECORDED[name])]
    assert "".join(text for text in taken if text) == "Grüße aus Łódź 👋🏽."


@pytest.mark.parametrize("name", _DIALECTS)
@given(blocks=st.lists(_blocks(), min_size=1, max_size=4))
def test_blocks_that_pass_say_nothing_and_leave_nothing(name: str, blocks: list[bytes]) -> None:
    dialect = _DIALECTS[name]
    watcher = dialect.watcher()
    if not watcher.passes(b"".join(blocks)):
        return
    assert [watcher.see(block) for block in blocks] == [None] * len(blocks)
    fresh = dialect.watcher()
    for end in _ENDS:
        assert watcher.see(end) == fresh.see(end)


@pytest.mark.parametrize("name", _RECORDED)
def test_end_of_a_recorded_stream_does_not_pass(name: str) -> None:
    dialect = DIALECTS[name]
    *_, last = _cut(dialect, _RECORDED[name])
    assert not dialect.watcher().passes(last)


_reasons = st.sampled_from(["stop", "length", "tool_calls", "", None, 'a"stop', "finish_reason"])


@settings(max_examples=200)
@given(
    reasons=st.lists(st.lists(_reasons, max_size=3), max_size=3),
    text=st.sampled_from(["", "stop", '"finish_reason":"stop"', "finish_reason"]),
    spaced=st.booleans(),
    escaped=st.booleans(),
)
def test_early_end_is_seen_however_the_reasons_come(
    reasons: list[list[str | None]], text: str, spaced: bool, escaped: bool
) -> None:
    dialect = DIALECTS["openai"]
    blocks = []
    for some in reasons:
        choices = [
            {"index": number, "delta": {"content": text}, "finish_reason": reason}
            for number, reason in enumerate(some)
        ]
        said = json.dumps({"choices": choices}, separators=None if spaced else (",", ":"))
        if escaped:
            said = said.replace('"stop"', '"st\\u006fp"')
        blocks.append(f"data: {said}\n\n".encode())
    watcher = dialect.watcher()
    assert [watcher.see(block) for block in blocks] == [None] * len(blocks)
    is_early = is_incomplete(dialect.translator(), blocks)
    expected = Verdict.INCOMPLETE if is_early else Verdict.COMPLETE
    assert watcher.see(b"data: [DONE]\n\n") is expected


def _usual_of(name: str, first: bytes) -> UsualEvent:
    usual = UsualEvent(_DIALECTS[name].translator().text_of)
    usual.learn(first)
    return usual


@st.composite
def _likes(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A block, and one that is like it but for a piece."""
    first = draw(_blocks())
    start = draw(st.integers(0, len(first)))
    end = draw(st.integers(start, min(len(first), start + 12)))
    odd = st.sampled_from([b'"', b"\\", b"\n", b"\r", b"\t", b"\xff", b"\xe2\x80\xa8", b'","b":"'])
    piece = draw(st.one_of(_text.map(lambda text: text.encode("utf-8", "replace")), odd))
    return first, first[:start] + piece + first[end:]


@pytest.mark.parametrize("name", _DIALECTS)
@settings(max_examples=200)
@given(blocks=_likes())
@example(blocks=(_USUAL, _USUAL.replace(b"word", b"[DONE] error")))
@example(blocks=(_USUAL, _USUAL.replace(b"word", b"")))
@example(blocks=(_USUAL, _USUAL.replace(b"word", b"a\\")))
@example(blocks=(_USUAL, _USUAL.replace(b"word", b"\x7f")))
def test_event_of_the_usual_shape_says_what_the_plain_way_reads(
    name: str, blocks: tuple[bytes, bytes]
) -> None:
    first, second = blocks
    dialect = _DIALECTS[name]
    text = _usual_of(name, first).text_of(second)
    if text is None:
        return
    assert dialect.translator().feed(second) == [Text(text.decode())]
    assert orjson.dumps(text.decode()) == b'"%b"' % text
    watcher, fresh = dialect.watcher(), dialect.watcher()
    assert watcher.see(second) is None
    assert [watcher.see(end) for end in _ENDS] == [fresh.see(end) for end in _ENDS]
    decoder = SseDecoder(10**6)
    decoder.feed(first)
    assert not decoder.is_between_blocks or decoder.feed(second) == [second]


@pytest.mark.parametrize("name", _DIALECTS)
@settings(max_examples=100)
@given(blocks=st.lists(_likes(), min_size=1, max_size=4))
@example(blocks=[(_USUAL, _USUAL), (_USUAL, _USUAL.replace(b"word", b""))])
@example(blocks=[(_USUAL, _USUAL), (_USUAL, b"\n\n")])
@example(blocks=[(_USUAL, _USUAL.replace(b"word", "\u00e9".encode()[:1])), (_USUAL, _USUAL)])
@example(
    blocks=[
        (_USUAL, _USUAL.replace(b"word", "\u00e9".encode()[:1])),
        (_USUAL, _USUAL.replace(b"word", "\u00e9".encode()[1:])),
    ]
)
def test_events_of_the_usual_shape_that_come_together_say_what_each_says(
    name: str, blocks: list[tuple[bytes, bytes]]
) -> None:
    first = blocks[0][0]
    chunk = b"".join(second for _, second in blocks)
    usual = _usual_of(name, first)
    texts = usual.texts_of(chunk)
    apart = [second for _, second in blocks]
    assert texts == usual.texts_of_each(apart, b"".join(apart))
    if texts is None:
        return
    apart = [usual.head + text + usual.tail for text in texts]
    assert b"".join(apart) == chunk
    assert [usual.text_of(block) for block in apart] == texts
    decoder = SseDecoder(10**6)
    decoder.feed(first)
    assert not decoder.is_between_blocks or decoder.feed(chunk) == apart


@pytest.mark.parametrize("name", ["openai", "openai-responses", "anthropic"])
def test_second_usual_event_has_the_shape_of_the_first(name: str) -> None:
    blocks = _cut(DIALECTS[name], _RECORDED[name])
    first = next(block for block in blocks if DIALECTS[name].translator().text_of(block))
    text = DIALECTS[name].translator().text_of(first)
    assert text is not None
    other = first.replace(json.dumps(text, ensure_ascii=False).encode(), '"Łódź"'.encode())
    assert other != first
    assert _usual_of(name, first).text_of(other) == "Łódź".encode()


def test_events_that_are_all_different_are_left_alone() -> None:
    read: list[bytes] = []

    def text_of(block: bytes) -> str | None:
        read.append(block)
        return DIALECTS["openai"].translator().text_of(block)

    usual = UsualEvent(text_of)
    for number in range(1000):
        block = _USUAL.replace(b'"id":"c"', b'"id":"%d"' % number)
        assert usual.text_of(block) is None
        usual.learn(block)
    assert len(read) <= 2 * 10  # to learn a shape and to try it, after 1, 2, 4 ... misses


def test_shape_that_has_proved_useful_is_learnt_anew_at_once() -> None:
    usual = UsualEvent(DIALECTS["openai"].translator().text_of)
    for second in range(20):
        block = _USUAL.replace(b'"id":"c"', b'"id":"%d"' % second)
        assert usual.text_of(block) is None
        usual.learn(block)
        assert [usual.text_of(block) for _ in range(10)] == [b"word"] * 10


_ENDS = (
    b"data: [DONE]\n\n",
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    b'event: response.completed\ndata: {"type":"response.completed"}\n\n',
)


def _cut(dialect: Dialect, stream: bytes) -> list[bytes]:
    return dialect.decoder(10**6).feed(stream)


@given(
    blocks=st.lists(_blocks(), max_size=6),
    cut=st.integers(min_value=0, max_value=2000),
    last=st.sampled_from([b"", b"data: a", b"data: a\n", b": x\n", b"\n", b"id: 1\n"]),
)
def test_blocks_cut_together_are_those_cut_byte_by_byte(
    blocks: list[bytes], cut: int, last: bytes
) -> None:
    stream = b"".join(blocks) + last
    whole, single = SseDecoder(10**6), SseDecoder(10**6)
    together = whole.feed(stream[:cut]) + whole.feed(stream[cut:])
    apart = [block for byte in stream for block in single.feed(bytes([byte]))]
    assert together == apart
    assert whole.has_fragment == single.has_fragment
