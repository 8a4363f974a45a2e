"""The command lines of the verbs about people, holds and keys."""

from __future__ import annotations

import argparse

from gateway.commands.parsing import Verbs, verb


def add_to(verbs: Verbs) -> None:
    """Adds them."""
    _add_find(verbs)
    _add_export(verbs)
    _add_erase(verbs)
    _add_holds(verbs)
    _add_rotate_key(verbs)


def _add_find(verbs: Verbs) -> None:
    find = verb(verbs, "find", "rights", "find the records of a person or of a question")
    what = find.add_mutually_exclusive_group(required=True)
    _subject(what)
    what.add_argument("--query-stdin", action="store_true", help="read the question")
    _common(find)


def _add_export(verbs: Verbs) -> None:
    export = verb(verbs, "export", "rights", "give a person all that is stored of them, proven")
    _subject(export, is_needed=True)
    _linked(export)
    export.add_argument("--out", metavar="FILE", help="instead of standard output; mode 0600")
    export.add_argument("--html", action="store_true", help="a page to read instead of JSON")
    export.add_argument("--with-operator", action="store_true", help="tell operators' names too")
    _reference(export)


def _add_erase(verbs: Verbs) -> None:
    erase = verb(verbs, "erase", "rights", "erase a person from the log and the stored answers")
    _subject(erase, is_needed=True)
    _linked(erase)
    erase.add_argument("--whole-record", action="store_true", help="times and sizes go too")
    erase.add_argument("--dry-run", action="store_true", help="only tell what would go")
    erase.add_argument("--rewrite", action="store_true", help="the file anew, however large it is")
    erase.add_argument("--yes", action="store_true", help="don't ask")
    _common(erase)


def _add_holds(verbs: Verbs) -> None:
    hold = verb(verbs, "hold", "holding", "keep records from sweeps and erasures")
    what = hold.add_mutually_exclusive_group(required=True)
    _subject(what)
    what.add_argument("--rid", metavar="UUID", help="the request of this number")
    what.add_argument("--from", dest="begin", metavar="TIME", help="what happened since; ISO 8601")
    hold.add_argument("--to", dest="end", metavar="TIME", help="with --from: and before")
    hold.add_argument(
        "--reason",
        required=True,
        choices=("legal_claim", "authority", "restriction", "investigation", "other"),
    )
    hold.add_argument("--until", required=True, metavar="DAY", help="when to look at it again")
    _common(hold)
    release = verb(verbs, "release", "holding", "end a hold")
    release.add_argument("id")
    _common(release)
    _common(verb(verbs, "holds", "holding", "list the holds"))


def _add_rotate_key(verbs: Verbs) -> None:
    rotate = verb(verbs, "rotate-key", "keys", "make a new key; the old one stays readable")
    rotate.add_argument("--kind", required=True, choices=("query", "subject", "sign"))
    _json(rotate)


def _subject(parser: argparse._ActionsContainer, *, is_needed: bool = False) -> None:
    parser.add_argument(
        "--subject-stdin",
        action="store_true",
        required=is_needed,
        help="read who: sub:NAME, user:NAME, a bare name for both, an e-mail, or addr:ADDRESS",
    )


def _linked(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--linked",
        action="store_true",
        help="whoever stands beside the e-mail is this person too; it may be but what they said",
    )


def _common(parser: argparse.ArgumentParser) -> None:
    _reference(parser)
    _json(parser)


def _reference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reference", metavar="TEXT", help="the case, for the log")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for machines")
