"""The documentation holds everything that the code has, and nothing else.

Each check takes a page's text and gives what is wrong with it, so that the checks themselves can be
tested: a page that lacks one row, or names one thing that there isn't, must not pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import pytest
from prometheus_client.metrics import MetricWrapperBase
from pydantic import ValidationError

from gateway.app import make_app
from gateway.cli import main
from gateway.environment import load_settings
from gateway.settings import Settings
from gateway.stream.model import ENDING_REASONS, error_ending, user_ending
from gateway.telemetry.metrics import Metrics
from gateway.web.middleware.cors import _EXPOSED
from gateway.web.services import SERVICES
from scripts.docs import (
    ADVICE_HEADING,
    ADVICE_MODULE,
    ERRORS_PAGE,
    EXAMPLE,
    SETTINGS_PAGE,
    advice_module,
    errors_page,
    example,
    settings_page,
)
from tests import code_facts
from tests.gateway import ADMIN_TOKEN, AS_ADMIN, running_gateway

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
#: Ends a wait inside the client and never leaves it.
INTERNAL_CLIENT_CODES = {"stopped"}
NOT_SETTINGS = {"ENV_FILE", "RAG_BACKEND_URL"}
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


def page(name: str) -> str:
    return (DOCS / name).read_text()


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its rank."""
    _, found, rest = text.partition(f"\n## {heading}\n")
    assert found, heading
    return rest.partition("\n## ")[0]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row but the heads."""
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        is_head = line.startswith("| ---") or following.startswith("| ---")
        if line.startswith("| ") and not is_head:
            yield [cell.strip() for cell in line.strip("|").split("|")]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def first_column(text: str) -> dict[str, list[str]]:
    """What stands in back-quotes in the first cell of a row, and the whole row."""
    return {name: cells for cells in rows(text) for name in quoted(cells[0])}


def differences(kind: str, documented: set[str], known: set[str]) -> set[str]:
    return {f"{kind} {name} is missing" for name in known - documented} | {
        f"there is no {kind} {name}" for name in documented - known
    }


def wrong_settings(text: str) -> set[str]:
    known = {name.upper() for name in Settings.model_fields}
    return differences("setting", set(first_column(text)), known)


def wrong_errors(text: str) -> set[str]:
    text = text.partition(ADVICE_HEADING)[0]
    documented, known = first_column(text), code_facts.error_codes()
    codes = set(known) | {reason for reason in ENDING_REASONS if _is_error(reason)}
    wrong = differences("code", set(documented), codes)
    for code in documented.keys() & known.keys():
        told = {int(number) for number in re.findall(r"\b[1-5]\d\d\b", documented[code][1])}
        wrong |= {f"{code} is also a {status}" for status in known[code] - told}
    return wrong


def _is_error(reason: str) -> bool:
    try:
        return error_ending(reason).is_error
    except KeyError:
        return False


def wrong_client_errors(text: str) -> set[str]:
    known = code_facts.client_codes() - INTERNAL_CLIENT_CODES | {"http_404"}
    return differences("code", set(first_column(section(text, "Errors"))), known)


def wrong_endings(text: str) -> set[str]:
    documented = first_column(section(text, "Endings"))
    wrong = differences("ending", set(documented), set(ENDING_REASONS))
    for reason, cells in documented.items():
        if _is_error(reason):
            ending = error_ending(reason)
            if cells[1] != ending.status or not cells[2].startswith("`error`"):
                wrong.add(f"{reason} is {ending.status}")
    return wrong


def wrong_typed_events(text: str) -> set[str]:
    documented = first_column(section(text, "Typed events"))
    known = code_facts.typed_events()
    wrong = differences("event", set(documented), set(known))
    for name in documented.keys() & known.keys():
        wrong |= differences(f"field of {name},", set(quoted(documented[name][2])), known[name])
    return wrong


def wrong_metrics(text: str) -> set[str]:
    rendered = _metrics().render().decode()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)", rendered, flags=re.MULTILINE))
    known = {name: kind for name, kind in types.items() if not name.endswith("_created")}
    documented = first_column(text)
    wrong = differences("metric", set(documented), set(known))
    for name in documented.keys() & known.keys():
        if documented[name][1] != known[name]:
            wrong.add(f"{name} is a {known[name]}")
        labels = set(_labels().get(name.removesuffix("_total"), ()))
        wrong |= differences(f"label of {name},", set(quoted(documented[name][2])), labels)
    return wrong


@cache
def _metrics() -> Metrics:
    """As a gateway has them, with the gauges of its state."""
    with TemporaryDirectory() as folder:
        return make_app(
            Settings(upstream_url="http://127.0.0.1:1", data_dir=Path(folder), audit_mode="off")
        )[SERVICES].metrics


def _labels() -> dict[str, tuple[str, ...]]:
    return {
        one._name: tuple(one._labelnames)
        for one in _metrics()._registry._collector_to_names
        if isinstance(one, MetricWrapperBase)
    }


def wrong_log_events(text: str) -> set[str]:
    documented, known = first_column(text), code_facts.log_events()
    wrong = differences("event", set(documented), set(known))
    for name in documented.keys() & known.keys():
        level, fields = documented[name][1], set(quoted(documented[name][3]))
        if not level.startswith(tuple(known[name].levels)) and known[name].levels:
            wrong.add(f"{name} has level {known[name].levels}")
        wrong |= differences(f"field of {name},", fields, known[name].fields)
    return wrong


def wrong_exposed_headers(text: str) -> set[str]:
    documented = set(first_column(section(text, "Response headers")))
    return differences("header", documented, set(_EXPOSED.split(", ")))


def wrong_setting_names(text: str) -> set[str]:
    """Settings that prose and examples name, and the values that they give them."""
    known = {name.upper() for name in Settings.model_fields} | NOT_SETTINGS
    code = " ".join(re.findall(r"```.*?```|`[^`]+`", text, flags=re.DOTALL))
    named = set(re.findall(r"(?<![\w.])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", code))
    wrong = {f"there is no setting {name}" for name in named - known}
    for name, value in re.findall(r"\b([A-Z][A-Z_]+)=([^\s`…,]+)", code):
        if name in known - NOT_SETTINGS and not _is_accepted(name, value):
            wrong.add(f"{name} can't be {value}")
    return wrong


def _is_accepted(name: str, value: str) -> bool:
    try:
        Settings(**{name.lower(): value})  # type: ignore[arg-type]
    except ValidationError as error:
        return all(name not in map(str.upper, map(str, item["loc"])) for item in error.errors())
    return True


CHECKS: list[tuple[str, Callable[[str], set[str]]]] = [
    ("settings.md", wrong_settings),
    ("errors.md", wrong_errors),
    ("client-python.md", wrong_client_errors),
    ("events.md", wrong_endings),
    ("events.md", wrong_typed_events),
    ("metrics.md", wrong_metrics),
    ("logs.md", wrong_log_events),
    ("routes.md", wrong_exposed_headers),
]
each_check = pytest.mark.parametrize(
    ("name", "check"), CHECKS, ids=[check.__name__ for _, check in CHECKS]
)


@each_check
def test_page_names_what_there_is_and_nothing_else(
    name: str, check: Callable[[str], set[str]]
) -> None:
    assert check(page(name)) == set()


@each_check
def test_page_that_lacks_any_of_its_rows_is_caught(
    name: str, check: Callable[[str], set[str]]
) -> None:
    text = page(name)
    table = [line for line in text.splitlines() if line.startswith("| `")]
    caught = [line for line in table if check(text.replace(line + "\n", ""))]
    known = {name for line in caught for name in quoted(line.split(" | ")[0])}
    # A page may have other tables too; this check is about the rows that it names itself.
    concerned = {problem.split()[1] for problem in check(_without_tables(text))}
    assert concerned
    assert concerned <= known


@each_check
def test_page_that_names_what_there_is_not_is_caught(
    name: str, check: Callable[[str], set[str]]
) -> None:
    text = page(name)
    last = [line for line in text.splitlines() if line.startswith("| `")]
    caught = {
        problem
        for line in last
        for problem in check(text.replace(line, f"{line}\n{_renamed(line)}"))
    }
    assert any(problem.startswith("there is no ") for problem in caught)


@pytest.mark.parametrize(
    ("name", "check", "right", "wrong"),
    [
        ("errors.md", wrong_errors, "`stream_not_found` | 404", "`stream_not_found` | 410"),
        ("events.md", wrong_endings, "`timeout` | TERMINATED", "`timeout` | ERROR"),
        ("events.md", wrong_typed_events, "`partial`", "`whole`"),
        ("metrics.md", wrong_metrics, "counter | `kind`", "counter | `reason`"),
        ("metrics.md", wrong_metrics, "active` | gauge", "active` | counter"),
        ("logs.md", wrong_log_events, "`task.failed` | error", "`task.failed` | info"),
        ("logs.md", wrong_log_events, ", `rollout_percent`", ""),
    ],
)
def test_detail_that_is_wrong_is_caught(
    name: str, check: Callable[[str], set[str]], right: str, wrong: str
) -> None:
    text = page(name)
    assert right in text
    assert check(text.replace(right, wrong))


def _without_tables(text: str) -> str:
    return re.sub(r"^\| `.*\n", "", text, flags=re.MULTILINE)


def _renamed(row: str) -> str:
    return re.sub(r"`[^`]+`", "`made_up`", row, count=1)


def test_settings_page_and_example_are_made_from_the_code() -> None:
    assert SETTINGS_PAGE.read_text() == settings_page()
    assert EXAMPLE.read_text() == example()


def test_advice_of_the_page_and_of_web_pages_is_made_from_the_code() -> None:
    assert ERRORS_PAGE.read_text() == errors_page()
    assert ADVICE_MODULE.read_text() == advice_module()


def test_example_file_holds_every_setting_with_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = EXAMPLE.read_text()
    assert all(not line or line.startswith("#") for line in text.splitlines())
    assignments = re.findall(r"^#([A-Z_]+)=", text, flags=re.MULTILINE)
    assert assignments == [name.upper() for name in Settings.model_fields]
    for name in assignments:
        monkeypatch.delenv(name, raising=False)
    copy = tmp_path / "gateway.env"
    copy.write_text(re.sub(r"^#(?=[A-Z_]+=)", "", text, flags=re.MULTILINE))
    monkeypatch.setenv("ENV_FILE", str(copy))
    assert load_settings() == Settings()


@each_page
def test_settings_are_named_as_they_are_called_and_given_what_they_take(path: Path) -> None:
    assert wrong_setting_names(path.read_text()) == set()


def test_wrong_setting_in_a_page_is_caught() -> None:
    assert wrong_setting_names("`STREAM_MAX_SECOND`") == {"there is no setting STREAM_MAX_SECOND"}
    assert wrong_setting_names("`AUTH_MODE=token`") == {"AUTH_MODE can't be token"}


def test_ending_of_a_users_own_is_none_of_ours() -> None:
    assert all(user_ending(reason).reason == "user_requested" for reason in ENDING_REASONS)


async def test_routes_page_has_every_route_and_its_methods(tmp_path: Path) -> None:
    documented: dict[str, set[str]] = {}
    for cells in rows(page("routes.md").partition("\n## ")[0]):
        for path in re.findall(r"`(/[^`?]*)", cells[1]):
            documented[path] = set(cells[0].split(", "))
    del documented["/v1/responses/{id}"]  # a part of /v1/{path}
    async with (
        running_gateway(
            "http://127.0.0.1:1", data_dir=tmp_path, admin_token=ADMIN_TOKEN
        ) as gateway,
        aiohttp.ClientSession(gateway.url, headers=AS_ADMIN) as session,
    ):
        assert gateway.runner.app is not None
        router = gateway.runner.app.router
        found = {re.sub(r":[^}]*}", "}", one.canonical) for one in router.resources()}
        assert differences("route", set(documented), found) == set()
        for path, methods in documented.items():
            if path.startswith("/api/") and methods != {"any"}:
                plain = path.replace("{", "").replace("}", "")
                async with session.request("REPORT", plain) as answer:
                    assert answer.status == 405
                    assert set(answer.headers["Allow"].split(",")) == methods, path


async def test_routes_page_has_every_field_of_a_stream_and_of_health(tmp_path: Path) -> None:
    async with (
        running_gateway("http://127.0.0.1:1", data_dir=tmp_path) as gateway,
        aiohttp.ClientSession(gateway.url) as session,
    ):
        query = {"query": "hello", "conversation_id": "c"}
        async with session.get("/api/v2/chat-stream", params=query) as answer:
            assert answer.status == 502
        async with session.get("/api/v2/streams?conversation_id=c") as answer:
            (stream,) = (await answer.json())["streams"]
        async with session.get("/health") as answer:
            health = await answer.json()
    words = {"ACTIVE", "COMPLETED", "TERMINATED", "ERROR", '{"code", "message", "retryable"}'}
    told = set(quoted(section(page("routes.md"), "A stream as JSON"))) - words
    assert differences("field", told, set(stream)) == set()
    assert set(stream["error"]) == {"code", "message", "retryable"}
    error = '{"at", "operation", "code", "trace_id"}'
    words = {"ok", "degraded", "draining", error, "STREAM_ERROR_LOG_BUFFER_SIZE"}
    words |= {"closed", "open", "half_open"}
    told = set(quoted(section(page("routes.md"), "Health"))) - words
    assert set(health["errors"]["latest"][0]) == set(re.findall(r"\w+", error))
    parts = {key for value in health.values() if isinstance(value, dict) for key in value}
    assert differences("field", told, (set(health) | parts) - {"degraded"}) == set()


@each_page
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if "://" not in target:
            assert leads_somewhere(path, target), target


def leads_somewhere(path: Path, target: str) -> bool:
    file, _, anchor = target.partition("#")
    found = path.parent / file if file else path
    if not found.exists():
        return False
    headings = re.findall(r"^#+ (.+)$", found.read_text(), flags=re.MULTILINE) if anchor else []
    slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    return not anchor or anchor in slugs


def test_link_that_leads_nowhere_is_caught() -> None:
    readme = ROOT / "README.md"
    assert leads_somewhere(readme, "docs/events.md#typed-events")
    assert not leads_somewhere(readme, "docs/events.md#typed-event")
    assert not leads_somewhere(readme, "docs/event.md")


@each_page
def test_every_file_that_is_named_exists(path: Path) -> None:
    folders = "gateway|config|docs|scripts|tests|requirements"
    for name in re.findall(rf"(?<![\w/])(?:\./)?((?:{folders})/[\w./-]*\w)", path.read_text()):
        assert (ROOT / name).exists() or (path.parent / name).exists(), name


@each_page
def test_every_command_that_is_named_exists(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = " ".join(re.findall(r"```sh.*?```|`sluice [^`]+`", path.read_text(), flags=re.DOTALL))
    for command in re.findall(r"(?<![\w-])sluice ((?:keys )?[a-z-]+)", code):
        with pytest.raises(SystemExit) as ended:
            main([*command.split(), "--help"])
        assert ended.value.code == 0, command
    capsys.readouterr()


def test_readme_begins_with_the_two_commands() -> None:
    first = re.search(r"```sh\n(.+?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert first is not None
    commands = [line.split()[0] for line in first[1].splitlines()]
    assert commands == ["./scripts/run", "./scripts/test"]


def test_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert {path.name for path in DOCS.glob("*.md")} == set(
        re.findall(r"\(docs/([\w-]+\.md)\)", readme)
    )
