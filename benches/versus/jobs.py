"""Jobs: the ranks of one library, started once, asked often, stopped while others are measured."""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

BOARD_BYTES = 1 << 20
"""Room for `struct board` of driver/board.h; what is not used costs nothing."""

START_SECONDS = 60
ANSWER_SECONDS = 120
QUIT_SECONDS = 10


class JobError(Exception):
    """A job failed; the message is one line."""


@dataclass(frozen=True)
class Launch:
    """How to start the ranks of one library in one of its settings.

    `command` starts all ranks, with the driver and its arguments appended; where it is empty, the ranks are
    started one by one, and each finds its number in the environment.
    """

    label: str
    driver: Path
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    rank_environment: dict[str, str] = field(default_factory=dict)
    """Values in which {rank} and {size} are replaced; for ranks that are started one by one."""
    pin: bool = True
    """Whether the driver pins its rank; otherwise the launcher's own binding counts."""


class Job:
    """A running job. It is stopped (SIGSTOP) but for the time of a question."""

    def __init__(self, launch: Launch, ranks: int, folder: Path, cores: list[int]) -> None:
        self.label = launch.label
        self.ranks = ranks
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.pids: list[int] = []
        self.commands: list[int] = []
        self.answers: list[int] = []
        self.hello: list[dict] = []
        folder.mkdir()
        try:
            self._open_channels()
            self._start(launch, cores)
            self.hello = self._collect(START_SECONDS)
            self.pids = [answer["pid"] for answer in self.hello]
            self._signal(signal.SIGSTOP)
        except BaseException:
            self.kill()
            raise

    def ask(self, question: str, timeout: float = ANSWER_SECONDS) -> list[dict]:
        """One line to every rank; their answers, by rank."""
        self._signal(signal.SIGCONT)
        for command in self.commands:
            os.write(command, question.encode() + b"\n")
        answers = self._collect(timeout)
        self._signal(signal.SIGSTOP)
        return answers

    def close(self) -> None:
        """Ends the job in good order, or kills it."""
        try:
            self._signal(signal.SIGCONT)
            for command in self.commands:
                os.write(command, b"quit\n")
            deadline = time.monotonic() + QUIT_SECONDS
            for process in self.processes:
                process.wait(max(0.0, deadline - time.monotonic()))
        except (OSError, subprocess.TimeoutExpired):
            pass
        self.kill()

    def kill(self) -> None:
        """Ends whatever still runs, and removes the job's folder."""
        for pid in {*self.pids, *(p for process in self.processes for p in tree(process.pid))}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for process in self.processes:
            process.wait()
        for channel in (*self.commands, *self.answers):
            os.close(channel)
        self.commands, self.answers, self.pids, self.processes = [], [], [], []
        shutil.rmtree(self.folder, ignore_errors=True)

    def family(self) -> set[int]:
        """The processes that are this job's: ranks, launchers, what stands between."""
        return {*self.pids, *(p for process in self.processes for p in tree(process.pid))}

    def _open_channels(self) -> None:
        with open(self.folder / "board", "wb") as board:
            board.truncate(BOARD_BYTES)
        for rank in range(self.ranks):
            for end, channels in (("in", self.commands), ("out", self.answers)):
                path = self.folder / f"{rank}.{end}"
                os.mkfifo(path)
                # For both directions: so that opening waits for nobody. When this process goes, the ranks
                # read the end of the file and go too.
                channels.append(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))

    def _start(self, launch: Launch, cores: list[int]) -> None:
        arguments = [str(launch.driver), str(self.folder), ",".join(map(str, cores)) if launch.pin else "-"]
        environment = {**os.environ, "TMPDIR": str(self.folder), **launch.environment}
        starts: list[tuple[list[str], dict[str, str]]] = []
        if launch.command:
            starts.append(([*launch.command, *arguments], environment))
        for rank in range(self.ranks if not launch.command else 0):
            own = {name: value.format(rank=rank, size=self.ranks) for name, value in launch.rank_environment.items()}
            starts.append((arguments, {**environment, **own}))
        with open(self.folder / "log", "wb") as log:
            for command, variables in starts:
                self.processes.append(
                    subprocess.Popen(
                        command, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                    )
                )

    def _collect(self, timeout: float) -> list[dict]:
        """One line from every rank."""
        lines: dict[int, bytes] = {channel: b"" for channel in self.answers}
        waiting = set(self.answers)
        deadline = time.monotonic() + timeout
        while waiting:
            ready, _, _ = select.select(list(waiting), [], [], 0.25)
            for channel in ready:
                lines[channel] += os.read(channel, 65536)
                if lines[channel].endswith(b"\n"):
                    waiting.discard(channel)
                    answer = json.loads(lines[channel])
                    if "error" in answer:
                        raise JobError(answer["error"])
            if ready:
                continue
            if any(process.poll() is not None for process in self.processes):
                raise JobError(f"ended: {self._last_words()}")
            if time.monotonic() > deadline:
                raise JobError(f"gave no answer within {timeout:.0f} s: {self._last_words()}")
        return [json.loads(lines[channel]) for channel in self.answers]

    def _last_words(self) -> str:
        """The first telling line of the log."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        telling = [line.strip() for line in lines if any(letter.isalpha() for letter in line)]
        return (telling[0] if telling else "it said nothing")[:200]

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                raise JobError(f"lost rank {self.pids.index(pid)}: {self._last_words()}") from None


def adopt_orphans() -> None:
    """Makes this process the parent of whoever loses its own, so that `tree` finds them."""
    subreaper = 36  # PR_SET_CHILD_SUBREAPER
    ctypes.CDLL(None, use_errno=True).prctl(subreaper, 1, 0, 0, 0)


def tree(root: int) -> list[int]:
    """A process and all that descend from it, as far as they live."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            parent = int(stat[stat.rindex(")") + 2 :].split()[1])
            children.setdefault(parent, []).append(int(entry))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found
