"""What may be asked on the command line, and what it becomes."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.loading import process
from scripts.loading.compare import Comparison
from scripts.loading.crowd import Manners
from scripts.loading.peers import KNOWN, Peer, peer
from scripts.loading.running import Running
from scripts.loading.scenarios import SCENARIOS
from scripts.loading.single import Load
from scripts.loading.targets import DIALECTS, Target


class BadOptions(Exception):
    """Options that don't fit together; the text says which."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the peer and the measuring side run; nothing is pinned on a single core."""

    peer: int | None
    load: int | None


def cores(options: argparse.Namespace) -> Cores:
    if options.no_pin or process.cpu_count() < 2:
        return Cores(None, None)
    return Cores(options.peer_cpu, options.load_cpu)


def peer_of(options: argparse.Namespace) -> Peer:
    return _peer(options.peer)


def comparison(options: argparse.Namespace) -> Comparison:
    """The comparison that the options describe.

    Raises:
        BadOptions: there is no such peer or scenario.
    """
    names = options.scenarios.split(",")
    if unknown := set(names) - SCENARIOS.keys():
        raise BadOptions(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    cpus = cores(options)
    return Comparison(
        peers=[_peer(name) for name in options.peers.split(",")],
        scenarios=[SCENARIOS[name].scaled(options.scale, options.seconds) for name in names],
        rounds=options.rounds,
        base=options.base,
        peer_cpu=cpus.peer,
        load_cpu=cpus.load,
    )


def load(options: argparse.Namespace) -> Load:
    """The load that the options describe.

    Raises:
        BadOptions: neither a URL nor a peer, or a header without a colon.
    """
    if bool(options.url) == bool(options.peer):
        raise BadOptions("say either --url or --peer")
    headers = dict(_header(text) for text in options.header)
    if options.reconnect and "X-Stream-On-Disconnect" not in headers:
        headers["X-Stream-On-Disconnect"] = "grace=30"
    question, expected, mark = options.question, 0, b""
    if options.mock is not None:
        stamp = "" if re.search(r"\bstamp=", options.mock) else " stamp=text"
        question = f"{question} [mock: {options.mock}{stamp}]"
        found = re.search(r"\btokens=(\d+)", options.mock)
        expected = int(found[1]) if found else 0
    return Load(
        target=Target(
            options.url or "", options.dialect, options.path, options.model, headers, mark
        ),
        question=question,
        streams=options.streams,
        rate=options.rate,
        arrivals=options.arrivals,
        seconds=options.seconds,
        expected=expected,
        is_stamped=options.mock is not None and "stamp=0" not in options.mock,
        manners=Manners(
            slow=options.slow,
            slow_bytes_per_s=options.slow_bytes_per_s,
            leave=options.leave,
            leave_after=options.leave_after,
            reconnect=options.reconnect,
            drop_after=options.drop_after,
        ),
        pid=options.pid,
        backend_pid=options.backend_pid,
        drain_s=options.drain,
        seed=options.seed,
    )


def aimed(wanted: Load, what: Running, *, is_shared: bool) -> Load:
    """The same load, at a peer that was started for it."""
    headers = {**what.target.headers, **wanted.target.headers}
    target = replace(what.target, headers=headers)
    return replace(
        wanted,
        target=target,
        pid=what.pid,
        backend_pid=what.backend.pid,
        is_shared=is_shared,
    )


def _peer(name: str) -> Peer:
    try:
        return peer(name)
    except KeyError:
        raise BadOptions(f"no peer {name}; there are {', '.join(KNOWN)}") from None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise BadOptions(f"--header {text!r} has no colon")
    return name.strip(), value.strip()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="load.py", description="Measures a streaming gateway. docs/load.md has the method."
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="command")
    _run_options(commands.add_parser("run", help="one endpoint under load"))
    _compare_options(commands.add_parser("compare", help="peers beside each other"))
    return made


def _run_options(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("--url", help="base URL of what is measured")
    add("--peer", help="or start it, with a backend: gateway, gateway-typed, bare, nginx …")
    add("--dialect", choices=list(DIALECTS), default="openai")
    add("--path", default="", help="instead of the dialect's own")
    add("--model", default="load")
    add("--header", action="append", default=[], metavar="'NAME: VALUE'")
    add("--question", default="Tell me everything.")
    add("--mock", help="options for the demo backend: 'tokens=50 pace=20'; stamps each event")
    add("--streams", type=int, default=10, help="at any time, without --rate")
    add("--rate", type=float, default=0.0, help="streams begun a second, come what may")
    add("--arrivals", choices=("even", "random"), default="even", help="with --rate")
    add("--seconds", type=float, default=10.0, help="in which streams begin")
    add("--drain", type=float, default=30.0, help="seconds that streams may then go on")
    add("--slow", type=_share, default=0.0, metavar="SHARE", help="of clients that read slowly")
    add("--slow-bytes-per-s", type=int, default=2000)
    add("--leave", type=_share, default=0.0, metavar="SHARE", help="of clients that leave early")
    add("--leave-after", type=int, default=5, metavar="EVENTS")
    add("--reconnect", type=_share, default=0.0, metavar="SHARE", help="that drop and come back")
    add("--drop-after", type=int, default=5, metavar="EVENTS")
    add("--pid", type=int, help="of what is measured: its CPU and memory, children included")
    add("--backend-pid", type=int)
    add("--seed", type=int, default=1)
    _shared_options(made)


def _compare_options(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add(
        "--peers",
        default="direct,bare,gateway,gateway-typed",
        help=f"of {', '.join(KNOWN)}; gateway@FOLDER is another working tree's",
    )
    add("--scenarios", default="pace,short,blast", help=f"of {', '.join(SCENARIOS)}")
    add("--rounds", type=int, default=3)
    add("--base", default="bare", help="whose figures the others' are divided by")
    add("--seconds", type=float, help="of the measured part of each scenario")
    add("--scale", type=float, default=1.0, help="share of the streams")
    _shared_options(made)


def _shared_options(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("--peer-cpu", type=int, default=0, help="core of what is measured")
    add("--load-cpu", type=int, default=1, help="core of the load and the backend")
    add("--no-pin", action="store_true")
    add("--json", type=Path, metavar="FILE")
    add("--html", type=Path, metavar="FILE")


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("a share is between 0 and 1")
    return value
