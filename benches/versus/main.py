"""The whole run: its parts, one after the other, and what they leave."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

import extras
import machine
import plot
import table
from bench import Bench
from jobs import adopt_orphans, send, tree
from measure import Contender, Meter, Row
from options import Options, parse
from peers import PEERS, Setting
from results import Results

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: list[str]) -> int:
    """0: done; 1: something failed, and the rest was done; 130: interrupted."""
    options = parse(arguments, list(PEERS))
    adopt_orphans()
    for number in INTERRUPTS:
        signal.signal(number, interrupt)
    # Pipes, boards and whatever libraries leave: in memory, and gone at the end.
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="kolo-versus-", dir=shared if shared.is_dir() else None
    ) as folder:
        try:
            return run(options, Path(folder))
        except KeyboardInterrupt:
            return 130
        finally:
            send(signal.SIGKILL, {*tree(os.getpid())} - {os.getpid()})


def interrupt(*_: object) -> None:
    """Ends like Ctrl-C, once: what ends jobs is not to be interrupted."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(options: Options, folder: Path) -> int:
    """All parts; results are written even if they are interrupted."""
    bench = Bench(options, folder)
    if not bench.kolos():
        return 1
    names = bench.names("kolo"), bench.names("peer")
    results = Results(machine.facts(), *names, options.rounds, options.milliseconds)
    try:
        for name in options.parts:
            PARTS[name](bench, options, results)
    finally:
        results.versions, results.left_out = bench.versions, bench.left_out
        write(results, options.out)
    return int(bool(results.left_out))


def speed(bench: Bench, options: Options, results: Results) -> None:
    """All collectives at all sizes, for each number of ranks over each transport."""
    for ranks in options.ranks:
        for transport in options.transports:
            setting = Setting(ranks, transport, crowded=ranks > len(machine.cores()))
            with bench.jobs(bench.libraries, setting) as jobs:
                contenders = [
                    Contender(one.name, one.group, job, where, collectives=one.collectives)
                    for one, job in jobs
                    for where in one.placements
                ]
                meter = Meter(contenders, options, bench.fail)
                for collective in options.collectives:
                    bench.say(f"\n{table.NAMES[collective]}, {ranks} ranks, {transport}")
                    for bytes_ in options.sizes:
                        # A block is at least one element.
                        if collective in ("all_gather", "reduce_scatter") and bytes_ % (4 * ranks):
                            continue
                        row = meter.fill(Row(ranks, transport, collective, bytes_))
                        if row.series:
                            results.rows.append(row)
                            bench.say(table.line(row))


def write(results: Results, folder: Path) -> None:
    """JSON, Markdown and a plot, into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    results.write(folder / "versus.json")
    (folder / "versus.md").write_text(table.page(results))
    written = ["versus.json", "versus.md"]
    if results.rows:
        (folder / "versus.svg").write_text(plot.picture(results))
        written.append("versus.svg")
    print(f"\nwritten into {folder}: {', '.join(written)}", file=sys.stderr)


PARTS = {
    "speed": speed,
    "types": extras.dtypes,
    "start": extras.start,
    "memory": extras.memory,
    "waiting": extras.waiting,
}
