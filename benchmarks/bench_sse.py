"""What a backend's bytes cost: the decoder at several sizes of chunk, and each dialect."""

from __future__ import annotations

import pytest

from benchmarks.answers import DIALECT_NAMES, long_answer
from benchmarks.conftest import Measure

_MAX_BYTES = 1 << 20


@pytest.mark.parametrize("chunk_bytes", [64, 1024, 16 * 1024, 256 * 1024])
def bench_decoder(measure: Measure, chunk_bytes: int) -> None:
    answer = long_answer("openai")
    body = answer.body
    chunks = [body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes)]

    def decode() -> None:
        decoder = answer.dialect.decoder(_MAX_BYTES)
        for chunk in chunks:
            decoder.feed(chunk)

    measure(decode, "block", len(answer.blocks))


def bench_decoder_event_by_event(measure: Measure) -> None:
    answer = long_answer("openai")

    def decode() -> None:
        decoder = answer.dialect.decoder(_MAX_BYTES)
        for block in answer.blocks:
            decoder.feed(block)

    measure(decode, "block", len(answer.blocks))


@pytest.mark.parametrize("name", DIALECT_NAMES)
def bench_watcher(measure: Measure, name: str) -> None:
    answer = long_answer(name)

    def watch() -> None:
        watcher = answer.dialect.watcher()
        for block in answer.blocks:
            watcher.see(block)

    measure(watch, "block", len(answer.blocks))


@pytest.mark.parametrize("name", DIALECT_NAMES)
def bench_translator(measure: Measure, name: str) -> None:
    answer = long_answer(name)

    def translate() -> None:
        translator = answer.dialect.translator()
        for block in answer.blocks:
            translator.feed(block)

    measure(translate, "block", len(answer.blocks))
