"""`sluice control`: changes how a running gateway works, through its admin routes.

It finds the gateway where the settings say that it listens, and takes `ADMIN_TOKEN` from them.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from gateway.errors import SettingsError
from gateway.settings import Settings

if TYPE_CHECKING:
    import aiohttp

_CONTROLS = "/api/admin/controls"
_CLEANUP = "/api/admin/cleanup"
_TIMEOUT_S = 30
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
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

    if settings.admin_token is None:
        raise SettingsError("ADMIN_TOKEN: the gateway takes commands from who holds it only")
    method, path, body = request
    headers = {"Authorization": f"Bearer {settings.admin_token.get_secret_value()}"}
    base, connector = _way(settings, url)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as client,
            client.request(method, base + path, json=body, allow_redirects=False) as answer,
        ):
            told = await answer.json()
            return _tell(answer.status, told)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        print(f"error: no gateway answers at {base} ({type(error).__name__})", file=sys.stderr)
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


def _way(settings: Settings, url: str | None) -> tuple[str, aiohttp.BaseConnector]:
    import aiohttp

    if url is not None:
        return url.rstrip("/"), aiohttp.TCPConnector()
    if settings.unix_socket is not None:
        return "http://localhost", aiohttp.UnixConnector(str(settings.unix_socket))
    host = _EVERYWHERE.get(settings.host, settings.host)
    place = f"[{host}]" if ":" in host else host
    if settings.tls_cert is None:
        return f"http://{place}:{settings.port}", aiohttp.TCPConnector()
    return f"https://{place}:{settings.port}", aiohttp.TCPConnector(ssl=_own_tls(settings))


def _own_tls(settings: Settings) -> ssl.SSLContext:
    """Trusts the gateway's own certificate, whatever name it has, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(settings.tls_cert)
    return context
