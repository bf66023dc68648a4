"""Building the driver against a library."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent / "driver"
COMMON = ("board.c", "values.c", "window.c", "driver.c")
FLAGS = ("-O3", "-march=native", "-Wall", "-Wextra")


class BuildError(Exception):
    """A driver could not be built; the message is one line."""


class Builder:
    """Builds drivers into a folder; what all of them share is compiled once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._common: list[str] = []

    def driver(self, name: str, adaptor: str, flags: tuple[str, ...]) -> Path:
        """The driver with this adaptor: `driver/ADAPTOR`, compiled and linked with `flags`."""
        to = self.folder / f"driver-{name}"
        compiler = ("c++", "-std=c++17") if adaptor.endswith(".cpp") else ("cc", "-std=gnu11")
        _run([*compiler, *FLAGS, str(SOURCES / adaptor), *self._objects(), *flags, "-o", str(to)])
        return to

    def library(self, name: str, adaptor: str) -> Path:
        """The same as a shared library, for adaptors in other languages."""
        to = self.folder / f"lib{name}.so"
        sources = [str(SOURCES / source) for source in (adaptor, *COMMON)]
        _run(["cc", "-std=gnu11", *FLAGS, "-fPIC", "-shared", *sources, "-o", str(to)])
        return to

    def script(self, name: str, *command: str) -> Path:
        """A driver that is a command, to which its arguments are appended."""
        to = self.folder / f"driver-{name}"
        to.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        to.chmod(0o755)
        return to

    def _objects(self) -> list[str]:
        if not self._common:
            for source in COMMON:
                to = str(self.folder / source.replace(".c", ".o"))
                _run(["cc", "-std=gnu11", *FLAGS, "-c", str(SOURCES / source), "-o", to])
                self._common.append(to)
        return self._common


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildError(f"there is no {command[0]}; install a C compiler") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line or "undefined" in line]
        raise BuildError((lines or done.stderr.splitlines() or ["it said nothing"])[0][:300])
