"""What all parts of a run share: the libraries that are there, the folder, the jobs' lives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from builds import Builder, BuildError
from fetch import Unavailable
from jobs import Job, JobError
from machine import cores
from options import Options
from peers import PEERS, Exchange, Ideal, Kolo, Library, Setting

ROOT = Path(__file__).resolve().parents[2]


class Bench:
    """The libraries of one run, built against; and the folder in which its jobs live."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.folder = folder
        self.left_out: list[str] = []
        self.versions: dict[str, str] = {}
        self.libraries: list[Library] = []
        kolos = [Kolo(prefix, name) for name, prefix in options.kolo] or [Kolo(self._fresh())]
        builder = Builder(folder / "build")
        candidates: list[Library] = [*kolos, Ideal(), Exchange(), *(PEERS[name]() for name in options.peers)]
        for library in candidates:
            try:
                library.build(builder, options.cache)
                self.libraries.append(library)
            except (Unavailable, BuildError) as error:
                self.fail(f"{library.name} is left out: {error}")

    def kolos(self) -> list[Kolo]:
        """The builds of kolo."""
        return [library for library in self.libraries if isinstance(library, Kolo)]

    def real(self) -> list[Library]:
        """All but the ideal."""
        return [library for library in self.libraries if library.group != "ideal"]

    def names(self, group: str) -> list[str]:
        """The libraries of a group."""
        return [library.name for library in self.libraries if library.group == group]

    @contextmanager
    def jobs(self, libraries: Sequence[Library], setting: Setting) -> Iterator[list[tuple[Library, Job]]]:
        """All jobs of these libraries, in all their settings; closed at the end."""
        running: list[tuple[Library, Job]] = []
        try:
            for library in libraries:
                for launch in library.launches(setting):
                    try:
                        job = Job(launch, setting.ranks, self.folder / f"job-{len(running)}", cores())
                    except JobError as error:
                        where = f"{setting.ranks} ranks, {setting.transport}"
                        self.fail(f"{launch.label}, {where}, is left out: {error}")
                        continue
                    self.versions[launch.label] = job.hello[0]["version"]
                    running.append((library, job))
            yield running
        finally:
            for _, job in running:
                job.close()

    @staticmethod
    def say(text: str) -> None:
        """Progress, for whoever watches."""
        print(text, flush=True)

    def fail(self, text: str) -> None:
        """What did not work; it stands in the results too."""
        self.left_out.append(text)
        print(text, file=sys.stderr, flush=True)

    def _fresh(self) -> Path:
        """This tree's kolo, built in release mode."""
        prefix = ROOT / "target/versus/kolo"
        self.say(f"building kolo into {prefix}")
        subprocess.run([ROOT / "ffi/install", prefix], check=True)
        return prefix
