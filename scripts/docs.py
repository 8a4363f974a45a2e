"""Writes docs/settings.md and config/gateway.env.example from gateway/setting_table.py, and
the end of docs/errors.md and gateway/static/sluice-advice.js from that in gateway/advice.py.

.venv/bin/python scripts/docs.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from gateway import advice
from gateway.settings import Settings, default_text

ROOT = Path(__file__).parents[1]
SETTINGS_PAGE = ROOT / "docs" / "settings.md"
EXAMPLE = ROOT / "config" / "gateway.env.example"
ERRORS_PAGE = ROOT / "docs" / "errors.md"
ADVICE_MODULE = ROOT / "gateway" / "static" / "sluice-advice.js"
ADVICE_HEADING = "## What to tell people\n"
ADVICE_HEAD = """
Messages and codes are for developers. This is for whoever typed the question, in a page or an app.
The same table is `gateway/advice.py` for Python and `/static/sluice-advice.js` for web pages:
`advise(code)` gives a sentence and what to do. It has the clients' own codes too, and is made from
the code by `scripts/docs.py`.

| say | what to do | codes |
| --- | --- | --- |
"""
ADVICE_TEXT = """\
// Made from gateway/advice.py by scripts/docs.py: what to tell people when something fails.

const UNKNOWN = told(%s);

const ADVICE = new Map([
%s
].flatMap(([says, todo, codes]) => codes.split(' ').map((code) => [code, told(says, todo)])));

function told(says, todo) {
  return Object.freeze({ says, do: todo });
}

/** A plain sentence for an error's code, and what to do: `{ says, do }`. */
export function advise(code) {
  return ADVICE.get(code) ?? UNKNOWN;
}
"""
PAGE_HEAD = """# Settings

Settings come from the environment, or from the file that `ENV_FILE` names; the environment wins. An
unknown name that begins like one of these, a value out of range or a contradiction stops the start,
with one line for each. `sluice check-config` prints what is in force, secrets masked.
`config/gateway.env.example` holds all of them.

A list is separated by commas. Sizes are in bytes; times are in the unit that the name ends in, else
in seconds. `0` switches a limit, clock or cap off. It means "at once" for `COMMIT_DELAY_MS`,
`DETACH_GRACE_SECONDS` and `SHUTDOWN_GRACE_SECONDS`, and "none" for `RESUME_TTL_SECONDS`,
`STREAM_ERROR_MAX_RETRIES` and `STREAM_ERROR_LOG_BUFFER_SIZE`.

This page is made from the code by `scripts/docs.py`.
"""
TABLE_HEAD = "| setting | default | values | meaning |\n| --- | --- | --- | --- |"
EXAMPLE_HEAD = """\
# Every setting with its default. Copy this file, take the # away where you want another value, and
# name the copy in ENV_FILE.
"""


def groups() -> Iterator[tuple[str, list[str]]]:
    """The settings under the headings that they have in the source."""
    source = (ROOT / "gateway" / "setting_table.py").read_text()
    body = source[source.index("class Table") :]
    parts = re.split(r"^    # (.+)$", body, flags=re.MULTILINE)[1:]
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        yield title, re.findall(r"^    (\w+): ", text, flags=re.MULTILINE)


def settings_page() -> str:
    lines = [PAGE_HEAD]
    for title, names in groups():
        lines.append(f"## {title}\n\n{TABLE_HEAD}")
        lines += [_row(name) for name in names]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def example() -> str:
    lines = [EXAMPLE_HEAD]
    for title, names in groups():
        lines.append(f"\n## {title}\n")
        for name in names:
            meaning = (Settings.model_fields[name].description or "").replace("`", "")
            lines.append(f"# {meaning}\n#{name.upper()}={default_text(name)}")
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """The page as it is up to the table of advice, and that table anew."""
    before = ERRORS_PAGE.read_text().partition(ADVICE_HEADING)[0]
    lines = [
        f"| {told.says} | {told.do} | {', '.join(f'`{code}`' for code in codes)} |"
        for told, codes in advice.groups()
    ]
    last = f"| {advice.UNKNOWN.says} | {advice.UNKNOWN.do} | any other |"
    return before + ADVICE_HEADING + ADVICE_HEAD + "\n".join([*lines, last]) + "\n"


def advice_module() -> str:
    lines = [
        f"  [{_quoted(told.says, told.do, ' '.join(codes))}]," for told, codes in advice.groups()
    ]
    return ADVICE_TEXT % (_quoted(advice.UNKNOWN.says, advice.UNKNOWN.do), "\n".join(lines))


def _quoted(*texts: str) -> str:
    return ", ".join(json.dumps(text) for text in texts)


def _row(name: str) -> str:
    default = default_text(name)
    meaning = Settings.model_fields[name].description
    shown = f"`{default}`" if default else "none"
    return f"| `{name.upper()}` | {shown} | {values_of(name)} | {meaning} |"


def values_of(name: str) -> str:
    """What a setting may be, in a few words."""
    field = Settings.model_fields[name]
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    if field.annotation is bool:
        return "`true`, `false`"
    if field.annotation in (int, float):
        return _range(field)
    if get_origin(field.annotation) is tuple:
        return "list"
    if field.annotation is Path or Path in get_args(field.annotation):
        return "path"
    return "URL" if name.endswith("_url") else "text"


def _range(field: FieldInfo) -> str:
    number = "whole number" if field.annotation is int else "number"
    low = high = None
    for bound in field.metadata:
        match bound:
            case Ge(ge=value):
                low = f"{value}"
            case Gt(gt=value):
                low = f"{int(str(value)) + 1}"
            case Le(le=value):
                high = f"{value}"
    return f"{low} to {high}" if high else f"{number}, {low} or more"


if __name__ == "__main__":
    SETTINGS_PAGE.write_text(settings_page())
    EXAMPLE.write_text(example())
    ERRORS_PAGE.write_text(errors_page())
    ADVICE_MODULE.write_text(advice_module())
