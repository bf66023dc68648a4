"""What is not a collective's speed: types, start, memory, waiting."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import table
from bench import Bench
from jobs import JobError, Launch, run_once
from machine import cores
from measure import Contender, Meter, Row
from options import Options
from peers import Kolo, Setting
from results import Results

DTYPES = ("f32", "f16", "bf16", "f8e4m3")
DTYPES_FROM = 1 << 20
"""Smaller all-reduces are not bound by the kernels."""
START_RANKS = (2, 8)
START_ROUNDS = 5
MEMORY_RANKS = 8
WAIT_SECONDS = 1


def dtypes(bench: Bench, options: Options, results: Results) -> None:
    """All-reduce of narrow floats beside f32, kolo alone."""
    setting = Setting(2, "shm", crowded=len(cores()) < 2)
    for library in bench.kolos():
        bench.say(f"\ntypes: {library.name}, all-reduce, 2 ranks, shm")
        with bench.jobs([library], setting) as jobs:
            contenders = [
                Contender(library.name, library.group, job, dtype=dtype)
                for _, job in jobs
                for dtype in DTYPES
            ]
            meter = Meter(contenders, options, bench.fail)
            for size in (size for size in options.sizes if size >= DTYPES_FROM):
                row = meter.fill(Row(2, "shm", "all_reduce", size))
                if row.series:
                    results.dtypes.append(row)
                    bench.say(table.types([row]).splitlines()[-1])


def start(bench: Bench, options: Options, results: Results) -> None:
    """From the start of the launcher to its end, with one small all-reduce; alternating."""
    del options
    for ranks in START_RANKS:
        setting = Setting(ranks, "shm", crowded=ranks > len(cores()))
        launches: list[Launch] = []
        for library in bench.real():
            launches += library.launches(setting)
            if isinstance(library, Kolo):
                launches += library.launched(setting)
        found: dict[str, list[float]] = {}
        for _ in range(START_ROUNDS):
            for launch in list(launches):
                try:
                    seconds = run_once(launch, ranks, bench.folder / "once", cores())
                    found.setdefault(launch.label, []).append(seconds)
                except JobError as error:
                    bench.fail(f"{launch.label}: start of {ranks} ranks: {error}")
                    launches.remove(launch)
        results.start[ranks] = {label: statistics.median(times) for label, times in found.items()}
        bench.say(f"\nstart of {ranks} ranks: " + listed(results.start[ranks], table.duration))


def memory(bench: Bench, options: Options, results: Results) -> None:
    """What joining and a first small call cost a rank; the largest of all ranks."""
    del options
    found: dict[str, float] = {}
    setting = Setting(MEMORY_RANKS, "shm", crowded=MEMORY_RANKS > len(cores()))
    for library in bench.real():
        with bench.jobs([library], setting) as jobs:
            for _, job in jobs:
                found[job.label] = max(hello["footprint_kib"] for hello in job.hello)
    results.memory[MEMORY_RANKS] = found
    bench.say(f"\nmemory of one of {MEMORY_RANKS} ranks: " + listed(found, table.kib))


def waiting(bench: Bench, options: Options, results: Results) -> None:
    """CPU time of a rank whose peer comes late."""
    for transport in options.transports:
        found: dict[str, float] = {}
        for library in bench.real():
            with bench.jobs([library], Setting(2, transport, crowded=len(cores()) < 2)) as jobs:
                for _, job in jobs:
                    try:
                        found[job.label] = max(
                            answer["cpu"] for answer in job.ask(f"late {WAIT_SECONDS * 1000}")[1:]
                        )
                    except JobError as error:
                        bench.fail(f"{job.label}: waiting over {transport}: {error}")
        results.waiting[transport] = found
        bench.say(
            f"\nCPU time of waiting {WAIT_SECONDS} s over {transport}: " + listed(found, table.duration)
        )


def listed(found: dict[str, float], say: Callable[[float], str]) -> str:
    return ", ".join(f"{label} {say(value)}" for label, value in found.items())
