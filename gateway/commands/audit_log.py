"""The audit log as a command has it: opened beside a running gateway, with a log of its own.

What a command does to the log is recorded in that log, which is closed and signed at the end. What
was erased and is there again, from a backup perhaps, is erased before the command sees anything.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.audit.assembly import journal_of, keys_of, make_log
from gateway.audit.journal import Journal
from gateway.audit.keys import Keys
from gateway.audit.log import AuditLog
from gateway.audit.manner import Manner
from gateway.audit.store import AuditStoreError
from gateway.erasures import erase_returned
from gateway.errors import AuditError, SettingsError, Unavailable
from gateway.settings import Settings
from gateway.stream.cipher import Cipher
from gateway.stream.sql import make_store
from gateway.stream.store import SessionStore
from gateway.telemetry.logs import configure_logging

GOOD, FAILED, DAMAGED, UNANCHORED, OVERDUE, BUSY = range(6)
_PATIENCE_S = 15


class _NoFigures:
    """A command's figures are nobody's."""

    def audit_committed(self, classes: Mapping[str, int], took_s: float) -> None: ...

    def audit_lost(self, count: int) -> None: ...

    def audit_signed(self, now_s: float) -> None: ...

    def audit_refused(self) -> None: ...

    def audit_suppressed(self, count: int) -> None: ...

    def audit_field_refused(self, event: str, field: str) -> None:
        raise AuditError("field_refused", f"{event} can't hold this as its {field}")


@dataclass(frozen=True, slots=True)
class Opened:
    """What a command works with."""

    settings: Settings
    log: AuditLog
    keys: Keys
    journal: Journal
    answers: SessionStore


@asynccontextmanager
async def open_log(settings: Settings) -> AsyncIterator[Opened]:
    """
    Raises:
        SettingsError: what is there can't be used.
        AuditStoreError, StoreError: the database is away.
    """
    manner = Manner(
        settings.audit_origin,
        f"command-{uuid.uuid4()}",
        settings.data_dir,
        settings.audit_checkpoint_seconds,
        _PATIENCE_S,
        kind="command",
    )
    log = make_log(settings, _NoFigures(), manner)
    answers, journal = _answers(settings), journal_of(settings)
    try:
        if not await log.open():
            raise AuditStoreError("it can't be opened")
        await answers.open()
        if again := await erase_returned(journal, log, answers):
            print(f"{again} erased values were there again and are gone.", file=sys.stderr)
        yield Opened(settings, log, keys_of(settings), journal, answers)
    finally:
        await log.close()
        await answers.close()


def run(settings: Settings, work: Callable[[Opened], Awaitable[int]]) -> int:
    """Opens the log, does the work, and gives its exit code, or that of what went wrong."""
    configure_logging("error", settings.log_format)
    try:
        return asyncio.run(_run(settings, work))
    except (Unavailable, TimeoutError) as error:
        return complain(f"the database can't do it now: {error}", BUSY)
    except AuditError as error:
        return complain(str(error), BUSY if error.code == "busy" else FAILED)


async def _run(settings: Settings, work: Callable[[Opened], Awaitable[int]]) -> int:
    async with open_log(settings) as opened:
        return await work(opened)


def complain(message: str, code: int = FAILED) -> int:
    """One line on standard error; the exit code."""
    print(f"error: {message}", file=sys.stderr)
    return code


def read_secret() -> str:
    """What stands on standard input, without the line feed at its end.

    Raises:
        SettingsError: nothing, or not text.
    """
    if sys.stdin.isatty():
        print("Type it, then end with Ctrl-D:", file=sys.stderr)
    try:
        text = sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SettingsError("standard input isn't UTF-8 text") from None
    if not text:
        raise SettingsError("there is nothing on standard input")
    return text


def words_of(reference: str | None) -> dict[str, str]:
    """Who does it and for which case, as they stand in records."""
    words = {"operator": _operator()}
    return words | ({"reference": reference} if reference else {})


def _operator() -> str:
    """Whom the system takes us for: no variable that anybody may set."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _answers(settings: Settings) -> SessionStore:
    url, key = settings.database_url, settings.partial_encryption_key
    cipher = Cipher.from_setting(key.get_secret_value() if key is not None else None)
    return make_store(
        url.get_secret_value() if url is not None else None, settings.data_dir, cipher
    )
