"""`sluice audit`: which verbs there are and what they take. The work is in modules of its own.

Names, e-mails and questions come by standard input, so that they stand in no list of processes and
in no shell's history.
"""

from __future__ import annotations

from pathlib import Path

from gateway.commands import rights_verbs, sweep_verb
from gateway.commands.parsing import Verbs, verb


def add_to(commands: Verbs) -> None:
    """Adds `audit` and its verbs."""
    parser = commands.add_parser("audit", help="look after the audit log")
    verbs = parser.add_subparsers(required=True, metavar="verb")
    _add_checkpoint(verbs)
    rights_verbs.add_to(verbs)
    sweep_verb.add_to(verbs)


def _add_checkpoint(verbs: Verbs) -> None:
    checkpoint = verb(verbs, "checkpoint", "anchoring", "sign every log as it is now")
    checkpoint.add_argument(
        "--out", type=Path, metavar="FILE", help="add the checkpoints to it; else they are printed"
    )
