"""`sluice audit sweep`: what a gateway does each `AUDIT_SWEEP_SECONDS`, now."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import orjson

from gateway.audit.retention import Sweeper, Swept
from gateway.commands.audit_log import BUSY, GOOD, OVERDUE, Opened, complain, run
from gateway.settings import Settings


def sweep(settings: Settings, options: argparse.Namespace) -> int:
    """Sweeps, or tells what would go; exit code 4 if something is still kept for too long."""

    async def work(opened: Opened) -> int:
        sweeper = Sweeper(opened.log, trusts_clock=options.trust_clock)
        swept = await (sweeper.plan() if options.dry_run else sweeper.sweep())
        if swept.is_busy:
            return complain("another process sweeps", BUSY)
        late = await sweeper.overdue()
        tell = _print_json if options.json else _print
        tell(swept, late)
        return OVERDUE if late else GOOD

    return run(settings, work)


def _print_json(swept: Swept, late: Sequence[str]) -> None:
    told = {
        "counts": [
            {"log": one.log, "what": one.what, "due": one.due, "held": one.held}
            for one in swept.counts
        ],
        "days_closed": swept.days,
        "logs_dropped": swept.logs,
        "keys_destroyed": swept.keys,
        "overdue": list(late),
    }
    print(orjson.dumps(told).decode())


def _print(swept: Swept, late: Sequence[str]) -> None:
    for one in swept.counts:
        held = f", {one.held} held" if one.held else ""
        print(f"{one.log} {one.what}: {one.due}{held}")
    done = {"days closed": swept.days, "logs dropped": swept.logs, "keys destroyed": swept.keys}
    for what, count in done.items():
        if count:
            print(f"{what}: {count}")
    if not swept.counts:
        print("Nothing is due.", file=sys.stderr)
    if late:
        print(f"Kept for too long: {', '.join(late)}", file=sys.stderr)
