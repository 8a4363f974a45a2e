"""`sluice audit dump`: every log as a file, for an auditor with a verifier of their own."""

from __future__ import annotations

import argparse
import uuid
from functools import partial

from gateway.audit import access
from gateway.audit.canonical import Object
from gateway.audit.dump import dump as write_all
from gateway.audit.instant import now_ms
from gateway.audit.note import Verifier
from gateway.commands.audit_log import GOOD, Opened, run, words_of
from gateway.settings import Settings


def dump(settings: Settings, options: argparse.Namespace) -> int:
    """Signs every log as it is now and writes all of them to a folder."""

    async def work(opened: Opened) -> int:
        store = opened.log.store
        logs = [log.id for log in await store.logs()]
        sign = partial(
            access.signed_heads, logs=logs, keys=opened.keys.all("sign"), now_ms=now_ms()
        )
        await store.run(sign, writes=True)

        def verifiers_of(origin: str) -> list[Verifier]:
            return [signer.verifier for signer in opened.keys.signers(origin)]

        write = partial(write_all, folder=options.out, verifiers_of=verifiers_of)
        dumped = await store.run(write)
        told: Object = {
            "request": str(uuid.uuid4()),
            "records": sum(one.records for one in dumped),
            "fields": sum(one.values for one in dumped),
            "scope": "whole",
        }
        await opened.log.record("audit.export", told, words_of(options.reference))
        print("\n".join(str(one.path) for one in dumped))
        return GOOD

    return run(settings, work)
