"""The report as one HTML file: no scripts, nothing from the network, light and dark."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from html import escape

from scripts.loading.compare import Comparison, Measurement, ratios
from scripts.loading.plots import bars, percentile_curve
from scripts.loading.single import Load, Result
from scripts.loading.tables import COLUMNS, Table, comparison_tables, result_tables

_STYLE = """
:root{color-scheme:light dark;--fg:#1d2530;--bg:#fff;--soft:#66707c;--line:#d5dae0;--bar:#2f6fbb}
@media (prefers-color-scheme:dark){:root{--fg:#e3e7ec;--bg:#15191f;--soft:#98a2ae;--line:#333b45;
--bar:#6aa5ea}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:60rem;
margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}
th,td{padding:.25rem .75rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
figure{margin:1.5rem 0}figcaption{font-weight:600}svg{width:100%;max-width:44rem;height:auto}
svg text{font-size:12px;fill:var(--soft)}.name{text-anchor:end}.mark{text-anchor:middle}
.bar{fill:var(--bar)}.line{fill:none;stroke:var(--bar);stroke-width:2}.grid{stroke:var(--line)}
.whisker{stroke:var(--fg);stroke-width:2}.warning{font-weight:600}
"""

_CURVES = {
    "first_token_ms": ("First token", "ms"),
    "gap_ms": ("Between two events", "ms"),
    "event_latency_us": ("From emission to receipt", "µs"),
    "completion_ms": ("Whole stream", "ms"),
}


def run_page(load: Load, result: Result) -> str:
    curves = [
        percentile_curve(title, result.samples[name], unit)
        for name, (title, unit) in _CURVES.items()
        if name in result.samples
    ]
    about = f"{load.target.url}, {load.target.dialect}, {result.made_at}"
    return _page("Load", about, result.limited_by, result_tables(result), curves)


def comparison_page(plan: Comparison, made: Sequence[Measurement], made_at: str) -> str:
    plots = [
        bars(
            f"{scenario.name}: {scenario.meaning}: {title}", _rows(made, scenario.name, name), unit
        )
        for scenario in plan.scenarios
        for name, title, unit in COLUMNS.get(scenario.name, ())
    ]
    limited = sorted({f"{each.scenario} {each.peer}" for each in made if each.limited_by})
    tables = comparison_tables(plan, made, ratios(made, plan.base))
    about = f"{plan.rounds} rounds, medians; whiskers from the least to the most; {made_at}"
    return _page("Comparison", about, limited, tables, plots)


def _rows(
    made: Iterable[Measurement], scenario: str, figure: str
) -> list[tuple[str, float, float, float]]:
    values: dict[str, list[float]] = {}
    for each in made:
        if each.scenario == scenario and figure in each.figures:
            values.setdefault(each.peer, []).append(each.figures[figure])
    return [(peer, statistics.median(v), min(v), max(v)) for peer, v in values.items()]


def _page(
    title: str, about: str, limited_by: list[str], tables: list[Table], plots: list[str]
) -> str:
    warning = ""
    if limited_by:
        names = escape(", ".join(limited_by))
        warning = f'<p class="warning">The measuring side was at its own limit: {names}.</p>'
    body = "".join([warning, *map(_table, tables), *plots])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1><p>{escape(about)}</p>{body}</body></html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return (
        f"<h2>{escape(table.title)}</h2>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )
