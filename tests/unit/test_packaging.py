"""What is shipped: the wheel, the locked dependencies and the image's recipe."""

from __future__ import annotations

import asyncio
import configparser
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
Instruction = tuple[str, str]


def pinned(lock: Path) -> dict[str, set[str]]:
    """Versions by package; more than one where they depend on the platform."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE):
        versions.setdefault(name, set()).add(version)
    return versions


def declared(section: str, key: str) -> set[str]:
    """Names of the packages that setup.cfg asks for, as lock files spell them."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    lines = [line for line in config[section][key].split("\n") if line and line[0] != "#"]
    return {re.split(r"[\[<>=!;~ ]", line)[0].lower() for line in lines}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_locked_package_has_hashes_and_no_address(lock: Path) -> None:
    blocks = re.split(r"^(?=\S)", lock.read_text(), flags=re.MULTILINE)[1:]
    assert blocks
    assert all("==" in block and "--hash=sha256:" in block for block in blocks)
    assert "://" not in lock.read_text()


def test_run_lock_holds_every_declared_dependency() -> None:
    locked = pinned(ROOT / "requirements/run.txt").keys()
    assert declared("options", "install_requires") <= locked
    assert "uvloop" in locked


def test_test_lock_holds_the_run_lock_and_the_tools() -> None:
    locked = pinned(ROOT / "requirements/test.txt")
    assert pinned(ROOT / "requirements/run.txt").items() <= locked.items()
    for extra in ("test", "lint"):
        assert declared("options.extras_require", extra) <= locked.keys()


def test_node_lock_has_hashes_and_no_address() -> None:
    packages = json.loads((ROOT / "tests/node/package-lock.json").read_text())["packages"]
    del packages[""]
    assert all(
        "integrity" in package and "resolved" not in package for package in packages.values()
    )


def test_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gateway", tmp_path / "gateway", ignore=unwanted)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)

    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
        entry_points = next(name for name in shipped if name.endswith("entry_points.txt"))
        assert "sluice = gateway.cli:main" in archive.read(entry_points).decode()
    assert any(name.endswith("licenses/LICENSE") for name in shipped)
    files = (path for path in (tmp_path / "gateway").rglob("*") if path.is_file())
    assert {str(path.relative_to(tmp_path)) for path in files} <= shipped


@pytest.fixture(scope="module")
def dockerfile() -> list[Instruction]:
    """The instructions in their order: word and arguments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word
    ]


def last(instructions: list[Instruction], word: str) -> str:
    return [arguments for name, arguments in instructions if name == word][-1]


def final_stage(instructions: list[Instruction]) -> list[Instruction]:
    start = max(index for index, (word, _) in enumerate(instructions) if word == "FROM")
    return instructions[start:]


def test_image_is_built_in_stages_from_slim_bases(dockerfile: list[Instruction]) -> None:
    bases = [arguments for word, arguments in dockerfile if word == "FROM"]
    assert bases == ["python:3.13-slim AS build", "python:3.13-slim"]


def test_image_installs_only_what_is_locked(dockerfile: list[Instruction]) -> None:
    installs = [text for word, text in dockerfile if word == "RUN" and " install -" in text]
    for command in (part for text in installs for part in text.split("&&") if "pip" in part):
        assert "--require-hashes" in command or "--no-deps" in command


def test_image_copies_what_there_is_and_docker_may_see(dockerfile: list[Instruction]) -> None:
    copies = [text.split()[:-1] for word, text in dockerfile if word == "COPY"]
    sources = {source for copy in copies if "--from=build" not in copy for source in copy}
    assert all((ROOT / source).exists() for source in sources)
    visible = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert set(visible) == sources


def test_image_starts_the_gateway_itself_so_that_signals_reach_it(
    dockerfile: list[Instruction],
) -> None:
    stage = final_stage(dockerfile)
    command = json.loads(last(stage, "ENTRYPOINT")) + json.loads(last(stage, "CMD"))
    assert command == ["sluice", "serve"]


def test_image_needs_no_root_and_writes_only_to_its_volume(dockerfile: list[Instruction]) -> None:
    stage = final_stage(dockerfile)
    user, group = map(int, last(stage, "USER").split(":"))
    assert user >= 10_000
    assert group >= 10_000
    assert last(stage, "VOLUME") == "/data"
    environment = dict(part.split("=", 1) for part in last(stage, "ENV").split())
    assert environment["DATA_DIR"] == "/data"
    assert environment["HOST"] == "0.0.0.0"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


@pytest.mark.parametrize(("status", "code"), [(200, 0), (421, 0), (500, 1)])
async def test_image_health_check_asks_the_gateway(
    dockerfile: list[Instruction], status: int, code: int
) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/livez", answer)
    async with TestServer(app) as server:
        assert await health_check(dockerfile, port=server.port) == code
    assert asked == ["/livez"]


async def test_image_health_check_fails_when_nobody_listens(dockerfile: list[Instruction]) -> None:
    assert await health_check(dockerfile, port=1) == 1


async def health_check(instructions: list[Instruction], *, port: int | None) -> int:
    python, *arguments = json.loads(last(instructions, "HEALTHCHECK").partition("CMD ")[2])
    assert python == "python"
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env={"PORT": str(port)}, stderr=subprocess.DEVNULL
    )
    return await process.wait()
