"""How the gateway serves its own pages."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from tests.gateway import ADMIN_TOKEN, running_gateway

STATIC = Path(__file__).parents[2] / "gateway" / "static"
SERVED = [path.name for path in STATIC.iterdir() if path.suffix in (".css", ".html", ".js", ".svg")]
PAGES = ["/playground", "/dashboard"]


async def test_pages_run_no_foreign_script_and_cannot_be_framed() -> None:
    async with (
        running_gateway("http://127.0.0.1:1", admin_token=ADMIN_TOKEN) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        for path in [*PAGES, *(f"/static/{name}" for name in SERVED)]:
            async with client.get(path) as answer:
                assert answer.status == 200, path
                policy = dict(
                    part.strip().split(" ", 1)
                    for part in answer.headers["Content-Security-Policy"].split(";")
                )
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["form-action"] == "'none'"


@pytest.mark.parametrize("name", [name for name in SERVED if name.endswith(".html")])
def test_page_has_nothing_inline_and_asks_nobody_else(name: str) -> None:
    text = (STATIC / name).read_text()
    for forbidden in ("<style", " style=", " onclick=", "javascript:", "http:", "https:"):
        assert forbidden not in text
    assert text.count("<script") == text.count('<script type="module" src="/static/') == 1


@pytest.mark.parametrize(
    "name", ["openapi.yaml", "package.json", "sluice.d.ts", "..%2Fapp.py", "nothing.js"]
)
async def test_what_is_no_part_of_a_page_is_not_served(name: str) -> None:
    assert name == "nothing.js" or (STATIC / name.replace("%2F", "/")).exists()
    async with (
        running_gateway("http://127.0.0.1:1") as gateway,
        aiohttp.ClientSession(gateway.url) as client,
        client.get(f"/static/{name}") as answer,
    ):
        assert answer.status == 404
