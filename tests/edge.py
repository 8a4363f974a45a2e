"""The proxies of config/edge/, really run: each with the shipped file but for port and names."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.certificates import make_certificate
from tests.servers import ServerFailed, free_port

EDGE = Path(__file__).parents[1] / "config" / "edge"
START_SECONDS = 20

Command = list[str]


@asynccontextmanager
async def running_proxy(name: str, gateway_port: int, folder: Path) -> AsyncIterator[str]:
    """`nginx`, `envoy` or `caddy` in front of a gateway; yields its https URL."""
    port = free_port()
    make_certificate(folder)
    command = _PROXIES[name](gateway_port, port, folder)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=output, stderr=output, cwd=folder, env=environment
        )
        try:
            await _listening(process, port, folder)
            yield f"https://127.0.0.1:{port}"
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _listening(process: asyncio.subprocess.Process, port: int, folder: Path) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            if process.returncode is not None:
                raise ServerFailed((folder / "output").read_text())
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


def _nginx(gateway_port: int, port: int, folder: Path) -> Command:
    site = _adapted(
        "nginx.conf",
        {
            "listen 443": f"listen 127.0.0.1:{port}",
            "127.0.0.1:8080": f"127.0.0.1:{gateway_port}",
            "/etc/nginx/tls/fullchain.pem": f"{folder}/certificate.pem",
            "/etc/nginx/tls/privkey.pem": f"{folder}/key.pem",
        },
    )
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # All that isn't the site's: what a distribution's nginx.conf has around it.
    around = (
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr warn; "
        f"events {{}} http {{ access_log off; {temporary}\n{site}\n}}"
    )
    (folder / "nginx.conf").write_text(around)
    return [_program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _envoy(gateway_port: int, port: int, folder: Path) -> Command:
    config = _adapted(
        "envoy.yaml",
        {
            "address: 0.0.0.0, port_value: 443": f"address: 127.0.0.1, port_value: {port}",
            "address: 127.0.0.1, port_value: 8080": (
                f"address: 127.0.0.1, port_value: {gateway_port}"
            ),
            "/etc/envoy/tls/fullchain.pem": f"{folder}/certificate.pem",
            "/etc/envoy/tls/privkey.pem": f"{folder}/key.pem",
        },
    )
    (folder / "envoy.yaml").write_text(config)
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
    return [_program("envoy"), "-c", str(folder / "envoy.yaml"), *options]


def _caddy(gateway_port: int, port: int, folder: Path) -> Command:
    site = f"https://127.0.0.1:{port} {{\n\ttls {folder}/certificate.pem {folder}/key.pem\n"
    config = _adapted(
        "Caddyfile",
        {"chat.example.com {\n": site, "127.0.0.1:8080": f"127.0.0.1:{gateway_port}"},
    )
    alone = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"
    (folder / "Caddyfile").write_text(alone + config)
    return [_program("caddy"), "run", "--config", str(folder / "Caddyfile")]


_PROXIES: Mapping[str, Callable[[int, int, Path], Command]] = {
    "nginx": _nginx,
    "envoy": _envoy,
    "caddy": _caddy,
}


def _adapted(name: str, changes: Mapping[str, str]) -> str:
    text = (EDGE / name).read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
        text = text.replace(old, new)
    return text


def _program(name: str) -> str:
    """What `scripts/test` has found, or what is on the PATH."""
    path = os.environ.get(f"TEST_{name.upper()}") or shutil.which(
        name, path=f"{os.environ['PATH']}:/usr/sbin"
    )
    if path is None:
        raise ServerFailed(f"{name} isn't installed; scripts/test installs it")
    return path
