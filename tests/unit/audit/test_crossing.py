"""Keys that sign change under several processes that sign at once; who trusts the first key never
loses the thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.crossing import signed
from gateway.audit.instant import now_ms
from gateway.audit.keyfile import Key
from gateway.audit.keys import Keys
from gateway.audit.ledger import Head
from gateway.audit.merkle import Frontier, leaf_hash
from gateway.audit.note import Signer, parse
from tests.auditing import Audited, assert_sound, bodies, running_log, stored

pytestmark = pytest.mark.usefixtures("wall_clock")

ORIGIN = "gw.example.org/log"
ROTATIONS, WRITERS = 6, 4


async def test_keys_that_change_while_many_sign_are_followed_from_the_first(
    tmp_path: Path, database_url: str | None
) -> None:
    keys = Keys(tmp_path / "audit-keys")
    async with AsyncExitStack() as stack:
        logs = [
            await stack.enter_async_context(
                running_log(tmp_path, database_url, instance=f"{n}", kind=kind)
            )
            for n, kind in enumerate(["gateway", *["command"] * (WRITERS - 1)])
        ]
        first = Signer("key", keys.all("sign")[0].secret).verifier
        is_over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for audited in logs:
                group.create_task(_go_on_signing(audited, is_over))
            for _ in range(ROTATIONS):
                await asyncio.to_thread(keys.rotate, "sign", now_ms())
                await asyncio.sleep(0.15)
            is_over.set()
        for audited in logs:
            await audited.log.signing.follow_keys()
    await assert_sound(tmp_path, database_url, key=str(first))
    async with stored(tmp_path, database_url) as store:
        [catalogue] = [one for one in await store.logs() if one.kind == "catalogue"]
        _, last = (await store.checkpoints(catalogue.id))[-1]
        told = await bodies(store, catalogue=True)
    newest = Signer(catalogue.origin, keys.all("sign")[0].secret).verifier
    assert parse(last).verified_by([newest]) == [newest]
    assert "audit.key.rotated" in {one["type"] for one in told}


async def _go_on_signing(audited: Audited, is_over: asyncio.Event) -> None:
    while not is_over.is_set():
        await audited.log.record("security.origin_denied", {"reason": "origin"}, {"ip": "::1"})
        await audited.log.signing.follow_keys()
        await audited.log.signing.sign_all()


async def test_smaller_tree_is_signed_by_the_key_before_though_a_larger_one_has_crossed(
    tmp_path: Path, database_url: str | None
) -> None:
    async with signing(tmp_path, database_url) as (sign, keys):
        old, new = keys[1], keys[0]
        assert await sign(3, [old]) == [old]
        assert await sign(9, [new, old], crosses=True) == [new, old]
        assert await sign(7, [new, old], crosses=True) == [new, old]
        assert await sign(6, [new, old]) == [old]
        assert await sign(12, [new, old], crosses=True) == [new]


async def test_checkpoint_that_these_keys_have_signed_is_kept_once(
    tmp_path: Path, database_url: str | None
) -> None:
    async with signing(tmp_path, database_url) as (sign, keys):
        assert await sign(3, [keys[1]]) == [keys[1]]
        assert await sign(5, keys[:2], crosses=True) == keys[:2]
        assert await sign(5, keys[:2], crosses=True) == keys[:2]
        assert await sign(5, [keys[1]]) == keys[:2]
        assert await sign(3, [keys[0]], crosses=True) == [keys[0]]  # in the same millisecond


async def test_process_behind_another_signs_with_all_that_it_has(
    tmp_path: Path, database_url: str | None
) -> None:
    async with signing(tmp_path, database_url) as (sign, keys):
        assert await sign(3, keys[:1]) == keys[:1]
        assert await sign(5, keys[1:], crosses=True) == keys[1:]
        assert await sign(7, keys[1:], crosses=True) == keys[1:2]


@asynccontextmanager
async def signing(
    folder: Path, database_url: str | None
) -> AsyncIterator[tuple[Callable[..., Awaitable[list[Key]]], list[Key]]]:
    """Signs trees of one log, all at one moment, and says whose signatures are below; and three
    keys, the newest first."""
    made = Keys(folder / "audit-keys")
    now = now_ms()
    keys = [made.rotate("sign", now) for _ in range(3)][::-1]
    async with stored(folder, database_url) as store:
        await store.open()
        values = {"kind": "gateway", "state": "open", "instance": "one", "frontier": b"", "size": 0}
        times = dict.fromkeys(("opened_ms", "seen_ms", "last_ts"), now)
        row = sa.insert(tables.logs).values(origin=ORIGIN, **values, **times)
        await store.run(lambda connection: connection.execute(row).close(), writes=True)
        [log] = await store.logs()

        async def sign(size: int, by: list[Key], *, crosses: bool = False) -> list[Key]:
            frontier = Frontier()
            for n in range(size):
                frontier.append(leaf_hash(bytes([n])))
            head = Head(log.id, ORIGIN, now, frontier)
            work = partial(signed, head=head, keys=by, now_ms=now, crosses=crosses)
            note = await store.run(work, writes=True)
            ids = {one.key_id for one in note.signatures}
            return [key for key in keys if Signer(head.origin, key.secret).verifier.key_id in ids]

        yield sign, keys
