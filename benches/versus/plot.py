"""Results as a picture: for each collective, times over sizes, as multiples of the best peer's."""

from __future__ import annotations

import math
from html import escape
from itertools import groupby

from measure import Row
from options import plain
from results import Results
from table import NAMES

PANEL = (440, 300)
"""Width and height of a panel, in pixels."""
MARGIN = (50, 34, 24, 34)
"""Left, top, right, bottom."""
RANGE = (0.1, 10.0)
"""Multiples of the best peer's time that are shown; what lies beyond is drawn at the edge."""
KOLO = ("#c1121f", "#e07a1f", "#8f2d8a", "#b5651d")
PEERS = ("#1d3557", "#457b9d", "#2a9d8f", "#6a994e", "#7a7a52", "#5c677d")
IDEAL = "#9a9a9a"


def picture(results: Results) -> str:
    """An SVG with a panel for each collective, number of ranks and transport."""
    panels = [(*which, list(rows)) for which, rows in groupby(results.rows, lambda row: row.table)]
    columns = min(4, max(1, len({collective for _, _, collective, _ in panels})))
    width, height = PANEL
    lines = -(-len(panels) // columns)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{columns * width}" height="{lines * height + 40}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        legend(results),
    ]
    for number, (ranks, transport, collective, rows) in enumerate(panels):
        at = (number % columns * width, 40 + number // columns * height)
        parts.append(f'<g transform="translate({at[0]},{at[1]})">')
        parts.append(panel(f"{NAMES[collective]}, {ranks} ranks, {transport}", rows, results))
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def styles(results: Results) -> dict[str, str]:
    """How each library's line is drawn."""
    found = {}
    for number, name in enumerate(results.kolos):
        color = KOLO[number % len(KOLO)]
        found[name] = f'stroke="{color}" stroke-width="2.5"'
        found[f"{name} alloc"] = f'stroke="{color}" stroke-width="1.5" stroke-dasharray="5 3"'
    for number, name in enumerate(results.peers):
        found[name] = f'stroke="{PEERS[number % len(PEERS)]}" stroke-width="1.2"'
    found["ideal"] = f'stroke="{IDEAL}" stroke-width="1.5" stroke-dasharray="2 3"'
    return found


def legend(results: Results) -> str:
    """Names beside their lines, on top."""
    parts, x = [], 12
    for name, style in styles(results).items():
        parts.append(f'<line x1="{x}" y1="16" x2="{x + 22}" y2="16" {style}/>')
        parts.append(f'<text x="{x + 27}" y="20">{escape(name)}</text>')
        x += 45 + 7 * len(name)
    return "\n".join(parts)


def panel(title: str, rows: list[Row], results: Results) -> str:
    """One collective: the axes and a line for each library."""
    (width, height), (left, top, right, bottom) = PANEL, MARGIN
    least, most = math.log2(rows[0].bytes), math.log2(rows[-1].bytes)
    low, high = math.log10(RANGE[0]), math.log10(RANGE[1])

    def x(bytes_: int) -> float:
        part = (math.log2(bytes_) - least) / (most - least) if most > least else 0.5
        return left + part * (width - left - right)

    def y(multiple: float) -> float:
        part = (math.log10(min(max(multiple, RANGE[0]), RANGE[1])) - low) / (high - low)
        return height - bottom - part * (height - top - bottom)

    parts = [
        f'<text x="{left}" y="{top - 10}" font-weight="bold">{escape(title)}: time / best peer\'s</text>'
    ]
    for multiple in (0.1, 0.2, 0.5, 1, 2, 5, 10):
        stroke = "#444" if multiple == 1 else "#ddd"
        parts.append(
            f'<line x1="{left}" y1="{y(multiple):.1f}" x2="{width - right}" y2="{y(multiple):.1f}" '
            f'stroke="{stroke}"/>'
        )
        parts.append(f'<text x="{left - 6}" y="{y(multiple) + 4:.1f}" text-anchor="end">{multiple:g}</text>')
    last = -1000.0
    for row in rows:
        if x(row.bytes) - last > 44:
            last = x(row.bytes)
            parts.append(
                f'<text x="{last:.1f}" y="{height - bottom + 16}" text-anchor="middle">'
                f"{plain(row.bytes)}</text>"
            )
    for name, style in reversed(styles(results).items()):
        found = [(row.bytes, against_best(row, name, results)) for row in rows]
        points = [(x(bytes_), y(ratio)) for bytes_, ratio in found if ratio]
        path = " ".join(f"{across:.1f},{up:.1f}" for across, up in points)
        parts.append(f'<polyline points="{path}" fill="none" {style}/>')
        parts += [
            f'<circle cx="{across:.1f}" cy="{up:.1f}" r="2" fill="none" {style}/>' for across, up in points
        ]
    return "\n".join(parts)


def against_best(row: Row, name: str, results: Results) -> float | None:
    """A library's or a form's time as a multiple of the best peer's; without peers, of kolo's."""
    peer = row.best("peer") or row.best(results.kolos[0])
    label = name if name in row.series else row.best(name)
    return None if label is None else row.ratio(label, peer)
