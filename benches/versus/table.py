"""Results as text: lines while measuring, and a page of Markdown."""

from __future__ import annotations

from measure import Row
from options import plain


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    if seconds < 1e-6:
        return f"{seconds * 1e9:.0f} ns"
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000 or unit == "ms":
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 1000 else f"{seconds * factor:.0f} {unit}"
    return f"{seconds:.3g} s"


def ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def line(row: Row, peers: set[str], kolos: list[str]) -> str:
    """A row in one line."""
    best = row.best(peers)
    parts = [f"{plain(row.bytes):>8}"]
    if row.line_ns is not None:
        parts.append(f"line {row.line_ns:.0f} ns")
    for label in [label for label, series in row.series.items() if series.library in kolos]:
        parts.append(f"{label} {duration(row.series[label].median)} ({ratio(row.ratio(label, best))})")
    for label, series in row.series.items():
        if series.library not in kolos:
            parts.append(f"{label} {duration(series.median)}")
    if row.thrown or row.kept:
        parts.append(f"thrown {row.thrown}" + (f" kept {row.kept}" if row.kept else ""))
    return " | ".join(parts)
