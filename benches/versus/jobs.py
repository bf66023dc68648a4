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
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BOARD_BYTES = 1 << 20
"""Room for `struct board` of driver/board.h; what is not used costs nothing."""

START_SECONDS = 60
ANSWER_SECONDS = 60
QUIT_SECONDS = 10
TERM_SECONDS = 2
BYSTANDER = "another rank failed"
"""What a rank answers that waited for one which failed; that one's own words are better."""


class JobError(Exception):
    """A job failed; the message is one line."""


Answer = dict[str, Any]
"""What a rank says: see driver/driver.c."""


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
        self.hello: list[Answer] = []
        self.shared: set[Path] = set()
        folder.mkdir()
        try:
            self._open_channels()
            self.processes = start(launch, ranks, folder, cores)
            self.hello = self._collect(START_SECONDS)
            self.pids = [answer["pid"] for answer in self.hello]
            self.shared = mapped(self.pids)
            self._signal(signal.SIGSTOP)
        except BaseException:
            self.kill()
            raise

    def ask(self, question: str, timeout: float = ANSWER_SECONDS) -> list[Answer]:
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
        """Ends whatever still runs, and removes what it leaves."""
        family = self.family()
        self.shared |= mapped(family)
        end(self.processes, family)
        for file in self.shared:
            file.unlink(missing_ok=True)
        for channel in (*self.commands, *self.answers):
            os.close(channel)
        self.commands, self.answers, self.pids, self.processes = [], [], [], []
        shutil.rmtree(self.folder, ignore_errors=True)

    def family(self) -> set[int]:
        """The processes that are this job's: ranks, launchers, what stands between."""
        return {*self.pids, *(p for process in self.processes for p in tree(process.pid))}

    def _open_channels(self) -> None:
        for rank in range(self.ranks):
            for end, channels in (("in", self.commands), ("out", self.answers)):
                path = self.folder / f"{rank}.{end}"
                os.mkfifo(path)
                # For both directions: so that opening waits for nobody. When this process goes, the ranks
                # read the end of the file and go too.
                channels.append(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))

    def _collect(self, timeout: float) -> list[Answer]:
        """One line from every rank."""
        lines: dict[int, bytes] = dict.fromkeys(self.answers, b"")
        waiting = set(self.answers)
        deadline = time.monotonic() + timeout
        while waiting:
            ready, _, _ = select.select(list(waiting), [], [], 0.25)
            for channel in ready:
                lines[channel] += os.read(channel, 65536)
                if lines[channel].endswith(b"\n"):
                    waiting.discard(channel)
                    answer = json.loads(lines[channel])
                    if answer.get("error", BYSTANDER) != BYSTANDER:
                        raise JobError(answer["error"])
            if ready:
                continue
            if any(process.poll() is not None for process in self.processes):
                raise JobError(f"ended: {self._last_words()}")
            if time.monotonic() > deadline:
                raise JobError(f"gave no answer within {timeout:.0f} s: {self._last_words()}")
        answers = [json.loads(lines[channel]) for channel in self.answers]
        if any("error" in answer for answer in answers):
            raise JobError(BYSTANDER)
        return answers

    def _last_words(self) -> str:
        return last_words(self.folder)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                raise JobError(f"lost rank {self.pids.index(pid)}: {self._last_words()}") from None


