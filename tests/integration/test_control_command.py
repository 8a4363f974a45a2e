"""`sluice control` against a running gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.cli import main
from tests.certificates import make_certificate
from tests.gateway import ADMIN_TOKEN, Gateway, running_gateway

NOWHERE = "http://127.0.0.1:1"
AT_START = [
    "streaming_enabled=on",
    "rollout_percent=100",
    "performance_mode=realtime",
    "debug=off",
    "emergency=off",
]
Environment = Callable[..., None]


@pytest.fixture(autouse=True)
def root_level() -> Iterator[None]:
    """Puts the log's level back."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """What the command reads its settings from."""

    def setting(**values: object) -> None:
        monkeypatch.setenv("ADMIN_TOKEN", ADMIN_TOKEN)
        for name, value in values.items():
            monkeypatch.setenv(name.upper(), str(value))

    return setting


async def sluice(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["control", *arguments])


def state(gateway: Gateway) -> tuple[bool, float, str, bool]:
    now = gateway.services.controls.state
    return now.streaming_enabled, now.rollout_percent, now.performance_mode, now.emergency


async def test_controls_are_shown_changed_and_reset(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_gateway(NOWHERE, admin_token=ADMIN_TOKEN) as gateway:
        environment(port=gateway.port)
        assert await sluice("show") == 0
        assert capsys.readouterr().out.splitlines() == AT_START
        changes = ("streaming_enabled=off", "rollout_percent=12.5", "performance_mode=balanced")
        assert await sluice("set", *changes) == 0
        assert state(gateway) == (False, 12.5, "balanced", False)
        assert capsys.readouterr().out.splitlines()[:3] == list(changes)
        assert await sluice("emergency") == 0
        assert state(gateway)[3] is True
        assert await sluice("emergency", "--end") == 0
        assert state(gateway)[3] is False
        assert await sluice("reset") == 0
        assert state(gateway) == (True, 100, "realtime", False)
        capsys.readouterr()
        assert await sluice("clean-up") == 0
        assert capsys.readouterr().out.splitlines() == [
            "detached=0",
            "expired=0",
            "conversations=0",
        ]


async def test_what_the_gateway_refuses_is_told(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_gateway(NOWHERE, admin_token=ADMIN_TOKEN) as gateway:
        environment(port=gateway.port)
        assert await sluice("set", "rollout_percent=250") == 1
        assert capsys.readouterr().err == "error: This control can't be that.\n"
        environment(port=gateway.port, admin_token="another-token-for-tests")
        assert await sluice("show") == 1
        assert capsys.readouterr().err == "error: The admin token isn't valid.\n"


async def test_gateway_that_is_not_there_is_told(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    environment(port=1)
    assert await sluice("show") == 1
    assert "no gateway answers at http://127.0.0.1:1" in capsys.readouterr().err


async def test_command_needs_the_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ADMIN_TOKEN", raising=False)
    assert await sluice("show") == 1
    assert capsys.readouterr().err.startswith("error: ADMIN_TOKEN")


async def test_change_that_is_none_is_a_wrong_command_line(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    environment()
    with pytest.raises(SystemExit) as ended:
        await sluice("set", "emergency")
    assert ended.value.code == 2
    assert "isn't NAME=VALUE" in capsys.readouterr().err


async def test_gateway_is_found_on_its_unix_socket(
    environment: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "socket"
    async with running_gateway(NOWHERE, admin_token=ADMIN_TOKEN, unix_socket=path):
        environment(unix_socket=path)
        assert await sluice("show") == 0
    assert capsys.readouterr().out.splitlines() == AT_START


async def test_gateways_own_certificate_is_trusted_and_no_other(
    environment: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate, other = make_certificate(tmp_path), tmp_path / "other"
    other.mkdir()
    tls = {"tls_cert": certificate, "tls_key": tmp_path / "key.pem"}
    async with running_gateway(NOWHERE, admin_token=ADMIN_TOKEN, **tls) as gateway:
        environment(port=gateway.port, **tls)
        assert await sluice("show") == 0
        assert capsys.readouterr().out.splitlines() == AT_START
        environment(tls_cert=make_certificate(other))
        assert await sluice("show") == 1
