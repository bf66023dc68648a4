"""Results as text: a line for each row while measuring, and a page of Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any

from measure import APART, Row
from options import plain
from results import Digest, Results

NAMES = {
    "all_reduce": "all-reduce",
    "all_gather": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "broadcast": "broadcast",
}


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, factor in (("ns", 1e9), ("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.0f} {unit}" if unit == "ns" else f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def line(row: Row) -> str:
    """A row in one line: kolo, the best peer, the ideal, and the state of the machine."""
    found = Digest.of(row)
    parts = [f"{plain(row.bytes):>8}"]
    for label, value in found.to_best_peer.items():
        parts.append(f"{label} {duration(row.series[label].median)}" + (f" ({value:.2f})" if value else ""))
    others = [label for label in (found.best_peer, found.ideal) if label is not None]
    parts += [f"{label} {duration(row.series[label].median)}" for label in others]
    parts.append(machine_state(row))
    return " | ".join(parts)


def machine_state(row: Row) -> str:
    """The line's round trip, what others took of the cores, and windows that they disturbed."""
    parts = []
    if row.lines_ns:
        low, high = min(row.lines_ns), max(row.lines_ns)
        apart = high > APART * low
        parts.append(f"{low:.0f}-{high:.0f} ns" if apart else f"{statistics.median(row.lines_ns):.0f} ns")
    others = [part for series in row.series.values() for part in series.foreign]
    parts.append(f"others {100 * statistics.mean(others):.0f} %")
    parts += [f"{row.thrown} thrown"] * (row.thrown > 0) + [f"{row.kept} disturbed"] * (row.kept > 0)
    return ", ".join(parts)


def page(results: Results) -> str:
    """All results as Markdown."""
    parts = [heading(results)]
    for (ranks, transport, collective), rows in groupby(results.rows, lambda row: row.table):
        parts.append(f"\n## {NAMES[collective]}, {ranks} ranks, {transport}\n")
        parts.append(speeds(list(rows), results))
    if results.dtypes:
        parts += [
            f"\n## Types: kolo's all-reduce, {results.dtypes[0].ranks} ranks, GB/s (and per cent of f32's)\n"
        ]
        parts.append(types(results.dtypes))
    parts += other(
        "From the start of the launcher to its end, with one small all-reduce",
        results.start,
        "ranks",
        duration,
    )
    parts += other("Memory of a rank after a first small all-reduce", results.memory, "ranks", kib)
    parts += other("CPU time of a rank that waits one second", results.waiting, "transport", duration)
    return "\n".join(parts) + "\n"


def heading(results: Results) -> str:
    """What was measured, where and when."""
    machine = results.machine
    lines = [
        "# kolo and its peers\n",
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['date']}. f32 sums; "
        f"sizes are those of the whole vector. Times are medians of {results.rounds} rounds of "
        f"{results.milliseconds:.0f} ms, of the slowest rank, with buffers rewritten and read between "
        "operations; ratios are medians of the rounds' ratios. Each library's best setting counts. `machine`: a "
        "cache line's round trip between the cores; what other processes took of the cores; windows thrown away "
        "because they took more than 5 %; those that stayed disturbed.\n",
    ]
    lines += [f"- {label}: {version}" for label, version in results.versions.items()]
    lines += [f"- left out: {text}" for text in results.left_out]
    return "\n".join(lines)


def grid(head: list[str], rows: Iterable[list[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def speeds(rows: list[Row], results: Results) -> str:
    """Times by size and library; then kolo's ratios."""
    found = [Digest.of(row) for row in rows]
    ours = list(dict.fromkeys(label for digest in found for label in digest.to_best_peer))
    ordinary = list(dict.fromkeys(label for digest in found for label in digest.to_ordinary))
    theirs = [name for name in (*results.peers, "ideal") if any(row.best(name) for row in rows)]
    head = ["bytes", *ours, *theirs]
    for label in ordinary:
        head += [f"{label} / best peer", f"{label} / ideal", f"{label} alloc / {label}"]
    table = []
    for row, digest in zip(rows, found):
        times = [row.series.get(label or "") for label in (*ours, *(row.best(name) for name in theirs))]
        cells = [plain(row.bytes), *("-" if series is None else duration(series.median) for series in times)]
        for label in ordinary:
            found_here = (digest.to_best_peer, digest.to_ideal, digest.to_ordinary)
            cells += [ratio(ratios.get(label)) for ratios in found_here]
        table.append([*cells, machine_state(row)])
    return grid([*head, "machine"], table)


def types(rows: list[Row]) -> str:
    """Bytes per time of each type."""
    labels = list(dict.fromkeys(label for row in rows for label in row.series))
    table = []
    for row in rows:
        cells = [plain(row.bytes)]
        for label in labels:
            # The first is f32; its time over another's is the other's speed against it.
            against = row.ratio(labels[0], label)
            cells.append(f"{row.bytes / row.series[label].median / 1e9:.1f} ({100 * (against or 0):.0f} %)")
        table.append([*cells, machine_state(row)])
    return grid(["bytes", *labels, "machine"], table)


def other(
    title: str, found: Mapping[Any, Mapping[str, float]], column: str, say: Callable[[float], str]
) -> list[str]:
    """A table with a row for each number of ranks or transport, and a column for each label."""
    if not found:
        return []
    labels = list(dict.fromkeys(label for values in found.values() for label in values))
    rows = [
        [str(key), *(say(v[label]) if label in v else "-" for label in labels)] for key, v in found.items()
    ]
    return [f"\n## {title}\n", grid([column, *labels], rows)]


def kib(amount: float) -> str:
    return f"{amount:.0f} KiB" if amount < 10240 else f"{amount / 1024:.0f} MiB"
