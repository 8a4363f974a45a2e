"""A person's export as a page: one file that needs nothing else, for somebody who reads no JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape

import orjson

from gateway.audit.canonical import Json, Object

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
article { border-top: 1px solid; margin-top: 1.5rem; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem; overflow-wrap: anywhere; }
pre { overflow: auto; padding: .5rem; border: 1px solid; white-space: pre-wrap; }
"""
_NAMES = {
    "subject": "You, as a pseudonym",
    "target": "You, as a pseudonym",
    "query": "Your question, as a keyed hash",
    "session": "Your conversation, as a keyed hash",
    "email": "Your e-mail",
    "ip": "Your address",
    "operator": "Who did it",
    "reference": "The case",
}


def page(export: Object) -> str:
    """The export of `gateway.audit.access` as HTML; the JSON itself is at its end."""
    records, answers = _objects(export["records"]), _objects(export["answers"])
    parts = [
        _head(export, len(records), len(answers)),
        "<h2>Records</h2>",
        *map(_record, records),
        "<h2>Stored answers</h2>",
        *map(_answer, answers),
        _proof_of_all(export),
        "</main></html>\n",
    ]
    return "\n".join(parts)


def _head(export: Object, records: int, answers: int) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>What is stored of you</title><style>{_STYLE}</style></head><main>"
        "<h1>What is stored of you</h1>"
        f"<p>Made on {_time(export['made_ms'])}: {records} records and {answers} answers. "
        "What you asked isn't stored in the records, only a hash of it that can't be undone "
        "without a key.</p>"
    )


def _record(record: Mapping[str, Json]) -> str:
    values = record["values"]
    named = values.items() if isinstance(values, dict) else ()
    rows = [
        ("When", _time(record["ts"])),
        ("Why it is kept", _text(record["purpose"])),
        ("Kept until", _time(record["until_ms"])),
        *((_NAMES.get(name, escape(name)), _text(value)) for name, value in named),
    ]
    proof = _text(_json(record["proof"]))
    return (
        f"<article><h3>{_text(record['type'])}</h3>{_list(rows)}"
        f"<details><summary>Proof</summary><pre>{proof}</pre></details></article>"
    )


def _answer(answer: Mapping[str, Json]) -> str:
    rows = [("When", _text(answer["created_at"])), ("How it ended", _text(answer["reason"]))]
    text = _text(answer["text"])
    return f"<article><h3>Answer</h3>{_list(rows)}<pre>{text}</pre></article>"


def _proof_of_all(export: Object) -> str:
    return (
        "<h2>How to check this yourself</h2><p>Copy what follows into a file and give it to "
        "<code>verify_audit.py --proof FILE --key KEY</code>, with a key that you got from "
        "somebody you trust: it then shows that each record is in the signed log.</p>"
        f"<details><summary>All of it as JSON</summary><pre>{_text(_json(export))}</pre></details>"
    )


def _list(rows: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows) + "</dl>"


def _objects(value: Json) -> Sequence[Mapping[str, Json]]:
    return list(_only_objects(value if isinstance(value, list) else []))


def _only_objects(values: Iterable[Json]) -> Iterator[Mapping[str, Json]]:
    return (one for one in values if isinstance(one, dict))


def _json(value: Json) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _time(value: Json) -> str:
    seconds = int(str(value)) / 1000
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _text(value: Json | object) -> str:
    return escape("" if value is None else str(value))
