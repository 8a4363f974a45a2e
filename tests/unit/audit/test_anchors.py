"""Copies of checkpoints and lines of records reach their places."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from gateway.audit.anchors import Anchors, Places
from gateway.audit.canonical import decode
from tests.unit.audit.history import busy

HISTORY = busy(questions=10)
RECORDS = [entry.record for entry in HISTORY.entries]
NOTE = HISTORY.sign()


async def test_checkpoints_go_to_the_file_the_command_and_standard_output(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    write = f"import sys; open({str(copy)!r}, 'w').write(sys.stdin.read())"
    with (tmp_path / "output").open("wb") as output:
        anchors = Anchors(
            Places(True, False, tmp_path / "file", (sys.executable, "-c", write)),
            output=output.fileno(),
        )
        anchors.checkpoint(NOTE, 7)
        await anchors.close()
    line = json.loads((tmp_path / "file").read_bytes())
    assert line == {"kind": "checkpoint", "ts": 7, "note": str(NOTE)}
    assert (tmp_path / "output").read_bytes() == (tmp_path / "file").read_bytes()
    assert copy.read_text() == str(NOTE)


async def test_place_that_fails_is_told_and_hinders_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    anchors = Anchors(Places(False, False, tmp_path / "no" / "file"))
    anchors.checkpoint(NOTE, 7)
    await anchors.close()
    assert _problems(caplog) == ["FileNotFoundError"]


async def test_queue_that_is_full_is_told_once_until_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    anchors = Anchors(Places(False, False, file))
    for ts in range(1003):
        anchors.checkpoint(NOTE, ts)
    assert _problems(caplog) == ["queue_full"]
    await anchors._tasks.join()
    anchors.checkpoint(NOTE, 1003)
    await anchors.close()
    sent = [json.loads(line)["ts"] for line in file.read_bytes().splitlines()]
    assert sent == [*range(1000), 1003]
    assert _problems(caplog) == ["queue_full"]


def _problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of the copies that failed, in order."""
    assert {record.message for record in caplog.records} <= {"audit.copy_failed"}
    return [getattr(record, "problem", "") for record in caplog.records]


async def test_lines_of_records_hold_no_commitment(tmp_path: Path) -> None:
    read, write = os.pipe()
    anchors = Anchors(Places(True, True), output=write)
    anchors.records(HISTORY.log, RECORDS)
    await anchors.close()
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        lines = [json.loads(line) for line in pipe]
    assert [line["seq"] for line in lines] == list(range(len(RECORDS)))
    assert {"log", "leaf", "type", "ts"} <= lines[0].keys()
    for line, record in zip(lines, RECORDS, strict=True):
        body = decode(record.body)
        assert not line.keys() & {"commit", "nonce", "kid", "stream"}
        assert line["type"] == body["type"]
