"""What raises an alert, and the grade that follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.telemetry.health import MB, Reading, Rules, Severity, Thresholds, alerts, grade
from gateway.telemetry.outcomes import Outcomes

WELL = Reading(
    memory_growth_bytes=10 * MB,
    ended=1000,
    failed=50,
    sessions=89,
    max_sessions=100,
    buffered_bytes=89,
    max_buffered_bytes=100,
)
RULES = Rules()
CASES: list[tuple[dict[str, int | bool], str, Severity]] = [
    ({"memory_growth_bytes": 100 * MB + 1}, "memory", Severity.WARNING),
    ({"memory_growth_bytes": 200 * MB}, "memory", Severity.WARNING),
    ({"memory_growth_bytes": 200 * MB + 1}, "memory", Severity.CRITICAL),
    ({"failed": 51}, "error_rate", Severity.WARNING),
    ({"failed": 100}, "error_rate", Severity.WARNING),
    ({"failed": 101}, "error_rate", Severity.CRITICAL),
    ({"sessions": 90}, "sessions", Severity.WARNING),
    ({"sessions": 100}, "sessions", Severity.CRITICAL),
    ({"buffered_bytes": 90}, "buffers", Severity.WARNING),
    ({"buffered_bytes": 101}, "buffers", Severity.CRITICAL),
    ({"is_store_away": True}, "store", Severity.WARNING),
    ({"is_audit_away": True}, "audit", Severity.WARNING),
    ({"is_audit_away": True, "audit_holds_answers": True}, "audit", Severity.CRITICAL),
]


def names(reading: Reading, rules: Rules = RULES) -> list[tuple[str, Severity]]:
    return [(alert.name, alert.severity) for alert in alerts(reading, rules)]


def test_nothing_is_wrong_up_to_the_thresholds() -> None:
    at_most = replace(WELL, memory_growth_bytes=100 * MB)
    assert names(at_most) == []
    assert grade([]) == "A"


@pytest.mark.parametrize(("change", "name", "severity"), CASES)
def test_each_rule_raises_its_alert_and_no_other(
    change: dict[str, int | bool], name: str, severity: Severity
) -> None:
    assert names(replace(WELL, **change)) == [(name, severity)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "A"),
        ({"is_store_away": True}, "B"),
        ({"is_store_away": True, "failed": 60}, "C"),
        ({"is_store_away": True, "failed": 60, "sessions": 95}, "C"),
        ({"failed": 500}, "D"),
        ({"failed": 500, "is_store_away": True}, "D"),
        ({"failed": 500, "sessions": 100}, "F"),
    ],
)
def test_grade_follows_from_the_alerts(change: dict[str, int | bool], expected: str) -> None:
    assert grade(alerts(replace(WELL, **change), RULES)) == expected  # type: ignore[arg-type]


def test_critical_alerts_come_first() -> None:
    found = names(replace(WELL, memory_growth_bytes=150 * MB, failed=900))
    assert found == [("error_rate", Severity.CRITICAL), ("memory", Severity.WARNING)]


def test_few_streams_make_no_error_rate() -> None:
    assert names(replace(WELL, ended=9, failed=9)) == []
    assert names(replace(WELL, ended=10, failed=9)) == [("error_rate", Severity.CRITICAL)]


def test_threshold_of_zero_and_limit_of_zero_are_never_reached() -> None:
    rules = Rules(memory_mb=Thresholds(0, 0), error_percent=Thresholds(0, 0))
    worst = replace(WELL, memory_growth_bytes=1000 * MB, failed=1000)
    assert names(worst, rules) == []
    assert names(replace(WELL, max_sessions=0, max_buffered_bytes=0)) == []


def test_alert_says_what_was_measured_and_what_was_allowed() -> None:
    (alert,) = alerts(replace(WELL, failed=123), RULES)
    assert (alert.value, alert.threshold) == (12.3, 10)


def test_outcomes_are_forgotten_with_their_window() -> None:
    outcomes = Outcomes(60)
    outcomes.note(1000.0, failed=True)
    outcomes.note(1030.0, failed=False)
    share = outcomes.share(1030.0)
    assert (share.ended, share.failed, share.percent) == (2, 1, 50)
    assert outcomes.share(1061.0).failed == 0
    assert outcomes.share(1061.0).ended == 1
    assert outcomes.share(1200.0).percent == 0


def test_slot_that_comes_round_again_starts_from_nothing() -> None:
    outcomes = Outcomes(60)
    for now in range(1000, 1600):
        outcomes.note(float(now), failed=now < 1300)
    assert outcomes.share(1599.0).ended == 60
    assert outcomes.share(1599.0).failed == 0
