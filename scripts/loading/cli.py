"""The command line of `scripts/load.py`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from scripts.loading import process
from scripts.loading.compare import Comparison, Measurement, as_json, compare, ratios
from scripts.loading.peers import peer
from scripts.loading.scenarios import SCENARIOS


def run(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return int(options.command(options))


def _compare(options: argparse.Namespace) -> int:
    plan = Comparison(
        peers=[peer(name) for name in options.peers.split(",")],
        scenarios=[
            SCENARIOS[name].scaled(options.scale, options.seconds)
            for name in options.scenarios.split(",")
        ],
        rounds=options.rounds,
        base=options.base,
        peer_cpu=options.peer_cpu,
        load_cpu=options.load_cpu,
    )
    with asyncio.Runner(loop_factory=process.loop_factory()) as runner:
        made = runner.run(compare(plan, _tell))
    for ratio in ratios(made, plan.base):
        print(
            f"{ratio.scenario:6} {ratio.figure:20} {ratio.peer:16} ÷ {plan.base}: "
            f"{ratio.median:.2f} ({ratio.least:.2f}–{ratio.most:.2f})"
        )
    if options.json:
        options.json.write_text(json.dumps(as_json(plan, made), indent=1))
    return 1 if any(each.problem for each in made) else 0


_SHOWN = (
    *("cpu_us_per_event", "cpu_us_per_stream", "events_per_s", "streams_per_s"),
    *(
        "latency_p50_us",
        "latency_p99_us",
        "first_p50_ms",
        "open",
        "kib_per_stream",
        "left",
        "noticed",
        "gone_p50_ms",
        "gone_p99_ms",
    ),
    *("peer_cpu", "load_cpu", "backend_cpu", "others_cpu", "ok", "failed"),
)


def _tell(made: Measurement) -> None:
    figures = " ".join(f"{k}={made.figures[k]:.4g}" for k in _SHOWN if k in made.figures)
    limited = f" LIMITED BY {', '.join(made.limited_by)}" if made.limited_by else ""
    print(
        f"{made.round} {made.scenario} {made.peer}: {made.problem or figures}{limited}", flush=True
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="load.py", description="Measures a streaming gateway.")
    commands = parser.add_subparsers(required=True, metavar="command")
    comparing = commands.add_parser("compare", help="peers beside each other")
    comparing.set_defaults(command=_compare)
    add = comparing.add_argument
    add("--peers", default="bare,gateway,gateway-typed")
    add("--scenarios", default="pace,short,blast")
    add("--rounds", type=int, default=3)
    add("--base", default="bare", help="whose figures the others' are divided by")
    add("--seconds", type=float, help="of the measured part of each scenario")
    add("--scale", type=float, default=1.0, help="share of the streams")
    add("--peer-cpu", type=int, default=0)
    add("--load-cpu", type=int, default=1)
    add("--json", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(run())
