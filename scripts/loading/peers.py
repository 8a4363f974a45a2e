"""What is measured: how each peer is started, and what its clients say to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.loading import others
from scripts.loading.start import Start
from scripts.loading.targets import Target

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

#: Everything that costs is on, and nothing stands in the way of thousands of streams.
GATEWAY_SETTINGS = {
    "ENABLE_SSE_STREAMING": "true",
    "STREAM_IDS": "true",
    "HEARTBEAT_INTERVAL": "5",
    "RATE_LIMIT": "1000000000/minute",
    "MAX_STREAM_SESSIONS": "0",
    "STREAM_MAX_SECONDS": "3600",
    "UPSTREAM_IDLE_SECONDS": "600",
    "UPSTREAM_FIRST_TOKEN_SECONDS": "600",
    "LOG_LEVEL": "info",
    # What it costs depends on the machine's disk: docs/load.md has it beside.
    "AUDIT_MODE": "off",
}


@dataclass(frozen=True, slots=True)
class Peer:
    """`start` gets the backend's URL, a port and an empty folder; without it, it is the backend."""

    name: str
    start: Callable[[str, int, Path], Start] | None
    dialect: str = "openai"
    headers: Callable[[str], dict[str, str]] = lambda _: {}
    start_s: float = 30.0

    def target(self, url: str, upstream: str) -> Target:
        return Target(url, self.dialect, headers=self.headers(upstream), mark=b"@")


def peer(name: str) -> Peer:
    """A peer by its name; `gateway@FOLDER` runs the gateway of another working tree.

    Raises:
        KeyError: there is no such peer.
    """
    kind, _, folder = name.partition("@")
    if not folder:
        return KNOWN[kind]
    return _gateway(name, KNOWN[kind].dialect, Path(folder).resolve())


def _gateway(name: str, dialect: str, tree: Path = ROOT) -> Peer:
    def start(upstream: str, port: int, folder: Path) -> Start:
        environment = {
            **GATEWAY_SETTINGS,
            **{key[6:]: value for key, value in os.environ.items() if key.startswith("BENCH_")},
            "UPSTREAM_URL": upstream,
            "PORT": str(port),
            "DATA_DIR": str(folder),
            "PYTHONPATH": str(tree),
        }
        return Start([sys.executable, "-m", "gateway.cli", "serve"], environment, tree)

    return Peer(name, start, dialect, lambda _: {"X-Stream-On-Disconnect": "cancel"})


def _bare(upstream: str, port: int, folder: Path) -> Start:
    return Start([sys.executable, str(HERE / "bare_relay.py"), upstream, str(port)])


KNOWN = {
    each.name: each
    for each in (
        Peer("direct", None),
        Peer("bare", _bare),
        _gateway("gateway", "openai"),
        _gateway("gateway-typed", "typed"),
        Peer("nginx", others.nginx),
        Peer("envoy", others.envoy),
        Peer("litellm", others.litellm, start_s=90),
        Peer("portkey", others.portkey, headers=others.portkey_headers),
    )
}
