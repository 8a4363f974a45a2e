"""Results as tables, for the terminal and the page."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scripts.loading.compare import Comparison, Measurement, Ratio, growth
from scripts.loading.single import Result


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    head: tuple[str, ...]
    rows: list[list[str]]


#: What each scenario shows: a figure, its title, its unit.
_PACED = (
    ("cpu_us_per_event", "CPU per event", "µs"),
    ("latency_p50_us", "latency p50", "µs"),
    ("latency_p99_us", "latency p99", "µs"),
    ("first_p50_ms", "first token p50", "ms"),
    ("peer_cpu", "CPU", "cores"),
)
COLUMNS = {
    "pace": _PACED,
    "many": _PACED,
    "short": (
        ("streams_per_s", "streams", "/s"),
        ("cpu_us_per_stream", "CPU per stream", "µs"),
        ("first_p50_ms", "first token p50", "ms"),
        ("peer_cpu", "CPU", "cores"),
    ),
    "blast": (
        ("events_per_s", "events", "/s"),
        ("cpu_us_per_event", "CPU per event", "µs"),
        ("peer_cpu", "CPU", "cores"),
    ),
    "idle": (
        ("kib_per_stream", "memory per stream", "KiB"),
        ("base_mib", "before", "MiB"),
        ("first_p50_ms", "first token p50", "ms"),
    ),
    "gone": (
        ("gone_p50_ms", "gone p50", "ms"),
        ("gone_p99_ms", "gone p99", "ms"),
        ("noticed", "noticed", ""),
    ),
}
_FIGURES = (
    ("events_per_s", "events per second"),
    ("streams_per_s", "whole streams per second"),
    ("mb_per_s", "MB per second"),
    ("cpu_us_per_event", "its CPU per event, µs"),
    ("cpu_us_per_stream", "its CPU per stream, µs"),
    ("kib_per_open_stream", "its memory per open stream, KiB"),
    ("most_open", "most streams open at once"),
    ("peer_cpu", "its CPU, cores"),
    ("backend_cpu", "the backend's CPU, cores"),
    ("load_cpu", "this instrument's CPU, cores"),
    ("load_us_per_event", "this instrument's CPU per event, µs"),
    ("others_cpu", "everything else's CPU, cores"),
)
_TIMES = {
    "first_token_ms": "first token, ms",
    "gap_ms": "between events, ms",
    "event_latency_us": "event latency, µs",
    "completion_ms": "whole stream, ms",
    "start_lag_ms": "begun late by, ms",
}
_QUANTILES = ("p50", "p95", "p99", "p99.9", "max")


def result_tables(result: Result) -> list[Table]:
    times = [
        [
            _TIMES[name],
            *(number(found[key]) for key in _QUANTILES),
            f"{found['count']:,.0f}",
        ]
        for name, found in result.times.items()
    ]
    rate = "–" if result.success_rate is None else f"{result.success_rate:.2%}"
    endings = [[name, f"{count:,}"] for name, count in sorted(result.endings.items())]
    figures = [[t, number(result.figures[n])] for n, t in _FIGURES if n in result.figures]
    return [
        Table("Times", ("", *_QUANTILES, "samples"), times),
        Table("Rates and costs", ("", ""), figures),
        Table(f"Endings: {rate} of those who stayed got all", ("", ""), endings),
    ]


def comparison_tables(
    plan: Comparison, made: Sequence[Measurement], found: Iterable[Ratio]
) -> list[Table]:
    tables = [_scenario_table(plan, scenario.name, made) for scenario in plan.scenarios]
    rows = [
        [f"{r.scenario}: {r.figure}", r.peer, f"{r.median:.2f}", f"{r.least:.2f}–{r.most:.2f}"]
        for r in found
    ]
    tables.append(
        Table(f"Ratios to {plan.base} within a round", ("", "peer", "median", "range"), rows)
    )
    if grown := growth(made):
        title = "CPU per event, many streams over few"
        cells = [[r.peer, f"{r.median:.2f}", f"{r.least:.2f}–{r.most:.2f}"] for r in grown]
        tables.append(Table(title, ("peer", "median", "range"), cells))
    return tables


def _scenario_table(plan: Comparison, scenario: str, made: Sequence[Measurement]) -> Table:
    columns = COLUMNS.get(scenario, ())
    head = ("peer", *(f"{title} {unit}".strip() for _, title, unit in columns), "ok", "failed", "")
    rows = [
        _row(peer.name, columns, [m for m in made if (m.scenario, m.peer) == (scenario, peer.name)])
        for peer in plan.peers
    ]
    return Table(
        f"{scenario}: {next(s.meaning for s in plan.scenarios if s.name == scenario)}", head, rows
    )


def _row(
    name: str, columns: Sequence[tuple[str, str, str]], made: Sequence[Measurement]
) -> list[str]:
    def middle(figure: str) -> str:
        values = [each.figures[figure] for each in made if figure in each.figures]
        return number(statistics.median(values)) if values else "–"

    def total(figure: str) -> str:
        return f"{sum(each.figures.get(figure, 0) for each in made):,.0f}"

    notes = {f"limited by {by}" for each in made for by in each.limited_by}
    notes |= {each.problem.splitlines()[0] for each in made if each.problem}
    cells = [middle(figure) for figure, _, _ in columns]
    return [name, *cells, total("ok"), total("failed"), "; ".join(sorted(notes))]


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def show(tables: Iterable[Table]) -> None:
    """Prints them, by rich where it is installed."""
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table as RichTable
    except ImportError:
        for table in tables:
            _show_plain(table)
        return
    console = Console()
    for table in tables:
        console.print(f"\n{table.title}", style="bold", highlight=False)
        rich = RichTable(box=SIMPLE_HEAD, show_header=any(table.head))
        for place, cell in enumerate(table.head):
            is_figure = place and cell
            rich.add_column(cell, justify="right" if is_figure else "left", overflow="fold")
        for row in table.rows:
            rich.add_row(*row)
        console.print(rich)


def _show_plain(table: Table) -> None:
    lines = [list(table.head), *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{table.title}")
    for line in lines:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
    sys.stdout.flush()
