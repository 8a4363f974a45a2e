"""`sluice analytics` and `sluice diagnose`: what they take. The work is in modules of its own."""

from __future__ import annotations

from pathlib import Path

from gateway.commands.parsing import Verbs, verb

_BAD_SETTINGS = 2


def add_to(commands: Verbs) -> None:
    parser = commands.add_parser("analytics", help="how streams lived, and nobody's")
    verbs = parser.add_subparsers(required=True, metavar="verb")
    text = "give all of it as NDJSON"
    export = verb(verbs, "export", "analytics", text, bad_settings=_BAD_SETTINGS)
    export.add_argument(
        "--out", type=Path, metavar="FILE", help="write it there; else it is printed"
    )
    text = "gather what helps to find a fault into one file, secrets masked"
    diagnose = verb(commands, "diagnose", "diagnose", text, bad_settings=_BAD_SETTINGS)
    diagnose.add_argument(
        "--out", type=Path, metavar="FILE", help="a .tar.gz; else it is named after the time"
    )
    diagnose.add_argument("--json", action="store_true", help="print it as JSON instead")
