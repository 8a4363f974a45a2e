"""What the health report is made from besides the gateway's present state."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.settings import Settings
from gateway.telemetry.alarm import Alarm
from gateway.telemetry.health import Rules, Thresholds
from gateway.telemetry.memory import Memory
from gateway.telemetry.outcomes import Outcomes


@dataclass(frozen=True, slots=True)
class Vitals:
    rules: Rules
    outcomes: Outcomes
    memory: Memory = field(default_factory=Memory)
    alarm: Alarm = field(default_factory=Alarm)

    @classmethod
    def from_settings(cls, settings: Settings) -> Vitals:
        rules = Rules(
            memory_mb=Thresholds(
                settings.alert_memory_warning_mb, settings.alert_memory_critical_mb
            ),
            error_percent=Thresholds(
                settings.alert_error_warning_percent, settings.alert_error_critical_percent
            ),
            min_streams=settings.alert_min_streams,
        )
        return cls(rules, Outcomes(settings.alert_window_seconds))
