"""The command `sluice`.

The gateway itself is imported by the commands that need it: the rest answer in a third of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence

import gateway
from gateway.commands import audit, control, signals_verbs
from gateway.commands.parsing import USAGE
from gateway.environment import load_settings
from gateway.errors import SettingsError
from gateway.keys import KeyRing, pepper_path
from gateway.settings import Settings
from gateway.telemetry.logs import configure_logging

_BAD_SETTINGS = 2
_CANNOT_START = 1
_NOBODY_READS = 128 + signal.SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0, or 1 if it failed, or 2 if the settings or the command line are wrong; 141, as a shell
        has it for SIGPIPE, if nobody reads on what it prints.
    """
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python itself flushes once more at the end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS


def _run(arguments: Sequence[str] | None) -> int:
    asked = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parser().parse_args(asked)
    except SystemExit as ended:
        if ended.code and [*asked[:1]] == ["audit"]:
            return USAGE
        raise
    command: Callable[[Settings, argparse.Namespace], int] = options.command
    try:
        settings = load_settings()
    except SettingsError as error:
        return _complain(error, getattr(options, "bad_settings", _BAD_SETTINGS))
    try:
        return command(settings, options)
    except SettingsError as error:
        return _complain(error, _CANNOT_START)


def _serve(settings: Settings, options: argparse.Namespace) -> int:
    from gateway.app import serve

    configure_logging(settings.log_level, settings.log_format)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(settings))
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _check_config(settings: Settings, options: argparse.Namespace) -> int:
    from gateway.app import make_app

    make_app(settings)
    for name, value in settings.effective().items():
        print(f"{name}={value}")
    return 0


def _keys_add(settings: Settings, options: argparse.Namespace) -> int:
    print(_key_ring(settings).add(options.owner))
    print("Keep it: it can't be shown again.", file=sys.stderr)
    return 0


def _keys_list(settings: Settings, options: argparse.Namespace) -> int:
    for entry in _key_ring(settings).entries():
        state = f"revoked {entry.revoked_at}" if entry.revoked_at else "active"
        print(f"{entry.id}\t{entry.owner}\t{entry.created_at}\t{state}")
    return 0


def _keys_revoke(settings: Settings, options: argparse.Namespace) -> int:
    if _key_ring(settings).revoke(options.id):
        print(f"{options.id} is revoked.")
        return 0
    print(f"error: there is no key {options.id}", file=sys.stderr)
    return 1


def _key_ring(settings: Settings) -> KeyRing:
    if settings.api_keys_file is None:
        raise SettingsError("API_KEYS_FILE: say where the keys are kept")
    return KeyRing.load(settings.api_keys_file, pepper_path(settings.data_dir))


def _complain(error: SettingsError, code: int) -> int:
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sluice", description="A gateway whose streams survive. Settings: the environment."
    )
    parser.add_argument("--version", action="version", version=f"sluice {gateway.__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add(commands, "serve", _serve, "run the gateway")
    _add(commands, "check-config", _check_config, "check and print the effective settings")
    keys = commands.add_parser("keys", help="manage API keys").add_subparsers(
        required=True, metavar="action"
    )
    add = _add(keys, "add", _keys_add, "make a key and print it once")
    add.add_argument("--owner", required=True, help="whose requests it is for")
    _add(keys, "list", _keys_list, "list the keys, without their secrets")
    _add(keys, "revoke", _keys_revoke, "make a key useless").add_argument("id")
    control.add_to(commands)
    audit.add_to(commands)
    signals_verbs.add_to(commands)
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Callable[[Settings, argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
