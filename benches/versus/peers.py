"""The libraries: how each is got, built against and started, in which settings."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from builds import Builder
from fetch import Unavailable, debian_headers
from jobs import Launch


@dataclass(frozen=True)
class Setting:
    """What one job of a library shall be."""

    ranks: int
    transport: str
    crowded: bool
    """More ranks than cores."""


class Kolo:
    """kolo itself, from the prefix of an `ffi/install`. Its ranks need no launcher."""

    placements = ("out", "in", "library_in")

    def __init__(self, prefix: Path, name: str = "kolo") -> None:
        self.name = name
        self.prefix = prefix

    def build(self, builder: Builder, cache: Path) -> None:
        del cache
        if not (self.prefix / "lib/libkolo.so").exists():
            raise Unavailable(f"{self.prefix} is not the prefix of an ffi/install")
        library = str(self.prefix / "lib")
        flags = ("-I", str(self.prefix / "include"), "-L", library, f"-Wl,-rpath,{library}", "-lkolo")
        self.driver = builder.driver(self.name, "kolo.c", flags)

    def launches(self, setting: Setting) -> list[Launch]:
        unique = secrets.token_hex(16)
        environment = {
            "KOLO_RANK": "{rank}",
            "KOLO_SIZE": "{size}",
            "KOLO_RENDEZVOUS": f"@kolo-versus-{unique}",
            "KOLO_SECRET": unique,
            "KOLO_TRANSPORT": setting.transport,
        }
        return [Launch(self.name, self.driver, rank_environment=environment)]


class DebianOpenMpi:
    """Open MPI 4 as Debian has it: the packages openmpi-bin and libopenmpi-dev."""

    name = "openmpi4"
    placements = ("out",)

    def build(self, builder: Builder, cache: Path) -> None:
        self.mpirun = shutil.which("mpirun.openmpi")
        if self.mpirun is None:
            raise Unavailable("install the package openmpi-bin")
        version = subprocess.run([self.mpirun, "--version"], capture_output=True, text=True, check=False).stdout
        if ") 4." not in version:
            raise Unavailable(f"{self.mpirun} is not Open MPI 4")
        headers = debian_headers("libopenmpi-dev", "lib/*/openmpi/include/mpi.h", cache)
        self.driver = builder.driver(self.name, "mpi.c", ("-I", str(headers.parent), "-l:libmpi.so.40"))

    def launches(self, setting: Setting) -> list[Launch]:
        return open_mpi_launches(self.name, self.driver, self.mpirun, setting, {})


def open_mpi_launches(
    name: str, driver: Path, mpirun: str, setting: Setting, environment: dict[str, str]
) -> list[Launch]:
    """Open MPI with its own binding to cores, and with ours instead."""
    command = [mpirun, "-n", str(setting.ranks)]
    if os.geteuid() == 0:
        command.append("--allow-run-as-root")
    if setting.transport == "tcp":
        command += ["--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo"]
    if setting.crowded:
        command += ["--map-by", ":OVERSUBSCRIBE"]
    launches = [Launch(f"{name} --bind-to none", driver, (*command, "--bind-to", "none"), environment)]
    if not setting.crowded:
        launches.append(Launch(name, driver, tuple(command), environment, pin=False))
    return launches


PEERS = {"openmpi4": DebianOpenMpi}
