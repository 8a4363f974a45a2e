"""docs/audit-format.md holds every event, field and code that there is, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from gateway.audit.event import TYPES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "audit-format.md").read_text()


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(heading: str) -> Iterator[list[str]]:
    for line in section(heading).splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def quoted(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def first_column(heading: str) -> set[str]:
    return {name for cells in rows(heading) for name in quoted(cells[0])}


def told_codes(path: Path, callers: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        if name in callers:
            for part in ast.walk(node.args[0]):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


def test_every_event_has_its_row_with_its_fields() -> None:
    documented = {
        next(iter(quoted(cells[0]))): (cells[1], *map(quoted, cells[2:5]))
        for cells in rows("Events")
    }
    known = {
        event.name: (event.cls.value, set(event.needed), set(event.others), set(event.personal))
        for event in TYPES.values()
    }
    assert documented == known


def test_every_code_of_the_package_is_told() -> None:
    files = [
        path for name in ("audit", "commands") for path in ROOT.glob(f"gateway/{name}/**/*.py")
    ]
    codes = {code for path in files for code in told_codes(path, {"AuditError"})}
    assert first_column("Codes") == codes


def test_every_finding_of_the_second_verifier_is_told() -> None:
    codes = set(told_codes(ROOT / "scripts" / "verify_audit.py", {"found", "Bad"}))
    assert first_column("The second verifier") == codes
