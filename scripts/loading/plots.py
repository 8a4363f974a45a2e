"""Plots as inline SVG, in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 220, 64, 28
#: Where a percentile curve is marked.
_SHARES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)


def percentile_curve(title: str, ordered: Sequence[float], unit: str) -> str:
    """Value by share of the samples; each step to the right is ten times rarer."""
    if not ordered:
        return ""
    most = max(ordered[-1], 1e-9)
    rarest = math.log10(max(10, len(ordered)))
    points = []
    for step in range(101):
        nines = rarest * step / 100
        index = min(len(ordered) - 1, int(len(ordered) * (1 - 10**-nines)))
        x = _LEFT + (_WIDTH - _LEFT - 8) * step / 100
        points.append(f"{x:.1f},{_y(ordered[index], most):.1f}")
    marks = "".join(
        _text(_LEFT + (_WIDTH - _LEFT - 8) * _nines(share) / rarest, _HEIGHT - 8, _name(share))
        for share in _SHARES
        if _nines(share) <= rarest
    )
    line = f'<polyline points="{" ".join(points)}" class="line"/>'
    return _figure(title, _scale(most, unit) + marks + line)


def bars(title: str, rows: Sequence[tuple[str, float, float, float]], unit: str) -> str:
    """A bar for each name with its median, and a whisker from the least to the most."""
    if not rows:
        return ""
    most = max(high for *_, high in rows) or 1e-9
    left, step = 130, 26
    across = _WIDTH - left - 90
    parts = []
    for number, (name, middle, low, high) in enumerate(rows):
        y = 8 + number * step
        width = across * middle / most
        ends = [left + across * value / most for value in (low, high)]
        parts.append(
            f'<text x="{left - 8}" y="{y + 13}" class="name">{escape(name)}</text>'
            f'<rect x="{left}" y="{y}" width="{width:.1f}" height="18" class="bar"/>'
            f'<path d="M{ends[0]:.1f} {y + 9}H{ends[1]:.1f}" class="whisker"/>'
            f'<text x="{max(left + width, ends[1]) + 6:.1f}" y="{y + 13}">{_short(middle)}'
            f" {escape(unit)}</text>"
        )
    return _figure(title, "".join(parts), len(rows) * step + 12)


def _figure(title: str, content: str, height: int = _HEIGHT) -> str:
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{content}</svg></figure>"
    )


def _scale(most: float, unit: str) -> str:
    """The axis, with lines at a half and the whole of the largest value."""
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = _y(most * share, most)
        label = f"{_short(most * share)} {escape(unit)}"
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - 8}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" class="name">{label}</text>')
    return "".join(parts)


def _y(value: float, most: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - 16) * value / most


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="mark">{text}</text>'


def _nines(share: float) -> float:
    return -math.log10(1 - share)


def _name(share: float) -> str:
    return f"p{share * 100:g}" if share else "least"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
