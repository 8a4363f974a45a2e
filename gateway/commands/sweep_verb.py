"""The command line of `sluice audit sweep`."""

from __future__ import annotations

from gateway.commands.parsing import Verbs, verb


def add_to(verbs: Verbs) -> None:
    """Adds it."""
    sweep = verb(verbs, "sweep", "sweeping", "take what has been kept for long enough")
    sweep.add_argument("--dry-run", action="store_true", help="only tell what would go")
    sweep.add_argument(
        "--trust-clock", action="store_true", help="the clock is right, though it has leapt"
    )
    sweep.add_argument("--json", action="store_true", help="for machines")
