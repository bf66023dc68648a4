"""Fetches and builds the libraries, runs the jobs, writes the results."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import table
from builds import BuildError, Builder
from fetch import Unavailable
from jobs import Job, JobError, adopt_orphans
from machine import cores
from measure import Contender, Meter, Row
from options import Options, parse
from peers import PEERS, Ideal, Kolo, Setting

ROOT = Path(__file__).resolve().parents[2]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    options = parse(arguments, list(PEERS), [name for name in PEERS if name != "gloo"])
    adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    # Pipes, boards and whatever libraries leave: in memory, and gone at the end.
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="kolo-versus-", dir=shared if shared.is_dir() else None) as folder:
        try:
            return measure(options, Path(folder))
        except KeyboardInterrupt:
            return 130


def measure(options: Options, folder: Path) -> int:
    libraries = prepare(options, folder)
    rows: list[Row] = []
    for ranks in options.ranks:
        for transport in options.transports:
            rows += configuration(options, libraries, ranks, transport, folder)
    return 0


def prepare(options: Options, folder: Path) -> list:
    """The libraries that can be had, built against."""
    kolos = [Kolo(prefix, name) for name, prefix in options.kolo] or [Kolo(fresh())]
    builder = Builder(folder / "build")
    ready = []
    for library in [*kolos, Ideal(), *(PEERS[name]() for name in options.peers or [])]:
        try:
            library.build(builder, options.cache)
            ready.append(library)
        except (Unavailable, BuildError) as error:
            say(f"{library.name} is left out: {error}")
    return ready


def fresh() -> Path:
    """This tree's kolo, built in release mode."""
    prefix = ROOT / "target/versus/kolo"
    say(f"building kolo into {prefix}")
    subprocess.run([ROOT / "ffi/install", prefix], check=True)
    return prefix


def configuration(options: Options, libraries: list, ranks: int, transport: str, folder: Path) -> list[Row]:
    """All rows of one number of ranks over one transport; each library's jobs run throughout."""
    say(f"\n{ranks} ranks, {transport}")
    setting = Setting(ranks, transport, crowded=ranks > len(cores()))
    contenders: list[Contender] = []
    rows: list[Row] = []
    try:
        for library in libraries:
            for launch in library.launches(setting):
                try:
                    job = Job(launch, ranks, folder / f"job-{len(contenders)}", cores())
                except JobError as error:
                    say(f"{launch.label} is left out: {error}")
                    continue
                contenders += [Contender(library.name, job, placement) for placement in library.placements]
        meter = Meter(contenders, options.milliseconds, options.rounds, say)
        kolos = [library.name for library in libraries if isinstance(library, Kolo)]
        for collective in options.collectives:
            say(collective)
            for bytes_ in options.sizes:
                if collective in ("all_gather", "reduce_scatter") and bytes_ % (4 * ranks):
                    continue
                row = meter.row(Row(ranks, transport, collective, bytes_, "f32"))
                peers = {library.name for library in libraries} & set(PEERS)
                say(table.line(row, peers, kolos))
                rows.append(row)
    finally:
        for contender in contenders:
            contender.job.close()
    return rows