def start(
    launch: Launch, ranks: int, folder: Path, cores: list[int], *more: str
) -> list[subprocess.Popen[bytes]]:
    """Starts the ranks of a job in its folder: one launcher, or the ranks themselves."""
    with open(folder / "board", "wb") as board:
        board.truncate(BOARD_BYTES)
    arguments = [str(launch.driver), str(folder), ",".join(map(str, cores)) if launch.pin else "-", *more]
    # Libraries leave their temporary files in the job's folder, which goes with it.
    environment = {**os.environ, "TMPDIR": str(folder), **launch.environment}
    starts = [([*launch.command, *arguments], environment)] if launch.command else []
    for rank in range(ranks if not launch.command else 0):
        own = {name: value.format(rank=rank, size=ranks) for name, value in launch.rank_environment.items()}
        starts.append((arguments, {**environment, **own}))
    nothing = subprocess.DEVNULL
    with open(folder / "log", "wb") as log:
        # Process groups, so that an interrupt ends the jobs in order; not sessions: Linux schedules each of those
        # as one ("autogroup"), so that ranks with one each would not yield to each other as a launcher's do.
        return [
            subprocess.Popen(command, env=variables, stdin=nothing, stdout=log, stderr=log, process_group=0)
            for command, variables in starts
        ]


def run_once(launch: Launch, ranks: int, folder: Path, cores: list[int]) -> float:
    """Seconds from start to end of a job that does one small all-reduce."""
    folder.mkdir()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        begin = time.monotonic()
        processes = start(launch, ranks, folder, cores, "once")
        for process in processes:
            _await_end(process.pid, START_SECONDS)
        seconds = time.monotonic() - begin
        codes = [process.wait(START_SECONDS) for process in processes]
        if any(codes):
            raise JobError(f"ended: {last_words(folder)}")
        return seconds
    except subprocess.TimeoutExpired:
        raise JobError(f"did not end within {START_SECONDS} s: {last_words(folder)}") from None
    finally:
        end(processes, {pid for process in processes for pid in tree(process.pid)})
        shutil.rmtree(folder, ignore_errors=True)


def _await_end(pid: int, timeout: float) -> None:
    """Returns when a process ends, at once: Popen.wait with a timeout polls, up to 50 ms apart."""
    file = os.pidfd_open(pid)
    try:
        select.select([file], [], [], timeout)
    finally:
        os.close(file)


def last_words(folder: Path) -> str:
    """The most telling line of a job's log: the first about an error, else the first that has words."""
    lines = [line.strip() for line in (folder / "log").read_text(errors="replace").splitlines()]
    words = [line for line in lines if any(letter.isalpha() for letter in line)]
    errors = [
        line
        for line in words
        if any(word in line.lower() for word in ("error", "fail", "cannot", "terminat"))
    ]
    return (errors or words or ["it said nothing"])[0][:200]


def end(processes: list[subprocess.Popen[bytes]], family: set[int]) -> None:
    """Ends launchers, which may clean up; then whatever of their family still lives."""
    send(signal.SIGTERM, {process.pid for process in processes if process.poll() is None})
    send(signal.SIGCONT, family)
    _gone(processes, family, TERM_SECONDS)
    send(signal.SIGKILL, family)
    _gone(processes, family, QUIT_SECONDS)


def _gone(processes: list[subprocess.Popen[bytes]], family: set[int], seconds: float) -> None:
    """Waits until all have gone; those that were orphaned are this process's to reap."""
    deadline = time.monotonic() + seconds
    launchers = {process.pid for process in processes}
    while time.monotonic() < deadline:
        for pid in family - launchers:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass
        ended = all(process.poll() is not None for process in processes)
        if ended and not any(Path("/proc", str(pid)).exists() for pid in family):
            return
        time.sleep(0.01)


def send(number: signal.Signals, pids: set[int]) -> None:
    """A signal to processes, whether or not they still live."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def mapped(pids: Iterable[int]) -> set[Path]:
    """The files of shared memory that processes map; killed libraries leave them."""
    found = set()
    for pid in pids:
        try:
            lines = Path("/proc", str(pid), "maps").read_text().splitlines()
        except OSError:
            continue
        # Address, permissions (such as rw-s: shared), offset, device, inode, path.
        parts = (line.split(maxsplit=5) for line in lines if " /dev/shm/" in line)
        found |= {
            Path(part[5]) for part in parts if part[1].endswith("s") and not part[5].endswith(" (deleted)")
        }
    return found


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
