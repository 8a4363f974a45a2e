"""The log tells of an alert when it begins, when it gets worse, and when it is over."""

from __future__ import annotations

import logging

import pytest

from gateway.telemetry.alarm import EVERY_S, Alarm
from gateway.telemetry.health import Alert, Severity

WARNING = Alert("memory", Severity.WARNING, "Memory has grown.", 120, 100)
WORSE = Alert("memory", Severity.CRITICAL, "Memory has grown.", 220, 200)
OTHER = Alert("store", Severity.WARNING, "The database is away.", 1, 0)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "sluice.health")
    return caplog


def told(lines: pytest.LogCaptureFixture) -> list[tuple[str, str, str | None]]:
    return [
        (line.message, vars(line)["alert"], vars(line).get("severity")) for line in lines.records
    ]


def test_each_change_is_told_once(lines: pytest.LogCaptureFixture) -> None:
    alarm = Alarm()
    for found in ([], [WARNING], [WARNING], [WORSE, OTHER], [WORSE, OTHER], [OTHER], []):
        alarm.look(found, 0)
    assert told(lines) == [
        ("alert.raised", "memory", "warning"),
        ("alert.raised", "memory", "critical"),
        ("alert.raised", "store", "warning"),
        ("alert.cleared", "memory", None),
        ("alert.cleared", "store", None),
    ]


def test_line_says_what_was_measured(lines: pytest.LogCaptureFixture) -> None:
    Alarm().look([WORSE], 0)
    (line,) = lines.records
    assert (vars(line)["value"], vars(line)["threshold"]) == (220, 200)
    assert line.levelno == logging.WARNING


def test_it_looks_every_few_seconds_and_no_more() -> None:
    alarm = Alarm()
    assert alarm.is_due(100)
    alarm.look([], 100)
    assert not alarm.is_due(100 + EVERY_S - 0.1)
    assert alarm.is_due(100 + EVERY_S)
