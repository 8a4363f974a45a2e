"""The rules, alerts and the dashboard in config/ ask for what a gateway really measures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import aiohttp
import orjson
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.backend import CHAT_STREAM, ScriptedBackend, streaming
from tests.gateway import running_gateway
from tests.servers import ServerFailed

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "config" / "prometheus"
DASHBOARD = ROOT / "config" / "grafana" / "sluice.json"
RULE_TESTS = ROOT / "tests" / "prometheus" / "alerts.yml"
#: Prometheus makes it for each scrape.
MADE_BY_PROMETHEUS = {"up"}
_GIVEN_BY_SCRAPE = {"instance", "job", "le"}


def rules() -> list[dict[str, object]]:
    files = [
        yaml.safe_load((PROMETHEUS / name).read_text()) for name in ("rules.yml", "alerts.yml")
    ]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


@cache
def dashboard() -> dict[str, object]:
    found: dict[str, object] = orjson.loads(DASHBOARD.read_bytes())
    return found


def expressions(value: object) -> Iterator[str]:
    """Everything in a tree of JSON that is PromQL."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("expr", "query") and isinstance(inner, str) and inner != "prometheus":
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


def asked_for(expression: str) -> set[str]:
    """The metrics that an expression names."""
    bare = re.sub(r'"[^"]*"', "", expression)
    found = set(re.findall(r"(?:\w+:)?(?:sluice|process|gen_ai)_[\w:]+", bare))
    return found | (MADE_BY_PROMETHEUS & set(re.findall(r"\bup\b", bare)))


def labels_of(expression: str) -> set[str]:
    """The labels that an expression groups by or selects."""
    selected = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    return {*selected, *(label.strip() for group in grouped for label in group.split(","))}


async def test_everything_that_is_asked_for_is_measured() -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, audit_mode="async") as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        async with client.get("/api/v2/chat-stream?query=hello") as response:
            await response.read()
        async with client.get("/metrics") as response:
            families = list(text_string_to_metric_families(await response.text()))
    measured = set(MADE_BY_PROMETHEUS)
    for family in families:
        suffixes = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}
        measured |= {family.name + one for one in suffixes.get(family.type, ("",))}
    recorded = {str(rule["record"]) for rule in rules() if "record" in rule}
    wanted = [str(rule["expr"]) for rule in rules()] + list(expressions(dashboard()))
    assert len(wanted) > 50
    assert {name for one in wanted for name in asked_for(one)} <= measured | recorded
    assert measured & {name for one in wanted for name in asked_for(one)}


def test_labels_are_those_of_the_metrics_page() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `\w+` \| \w+ \| ([^|]*) \|", page, flags=re.MULTILINE)
    known = {label for row in rows for label in re.findall(r"`(\w+)`", row)} | _GIVEN_BY_SCRAPE
    wanted = [str(rule["expr"]) for rule in rules()] + list(expressions(dashboard()))
    assert {label for one in wanted for label in labels_of(one)} <= known


def test_names_and_labels_are_found_in_an_expression() -> None:
    expression = (
        'sum by (le, made) (rate(sluice_up_bucket{reason=~"sluice_no"}[5m])) / a:sluice_b:c'
    )
    assert asked_for(expression) == {"sluice_up_bucket", "a:sluice_b:c"}
    assert labels_of(expression) == {"le", "made", "reason"}


@pytest.mark.parametrize(
    "rule", [one for one in rules() if "alert" in one], ids=lambda r: r["alert"]
)
def test_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "action"}


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    assert isinstance(panels, list)
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_prometheus_takes_the_configuration() -> None:
    run_promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


def test_alerts_fire_when_they_should_and_not_before() -> None:
    run_promtool("test", "rules", str(RULE_TESTS))


def test_prometheus_understands_every_panel(tmp_path: Path) -> None:
    queries = [one for one in expressions(dashboard()) if not one.startswith("label_values(")]
    made = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$__\w+", "5m", query)}
        for number, query in enumerate(queries)
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": made}]}))
    run_promtool("check", "rules", str(path))


def run_promtool(*arguments: str) -> None:
    promtool = os.environ.get("TEST_PROMTOOL") or shutil.which("promtool")
    if promtool is None:
        raise ServerFailed("promtool isn't installed; scripts/test installs it")
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
