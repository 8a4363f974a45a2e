"""Who may import whom: the arrows of the design, read from the sources.

    cli → commands → app → assembly → web → {stream, upstream, limit, audit …} → sse → errors

Left may import right, never back; siblings get callables from `gateway.assembly`. Imports for type
checking only and those inside functions count too.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: The parts of the package by their level, from the command line down.
LEVELS = (
    {"cli"},
    {"commands"},
    {"app"},
    {"assembly"},
    {"web", "erasures"},
    {
        *("stream", "upstream", "limit", "audit", "telemetry"),
        *("identity", "keys", "tokens", "flags"),
    },
    {"sse"},
    {"errors", "advice"},
)
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}

#: Parts outside the levels, and who may not import them. They stand on errors and one another.
FOUNDATIONS: dict[str, set[str]] = {
    "environment": {"settings", "sse", "errors"},
    "settings": {"sse", "errors"},
    "setting_table": {"sse", "errors"},
    "setting_types": {"sse", "errors"},
    "database": {"settings", "tasks", "sse", "errors"},
    "tasks": {"sse", "errors"},
    "backoff": {"sse", "errors"},
    "chunks": {"sse", "errors"},
    "heads": {"sse", "errors"},
    "queues": {"sse", "errors"},
    "__init__": {"errors"},
}
#: The Python client is a programme of its own: it shares the decoder and nothing else.
STANDALONE = {"client": {"sse", "errors", "__init__"}}

KNOWN = LEVEL_OF.keys() | FOUNDATIONS.keys() | STANDALONE.keys()

SQL_PACKAGES = {"sqlite3", "sqlalchemy", "asyncpg", "psycopg", "alembic"}
SQL_TEXT = re.compile(
    r"\s*(SELECT\s.+\sFROM\s|INSERT\s+(OR\s+\w+\s+)?INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s"
    r"|CREATE\s+(TABLE|INDEX|UNIQUE)|ALTER\s+TABLE\s|DROP\s+TABLE\s|PRAGMA\s)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Module:
    """One source file: its path under `gateway/` and its tree."""

    path: str
    tree: ast.Module

    @property
    def part(self) -> str:
        """What the levels are made of: a folder, or a module beside `app.py`."""
        return part_of(self.path.split("/")[0].removesuffix(".py"))

    def is_in(self, *patterns: str) -> bool:
        return any(fnmatch(self.path, pattern) for pattern in patterns)

    def imported(self) -> Iterator[str]:
        """Every imported name, dotted; `from a import b` gives `a.b`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                origin = self._origin(node)
                yield from (f"{origin}.{alias.name}" for alias in node.names)

    def _origin(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        folder = ["gateway", *self.path.split("/")[:-1]]
        base = folder[: len(folder) - node.level + 1]
        return ".".join([*base, *([node.module] if node.module else [])])

    def attributes(self) -> Iterator[str]:
        """Every dotted use of a plain name, such as `os.environ`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                yield f"{node.value.id}.{node.attr}"


def part_of(name: str) -> str:
    return name if name in KNOWN else "__init__"


Check = Callable[[Module], Iterator[str]]


def arrows(module: Module) -> Iterator[str]:
    """Imports between the parts go from left to right."""
    for name in module.imported():
        package, _, rest = name.partition(".")
        if package != "gateway":
            continue
        target = part_of(rest.split(".")[0])
        if not may_import(module.part, target):
            yield f"{module.part} imports {target}"


def may_import(part: str, target: str) -> bool:
    if part == target:
        return True
    if part in STANDALONE:
        return target in STANDALONE[part]
    if target in STANDALONE:
        return part in ("cli", "app")
    if target in FOUNDATIONS:
        return part not in FOUNDATIONS[target]
    if part in FOUNDATIONS:
        return target == "errors"
    return LEVEL_OF[part] < LEVEL_OF[target]


def environment(module: Module) -> Iterator[str]:
    """One module reads the environment."""
    if module.is_in("environment.py"):
        return
    for name in [*module.imported(), *module.attributes()]:
        if name in ("os.environ", "os.getenv", "os.environb", "os.getenvb"):
            yield f"uses {name}"


def server(module: Module) -> Iterator[str]:
    """Only the web knows aiohttp's server."""
    if module.is_in("web/*", "app.py"):
        return
    names = [*module.imported(), *module.attributes()]
    if any(re.match(r"aiohttp\.web(_\w+)?(\.|$)", name) for name in names):
        yield "uses aiohttp.web"


#: The audit log's parts that speak to its database.
_AUDIT = (
    *("store", "ledger", "catalogue", "dump", "holds"),
    *("due", "pruning", "explanations", "closings", "clock", "key_ends"),
    *("subject", "plan", "removal", "settlement", "access", "crossing"),
    *("verify/stored", "proving", "health", "report"),
)


def sql(module: Module) -> Iterator[str]:
    """SQL, its drivers and its text, stands in few places."""
    homes = ("database/*", "*/sql.py", "*/tables.py", "*/batch.py", "*/migrations/*")
    if module.is_in(*homes, *(f"audit/{name}.py" for name in _AUDIT)):
        return
    for name in module.imported():
        if name.split(".")[0] in SQL_PACKAGES:
            yield f"imports {name}"
    for node in ast.walk(module.tree):
        match node:
            case ast.Constant(value=str(text)) if SQL_TEXT.match(text):
                yield f"holds SQL in line {node.lineno}"


def redis(module: Module) -> Iterator[str]:
    """Redis stands in two places."""
    if module.is_in("stream/redis.py", "limit/*"):
        return
    if any(is_or_under(name, "redis") for name in module.imported()):
        yield "imports redis"


def tasks(module: Module) -> Iterator[str]:
    """Every task has a name and an owner."""
    if module.is_in("tasks.py"):
        return
    makers = ("create_task", "ensure_future")
    for name in module.imported():
        if name in [f"asyncio.{maker}" for maker in makers]:
            yield f"imports {name}"
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(value=ast.Name(id="group" | "task_group")):
                continue  # a TaskGroup owns its tasks
            case ast.Attribute(attr=maker) if maker in makers:
                yield f"uses {maker} in line {node.lineno}"


def is_or_under(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


CHECKS: tuple[Check, ...] = (arrows, environment, server, sql, redis, tasks)


@functools.cache
def modules() -> list[Module]:
    folder = ROOT / "gateway"
    return [
        Module(str(path.relative_to(folder)), ast.parse(path.read_text(), str(path)))
        for path in sorted(folder.rglob("*.py"))
    ]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_sources_hold_to_the_table(check: Check) -> None:
    violations = [f"{module.path} {what}" for module in modules() for what in check(module)]
    assert violations == []


def test_every_part_has_a_level() -> None:
    found = {path.stem for path in (ROOT / "gateway").iterdir() if path.name != "py.typed"}
    assert found - {"static", "__pycache__"} <= KNOWN


@pytest.mark.parametrize(
    ("check", "path", "source"),
    [
        (arrows, "sse/decoder.py", "from gateway.stream import log"),
        (arrows, "sse/decoder.py", "import gateway.settings"),
        (arrows, "sse/decoder.py", "from gateway import tasks"),
        (arrows, "sse/dialects/base.py", "from ...stream.log import StreamLog"),
        (arrows, "stream/hub.py", "from gateway.upstream.client import Client"),
        (arrows, "stream/hub.py", "def later():\n    from gateway.audit import log"),
        (arrows, "stream/hub.py", "from gateway.web import chat"),
        (arrows, "upstream/pool.py", "from .. import stream"),
        (arrows, "limit/rate.py", "if TYPE_CHECKING:\n    from gateway.stream.hub import Hub"),
        (arrows, "identity.py", "from gateway.keys import KeyRing"),
        (arrows, "flags.py", "from gateway.tokens import Tokens"),
        (arrows, "web/chat.py", "from gateway.app import build"),
        (arrows, "app.py", "import gateway.cli"),
        (arrows, "errors.py", "from gateway import settings"),
        (arrows, "settings.py", "from gateway.limit import rate"),
        (arrows, "client.py", "from gateway.settings import Settings"),
        (environment, "cli.py", "import os\nos.environ['HOST']"),
        (environment, "cli.py", "from os import getenv"),
        (server, "stream/reader.py", "from aiohttp import web"),
        (server, "stream/reader.py", "import aiohttp\naiohttp.web.Response()"),
        (server, "stream/reader.py", "from aiohttp.web_response import StreamResponse"),
        (server, "telemetry/health.py", "from aiohttp.web import Request"),
        (sql, "stream/hub.py", "import sqlite3"),
        (sql, "stream/store.py", "QUERY = 'SELECT id FROM streams'"),
        (sql, "stream/store.py", "QUERY = f'DELETE FROM {table}'"),
        (redis, "stream/hub.py", "from redis.asyncio import Redis"),
        (tasks, "stream/hub.py", "import asyncio\nasyncio.create_task(work())"),
        (tasks, "stream/hub.py", "from asyncio import ensure_future"),
        (tasks, "stream/hub.py", "asyncio.get_running_loop().create_task(work())"),
    ],
)
def test_violation_is_caught(check: Check, path: str, source: str) -> None:
    assert list(check(Module(path, ast.parse(source))))


@pytest.mark.parametrize(
    ("check", "path", "source"),
    [
        (arrows, "app.py", "from gateway import flags, identity, settings, stream, tasks, web"),
        (arrows, "cli.py", "from gateway import __version__\nfrom gateway.app import build"),
        (
            arrows,
            "stream/hub.py",
            "from gateway.sse.event import Event\nfrom .log import StreamLog",
        ),
        (arrows, "stream/hub.py", "from gateway.settings import Settings"),
        (arrows, "tokens/verifier.py", "from gateway.tokens.jwks import KeySource"),
        (arrows, "web/chat.py", "from gateway.upstream.client import Client"),
        (arrows, "client.py", "from gateway.sse.decoder import Decoder"),
        (environment, "environment.py", "import os\nos.environ"),
        (server, "upstream/client.py", "import aiohttp\naiohttp.ClientSession()"),
        (server, "web/middleware/arrival.py", "from aiohttp import web"),
        (sql, "audit/store.py", "QUERY = 'SELECT id FROM audit'"),
        (sql, "web/pages.py", "TEXT = 'Select a backend from the list'"),
        (redis, "stream/redis.py", "import redis.asyncio"),
        (
            tasks,
            "stream/hub.py",
            "async def both(group):\n    group.create_task(one())",
        ),
        (tasks, "tasks.py", "asyncio.create_task(work())"),
    ],
)
def test_permitted_source_passes(check: Check, path: str, source: str) -> None:
    assert list(check(Module(path, ast.parse(source)))) == []
