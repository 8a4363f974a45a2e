"""Writes docs/settings.md and config/gateway.env.example from the table in gateway/settings.py.

.venv/bin/python scripts/docs.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gateway.settings import Settings, default_text

ROOT = Path(__file__).parents[1]
SETTINGS_PAGE = ROOT / "docs" / "settings.md"
EXAMPLE = ROOT / "config" / "gateway.env.example"
HEAD = """# Settings

From the environment, or from the file that `ENV_FILE` names; the environment wins. `0` switches a
limit, clock or cap off. A list is separated by commas. An unknown name that begins like one of
these, a bad value or a contradiction stops the start with one line each. `sluice check-config`
prints what is in force, secrets masked. This page is made from the code by `scripts/docs.py`.
"""


def groups() -> Iterator[tuple[str, list[str]]]:
    """The settings under the headings that they have in the source."""
    source = (ROOT / "gateway" / "settings.py").read_text()
    body = source[source.index("class Settings") : source.index("    @model_validator")]
    parts = re.split(r"^    # (.+)$", body, flags=re.MULTILINE)[1:]
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        yield title, re.findall(r"^    (\w+): ", text, flags=re.MULTILINE)


def settings_page() -> str:
    lines = [HEAD]
    for title, names in groups():
        lines.append(f"\n## {title}\n\n| setting | default | meaning |\n| --- | --- | --- |")
        for name in names:
            default = default_text(name)
            shown = f"`{default}`" if default else "none"
            lines.append(
                f"| `{name.upper()}` | {shown} | {Settings.model_fields[name].description} |"
            )
    return "\n".join(lines) + "\n"


def example() -> str:
    lines = [
        "# Every setting with its default. Copy, take the # away, and name the file in ENV_FILE."
    ]
    for title, names in groups():
        lines.append(f"\n# {title}")
        lines += [f"#{name.upper()}={default_text(name)}" for name in names]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    SETTINGS_PAGE.write_text(settings_page())
    EXAMPLE.write_text(example())
