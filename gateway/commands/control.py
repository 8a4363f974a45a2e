"""`sluice control`: changes how a running gateway works, through its admin routes.

It finds the gateway where the settings say that it listens, and takes `ADMIN_TOKEN` from them.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import TypeAlias

from gateway.errors import SettingsError
from gateway.settings import Settings

_CONTROLS = "/api/admin/controls"
_CLEANUP = "/api/admin/cleanup"
_WORDS = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
_Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001
_Request = tuple[str, str, Mapping[str, object] | None]
_Make = Callable[[argparse.Namespace], _Request]


def add_to(commands: _Verbs) -> None:
    """Adds `control` and its verbs."""
    text = "change how a running gateway works"
    parser = commands.add_parser("control", help=text, description=f"{text.capitalize()}.")
    verbs = parser.add_subparsers(required=True, metavar="verb")
    _verb(verbs, "show", "tell what is in force", lambda _: ("GET", _CONTROLS, None))
    change = _verb(verbs, "set", "change flags and modes", _change)
    change.add_argument(
        "change", nargs="+", type=_assignment, metavar="NAME=VALUE", help="rollout_percent=25"
    )
    emergency = _verb(verbs, "emergency", "switch streaming off for everybody", _emergency)
    emergency.add_argument("--end", action="store_true", help="end the emergency")
    _verb(verbs, "reset", "go back to the settings", lambda _: ("DELETE", _CONTROLS, None))
    text = "end what nobody reads and delete what has expired"
    _verb(verbs, "clean-up", text, lambda _: ("POST", _CLEANUP, None))


def _verb(verbs: _Verbs, name: str, text: str, make: _Make) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=f"{text.capitalize()}.")
    parser.add_argument("--url", help="where the gateway is, if not where the settings say")

    def command(settings: Settings, options: argparse.Namespace) -> int:
        return asyncio.run(_send(settings, options.url, make(options)))

    parser.set_defaults(command=command)
    return parser


def _change(options: argparse.Namespace) -> _Request:
    return "PATCH", _CONTROLS, dict(options.change)


def _emergency(options: argparse.Namespace) -> _Request:
    return "PATCH", _CONTROLS, {"emergency": not options.end}


def _assignment(text: str) -> tuple[str, object]:
    """What is right is the gateway's to say."""
    name, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} isn't NAME=VALUE")
    if value.lower() in _WORDS:
        return name, _WORDS[value.lower()]
    try:
        return name, float(value)
    except ValueError:
        return name, value


async def _send(settings: Settings, url: str | None, request: _Request) -> int:
    """Prints what the gateway answers; 0, or 1 if it refuses or can't be reached.

    Raises:
        SettingsError: there is no token.
    """
    import aiohttp

    from gateway.commands.local import LocalGateway

    if settings.admin_token is None:
        raise SettingsError("ADMIN_TOKEN: the gateway takes commands from who holds it only")
    async with LocalGateway(settings, url) as local:
        try:
            async with local.request(*request) as answer:
                return _tell(answer.status, await answer.json())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            problem = type(error).__name__
            print(f"error: no gateway answers at {local.base} ({problem})", file=sys.stderr)
            return 1


def _tell(status: int, told: Mapping[str, object]) -> int:
    if status != 200:
        error = told.get("error")
        message = error.get("message") if isinstance(error, dict) else None
        print(f"error: {message or status}", file=sys.stderr)
        return 1
    for name, value in told.items():
        print(f"{name}={_as_text(value)}")
    return 0


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
