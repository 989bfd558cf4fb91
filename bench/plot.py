"""Draws lines over logarithmic axes as an SVG, without a plotting library."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, LEFT, TOP, BELOW = 300, 230, 46, 24, 70
COLOURS = ("#0b6e4f", "#c1440e", "#3a5ba0", "#7a4d8b")


class Line(NamedTuple):
    """A label, and points whose coordinates are both above zero."""

    label: str
    points: Sequence[tuple[float, float]]


def plot(panels: Mapping[str, Sequence[Line]]) -> str:
    """Return an SVG with a panel for each title, two in a row."""
    drawn = [
        f'<g transform="translate({nth % 2 * WIDTH},{nth // 2 * HEIGHT})">{_panel(title, lines)}</g>'
        for nth, (title, lines) in enumerate(panels.items())
    ]
    height = ceil(len(drawn) / 2) * HEIGHT
    size = f'width="{2 * WIDTH}" height="{height}" viewBox="0 0 {2 * WIDTH} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="font-family:sans-serif;font-size:10px">'
    return f'{head}<rect width="100%" height="100%" fill="white"/>{"".join(drawn)}</svg>\n'


def _panel(title: str, lines: Sequence[Line]) -> str:
    """Return one panel: a grid of decades, the lines, and their labels."""
    across = _decades([x for line in lines for x, _ in line.points])
    up = _decades([y for line in lines for _, y in line.points])
    wide, high = WIDTH - LEFT - 24, HEIGHT - TOP - BELOW

    def place(x: float, y: float) -> tuple[float, float]:
        right = (log10(x) - across[0]) / (across[-1] - across[0])
        above = (log10(y) - up[0]) / (up[-1] - up[0])
        return LEFT + right * wide, TOP + (1 - above) * high

    parts = [f'<text x="{LEFT}" y="14" font-weight="bold">{title}</text>']
    for decade in across:
        x, _ = place(10**decade, 10 ** up[0])
        parts.append(f'<path d="M{x:.1f} {TOP}v{high}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP + high + 12}" text-anchor="middle">{10**decade:,}</text>')
    for decade in up:
        _, y = place(10 ** across[0], 10**decade)
        parts.append(f'<path d="M{LEFT} {y:.1f}h{wide}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{10**decade:g}</text>')
    for nth, line in enumerate(lines):
        colour = COLOURS[nth % len(COLOURS)]
        points = [place(x, y) for x, y in line.points]
        parts.append(
            f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in points]
        parts.append(f'<text x="{LEFT}" y="{TOP + high + 27 + 13 * nth}" fill="{colour}">{line.label}</text>')
    return "".join(parts)


def _decades(values: Sequence[float]) -> list[int]:
    """Return the powers of ten that span all values: at least two."""
    first, last = floor(log10(min(values))), ceil(log10(max(values)))
    return list(range(first, max(last, first + 1) + 1))
