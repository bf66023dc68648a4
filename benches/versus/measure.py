"""Measuring: rows of (collective, size), each in rounds over all contenders, which alternate."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from jobs import Job, JobError
from machine import Watch, cores

FOREIGN = 0.05
"""A window in which others used more than this part of the cores is thrown away..."""
AGAIN = 3
"""...and measured again, so many times at most; then it counts, and is marked."""
HOPELESS = 4.0
"""Whoever takes this many times the best after the first round is not asked again in this row."""


@dataclass
class Contender:
    """What is compared: a job, and where its buffers lie."""

    library: str
    job: Job
    placement: str = "out"

    @property
    def label(self) -> str:
        return self.job.label if self.placement in ("out", "library") else f"{self.job.label} {self.placement}"


@dataclass
class Series:
    """The windows of one contender in one row, one of each round; seconds of one operation."""

    library: str
    seconds: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    foreign: list[float] = field(default_factory=list)
    repeats: int = 0

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
    dtype: str
    line_ns: float | None = None
    thrown: int = 0
    kept: int = 0
    """Windows that count although others were busy, as measuring again did not help."""
    series: dict[str, Series] = field(default_factory=dict)

    def best(self, libraries: set[str]) -> str | None:
        """The label of the contender of these libraries with the least median."""
        found = {label: series.median for label, series in self.series.items() if series.library in libraries}
        return min(found, key=found.__getitem__) if found else None

    def ratio(self, label: str, other: str | None) -> float | None:
        """The median of the rounds' ratios of two contenders."""
        if other is None or label not in self.series:
            return None
        pairs = zip(self.series[label].seconds, self.series[other].seconds)
        ratios = [mine / theirs for mine, theirs in pairs if theirs > 0]
        return statistics.median(ratios) if ratios else None


class Meter:
    """Asks jobs, watches the machine, and drops jobs that fail."""

    def __init__(self, contenders: list[Contender], milliseconds: float, rounds: int, report: callable) -> None:
        self.contenders = contenders
        self.milliseconds = milliseconds
        self.rounds = rounds
        self.report = report
        self.watch = Watch()
        self.own = set().union(*(contender.job.family() for contender in contenders)) if contenders else set()

    def row(self, row: Row) -> Row:
        """Fills a row."""
        row.line_ns = self._line()
        for turn in range(self.rounds):
            # Another one begins in each round.
            order = self.contenders[turn % len(self.contenders) :] + self.contenders[: turn % len(self.contenders)]
            for contender in order:
                if contender in self.contenders and not (turn > 0 and self._hopeless(row, contender)):
                    self._window(row, contender, turn)
        return row

    def _line(self) -> float | None:
        for contender in self.contenders:
            if contender.job.ranks > 1 and len(cores()) > 1:
                try:
                    return contender.job.ask("line")[0]["line"]
                except JobError as error:
                    self._drop(contender, str(error))
                    return self._line()
        return None

    def _hopeless(self, row: Row, contender: Contender) -> bool:
        series = row.series.get(contender.label)
        best = min((one.seconds[0] for one in row.series.values()), default=0.0)
        return series is not None and series.seconds[0] > HOPELESS * best

    def _window(self, row: Row, contender: Contender, turn: int) -> None:
        question = (
            f"window {row.collective} {contender.placement} {row.dtype} {row.bytes} {self.milliseconds} {int(turn == 0)}"
        )
        for attempt in range(AGAIN + 1):
            self.watch.begin(self.own)
            try:
                answer = contender.job.ask(question)[0]
            except JobError as error:
                self._drop(contender, f"{row.collective} of {row.bytes} bytes: {error}")
                return
            foreign = self.watch.end()
            if foreign <= FOREIGN:
                break
            if attempt < AGAIN:
                row.thrown += 1
            else:
                row.kept += 1
        series = row.series.setdefault(contender.label, Series(contender.library))
        series.seconds.append(max(answer["loop"] - answer["bare"], 0.0))
        series.bare.append(answer["bare"])
        series.foreign.append(foreign)
        series.repeats = answer["repeats"]

    def _drop(self, contender: Contender, why: str) -> None:
        self.report(f"{contender.job.label}: {why}; left out from here on")
        self.contenders = [other for other in self.contenders if other.job is not contender.job]
        contender.job.kill()
