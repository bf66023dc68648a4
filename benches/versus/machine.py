"""The machine: what it is, and what else it does while somebody is measured."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def facts() -> dict[str, object]:
    """What a reader of figures wants to know of the machine."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": len(cores()),
        "kernel": platform.release(),
        "huge_pages": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "date": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
    }


def _chosen(path: str) -> str:
    """The option in brackets."""
    try:
        return Path(path).read_text().split("[")[1].split("]")[0]
    except (OSError, IndexError):
        return "unknown"


class Watch:
    """How much the processes of others use the cores between two moments.

    Each process's own clock is read, which is exact; ticks of /proc/stat (10 ms) are too coarse for windows
    of some ten milliseconds and serve only for time that the hypervisor gave to others. Threads of the kernel
    do our own work too (sockets), so they are nobody's.
    """

    def __init__(self, own: set[int]) -> None:
        """`own` are the processes that do not count, beside this one."""
        self._own = {*own, os.getpid()}
        self._kernel: dict[int, bool] = {}
        self.begin()

    def begin(self) -> None:
        """The first moment."""
        self._clocks = self._read()
        self._stolen = _stolen()
        self._time = time.monotonic()

    def end(self) -> float:
        """The second moment: the part of all cores that others used since the first."""
        seconds = time.monotonic() - self._time
        used = sum(clock - self._clocks.get(pid, 0.0) for pid, clock in self._read().items())
        # One tick of stolen time may be from before.
        stolen = max(0.0, _stolen() - self._stolen - 1 / os.sysconf("SC_CLK_TCK"))
        return (used + stolen) / (seconds * (os.cpu_count() or 1))

    def _read(self) -> dict[int, float]:
        clocks = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) in self._own or self._is_kernel(int(entry)):
                continue
            try:
                # The clock of all threads of a process: clock_getcpuclockid(3).
                clocks[int(entry)] = time.clock_gettime((~int(entry) << 3) | 2)
            except OSError:
                continue
        return clocks

    def _is_kernel(self, pid: int) -> bool:
        if pid not in self._kernel:
            try:
                stat = Path("/proc", str(pid), "stat").read_text()
            except OSError:
                return False
            kernel_parent = 2
            self._kernel[pid] = (
                pid == kernel_parent or int(stat[stat.rindex(")") + 2 :].split()[1]) == kernel_parent
            )
        return self._kernel[pid]


def _stolen() -> float:
    """Seconds that the hypervisor gave to others."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK") if len(fields) > 8 else 0.0
