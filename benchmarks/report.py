"""The figures as tables, in Markdown: readable in a terminal, and ready for docs/benchmarks.md."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from typing import Any

_SESSION_COLUMNS = {
    "p50 ms": "p50_ms",
    "p99 ms": "p99_ms",
    "mean ms": "mean_ms",
    "CPU ms": "cpu_ms",
    "asked ms": "asked_ms",
    "one by one /s": "one_at_a_time_per_s",
    "at once /s": "at_once_per_s",
    "asked /s": "asked_per_s",
}
_PACKAGES = ("aiohttp", "uvloop", "SQLAlchemy", "asyncpg", "limits", "orjson")


def conditions() -> dict[str, object]:
    """What the figures depend on: when, on what, with which versions."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def part_figures(report: dict[str, Any]) -> list[dict[str, object]]:
    """What pytest-benchmark reports, for one unit of work instead of one call."""
    return [
        {
            "name": one["name"].removeprefix("bench_").replace("_", " "),
            "unit": one["extra_info"]["unit"],
            **{
                f"{key}_us": one["stats"][key] / one["extra_info"]["count"] * 1e6
                for key in ("min", "median", "q3")
            },
            "per_s": one["extra_info"]["count"] / one["stats"]["median"],
        }
        for one in report["benchmarks"]
    ]


def part_table(figures: Sequence[dict[str, Any]]) -> str:
    head = ("part", "unit", "median µs", "fastest µs", "a second")
    rows = [
        (
            one["name"],
            one["unit"],
            _number(one["median_us"]),
            _number(one["min_us"]),
            _number(one["per_s"]),
        )
        for one in figures
    ]
    return _table(head, rows)


def session_table(figures: Sequence[dict[str, Any]]) -> str:
    rows = [
        (one["name"], *(_number(one[key]) for key in _SESSION_COLUMNS.values())) for one in figures
    ]
    return _table(("session", *_SESSION_COLUMNS), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([_line(head, widths), _line(rule, widths), *(_line(r, widths) for r in rows)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(padded)} |"


def _number(value: float | None) -> str:
    """Three digits that mean something."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.4f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
