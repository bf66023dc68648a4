"""Measuring: rows of one collective at one size, in rounds over all contenders, which alternate."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jobs import Job, JobError
from machine import Watch, cores
from options import Options

FOREIGN = 0.05
"""A window in which others used more than this part of the cores is thrown away and measured again, as often
as the options say; then it counts, and is marked."""
APART = 3.0
"""How much longer a cache line's round trip is when the host has moved the cores apart."""
FAR_NS = 220.0
"""A round trip from which on the cores are far from each other; near, it is about 50 or 100, far 350 to 500."""
LOOK_AGAIN = 0.1
"""Seconds between two looks at a line that is not as wanted."""
HOPELESS = 4.0
"""A setting that takes this many times the best of its group is asked in the first round only..."""
TOO_LONG = 1.5
"""...and not for larger sizes if that window took more than this many seconds."""


@dataclass(frozen=True)
class Contender:
    """What is compared: a job, where its buffers lie, and what they hold."""

    library: str
    group: str
    """`kolo`, `peer` or `ideal`."""
    job: Job
    placement: str = "out"
    dtype: str = "f32"
    collectives: tuple[str, ...] | None = None
    """What it does; nothing stands for all."""

    @property
    def label(self) -> str:
        """Such as `kolo`, `kolo in place`, `kolo alloc`, `kolo bf16`."""
        placement = {"in": " in place", "library_in": " alloc"}.get(self.placement, "")
        return self.job.label + placement + ("" if self.dtype == "f32" else f" {self.dtype}")


@dataclass
class Series:
    """The windows of one contender in one row, one of each round; seconds of one operation."""

    library: str
    group: str
    seconds: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    """What the loop takes without the operation; it is subtracted already."""
    foreign: list[float] = field(default_factory=list)
    """The part of the cores that others used."""
    took: float = 0.0
    """Seconds of the last window, all in all."""
    repeats: int = 0
    """Operations in a batch, in the last round."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass
class Row:
    """All that was measured of one collective at one size."""

    ranks: int
    transport: str
    collective: str
    bytes: int
    lines_ns: list[float] = field(default_factory=list)
    """A cache line's round trip between the first and the last rank's cores, before each round."""
    thrown: int = 0
    """Windows that were thrown away, as others were busy."""
    kept: int = 0
    """Windows that count although others were busy, as measuring again did not help."""
    series: dict[str, Series] = field(default_factory=dict)
    """By the contender's label."""

    @property
    def table(self) -> tuple[int, str, str]:
        """The table to which the row belongs."""
        return self.ranks, self.transport, self.collective

    def best(self, whose: str) -> str | None:
        """The label of the contender of this group or library with the least median."""
        found = {label: one.median for label, one in self.series.items() if whose in (one.group, one.library)}
        return min(found, key=found.__getitem__) if found else None

    def hopeless(self, label: str) -> bool:
        """Whether this contender is far behind the best of its group; builds of kolo never are."""
        mine = self.series[label]
        best = min(series.seconds[0] for series in self.series.values() if series.group == mine.group)
        return mine.group != "kolo" and mine.seconds[0] > HOPELESS * best

    def ratio(self, label: str, other: str | None) -> float | None:
        """The median of the rounds' ratios of two contenders."""
        if other is None or label not in self.series:
            return None
        return self._median_ratio(label, self.series[other].seconds)

    def ratio_to_ideal(self, label: str, ideal: str | None) -> float | None:
        """The same against the ideal: its pass over the bytes, yet never less than a cache line's way."""
        if ideal is None or label not in self.series:
            return None
        passes = self.series[ideal].seconds
        ways = [line / 2 * 1e-9 for line in self.lines_ns] or [0.0] * len(passes)
        return self._median_ratio(label, [max(pair) for pair in zip(passes, ways)])

    def _median_ratio(self, label: str, others: list[float]) -> float | None:
        ratios = [mine / theirs for mine, theirs in zip(self.series[label].seconds, others) if theirs > 0]
        return statistics.median(ratios) if ratios else None


class Impatient(Exception):
    """The host was not in the wanted state for as long as a row waits."""


