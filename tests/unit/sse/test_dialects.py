"""What the dialects ask, what they make of odd events, and how they tell of an error."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UpstreamError,
)
from gateway.settings import Settings
from gateway.sse.decoder import SseDecoder, block_data, block_event
from gateway.sse.dialects import DIALECTS, provider_dialect
from gateway.sse.dialects.base import Dialect, Verdict
from gateway.sse.event import (
    End,
    Failure,
    Finish,
    Message,
    Prompt,
    Signal,
    Sources,
    Text,
    ToolCall,
    Usage,
)

COMPLETIONS = provider_dialect("/v1/completions")
assert COMPLETIONS is not None
ALL = [*DIALECTS.values(), COMPLETIONS]
each_dialect = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
PROMPT = Prompt(
    "Why?",
    history=(Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Ho")),
    conversation_id="c1",
    user_email="a@b.c",
    model="m",
    max_tokens=7,
)
MALFORMED = Failure("The backend sent an event that isn't JSON.", "malformed_event")


def data(payload: object) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(payload)


def translate(name: str, *blocks: bytes) -> list[Signal]:
    translator = DIALECTS[name].translator()
    return [signal for block in blocks for signal in translator.feed(block)]


def watch(name: str, *blocks: bytes) -> Verdict | None:
    watcher = DIALECTS[name].watcher()
    *others, last = [watcher.see(block) for block in blocks]
    assert not any(others)
    return last


class TestRegistry:
    def test_every_dialect_of_the_setting_exists(self) -> None:
        schema = Settings.model_json_schema()["properties"]["upstream_dialect"]
        assert set(DIALECTS) == set(schema["enum"])

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("/v1/chat/completions", "openai"),
            ("/v1/completions", "openai-completions"),
            ("/v1/responses", "openai-responses"),
            ("/v1/messages", "anthropic"),
        ],
    )
    def test_generation_path_has_its_dialect(self, path: str, name: str) -> None:
        dialect = provider_dialect(path)
        assert dialect is not None
        assert dialect.name == name

    @pytest.mark.parametrize("path", ["/v1/models", "/v1/messages/", "/v1/messages/count_tokens"])
    def test_other_path_has_none(self, path: str) -> None:
        assert provider_dialect(path) is None

    def test_dialects_know_their_paths_and_types(self) -> None:
        assert {name: dialect.chat_path for name, dialect in DIALECTS.items()} == {
            "openai": "/v1/chat/completions",
            "openai-responses": "/v1/responses",
            "anthropic": "/v1/messages",
            "ollama": "/api/chat",
            "rag": "/chat/stream",
        }
        assert DIALECTS["openai"].stream_types == {"text/event-stream"}
        assert "application/x-ndjson" in DIALECTS["ollama"].stream_types


class TestRequest:
    TURNS = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "Why?"},
    )

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            (
                "openai",
                {
                    "model": "m",
                    "messages": [*TURNS],
                    "max_tokens": 7,
                    "stream": True,
                    "stream_options": {"include_usage": True},
                },
            ),
            (
                "openai-responses",
                {"model": "m", "input": [*TURNS], "max_output_tokens": 7, "stream": True},
            ),
            (
                "anthropic",
                {
                    "model": "m",
                    "system": "Be brief.",
                    "messages": [*TURNS[1:]],
                    "max_tokens": 7,
                    "stream": True,
                },
            ),
            (
                "ollama",
                {
                    "model": "m",
                    "messages": [*TURNS],
                    "options": {"num_predict": 7},
                    "stream": True,
                },
            ),
            (
                "rag",
                {
                    "query": "Why?",
                    "user_email": "a@b.c",
                    "conversation_history": [*TURNS[:3]],
                    "conversation_id": "c1",
                    "stream": True,
                },
            ),
        ],
    )
    def test_prompt_becomes_the_request_of_the_dialect(
        self, name: str, expected: dict[str, object]
    ) -> None:
        assert orjson.loads(DIALECTS[name].request_body(PROMPT)) == expected

    @each_dialect
    def test_what_is_not_known_is_left_out(self, dialect: Dialect) -> None:
        request = orjson.loads(dialect.request_body(Prompt("Why?")))
        assert "model" not in request
        assert None not in request.values()
        assert request["stream"] is True

    def test_anthropic_always_gets_the_limit_that_it_demands(self) -> None:
        request = orjson.loads(DIALECTS["anthropic"].request_body(Prompt("Why?")))
        assert request["max_tokens"] == 4096
        assert "system" not in request

    @each_dialect
    def test_credential_stands_where_the_dialect_has_it(self, dialect: Dialect) -> None:
        headers = dialect.request_headers("k")
        assert headers["Content-Type"] == "application/json"
        is_lines = dialect.name == "ollama"
        assert headers["Accept"] == ("application/x-ndjson" if is_lines else "text/event-stream")
        if dialect.name == "anthropic":
            assert headers["x-api-key"] == "k"
            assert headers["anthropic-version"] == "2023-06-01"
            assert "Authorization" not in headers
        else:
            assert headers["Authorization"] == "Bearer k"

    @each_dialect
    @pytest.mark.parametrize("key", [None, ""])
    def test_without_a_key_there_is_no_credential(self, dialect: Dialect, key: str | None) -> None:
        assert not {"Authorization", "x-api-key"} & set(dialect.request_headers(key))


class TestOddEvents:
    @pytest.mark.parametrize("name", ["openai", "openai-responses", "anthropic"])
    @pytest.mark.parametrize(
        "block",
        [
            b"data: {\n\n",
            b'data: {"a":"\xff"}\n\n',
            b"data: " + b"[" * 100_000 + b"]" * 100_000 + b"\n\n",
            b'data: {"\\u0061":' * 5000 + b"\n\n",
            b'data: ["NaN", \n\n',
        ],
    )
    def test_what_is_no_json_is_a_failure(self, name: str, block: bytes) -> None:
        assert translate(name, block) == [MALFORMED]

    @pytest.mark.parametrize("line", [b"{", b'{"a":"\xff"}', b"[" * 100_000, b"not json"])
    def test_line_that_is_no_json_is_a_failure(self, line: bytes) -> None:
        assert translate("ollama", line) == [MALFORMED]
        assert watch("ollama", line + b'"error"') is None

    @pytest.mark.parametrize("name", sorted(DIALECTS))
    @pytest.mark.parametrize(
        "payload",
        [
            None,
            1,
            [],
            {},
            {"choices": None},
            {"choices": [None, {"delta": 5}, {"delta": {"content": 7, "tool_calls": [3]}}]},
            {"choices": [{"index": -1, "finish_reason": 4}], "usage": [1]},
            {"type": ["a"], "message": 3},
            {"type": "response.completed", "response": {"usage": {"input_tokens": True}}},
            {"type": "response.failed", "response": None},
            {"type": "content_block_delta", "delta": {"text": {}}},
            {"type": "message_delta", "delta": None, "usage": "x"},
            {"message": {"tool_calls": [None, {"function": 3}]}, "done": "yes"},
            {"error": None, "sources": 5},
        ],
    )
    def test_json_of_the_wrong_shape_raises_nothing(self, name: str, payload: object) -> None:
        block = data(payload) if name != "ollama" else orjson.dumps(payload)
        DIALECTS[name].translator().feed(block)
        DIALECTS[name].watcher().see(block)
        DIALECTS[name].summarise([block])

    @each_dialect
    @given(block=st.binary(max_size=60))
    def test_no_bytes_raise_anything(self, dialect: Dialect, block: bytes) -> None:
        for odd in (block, b"data: " + block + b"\n\n", b'data: {"error"' + block + b"\n\n"):
            dialect.translator().feed(odd)
            dialect.watcher().see(odd)
            dialect.summarise([odd])
            dialect.error_block(Unavailable("x"), "t", [odd])

    @pytest.mark.parametrize("name", ["openai", "openai-responses", "anthropic"])
    def test_empty_data_and_unknown_events_say_nothing(self, name: str) -> None:
        assert translate(name, b"data\n\n", b"data:\n\n", b'event: x\ndata: {"a":1}\n\n') == []

    def test_half_a_surrogate_pair_becomes_a_replacement_character(self) -> None:
        block = b'data: {"choices":[{"delta":{"content":"a\\ud83d"}}]}\n\n'
        assert translate("openai", block) == [Text("a\ufffd")]

    def test_numbers_that_only_python_writes_are_read(self) -> None:
        block = b'data: {"choices":[{"delta":{"content":"a"},"logprobs":[-Infinity, NaN]}]}\n\n'
        assert translate("openai", block) == [Text("a")]

    def test_long_message_of_a_backend_is_shortened(self) -> None:
        [failure] = translate("openai", data({"error": {"message": "x" * 5000, "code": None}}))
        assert isinstance(failure, Failure)
        assert len(failure.message) == 1000

    def test_garbage_between_good_blocks_costs_only_itself(self) -> None:
        good = [data({"choices": [{"delta": {"content": text}}]}) for text in "ab"]
        summary = DIALECTS["openai"].summarise([good[0], b"data: {\xff\n\n", b"", good[1]])
        assert (summary.text, summary.chunks) == ("ab", 2)

    def test_invalid_utf8_in_a_text_is_replaced_in_the_summary(self) -> None:
        block = b'data: {"choices":[{"delta":{"content":"a\xffb"}}]}\n\n'
        assert DIALECTS["openai"].summarise([block]).text == "a\ufffdb"


class TestOpenAI:
    def test_verdict_regards_every_choice(self) -> None:
        blocks = [
            data({"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]}),
            data({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
        ]
        assert watch("openai", *blocks, b"data: [DONE]\n\n") is Verdict.INCOMPLETE

    def test_done_counts_only_at_the_start_of_the_data(self) -> None:
        assert watch("openai", data({"choices": [{"delta": {"content": "[DONE]"}}]})) is None
        assert watch("openai", b"data:[DONE]\n\n") is Verdict.COMPLETE
        assert (
            watch("openai", b"id: x.1\r\nevent: done\r\ndata: [DONE]\r\n\r\n") is Verdict.COMPLETE
        )

    @pytest.mark.parametrize(
        "payload",
        [
            {"choices": [{"delta": {"content": '"error"'}}]},
            {"choices": [{"delta": {"content": 'data: {"error": {}}'}}]},
            {"choices": [{"delta": {"content": "error"}, "finish_reason": "error"}]},
            {"error": None, "choices": []},
            {"choices": [{"delta": {"tool_calls": [{"error": 1}]}}]},
        ],
    )
    def test_error_that_is_not_at_the_top_is_none(self, payload: object) -> None:
        assert watch("openai", data(payload)) is None

    def test_usage_may_ride_on_any_chunk(self) -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": None}
        assert translate("openai", data({"choices": [], "usage": usage})) == [Usage(3, None)]

    def test_older_function_call_is_a_tool_call(self) -> None:
        delta = {"function_call": {"name": "f", "arguments": "{"}}
        assert translate("openai", data({"choices": [{"delta": delta}]})) == [
            ToolCall(0, name="f", arguments="{")
        ]


class TestOrdinaryBlocks:
    @pytest.mark.parametrize(
        ("name", "block"),
        [
            (
                "openai",
                data({"choices": [{"delta": {"content": 'an "error"'}, "finish_reason": None}]}),
            ),
            (
                "openai-responses",
                b"event: response.output_text.delta\n"
                + data(
                    {"type": "response.output_text.delta", "delta": '"error" response.completed'}
                ),
            ),
            (
                "openai-responses",
                data({"type": "response.output_text.delta", "delta": '"response.completed"'}),
            ),
            (
                "anthropic",
                b"event: content_block_delta\n"
                + data(
                    {"type": "content_block_delta", "delta": {"text": '"message_stop" "error"'}}
                ),
            ),
            (
                "ollama",
                orjson.dumps({"message": {"content": '"error" "done":true'}, "done": False}),
            ),
            ("rag", data({"content": 'an "error", "done": true', "done": False})),
        ],
    )
    def test_ordinary_block_is_not_decoded(
        self, name: str, block: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: bytes) -> object:
            pytest.fail("an ordinary block was decoded")

        monkeypatch.setattr("gateway.sse.dialects.fields.load", refuse)
        assert watch(name, block) is None


class TestTypedEvents:
    def test_event_line_alone_tells_the_end(self) -> None:
        assert (
            watch("openai-responses", b"event: response.completed\ndata: {}\n\n")
            is Verdict.COMPLETE
        )
        assert watch("anthropic", b"event: message_stop\ndata: {}\n\n") is Verdict.COMPLETE

    def test_data_alone_tells_the_end(self) -> None:
        for kind, verdict in (
            ("response.incomplete", Verdict.INCOMPLETE),
            ("response.failed", Verdict.FAILED),
            ("error", Verdict.BROKEN),
        ):
            assert watch("openai-responses", data({"type": kind})) is verdict
        delta = data({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}})
        assert watch("anthropic", delta, data({"type": "message_stop"})) is Verdict.INCOMPLETE
        assert watch("anthropic", data({"type": "error", "error": {}})) is Verdict.BROKEN

    def test_bare_error_object_is_a_failure_on_responses(self) -> None:
        assert watch("openai-responses", data({"error": {"message": "x"}})) is Verdict.BROKEN
        assert translate("openai-responses", data({"error": {"message": "x"}})) == [Failure("x")]

    def test_cancelled_response_is_incomplete(self) -> None:
        event = data({"type": "response.cancelled", "response": {"status": "cancelled"}})
        assert translate("openai-responses", event) == [Finish("cancelled", complete=False), End()]
        assert watch("openai-responses", event) is Verdict.INCOMPLETE


class TestRag:
    @pytest.mark.parametrize("name", ["content", "text", "token", "delta", "answer"])
    def test_text_stands_under_any_of_its_names(self, name: str) -> None:
        assert translate("rag", data({"other": "x", name: "a"})) == [Text("a")]

    def test_first_of_the_names_wins(self) -> None:
        assert translate("rag", data({"answer": "b", "content": "a"})) == [Text("a")]

    @pytest.mark.parametrize("event", ["complete", "done", "end"])
    def test_closing_event_that_repeats_the_answer_adds_none(self, event: str) -> None:
        last = f"event: {event}\n".encode() + data({"answer": "ab"})
        assert translate("rag", data({"text": "a"}), data({"text": "b"}), last) == [
            Text("a"),
            Text("b"),
            End(),
        ]

    def test_closing_event_that_alone_has_the_answer_gives_it(self) -> None:
        last = b"event: complete\n" + data({"answer": "ab", "sources": [1]})
        assert translate("rag", last) == [Text("ab"), Sources([1]), End()]

    @pytest.mark.parametrize("body", [b"", b"ok", b"{}", b"null"])
    def test_closing_event_may_say_nothing(self, body: bytes) -> None:
        block = b"event: end\ndata: " + body + b"\n\n"
        assert translate("rag", block) == [End()]
        assert watch("rag", block) is Verdict.COMPLETE

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (b"Hi", "Hi"),
            (b"42", "42"),
            (b"{", "{"),
            (b"[1]", "[1]"),
            (b'"a\\n"', "a\n"),
            (b" a", "a"),
        ],
    )
    def test_data_that_is_no_object_is_the_text(self, body: bytes, text: str) -> None:
        assert translate("rag", b"data:" + body + b"\n\n") == [Text(text)]

    @pytest.mark.parametrize("body", [b'{"content": "a', b"a\xff"])
    def test_broken_object_or_text_is_a_failure(self, body: bytes) -> None:
        [failure] = translate("rag", b"data: " + body + b"\n\n")
        assert isinstance(failure, Failure)
        assert failure.code == "malformed_event"

    @pytest.mark.parametrize(
        "body", [b"boom", b'{"message":"boom"}', b'{"error":"boom"}', b'"boom"']
    )
    def test_error_event_is_a_failure_whatever_its_data(self, body: bytes) -> None:
        block = b"event: error\ndata: " + body + b"\n\n"
        assert translate("rag", block) == [Failure("boom")]
        assert watch("rag", block) is Verdict.BROKEN

    def test_sources_too_deep_to_be_written_again_are_a_failure(self) -> None:
        deep = b'data: {"sources":' + b"[" * 600 + b"]" * 600 + b"}\n\n"
        [failure] = translate("rag", deep)
        assert isinstance(failure, Failure)

    def test_done_within_a_source_is_not_the_end(self) -> None:
        block = data({"content": "a", "sources": [{"done": True}]})
        assert watch("rag", block) is None
        assert End() not in translate("rag", block)


ERRORS = [
    (BadRequest("m"), "invalid_request_error"),
    (BadRequest("m", status=422), "invalid_request_error"),
    (BadRequest("m", status=413), "request_too_large"),
    (Unauthorized("m"), "authentication_error"),
    (Forbidden("m"), "permission_error"),
    (NotFound("m"), "not_found_error"),
    (TooManyRequests("m"), "rate_limit_error"),
    (Unavailable("m"), "overloaded_error"),
    (UpstreamError("m"), "api_error"),
    (UpstreamError("m", code="upstream_timeout", status=504), "timeout_error"),
    (GatewayError("m"), "api_error"),
]


class TestErrors:
    ERROR = UpstreamError('it "broke"\n', code="upstream_idle")

    @each_dialect
    def test_error_block_is_one_whole_event_that_the_dialect_takes_for_an_error(
        self, dialect: Dialect
    ) -> None:
        written = dialect.error_block(self.ERROR, "trace-1", [])
        blocks = dialect.decoder(1 << 20).feed(written)
        assert len(blocks) == 1
        assert dialect.watcher().see(blocks[0]) is Verdict.BROKEN
        [failure] = dialect.translator().feed(blocks[0])
        assert isinstance(failure, Failure)
        assert failure.message == self.ERROR.message
        assert b"trace-1" in written
        assert b"upstream_idle" in written

    def test_openai_error_has_the_documented_members(self) -> None:
        expected = {
            "error": {
                "message": "no",
                "type": "invalid_request_error",
                "code": "bad_cursor",
                "param": "query",
                "trace_id": "t",
            }
        }
        error = BadRequest("no", code="bad_cursor", param="query")
        assert DIALECTS["openai"].error_body(error, "t") == expected
        block = DIALECTS["openai"].error_block(error, "t", [])
        assert block == b"data: " + orjson.dumps(expected) + b"\n\n"

    @pytest.mark.parametrize(("error", "kind"), ERRORS)
    def test_anthropic_hears_its_own_words(self, error: GatewayError, kind: str) -> None:
        assert DIALECTS["anthropic"].error_body(error, "t") == {
            "type": "error",
            "error": {"type": kind, "message": "m", "code": error.code, "param": None},
            "trace_id": "t",
        }

    def test_anthropic_error_is_a_named_event(self) -> None:
        block = DIALECTS["anthropic"].error_block(self.ERROR, "t", [])
        assert block_event(block) == b"error"
        assert orjson.loads(block_data(block)) == DIALECTS["anthropic"].error_body(self.ERROR, "t")

    def test_responses_error_goes_on_with_the_numbers(self) -> None:
        blocks = [
            b"id: s.1\nevent: a\n" + data({"sequence_number": 41}),
            b"data: {\n\n",
            data({"no": 1}),
        ]
        block = DIALECTS["openai-responses"].error_block(self.ERROR, "t", iter(blocks))
        event = orjson.loads(block_data(block))
        assert block_event(block) == b"error"
        assert event["type"] == "error"
        assert event["sequence_number"] == 42
        assert (event["code"], event["message"]) == ("upstream_idle", 'it "broke"\n')
        first = DIALECTS["openai-responses"].error_block(self.ERROR, "t", [])
        assert orjson.loads(block_data(first))["sequence_number"] == 0

    def test_ollama_error_is_a_line(self) -> None:
        line = DIALECTS["ollama"].error_block(self.ERROR, "t", [])
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert orjson.loads(line)["error"] == 'it "broke"\n'


@given(st.text())
def test_no_text_of_a_model_ends_a_stream_or_is_lost(text: str) -> None:
    chunk = json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=False)
    blocks = SseDecoder(1 << 20).feed(f"data: {chunk}\n\n".encode())
    assert watch("openai", *blocks) is None
    assert DIALECTS["openai"].summarise(blocks).text == text
