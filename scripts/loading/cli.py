"""The command line of `scripts/load.py`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from scripts.loading import options as opts
from scripts.loading import process
from scripts.loading.compare import Measurement, as_json, compare, ratios
from scripts.loading.page import comparison_page, run_page
from scripts.loading.progress import progress
from scripts.loading.running import PeerFailed, lean_backend, running
from scripts.loading.single import Load, Result
from scripts.loading.single import run as run_load
from scripts.loading.start import NotInstalled
from scripts.loading.tables import comparison_tables, result_tables, show
from scripts.loading.tally import Tally

_told_to_end: list[int] = []
_SHOWN = ("cpu_us_per_event", "events_per_s", "streams_per_s", "kib_per_stream", "gone_p99_ms")


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0, or 1 if something that was measured failed, or 2 for bad options.

    SIGTERM and SIGINT end what was started, too: 130.
    """
    options = opts.parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    try:
        return _compare(options) if options.command == "compare" else _run(options)
    except (opts.BadOptions, NotInstalled, PeerFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _end(number: int, frame: FrameType | None) -> None:
    _told_to_end.append(number)
    signal.raise_signal(signal.SIGINT)


def _run(options: argparse.Namespace) -> int:
    load = opts.load(options)
    with asyncio.Runner(loop_factory=process.loop_factory()) as runner:
        load, result = runner.run(_drive(load, options))
    show(result_tables(result))
    if result.limited_by:
        print(f"The measuring side was at its limit: {', '.join(result.limited_by)}.")
    _write(options.json, json.dumps(result.as_json(load), indent=1))
    _write(options.html, run_page(load, result))
    return 0 if result.success_rate in (1.0, None) else 1


async def _drive(load: Load, options: argparse.Namespace) -> tuple[Load, Result]:
    with progress(options.url or options.peer) as tell:

        def heard(tally: Tally, share: float) -> None:
            tell(share, f"{tally.open} open, {tally.ended} ended, {tally.events:,} events")

        if options.url:
            return load, await run_load(load, heard)
        process.allow_many_connections()
        cpus = opts.cores(options)
        if cpus.load is not None:
            process.pin(process.own_pid(), {cpus.load})
        with lean_backend(cpus.load) as backend:
            async with running(opts.peer_of(options), backend, cpus.peer) as what:
                load = opts.aimed(load, what, is_shared=cpus.load is not None)
                return load, await run_load(load, heard)


def _compare(options: argparse.Namespace) -> int:
    plan = opts.comparison(options)
    total = plan.rounds * len(plan.scenarios) * len(plan.peers)
    done = 0
    with progress("compare") as tell:

        def heard(made: Measurement) -> None:
            nonlocal done
            done += 1
            tell(done / total, f"{made.scenario} {made.peer}")
            print(_line(made), flush=True)
            if _told_to_end:  # what was being measured may have taken the interruption for its own
                raise KeyboardInterrupt

        with asyncio.Runner(loop_factory=process.loop_factory()) as runner:
            made = runner.run(compare(plan, heard))
    found = as_json(plan, made)
    show(comparison_tables(plan, made, ratios(made, plan.base)))
    _write(options.json, json.dumps(found, indent=1))
    _write(options.html, comparison_page(plan, made, str(found["made_at"])))
    return 1 if any(each.problem for each in made) else 0


def _line(made: Measurement) -> str:
    figures = " ".join(f"{k}={made.figures[k]:.4g}" for k in _SHOWN if k in made.figures)
    limited = f" LIMITED BY {', '.join(made.limited_by)}" if made.limited_by else ""
    return f"{made.round + 1} {made.scenario} {made.peer}: {made.problem or figures}{limited}"


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.write_text(text)
