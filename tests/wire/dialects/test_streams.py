"""Whole streams of each provider, as exact bytes: what is said, how it ends, what a cut-off costs.

The files under `streams/` are written after the providers' published event formats, with the
traps that their texts may hold (a quoted `[DONE]`, an event's name, U+2028).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.sse.dialects import DIALECTS, provider_dialect
from gateway.sse.dialects.base import Dialect, Verdict
from gateway.sse.event import (
    End,
    Failure,
    Finish,
    Signal,
    Sources,
    Text,
    ToolCall,
    Usage,
)

STREAMS = Path(__file__).parent / "streams"
GREETING = 'Grüße aus\u2028Łódź "[DONE]" 👋🏽'
RESPONSE = 'Wait for response.completed and "type":"response.completed" …'
HELLO = 'Hello! event: message_stop "message_stop" \u0085 ok'
COMPLETE, INCOMPLETE = Verdict.COMPLETE, Verdict.INCOMPLETE
FAILED, BROKEN = Verdict.FAILED, Verdict.BROKEN
WEATHER = {"name": "get_weather", "arguments": '{"city":"Paris"}'}


@dataclass(frozen=True)
class Case:
    file: str
    verdict: Verdict
    text: str
    last: tuple[Signal, ...]  # the signals that are no text and no piece of a tool call
    tool_calls: tuple[dict[str, object], ...] = ()

    @property
    def data(self) -> bytes:
        return (STREAMS / self.file).read_bytes()

    @property
    def dialect(self) -> Dialect:
        if self.file.startswith("openai_completions"):
            dialect = provider_dialect("/v1/completions")
            assert dialect is not None
            return dialect
        names = {"openai_chat": "openai", "openai_responses": "openai-responses"}
        found = next((name for start, name in names.items() if self.file.startswith(start)), None)
        return DIALECTS[found or self.file.partition("_")[0].partition(".")[0]]


def chat(file: str, verdict: Verdict, *last: Signal, text: str = GREETING) -> Case:
    return Case(f"openai_chat{file}.sse", verdict, text, last)


def responses(file: str, verdict: Verdict, *last: Signal, text: str = RESPONSE) -> Case:
    return Case(f"openai_responses{file}.sse", verdict, text, last)


def anthropic(file: str, verdict: Verdict, *last: Signal, text: str = HELLO) -> Case:
    return Case(f"anthropic{file}.sse", verdict, text, (Usage(25, 1), *last))


CHAT_USAGE = Usage(13, 5)
RESPONSE_END = (Usage(37, 11), Finish("completed", complete=True), End())
CASES = [
    chat("", COMPLETE, Finish("stop", complete=True), CHAT_USAGE, End()),
    chat("_crlf", COMPLETE, Finish("stop", complete=True), End()),
    chat("_length", INCOMPLETE, Finish("length", complete=False), CHAT_USAGE, End()),
    chat("_content_filter", INCOMPLETE, Finish("content_filter", complete=False), End()),
    chat(
        "_refusal",
        COMPLETE,
        Finish("stop", complete=True),
        End(),
        text="I can't help with that.",
    ),
    chat(
        "_error",
        BROKEN,
        Failure("The server had an error while processing your request.", "server_error"),
    ),
    chat("_error_event", BROKEN, Failure("out of memory", "500")),
    Case(
        "openai_chat_tools.sse",
        COMPLETE,
        "",
        (Finish("tool_calls", complete=True), CHAT_USAGE, End()),
        (
            {"id": "call_Dq1", **WEATHER},
            {"id": "call_Dq2", "name": "get_time", "arguments": '{"error": "done"}'},
        ),
    ),
    Case(
        "openai_completions.sse",
        COMPLETE,
        "Once upon a time",
        (Finish("stop", complete=True), Usage(2, 3), End()),
    ),
    Case(
        "openai_completions_length.sse",
        INCOMPLETE,
        "Once upon a time.",
        (Finish("length", complete=False), End()),
    ),
    Case(
        "openai_completions_error.sse",
        BROKEN,
        "Once upon a time",
        (Failure("Overloaded.", "server_error"),),
    ),
    responses("", COMPLETE, *RESPONSE_END),
    responses("_crlf", COMPLETE, *RESPONSE_END),
    responses("_without_event_lines", COMPLETE, *RESPONSE_END),
    responses(
        "_incomplete",
        INCOMPLETE,
        Usage(37, 11),
        Finish("max_output_tokens", complete=False),
        End(),
    ),
    responses(
        "_failed", FAILED, Failure("The model failed to generate a response.", "server_error")
    ),
    responses("_error", BROKEN, Failure("Rate limit reached.", "rate_limit_exceeded")),
    responses("_refusal", COMPLETE, *RESPONSE_END, text="I can't do that."),
    Case(
        "openai_responses_tools.sse",
        COMPLETE,
        "",
        RESPONSE_END,
        ({"id": "call_9x", **WEATHER},),
    ),
    anthropic("", COMPLETE, Usage(None, 15), Finish("end_turn", complete=True), End()),
    anthropic("_crlf", COMPLETE, Usage(None, 15), Finish("end_turn", complete=True), End()),
    anthropic(
        "_max_tokens", INCOMPLETE, Usage(None, 15), Finish("max_tokens", complete=False), End()
    ),
    anthropic("_refusal", INCOMPLETE, Usage(None, 15), Finish("refusal", complete=False), End()),
    anthropic(
        "_thinking",
        COMPLETE,
        Usage(None, 15),
        Finish("end_turn", complete=True),
        End(),
        text="42",
    ),
    anthropic("_error", BROKEN, Failure("Overloaded", "overloaded_error"), text="Hello"),
    Case(
        "anthropic_tools.sse",
        COMPLETE,
        "Let me look.",
        (Usage(25, 1), Usage(None, 15), Finish("tool_use", complete=True), End()),
        ({"id": "toolu_01T1", "name": "get_weather", "arguments": '{"city": "Paris"}'},),
    ),
    Case(
        "ollama.ndjson",
        COMPLETE,
        'The sky\n "done":true',
        (Usage(26, 282), Finish("stop", complete=True), End()),
    ),
    Case(
        "ollama_length.ndjson",
        INCOMPLETE,
        'The sky\n "done":true',
        (Usage(26, 282), Finish("length", complete=False), End()),
    ),
    Case(
        "ollama_error.ndjson",
        BROKEN,
        'The sky\n "done":true',
        (Failure("an error was encountered while running the model: unexpected EOF"),),
    ),
    Case(
        "ollama_tools.ndjson",
        COMPLETE,
        "",
        (Usage(26, 282), Finish("stop", complete=True), End()),
        (
            {"id": "", "name": "get_weather", "arguments": '{"city":"Paris","done":true}'},
            {"id": "", "name": "get_time", "arguments": "{}"},
        ),
    ),
    Case(
        "rag.sse",
        COMPLETE,
        "According to the rules [1]",
        (
            Sources(
                [{"id": "doc-7", "title": "Visa rules", "score": 0.91}, "https://example.com/visa"]
            ),
            Usage(90, 6),
            End(),
        ),
    ),
    Case(
        "rag_done_flag.sse",
        COMPLETE,
        "Hello!",
        (
            Sources(
                [{"id": "doc-7", "title": "Visa rules", "score": 0.91}, "https://example.com/visa"]
            ),
            End(),
        ),
    ),
    Case("rag_plain_text.sse", COMPLETE, "Hello worlda\nb", (End(),)),
    Case("rag_error.sse", BROKEN, "Hel", (Failure("index unavailable", "no_index"),)),
    Case("rag_error_key.sse", BROKEN, "Hel", (Failure("index unavailable"),)),
    Case("rag_length.sse", INCOMPLETE, "Hel", (Finish("length", complete=False), End())),
]
each_stream = pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)


def blocks_of(case: Case, data: bytes) -> list[bytes]:
    return case.dialect.decoder(1 << 20).feed(data)


def signals_of(case: Case, data: bytes) -> list[Signal]:
    translator = case.dialect.translator()
    return [signal for block in blocks_of(case, data) for signal in translator.feed(block)]


def verdicts_of(case: Case, data: bytes) -> list[Verdict | None]:
    watcher = case.dialect.watcher()
    return [watcher.see(block) for block in blocks_of(case, data)]


def test_every_stream_on_file_has_its_case() -> None:
    files = {path.name for path in STREAMS.iterdir() if path.suffix in (".sse", ".ndjson")}
    assert files == {case.file for case in CASES}


@each_stream
def test_stream_is_translated(case: Case) -> None:
    signals = signals_of(case, case.data)
    text = "".join(signal.content for signal in signals if isinstance(signal, Text))
    assert text == case.text
    rest = [signal for signal in signals if not isinstance(signal, Text | ToolCall)]
    assert rest == list(case.last)


@each_stream
def test_refusals_are_marked(case: Case) -> None:
    texts = [signal for signal in signals_of(case, case.data) if isinstance(signal, Text)]
    is_refusal = case.file.startswith("openai") and "refusal" in case.file
    assert all(text.refusal == is_refusal for text in texts)


@each_stream
def test_only_the_terminal_block_gets_a_verdict(case: Case) -> None:
    *others, last = verdicts_of(case, case.data)
    assert last is case.verdict
    assert not any(others)


@each_stream
def test_stream_cut_off_anywhere_has_neither_verdict_nor_end(case: Case) -> None:
    data = case.data
    end = len(data) - (1 if data.endswith(b"\r\n") else 0)  # a CR ends the last line already
    for offset in range(end):
        assert not any(verdicts_of(case, data[:offset])), offset
        cut = signals_of(case, data[:offset])
        assert not any(isinstance(signal, End | Failure) for signal in cut), offset


@each_stream
def test_stream_is_summed_up(case: Case) -> None:
    summary = case.dialect.summarise(blocks_of(case, case.data))
    texts = [signal for signal in signals_of(case, case.data) if isinstance(signal, Text)]
    assert summary.text == case.text
    assert summary.chunks == len(texts)
    assert summary.tool_calls == list(case.tool_calls)
    assert summary.finish == next((s for s in case.last if isinstance(s, Finish)), None)
    assert (summary.usage is None) == (not any(isinstance(s, Usage) for s in case.last))


@each_stream
def test_event_ids_in_front_of_the_blocks_change_no_summary(case: Case) -> None:
    blocks = blocks_of(case, case.data)
    marked = [b"id: AAAAAAAAAAAAAAAA.%d\n%b" % (seq, block) for seq, block in enumerate(blocks, 1)]
    assert case.dialect.summarise(marked) == case.dialect.summarise(blocks)


@each_stream
def test_bytes_of_the_events_are_unchanged(case: Case) -> None:
    data = case.data
    if case.file == "openai_chat_crlf.sse":
        data = data.removeprefix(b": OPENROUTER PROCESSING\r\n\r\n")
    end = b"\n" if case.file.endswith(".ndjson") else b""
    assert b"".join(block + end for block in blocks_of(case, case.data)) == data


@each_stream
@pytest.mark.parametrize("eol", [b"\r\n", b"\r"])
def test_other_line_ends_say_the_same(case: Case, eol: bytes) -> None:
    if case.file.endswith(".ndjson"):
        return
    data = case.data.replace(b"\r\n", b"\n").replace(b"\n", eol)
    assert signals_of(case, data) == signals_of(case, case.data)
    assert verdicts_of(case, data) == verdicts_of(case, case.data)
