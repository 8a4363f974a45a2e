"""`sluice audit`: which verbs there are and what they take. The work is in modules of its own.

Names, e-mails and questions come by standard input, so that they stand in no list of processes and
in no shell's history.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from gateway.settings import Settings

USAGE = 1  #: 2 is what a damaged log exits with

Command = Callable[[Settings, argparse.Namespace], int]
_Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001


def add_to(commands: _Verbs) -> None:
    """Adds `audit` and its verbs."""
    parser = commands.add_parser("audit", help="look after the audit log")
    verbs = parser.add_subparsers(required=True, metavar="verb")
    _add_checkpoint(verbs)


def _add_checkpoint(verbs: _Verbs) -> None:
    checkpoint = _verb(verbs, "checkpoint", "anchoring", "sign every log as it is now")
    checkpoint.add_argument(
        "--out", type=Path, metavar="FILE", help="add the checkpoints to it; else they are printed"
    )


def _verb(verbs: _Verbs, name: str, module: str, text: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=f"{text.capitalize()}.")

    def command(settings: Settings, options: argparse.Namespace) -> int:
        found: Command = getattr(
            import_module(f"gateway.commands.{module}"), name.replace("-", "_")
        )
        return found(settings, options)

    parser.set_defaults(command=command, bad_settings=USAGE)
    return parser
