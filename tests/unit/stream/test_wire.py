"""The two wires: what blocks become, how an ending is told, and what a heartbeat is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sse.dialects import DIALECTS
from gateway.stream.model import (
    CLIENT_GONE,
    COMPLETED,
    DURATION_CAP,
    INCOMPLETE,
    Ending,
    StreamId,
    error_ending,
)
from gateway.stream.wires.base import Beat, estimate_tokens
from gateway.stream.wires.provider import ProviderWire
from gateway.stream.wires.typed import TypedWire
from tests.backend import CHAT_STREAM, blocks

_BEAT = Beat(timestamp=1.5, uptime_s=2.0, remaining_s=None, count=3)
_FAILED = b'data: {"error":{"message":"no"}}\n\n'


def _typed(dialect: str = "openai", max_duration_s: float = 60) -> TypedWire:
    return TypedWire(
        DIALECTS[dialect],
        stream_id=StreamId("AAAAAAAAAAAAAAAA"),
        trace_id="t",
        conversation_id=None,
        max_duration_s=max_duration_s,
    )


def _provider() -> ProviderWire:
    return ProviderWire(DIALECTS["openai"], trace_id="t")


def _data(event: bytes | None) -> dict[str, Any]:
    assert event is not None
    return dict(json.loads(event.partition(b"data: ")[2]))


def _chat(delta: dict[str, object], finish: str | None = None) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def test_typed_stream_opens_with_its_retry_and_its_ids() -> None:
    begin = _typed().begin()
    assert begin is not None
    assert begin.startswith(b"retry: 2000\nevent: start\ndata: {")
    assert _data(begin) == {
        "stream_id": "AAAAAAAAAAAAAAAA",
        "trace_id": "t",
        "conversation_id": None,
        "max_duration": 60,
    }


def test_blocks_become_numbered_chunks_and_the_end_is_noticed() -> None:
    wire = _typed()
    events = wire.feed(blocks(CHAT_STREAM))
    assert [_data(event)["index"] for event in events] == [0, 1, 2, 3]
    assert wire.ending is COMPLETED
    data = _data(wire.finish(COMPLETED, 1.23456, [])[0])
    assert data == {
        "reason": "completed",
        "duration": 1.235,
        "total_chunks": 4,
        "total_tokens": 4,
        "usage": {"input_tokens": 13, "output_tokens": 4, "total_tokens": 17},
        "trace_id": "t",
        "finish_reason": "stop",
    }


def test_tokens_are_estimated_where_the_backend_counts_none() -> None:
    wire = _typed()
    wire.feed([_chat({"content": "x" * 41})])
    assert wire.total_tokens == estimate_tokens(41) == 11
    assert _data(wire.finish(DURATION_CAP, 1, [])[0])["usage"]["estimated"] is True


def test_nothing_is_said_after_the_end() -> None:
    wire = _typed("rag")
    both = b'event: complete\ndata: {"content":"a"}\n\n'
    assert len(wire.feed([both])) == 1
    assert wire.ending is COMPLETED


def test_length_limit_is_incomplete() -> None:
    wire = _typed()
    wire.feed([_chat({}, "length")])
    assert wire.ending is None
    wire.feed([b"data: [DONE]\n\n"])
    assert wire.ending is INCOMPLETE


def test_pieces_of_tool_calls_are_put_together() -> None:
    wire = _typed()
    for call in (
        {"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a"'}},
        {"index": 1, "id": "c2", "function": {"name": "g", "arguments": ""}},
        {"index": 0, "function": {"arguments": ":1}"}},
    ):
        assert wire.feed([_chat({"tool_calls": [call]})]) == []
    assert _data(wire.finish(COMPLETED, 1, [])[0])["tool_calls"] == [
        {"id": "c1", "name": "f", "arguments": '{"a":1}'},
        {"id": "c2", "name": "g", "arguments": ""},
    ]


def test_error_says_whether_a_part_was_sent() -> None:
    wire = _typed()
    ending = error_ending("upstream_idle")
    assert _data(wire.finish(ending, 1, [])[0])["partial"] is False
    wire.feed([_chat({"content": "a"})])
    assert _data(wire.finish(ending, 1, [])[0]) == {
        "code": "upstream_idle",
        "message": ending.message,
        "retryable": True,
        "partial": True,
        "trace_id": "t",
    }


def test_backends_error_ends_the_stream_in_its_own_words() -> None:
    wire = _typed()
    assert wire.feed([_FAILED]) == []
    assert wire.ending is not None
    assert (wire.ending.reason, wire.ending.message) == ("upstream_error", "no")


def test_typed_heartbeat_without_a_cap_has_no_remaining_time() -> None:
    event = _typed(max_duration_s=0).heartbeat(_BEAT)
    assert event.startswith(b"event: heartbeat\n")
    data = _data(event)
    assert (data["remaining_seconds"], data["max_duration"], data["heartbeat_count"]) == (
        None,
        None,
        3,
    )


def test_providers_blocks_are_the_same_objects() -> None:
    wire = _provider()
    assert wire.begin() is None
    for block in blocks(CHAT_STREAM):
        (sent,) = wire.feed([block])
        assert sent is block
    assert (wire.ending, wire.total_chunks) == (COMPLETED, 8)
    assert wire.finish(COMPLETED, 1, []) == []
    assert wire.ends_cleanly(COMPLETED)
    assert wire.heartbeat(_BEAT) == b":\n"


@pytest.mark.parametrize(
    "ending", [DURATION_CAP, CLIENT_GONE, error_ending("upstream_truncated")], ids=str
)
def test_provider_stream_without_its_end_has_an_error_and_breaks_off(ending: Ending) -> None:
    wire = _provider()
    wire.feed([blocks(CHAT_STREAM)[0]])
    error = _data(wire.finish(ending, 1, [])[0])["error"]
    assert (error["code"], error["trace_id"]) == (ending.reason, "t")
    assert error["message"]
    assert not wire.ends_cleanly(ending)


def test_providers_own_error_is_not_said_twice_but_breaks_off() -> None:
    wire = _provider()
    wire.feed([_FAILED])
    assert wire.ending is not None
    assert wire.ending.reason == "upstream_error"
    assert wire.finish(wire.ending, 1, []) == []
    assert not wire.ends_cleanly(wire.ending)


_ANY = [_chat({"content": "a"}), _chat({}, "stop"), _chat({}, "length"), b"data: [DONE]\n\n"]


@given(blocks=st.lists(st.sampled_from([_ANY[0], _ANY[0], *_ANY, _FAILED]), max_size=12))
def test_blocks_that_come_at_once_end_as_those_that_come_one_by_one(blocks: list[bytes]) -> None:
    at_once, one_by_one = _provider(), _provider()
    events = at_once.feed(blocks) if blocks else []
    said: list[bytes] = []
    for block in blocks:
        if one_by_one.ending is None:
            said += one_by_one.feed([block])
    assert (events, at_once.ending, at_once.total_chunks) == (
        said,
        one_by_one.ending,
        one_by_one.total_chunks,
    )
