"""`sluice diagnose`: one file to look at, or to send to somebody who helps.

It holds the settings with their secrets masked, versions, what lies in `DATA_DIR`, and of a
running gateway its health, the errors that it remembers, its streams and its metrics: nothing that
was asked or said, and nobody's name. Without a gateway, or `ADMIN_TOKEN`, it says so and has the
rest.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import sys
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import orjson

from gateway.commands.local import LocalGateway
from gateway.settings import Settings
from gateway.telemetry.about import settings_to_share, versions

_FAILED = 1
_ROUTES = {"gateway": "/api/admin/diagnostics", "metrics": "/metrics"}


def diagnose(settings: Settings, options: argparse.Namespace) -> int:
    """Writes the bundle, or with `--json` prints it as one object."""
    parts: dict[str, object] = {
        "about": {"made_at": _now("%Y-%m-%dT%H:%M:%SZ"), "versions": versions()},
        "settings": settings_to_share(settings),
        "data_dir": _files(settings.data_dir),
        **asyncio.run(_ask(settings)),
    }
    if options.json:
        print(orjson.dumps(parts, option=orjson.OPT_INDENT_2).decode())
        return 0
    path: Path = options.out or Path(f"sluice-diagnosis-{_now('%Y%m%dT%H%M%SZ')}.tar.gz")
    try:
        path.write_bytes(_packed(parts))
        path.chmod(0o600)
    except OSError as error:
        print(f"error: {path} can't be written: {error.strerror}", file=sys.stderr)
        return _FAILED
    print(path)
    return 0


async def _ask(settings: Settings) -> dict[str, object]:
    """What a running gateway says of itself, or why it doesn't."""
    found: dict[str, object] = {}
    async with LocalGateway(settings) as local:
        for name, path in _ROUTES.items():
            try:
                text = await local.get(path)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                found[name] = {"error": f"{path}: {_reason(error)}"}
            else:
                found[name] = orjson.loads(text) if name == "gateway" else text
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientResponseError):
        hint = "; is ADMIN_TOKEN the gateway's?" if error.status in (401, 404) else ""
        return f"status {error.status}{hint}"
    return str(error) or type(error).__name__


def _files(folder: Path) -> dict[str, int]:
    """The size in bytes of everything under a folder, by its path there."""
    sizes = {}
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_file():
                sizes[str(path.relative_to(folder))] = path.stat().st_size
        except OSError:
            continue  # gone, or somebody else's
    return sizes


def _packed(parts: Mapping[str, object]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as bundle:
        for name, part in parts.items():
            is_text = isinstance(part, str)
            content = part.encode() if isinstance(part, str) else _readable(part)
            member = tarfile.TarInfo(f"sluice-diagnosis/{name}.{'txt' if is_text else 'json'}")
            member.size, member.mtime, member.mode = len(content), int(time.time()), 0o600
            bundle.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _readable(part: object) -> bytes:
    return orjson.dumps(part, option=orjson.OPT_INDENT_2) + os.linesep.encode()


def _now(form: str) -> str:
    return time.strftime(form, time.gmtime())
