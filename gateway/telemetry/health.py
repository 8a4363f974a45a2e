"""What is wrong just now, as alerts, and how bad that is, as a grade from A to F.

Pure: it judges readings. docs/health.md has the rules in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

#: What a megabyte of the settings is.
MB = 1_000_000
_NEARLY_FULL_PERCENT = 90


class Severity(StrEnum):
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Alert:
    """`value` and `threshold` are in the unit that the name of the alert's rule says."""

    name: str
    severity: Severity
    message: str
    value: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From above which value there is an alert; 0 is never."""

    warning: float
    critical: float

    def judge(self, value: float) -> tuple[Severity, float] | None:
        if 0 < self.critical < value:
            return Severity.CRITICAL, self.critical
        if 0 < self.warning < value:
            return Severity.WARNING, self.warning
        return None


@dataclass(frozen=True, slots=True)
class Rules:
    memory_mb: Thresholds = Thresholds(100, 200)
    error_percent: Thresholds = Thresholds(5, 10)
    min_streams: int = 10  #: fewer ended streams make no error rate


@dataclass(frozen=True, slots=True)
class Reading:
    """The gateway's state in figures."""

    memory_growth_bytes: int
    ended: int  #: streams, in the window
    failed: int
    sessions: int
    max_sessions: int  #: 0 is no limit
    buffered_bytes: int
    max_buffered_bytes: int  #: 0 is no limit
    is_backend_away: bool = False
    is_store_away: bool = False
    is_audit_away: bool = False
    audit_holds_answers: bool = False


def alerts(reading: Reading, rules: Rules) -> list[Alert]:
    """What is wrong, the critical first."""
    found = [
        *_memory(reading, rules),
        *_errors(reading, rules),
        *_fullness("sessions", reading.sessions, reading.max_sessions),
        *_fullness("buffers", reading.buffered_bytes, reading.max_buffered_bytes),
        *_absences(reading),
    ]
    return sorted(found, key=lambda alert: alert.severity is not Severity.CRITICAL)


def grade(found: list[Alert]) -> str:
    """A: nothing is wrong; B: one warning; C: several; D: something is critical; F: several are."""
    critical = sum(alert.severity is Severity.CRITICAL for alert in found)
    if critical:
        return "D" if critical == 1 else "F"
    return "ABC"[min(len(found), 2)]


def _memory(reading: Reading, rules: Rules) -> Iterator[Alert]:
    grown_mb = reading.memory_growth_bytes / MB
    if verdict := rules.memory_mb.judge(grown_mb):
        severity, threshold = verdict
        message = "Memory has grown since the start, in MB."
        yield Alert("memory", severity, message, round(grown_mb, 1), threshold)


def _errors(reading: Reading, rules: Rules) -> Iterator[Alert]:
    if not reading.ended or reading.ended < rules.min_streams:
        return
    percent = 100 * reading.failed / reading.ended
    if verdict := rules.error_percent.judge(percent):
        severity, threshold = verdict
        message = "Streams end with an error, in percent."
        yield Alert("error_rate", severity, message, round(percent, 1), threshold)


def _fullness(name: str, used: int, limit: int) -> Iterator[Alert]:
    """Full means that new streams are refused."""
    percent = 100 * used / limit if limit else 0
    if percent >= _NEARLY_FULL_PERCENT:
        severity = Severity.CRITICAL if used >= limit else Severity.WARNING
        threshold = 100 if used >= limit else _NEARLY_FULL_PERCENT
        message = f"Of the {name} that there may be, in percent."
        yield Alert(name, severity, message, round(percent, 1), threshold)


def _absences(reading: Reading) -> Iterator[Alert]:
    if reading.is_backend_away:
        message = "The backend failed again and again: questions get 503 until one is answered."
        yield Alert("backend", Severity.CRITICAL, message, 1, 0)
    if reading.is_store_away:
        message = "The database is away: streams go on, but aren't kept."
        yield Alert("store", Severity.WARNING, message, 1, 0)
    if reading.is_audit_away:
        holds = reading.audit_holds_answers
        message = "The audit log can't be written: "
        message += "requests get 503." if holds else "records wait, and some may be lost."
        yield Alert("audit", Severity.CRITICAL if holds else Severity.WARNING, message, 1, 0)
