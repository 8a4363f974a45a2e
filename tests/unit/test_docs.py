"""The documentation holds everything that the code has, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.app import make_app
from gateway.settings import Settings
from gateway.stream.model import ENDING_REASONS
from gateway.telemetry.metrics import Metrics
from scripts.docs import EXAMPLE, SETTINGS_PAGE, example, settings_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCES = [ast.parse(path.read_text()) for path in (ROOT / "gateway").rglob("*.py")]
#: Codes of other protocols and of the Python client, which aren't answers of the gateway.
FOREIGN_CODES = {"malformed_event"}


def page(name: str) -> str:
    return (DOCS / name).read_text()


def names_in(text: str) -> set[str]:
    """What stands in back-quotes in the first column of a page's tables."""
    cells = re.findall(r"^\| (.+?) \|", text, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def error_codes() -> Iterator[str]:
    for tree in SOURCES:
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "code":
                value: ast.expr | None = node.value
            elif isinstance(node, ast.Assign) and _is_named(node.targets, "code"):
                value = node.value
            else:
                continue
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value


def _is_named(targets: list[ast.expr], name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def log_events() -> Iterator[str]:
    for tree in SOURCES:
        for node in ast.walk(tree):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if is_call and isinstance(node.func.value, ast.Name) and node.func.value.id == "logger":
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        yield argument.value


def route_paths(tmp_path: Path) -> set[str]:
    settings = Settings(upstream_url="http://127.0.0.1:1", data_dir=tmp_path)
    paths = set()
    for resource in make_app(settings).router.resources():
        paths.add(re.sub(r":[^}]*}", "}", resource.canonical))
    return paths


def test_settings_page_and_example_are_those_of_the_code() -> None:
    assert SETTINGS_PAGE.read_text() == settings_page()
    assert EXAMPLE.read_text() == example()
    assert {name.upper() for name in Settings.model_fields} <= names_in(settings_page())


def test_every_error_code_is_documented() -> None:
    client = {"not_resumable", "bad_content_type"}
    documented = names_in(page("errors.md"))
    assert set(error_codes()) - FOREIGN_CODES - client - documented == set()


def test_no_error_code_is_documented_that_there_isnt() -> None:
    known = set(error_codes()) | ENDING_REASONS
    assert names_in(page("errors.md")) - known == set()


def test_every_ending_is_documented() -> None:
    endings = page("events.md").partition("## Endings")[2]
    assert names_in(endings) == ENDING_REASONS


def test_every_metric_is_documented() -> None:
    text = Metrics().render().decode()
    names = set(re.findall(r"^# TYPE (\S+) ", text, flags=re.MULTILINE))
    names = {name for name in names if not name.endswith("_created")}
    assert names == names_in(page("metrics.md"))


def test_every_log_event_is_documented() -> None:
    assert set(log_events()) == names_in(page("logs.md"))


def test_every_route_is_documented(tmp_path: Path) -> None:
    text = page("routes.md")
    cells = re.findall(r"^\| [A-Za-z, ]+ \| (.+?) \|", text, flags=re.MULTILINE)
    documented = {path for cell in cells for path in re.findall(r"`(/[^`?]*)", cell)}
    documented.discard("/v1/responses/{id}")
    assert documented == route_paths(tmp_path)


def test_every_field_of_a_typed_event_is_documented() -> None:
    source = (ROOT / "gateway/stream/wire.py").read_text()
    fields = set(re.findall(r'^ +"([a-z_]+)": ', source, flags=re.MULTILINE))
    text = page("events.md")
    assert {field for field in fields if f"`{field}`" not in text} == set()


@pytest.mark.parametrize("path", [ROOT / "README.md", *DOCS.glob("*.md")], ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_readme_begins_with_the_two_commands() -> None:
    first = re.search(r"```sh\n(.+?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert first is not None
    assert [line.split()[0] for line in first[1].splitlines()] == [
        "./scripts/run",
        "./scripts/test",
    ]


def test_checks_catch_what_is_missing() -> None:
    text = page("errors.md").replace("`bad_cursor`", "")
    assert set(error_codes()) - names_in(text) >= {"bad_cursor"}
    assert names_in("| `made_up` | 400 | |") - set(error_codes()) == {"made_up"}
