"""The description of the routes is valid, complete, and true of the running gateway."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
import pytest
import yaml
from openapi_spec_validator import OpenAPIV32SpecValidator

from gateway.web.openapi import PATH
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.gateway import running_gateway

DESCRIPTION = Path(__file__).parents[2] / "config" / "openapi.yaml"
BRIEF = Behaviour(first=0, pace=0, tokens=3)
#: For people, not for programs; or another spelling of a path that is described.
UNDESCRIBED = {"/playground", "/dashboard", "/static/{name}", "/healthz", "/health/liveliness"}
UNDESCRIBED |= {"/health/readiness", "/{path}", "/api/admin/{path}"}
TOKEN = "t" * 32
#: Operators may switch streaming off, so they are asked for apart.
CLIENTS = ("--exclude-path-regex", "^/api/admin/")
OPERATORS = ("--include-path-regex", "^/api/admin/", "--header", f"Authorization: Bearer {TOKEN}")
#: Every request that the description allows and many that it doesn't, some hundred of each.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance"
)


def described() -> dict[str, dict[str, object]]:
    paths: dict[str, dict[str, object]] = yaml.safe_load(DESCRIPTION.read_text())["paths"]
    return paths


def test_description_is_valid() -> None:
    assert not list(OpenAPIV32SpecValidator(yaml.safe_load(DESCRIPTION.read_text())).iter_errors())


async def test_gateway_serves_it() -> None:
    async with (
        running_gateway("http://127.0.0.1:9") as gateway,
        aiohttp.ClientSession() as client,
        client.get(gateway.url + PATH) as response,
    ):
        assert response.content_type == "application/yaml"
        assert await response.text() == DESCRIPTION.read_text()


async def test_every_route_is_described() -> None:
    async with running_gateway("http://127.0.0.1:9") as gateway:
        app = gateway.runner.app
        assert app is not None
        routes = {
            resource.canonical.replace("{path:.*}", "{path}") for resource in app.router.resources()
        }
    assert routes - UNDESCRIBED == described().keys()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("asked", [CLIENTS, OPERATORS], ids=["clients", "operators"])
async def test_gateway_is_as_described(asked: tuple[str, ...]) -> None:
    async with (
        serving(BRIEF) as upstream,
        running_gateway(upstream, upstream_dialect="rag", admin_token=TOKEN) as gateway,
    ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", str(DESCRIPTION)),
            *("--url", gateway.url, "--checks", CHECKS, "--max-examples", "25"),
            *("--generation-deterministic", "--no-color"),
            *asked,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
