"""Tells in the log when an alert begins, changes its severity, and is over."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from gateway.telemetry.health import Alert

logger = logging.getLogger("sluice.health")

#: How often to look.
EVERY_S = 5.0


class Alarm:
    """One line for each change; nothing while all stays as it is."""

    def __init__(self) -> None:
        self._raised: dict[str, Alert] = {}
        self._next = 0.0

    def is_due(self, now: float) -> bool:
        return now >= self._next

    def look(self, found: Iterable[Alert], now: float) -> None:
        """Compares what is wrong now with what was wrong before."""
        self._next = now + EVERY_S
        current = {alert.name: alert for alert in found}
        for name, alert in current.items():
            before = self._raised.get(name)
            if before is None or before.severity != alert.severity:
                fields = {
                    "alert": name,
                    "severity": str(alert.severity),
                    "value": alert.value,
                    "threshold": alert.threshold,
                }
                logger.warning("alert.raised", extra=fields)
        for name in self._raised.keys() - current.keys():
            logger.info("alert.cleared", extra={"alert": name})
        self._raised = current
