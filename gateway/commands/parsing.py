"""How a verb is declared: its module is imported when the verb is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import TypeAlias

from gateway.settings import Settings

USAGE = 1  #: 2 is what a damaged log exits with

Command = Callable[[Settings, argparse.Namespace], int]
Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001


def verb(
    verbs: Verbs, name: str, module: str, text: str, *, bad_settings: int = USAGE
) -> argparse.ArgumentParser:
    """Adds one that the function of its name in `gateway.commands.<module>` carries out.

    `bad_settings` is what it exits with where the settings are wrong.
    """
    parser = verbs.add_parser(name, help=text, description=f"{text.capitalize()}.")

    def command(settings: Settings, options: argparse.Namespace) -> int:
        found: Command = getattr(
            import_module(f"gateway.commands.{module}"), name.replace("-", "_")
        )
        return found(settings, options)

    parser.set_defaults(command=command, bad_settings=bad_settings)
    return parser
