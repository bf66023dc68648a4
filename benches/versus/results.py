"""What one run found, and its form as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from measure import Row

FORMAT = 1


@dataclass
class Digest:
    """What a reader asks of a row first."""

    best_peer: str | None
    ideal: str | None
    to_best_peer: dict[str, float | None]
    """kolo's time over the best peer's, by kolo's labels."""
    to_ideal: dict[str, float | None]
    to_ordinary: dict[str, float | None]
    """The time in memory of `kolo_alloc` over the time in ordinary memory, by the latter's labels."""

    @classmethod
    def of(cls, row: Row) -> Digest:
        """The digest of a row."""
        peer, ideal = row.best("peer"), row.best("ideal")
        ours = [label for label, series in row.series.items() if series.group == "kolo"]
        return cls(
            peer,
            ideal,
            {label: row.ratio(label, peer) for label in ours},
            {label: row.ratio_to_ideal(label, ideal) for label in ours},
            {label: row.ratio(f"{label} alloc", label) for label in ours if f"{label} alloc" in ours},
        )


@dataclass
class Results:
    """Everything that a run found."""

    machine: dict[str, object]
    kolos: list[str]
    """The names of kolo's builds."""
    peers: list[str]
    """The names of the peers that could be had."""
    rounds: int
    milliseconds: float
    versions: dict[str, str] = field(default_factory=dict)
    """What each job's library says of itself, by the job's label."""
    left_out: list[str] = field(default_factory=list)
    """What could not be had or failed, a line each."""
    rows: list[Row] = field(default_factory=list)
    dtypes: list[Row] = field(default_factory=list)
    """kolo's all-reduce of other types."""
    start: dict[int, dict[str, float]] = field(default_factory=dict)
    """Seconds from start to first result to exit: by ranks, by label."""
    memory: dict[int, dict[str, float]] = field(default_factory=dict)
    """KiB of a rank after a first small call: by ranks, by label."""
    waiting: dict[str, dict[str, float]] = field(default_factory=dict)
    """CPU seconds of a rank that waits one second: by transport, by label."""

    def write(self, path: Path) -> None:
        """The whole as JSON."""
        content = {"format": FORMAT, **asdict(self)}
        for listed in ("rows", "dtypes"):
            for row, source in zip(content[listed], getattr(self, listed)):
                row |= asdict(Digest.of(source))
                for label, series in row["series"].items():
                    series["median"] = source.series[label].median
        path.write_text(json.dumps(content, indent=1) + "\n")
