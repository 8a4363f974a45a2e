"""Writes docs/settings.md and config/gateway.env.example from the table in gateway/settings.py.

.venv/bin/python scripts/docs.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from gateway.settings import Settings, default_text

ROOT = Path(__file__).parents[1]
SETTINGS_PAGE = ROOT / "docs" / "settings.md"
EXAMPLE = ROOT / "config" / "gateway.env.example"
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
    source = (ROOT / "gateway" / "settings.py").read_text()
    body = source[source.index("class Settings") : source.index("    @model_validator")]
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
