"""The guard: one process at a time writes to a file, and nobody waits for ever."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.audit.store import AuditStoreError, make_store
from gateway.database.guard import FileGuard


def taken(path: Path) -> int:
    """As another process holds it."""
    lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def test_who_holds_it_may_enter_again_and_then_another_may(tmp_path: Path) -> None:
    one = FileGuard(tmp_path / "lock", patience_s=0.01)
    other = FileGuard(tmp_path / "lock", patience_s=0.01)
    with one, one, pytest.raises(sqlite3.OperationalError), other:
        pass
    with other:
        pass
    one.close()
    with one:
        pass


def test_another_thread_waits_its_turn(tmp_path: Path) -> None:
    guard, order = FileGuard(tmp_path / "lock", patience_s=5), []

    def enter() -> None:
        with guard:
            order.append("thread")

    with guard:
        thread = threading.Thread(target=enter)
        thread.start()
        order.append("first")
    thread.join()
    assert order == ["first", "thread"]


async def test_write_beside_one_that_holds_on_is_refused_as_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.database.sqlite._BUSY_S", 0.02)
    store = make_store(None, tmp_path)
    await store.open()
    lock = taken(tmp_path / "audit.sqlite3.lock")
    try:
        with pytest.raises(AuditStoreError) as caught:
            await store.run(lambda c: c.execute(sa.text("SELECT 1")), writes=True)
        assert caught.value.detail == "SQLITE_BUSY"
        assert await store.run(lambda c: c.scalar(sa.text("SELECT 1"))) == 1
    finally:
        os.close(lock)
    await store.close()
