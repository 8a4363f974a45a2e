"""`sluice audit rotate-key`: a new key from now on, beside a running gateway."""

from __future__ import annotations

import argparse
import asyncio
import sys

import orjson

from gateway.audit.canonical import Json
from gateway.audit.instant import now_ms
from gateway.commands.audit_log import GOOD, Opened, run, words_of
from gateway.settings import Settings


def rotate_key(settings: Settings, options: argparse.Namespace) -> int:
    """Makes the key and tells it in the log; a running gateway takes it over at its next
    checkpoint, and tells it in its own."""

    async def work(opened: Opened) -> int:
        kind = options.kind
        operator: dict[str, str | bytes] = {**words_of(None)}
        before = await asyncio.to_thread(opened.keys.current, kind, now_ms())
        key = await asyncio.to_thread(opened.keys.rotate, kind, now_ms())
        if kind != "sign":
            told: dict[str, Json] = {"kind": kind, "key": key.id, "before": before.id}
            await opened.log.record("audit.key.rotated", told, operator)
        await opened.log.signing.follow_keys(operator)
        logs = await opened.log.store.logs()
        others = [one.origin for one in logs if one.state == "open" and one.kind == "gateway"]
        made = {"kind": kind, "key": key.id, "before": before.id, "open_logs": others}
        print(orjson.dumps(made).decode() if options.json else f"{kind}: {key.id}")
        if others and not options.json:
            print(
                f"{len(others)} running gateways take it over at their next checkpoint.",
                file=sys.stderr,
            )
        return GOOD

    return run(settings, work)