class Meter:
    """Asks jobs, watches the machine, and drops jobs that fail."""

    def __init__(self, contenders: list[Contender], options: Options, report: Callable[[str], None]) -> None:
        self.contenders = contenders
        self.options = options
        self.report = report
        self.given_up: set[tuple[str, str]] = set()
        self.patience = options.patience
        self.watch = Watch({pid for contender in contenders for pid in contender.job.family()})

    def fill(self, row: Row) -> Row:
        """Measures a row; anew, if the host's cores drew near or apart meanwhile. Without `series` where the host
        was not in the wanted state for long enough."""
        self.patience = self.options.patience
        for attempt in range(self.options.retries + 1):
            if attempt > 0:
                thrown = row.thrown + sum(len(series.seconds) for series in row.series.values())
                row.lines_ns, row.series, row.thrown, row.kept = [], {}, thrown, 0
            try:
                self._rounds(row)
            except Impatient as error:
                self.report(f"{row.collective} of {row.bytes} bytes: {error}; left out")
                row.series = {}
                break
            if not row.lines_ns or max(row.lines_ns) < APART * min(row.lines_ns):
                break
        for label, series in row.series.items():
            if series.took > TOO_LONG and row.hopeless(label):
                self.given_up.add((label, row.collective))
        return row

    def _rounds(self, row: Row) -> None:
        contenders = self.contenders
        if row.collective == "broadcast":
            # Its data is in place by nature: ordinary buffers have one form.
            out = {one.job for one in contenders if one.placement == "out"}
            contenders = [one for one in contenders if not (one.placement == "in" and one.job in out)]
        for turn in range(self.options.rounds):
            if (line := self._wanted_line()) is not None:
                row.lines_ns.append(line)
            first = turn % max(1, len(contenders))  # another one begins in each round
            for contender in contenders[first:] + contenders[:first]:
                if self._asked(row, contender):
                    self._window(row, contender)

    def _wanted_line(self) -> float | None:
        """A cache line's round trip, once it is as wanted."""
        while (line := self._line()) is not None and not self._as_wanted(line):
            if self.patience <= 0:
                raise Impatient(f"the cores were not {self.options.line} for {self.options.patience:g} s")
            self.patience -= LOOK_AGAIN
            time.sleep(LOOK_AGAIN)
        return line

    def _as_wanted(self, line: float | None) -> bool:
        return line is None or self.options.line in (None, "far" if line >= FAR_NS else "near")

    def _line(self) -> float | None:
        while self.contenders and len(cores()) > 1:
            try:
                return float(self.contenders[0].job.ask("line")[0]["line"])
            except JobError as error:
                self._drop(self.contenders[0], str(error))
        return None

    def _asked(self, row: Row, contender: Contender) -> bool:
        """Whether a contender still takes part in this row."""
        if contender.collectives is not None and row.collective not in contender.collectives:
            return False
        if contender not in self.contenders or (contender.label, row.collective) in self.given_up:
            return False
        return contender.label not in row.series or not row.hopeless(contender.label)

    def _window(self, row: Row, contender: Contender) -> None:
        series = row.series.get(contender.label, Series(contender.library, contender.group))
        check = int(not series.seconds)
        what = f"{row.collective} {contender.placement} {contender.dtype} {row.bytes}"
        question = f"window {what} {self.options.milliseconds} {check}"
        attempt = 0
        while True:
            if self.options.line:
                self._wanted_line()
            self.watch.begin()
            begin = time.monotonic()
            try:
                answer = contender.job.ask(question)[0]
            except JobError as error:
                self._drop(contender, f"{row.collective} of {row.bytes} bytes: {error}")
                return
            foreign = self.watch.end()
            if self.options.line and not self._as_wanted(self._line()):
                self.patience -= time.monotonic() - begin
                row.thrown += 1
                continue
            if foreign <= FOREIGN:
                break
            if attempt == self.options.retries:
                row.kept += 1
                break
            row.thrown += 1
            attempt += 1
        series.seconds.append(max(answer["loop"] - answer["bare"], 0.0))
        series.bare.append(answer["bare"])
        series.foreign.append(round(foreign, 4))
        series.took = round(time.monotonic() - begin, 3)
        series.repeats = answer["repeats"]
        row.series[contender.label] = series

    def _drop(self, contender: Contender, why: str) -> None:
        self.report(f"{contender.job.label}: {why}; left out from here on")
        self.contenders = [other for other in self.contenders if other.job is not contender.job]
        contender.job.kill()
