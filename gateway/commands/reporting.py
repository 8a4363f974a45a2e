"""`sluice audit report`: an auditor's pack for one month, and the record of processing."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version

import orjson

import gateway
from gateway.audit import health
from gateway.audit.instant import now_ms
from gateway.audit.keys import KeyInfo
from gateway.audit.policy import DAY_S
from gateway.audit.report import LISTED, Event, Month, bounds, read_month
from gateway.audit.verify.audit import Evidence
from gateway.audit.verify.evidence import held_in
from gateway.audit.verify.findings import Findings, exit_code
from gateway.audit.verify.stored import verify_stored
from gateway.commands.audit_log import GOOD, Opened, run, words_of
from gateway.commands.processing import processing
from gateway.errors import SettingsError
from gateway.settings import Settings

_DEPENDENCIES = ("aiohttp", "SQLAlchemy", "asyncpg", "cryptography", "orjson")
_NORMS = {
    "Rules": "GDPR 5(2), 24, 25; ISO 27001 A.5.33; PCI DSS 10.7; AI Act 12, 19",
    "Completeness": "ISO 27001 A.8.15; SOC 2 CC7.2; PCI DSS 10.2; AI Act 12",
    "Integrity": "GDPR 5(1)(f), 32; ISO 27001 A.5.33, A.8.24; SOC 2 CC7.2; PCI DSS 10.3, 10.5",
    "Storage limitation": "GDPR 5(1)(e); ISO 27001 A.8.10; CNIL logging; AI Act 19, 26(6)",
    "Rights": "GDPR 12(3), 15, 17, 18; ISO 27001 A.5.34",
    "Keys": "GDPR 32; ISO 27001 A.8.24; SOC 2 CC6.1",
    "Time": "ISO 27001 A.8.17; PCI DSS 10.6",
    "Access": "GDPR 32; SOC 2 CC6.1; PCI DSS 10.2",
}


def report(settings: Settings, options: argparse.Namespace) -> int:
    """Prints it; the exit code is that of `verify`, unless it was told not to."""
    if options.ropa:
        return _print_processing(settings, is_json=options.json)
    month = options.month or datetime.now(UTC).strftime("%Y-%m")
    try:
        bounds(month)
    except ValueError:
        raise SettingsError("--month looks like 2026-10") from None

    async def work(opened: Opened) -> int:
        read = partial(read_month, month=month, policy=opened.log.drafter.policy, now_ms=now_ms())
        told = await opened.log.store.run(read)
        found = [] if options.no_verify else await _verified(opened, options)
        words = words_of(options.reference)
        records = sum(told.counts.values())
        await opened.log.record("audit.read", {"verb": "report", "records": records}, words)
        pack = _Pack(settings, month, told, opened.keys.infos(), found)
        print(orjson.dumps(pack.to_object()).decode() if options.json else pack.to_text())
        return exit_code(found, needs_anchor=options.require_anchor)

    return run(settings, work)


async def _verified(opened: Opened, options: argparse.Namespace) -> list[Findings]:
    keys = [one.verifier.public for one in opened.keys.signers(opened.settings.audit_origin)]
    held = [one for path in options.checkpoints for one in held_in(path)]
    return await verify_stored(opened.log.store, Evidence(keys, held))


def _print_processing(settings: Settings, *, is_json: bool) -> int:
    entry = processing(settings)
    if is_json:
        print(orjson.dumps(entry).decode())
        return GOOD
    print("# Record of processing (GDPR 30)\n")
    for name, value in entry.items():
        lines = value if isinstance(value, list) else [value]
        print(f"## {name}\n\n" + "\n".join(f"- {line}" for line in lines) + "\n")
    return GOOD


class _Pack:
    """One month as text and as JSON."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        month: Month,
        keys: Sequence[KeyInfo],
        found: Sequence[Findings],
    ) -> None:
        self._settings = settings
        self._name = name
        self._month = month
        self._keys = keys
        self._found = found

    def to_object(self) -> dict[str, object]:
        month = self._month
        return {
            "month": self._name,
            "counts": dict(month.counts),
            "unknown_ends": month.unknown,
            "logs": [
                {"log": one.origin, "state": one.state, "size": one.size} for one in month.logs
            ],
            "events": [
                {"ts": one.ts, "log": one.log, "type": one.type, **one.told} for one in month.events
            ],
            "oldest": {
                one.cls.value: {"ts": one.ts, "kept_s": one.retention_s, "overdue": one.is_overdue}
                for one in month.oldest
            },
            "holds": [{"hold": one.id, "until_ms": one.until_ms} for one in month.holds],
            "keys": [
                {"kind": one.kind, "key": one.id, "made": one.created_ms} for one in self._keys
            ],
            "verify": [one.to_object() for one in self._found],
            "software": _software(),
        }

    def to_text(self) -> str:
        parts = [f"# Audit report of {self._name}", *self._sections()]
        return "\n\n".join(parts) + "\n"

    def _sections(self) -> Iterator[str]:
        bodies = {
            "Rules": [f"Recording: {self._settings.audit_mode}."],
            "Completeness": list(self._completeness()),
            "Integrity": list(self._integrity()),
            "Storage limitation": list(self._oldest()),
            "Rights": [
                f"In force: hold {h.id} until {_day(h.until_ms)}" for h in self._month.holds
            ],
            "Keys": [f"{k.kind} {k.id}, made {_day(k.created_ms)}" for k in self._keys],
            "Time": [],
            "Access": [],
        }
        for title, lines in bodies.items():
            events = [one for one in self._month.events if LISTED[one.type][0] == title]
            told = [*lines, *map(_line, events)] or ["Nothing."]
            yield f"## {title}\n\n{_NORMS[title]}\n\n" + "\n".join(f"- {one}" for one in told)
        software = ", ".join(f"{name} {number}" for name, number in _software().items())
        yield f"## Software\n\n{software}"

    def _completeness(self) -> Iterator[str]:
        month = self._month
        for type_, count in sorted(month.counts.items()):
            yield f"{type_}: {count}"
        yield f"{month.unknown} requests whose end nobody saw"
        for log in month.logs:
            yield f"{log.kind} log {log.origin}: {log.state}, {log.size} records ever"

    def _integrity(self) -> Iterator[str]:
        if not self._found:
            yield "Not verified: --no-verify"
        for one in self._found:
            codes = ", ".join(f"{code} {count} times" for code, count in one.codes.items())
            counts = ", ".join(f"{count} {name}" for name, count in one.counts.items())
            yield f"{one.origin}: {codes or 'nothing wrong'} ({counts})"

    def _oldest(self) -> Iterator[str]:
        for one in self._month.oldest:
            there = f"the oldest of {_day(one.ts)}" if one.ts is not None else "nothing there"
            late = ", OVERDUE" if one.is_overdue else ""
            yield f"{one.cls.value}: kept for {one.retention_s / DAY_S:g} days, {there}{late}"


def _line(event: Event) -> str:
    told = ", ".join(f"{name} {value}" for name, value in event.told.items())
    time = datetime.fromtimestamp(event.ts / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return f"{time} {event.type}: {told}"


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def _software() -> dict[str, str]:
    return {
        "sluice": gateway.__version__,
        "Python": platform.python_version(),
        "SQLite": health.sqlite_version().text.split()[0],
        **{name: version(name) for name in _DEPENDENCIES},
    }
