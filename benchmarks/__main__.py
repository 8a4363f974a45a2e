"""`python -m benchmarks`: runs the benchmarks and prints their tables."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import erasures, records, sweeps, verifications
from benchmarks.report import conditions, part_figures, part_table, session_table
from benchmarks.sessions import all_sessions
from benchmarks.timing import Amount

_HERE = Path(__file__).parent


def main() -> int:
    options = _options()
    results: dict[str, object] = {"conditions": conditions()}
    print(json.dumps(results["conditions"]), file=sys.stderr)
    if options.what in ("all", "sessions"):
        gc.freeze()  # as the gateway does when it has started
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            rows = runner.run(all_sessions(Amount(options.sessions)))
        results["sessions"] = sessions = [timings.figures() for timings in rows]
        print(session_table(sessions), flush=True)
    if options.what in ("all", "parts"):
        results["parts"] = parts = _measure_parts(options.match)
        print(part_table(parts))
    if options.what in ("all", "records"):
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            written = runner.run(records.written(options.rows))
            asked = runner.run(records.asked(300))
        results["records"] = [asdict(one) for one in (*written, *asked)]
        print(records.written_table(written), records.asked_table(asked), sep="\n\n")
    if options.what in ("all", "sweeps"):
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            results["sweeps"] = swept = runner.run(sweeps.measure(options.rows))
        print(sweeps.table(swept))
    if options.what in ("all", "erasures"):
        figures = asyncio.run(erasures.measure(erasures.Amount()))
        results["erasures"] = [asdict(one) for one in figures]
        print(erasures.table(figures))
    if options.what in ("all", "verifications"):
        verified = asyncio.run(verifications.measure(options.rows))
        results["verifications"] = [asdict(one) for one in verified]
        print(verifications.table(verified))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        default="all",
        choices=("all", "sessions", "parts", "records", "sweeps", "erasures", "verifications"),
        help="sessions: created, looked up, stopped; parts: the micro-benchmarks; records: of "
        "the audit log, written and waited for; sweeps: of the audit log, beside its commits; "
        "erasures: of a person with 100,000 values in it; verifications: of the whole log",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every figure there too")
    parser.add_argument("--match", default="", help="of the parts only these, as pytest's -k")
    parser.add_argument(
        "--sessions",
        type=int,
        default=Amount().one_by_one,
        metavar="N",
        help="how many one by one (%(default)s)",
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=40_000,
        metavar="N",
        help="requests to record, records to sweep, to verify (%(default)s)",
    )
    return parser.parse_args()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop that `sluice serve` would run on."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _measure_parts(match: str) -> list[dict[str, object]]:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "parts.json"
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(_HERE / "pytest.ini")]
        command += [f"--benchmark-json={file}", "-k", match, str(_HERE)]
        # What pytest prints isn't the result: standard output is for the tables.
        subprocess.run(command, check=True, stdout=sys.stderr)
        return part_figures(json.loads(file.read_text()))


if __name__ == "__main__":
    sys.exit(main())
