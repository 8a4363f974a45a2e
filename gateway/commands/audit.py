"""`sluice audit`: which verbs there are and what they take. The work is in modules of its own.

Names, e-mails and questions come by standard input, so that they stand in no list of processes and
in no shell's history.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from gateway.commands import rights_verbs, sweep_verb
from gateway.commands.parsing import Verbs, verb


def add_to(commands: Verbs) -> None:
    """Adds `audit` and its verbs."""
    parser = commands.add_parser("audit", help="look after the audit log")
    verbs = parser.add_subparsers(required=True, metavar="verb")
    _add_verify(verbs)
    _add_prove(verbs)
    _add_checkpoint(verbs)
    _add_dump(verbs)
    _add_report(verbs)
    doctor = verb(verbs, "doctor", "doctor", "look at files, keys, clock, disk and copies")
    doctor.add_argument("--json", action="store_true", help="for machines")
    rights_verbs.add_to(verbs)
    sweep_verb.add_to(verbs)


def _add_verify(verbs: Verbs) -> None:
    verify = verb(verbs, "verify", "verifying", "check every log for what was altered or is gone")
    verify.add_argument(
        "exports", nargs="*", type=Path, metavar="EXPORT", help="instead of the database"
    )
    verify.add_argument("--from", dest="since", metavar="TIME", help="values since; ISO 8601")
    verify.add_argument("--to", dest="until", metavar="TIME", help="values before")
    _several(verify, "--checkpoints", Path, "those that you have kept yourself; a file or folder")
    _several(verify, "--against", Path, "lines of a log shipper")
    _several(verify, "--key", str, "trust this public key, not those that are here")
    verify.add_argument("--require-anchor", action="store_true", help="exit with 3 without one")
    verify.add_argument("--json", action="store_true", help="for machines")


def _add_prove(verbs: Verbs) -> None:
    prove = verb(verbs, "prove", "proving", "give the proof of one record, as JSON")
    prove.add_argument(
        "--id", required=True, metavar="LOG/SEQ", help="the record, or a receipt of it"
    )
    prove.add_argument("--with-values", action="store_true", help="with what is personal in it")
    prove.add_argument("--out", type=Path, metavar="FILE", help="instead of printing it")
    prove.add_argument("--reference", metavar="TEXT", help="the case, for the log")


def _add_dump(verbs: Verbs) -> None:
    dump = verb(verbs, "dump", "dumping", "write every log whole, for an auditor's own verifier")
    dump.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="a file for each")
    dump.add_argument("--reference", metavar="TEXT", help="the case, for the log")


def _add_report(verbs: Verbs) -> None:
    report = verb(verbs, "report", "reporting", "print an auditor's pack for a month")
    report.add_argument("--month", metavar="2026-10", help="by default the current one")
    report.add_argument("--ropa", action="store_true", help="the record of processing, GDPR 30")
    report.add_argument("--no-verify", action="store_true", help="don't read the whole log")
    _several(report, "--checkpoints", Path, "those that you have kept yourself; a file or folder")
    report.add_argument("--require-anchor", action="store_true", help="exit with 3 without one")
    report.add_argument("--reference", metavar="TEXT", help="the case, for the log")
    report.add_argument("--json", action="store_true", help="for machines")


def _add_checkpoint(verbs: Verbs) -> None:
    checkpoint = verb(verbs, "checkpoint", "anchoring", "sign every log as it is now")
    checkpoint.add_argument(
        "--out", type=Path, metavar="FILE", help="add the checkpoints to it; else they are printed"
    )


def _several(
    parser: argparse.ArgumentParser, name: str, type_: Callable[[str], object], text: str
) -> None:
    parser.add_argument(name, action="append", default=[], type=type_, help=text)
