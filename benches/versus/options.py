"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "broadcast")
TRANSPORTS = ("shm", "tcp")
SIZES = ("8", "64", "1K", "4K", "8K", "16K", "32K", "64K", "256K", "1M", "4M", "16M", "64M", "256M")
QUICK_SIZES = ("8", "1K", "8K", "64K", "1M", "16M")
PARTS = ("speed", "types", "start", "memory", "waiting")
ASKED_FOR = ("gloo",)
"""Peers that are measured only when they are named."""
LINES = ("near", "far")
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

EXAMPLES = """
examples:
  run                                         everything, up to two hours
  run --quick                                 a few sizes, few rounds
  run --parts speed --ranks 2 --transports shm --collectives all_reduce --sizes 8,1K,64K
  run --parts start,memory,waiting            what is not a collective's speed
  run --ranks 2 --transports shm --line far   rows measured while the host has the cores apart
  run --kolo old=/tmp/a --kolo new=/tmp/b --peers none    two builds of kolo (prefixes of ffi/install)
"""


@dataclass(frozen=True)
class Options:
    """What to measure, against whom, and where results go."""

    ranks: list[int]
    transports: list[str]
    collectives: list[str]
    sizes: list[int]
    peers: list[str]
    kolo: list[tuple[str, Path]]
    """Labels and prefixes; none: this tree's."""
    parts: list[str]
    rounds: int
    milliseconds: float
    retries: int
    line: str | None
    """The state of the host that rows are measured in: `near` or `far`; nothing: in any."""
    patience: float
    """Seconds that a row waits for that state, all in all."""
    cache: Path
    out: Path


def parse(arguments: list[str], peers: list[str]) -> Options:
    """The options of a command line; exits where it makes no sense."""
    root = Path(__file__).resolve().parents[2]
    default = [name for name in peers if name not in ASKED_FOR]
    parser = argparse.ArgumentParser(
        prog="benches/versus/run",
        description="Measures kolo beside its peers, alternating, on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(name: str, what: str, default: object = None, **more: Any) -> None:
        parser.add_argument(name, default=default, help=what, **more)

    def choose(name: str, what: str, default: Sequence[str] | None) -> None:
        add(name, what, default, type=lambda text: text.split(","), metavar="A,B")

    choose("--ranks", "by default 2,4,8", ("2", "4", "8"))
    choose("--transports", f"by default {','.join(TRANSPORTS)}", TRANSPORTS)
    choose("--collectives", f"by default {','.join(COLLECTIVES)}", COLLECTIVES)
    choose("--sizes", f"bytes of the whole vector; by default {','.join(SIZES)}", None)
    add("--min", "no smaller sizes", 0, type=size, metavar="SIZE")
    add("--max", "no larger sizes", 1 << 62, type=size, metavar="SIZE")
    choose("--peers", f"of {', '.join(peers)}; none; by default all but {','.join(ASKED_FOR)}", None)
    choose("--parts", f"by default {','.join(PARTS)}", PARTS)
    add(
        "--kolo", "a prefix of ffi/install; by default a fresh one", [], action="append", metavar="[NAME=]DIR"
    )
    add("--rounds", "windows of each contender in a row; by default 7", type=int, metavar="N")
    add("--window", "a window's milliseconds; by default 40", type=float, metavar="MS")
    add("--retries", "of disturbed windows; by default 3", 3, type=int, metavar="N")
    choices = {"choices": LINES, "metavar": "|".join(LINES)}
    add("--line", "only while a cache line's round trip between the cores is so", **choices)
    add("--patience", "that a row waits for --line; by default 60", 60.0, type=float, metavar="S")
    add("--quick", "few sizes, 3 rounds of 20 ms", False, action="store_true")
    add("--cache", "for peers", Path.home() / ".cache/kolo-versus", type=Path, metavar="DIR")
    add("--out", "for results", root / "target/versus", type=Path, metavar="DIR")
    given = parser.parse_args(arguments)
    chosen = given.peers if given.peers != ["none"] else []
    for what, values, known in (
        ("collective", given.collectives, COLLECTIVES),
        ("transport", given.transports, TRANSPORTS),
        ("peer", chosen or [], peers),
        ("part", given.parts, PARTS),
    ):
        for value in values:
            if value not in known:
                parser.error(f"there is no {what} `{value}`, but: {', '.join(known)}")
    try:
        sizes = [size(text) for text in given.sizes or (QUICK_SIZES if given.quick else SIZES)]
        ranks = [int(text) for text in given.ranks]
    except (ValueError, argparse.ArgumentTypeError) as error:
        parser.error(str(error))
    if any(not 2 <= count <= 16 for count in ranks):
        parser.error("there may be 2 to 16 ranks")
    kolo = [builds(text, number) for number, text in enumerate(given.kolo)]
    if len({name for name, _ in kolo}) < len(kolo):
        parser.error("two builds of kolo have the same name")
    return Options(
        ranks=ranks,
        transports=list(given.transports),
        collectives=list(given.collectives),
        sizes=[bytes_ for bytes_ in sizes if given.min <= bytes_ <= given.max],
        peers=default if chosen is None else chosen,
        kolo=kolo,
        parts=list(given.parts),
        rounds=given.rounds or (3 if given.quick else 7),
        milliseconds=given.window or (20 if given.quick else 40),
        retries=given.retries,
        line=given.line,
        patience=given.patience,
        cache=given.cache.resolve(),
        out=given.out.resolve(),
    )


def size(text: str) -> int:
    """Such as 8, 64K, 1M."""
    unit = UNITS.get(text[-1:].upper())
    number = text[:-1] if unit else text
    if not number.isdigit() or int(number) * (unit or 1) % 4:
        raise argparse.ArgumentTypeError(f"`{text}` is no size: 8, 64K, 1M; a multiple of 4")
    return int(number) * (unit or 1)


def builds(text: str, number: int) -> tuple[str, Path]:
    """A build of kolo: its label and its prefix."""
    name, found, path = text.rpartition("=")
    return (name if found else ("kolo" if number == 0 else f"kolo-{number + 1}"), Path(path).resolve())


def plain(bytes_: int) -> str:
    """A size as people say it."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if bytes_ >= factor and bytes_ % factor == 0:
            return f"{bytes_ // factor} {unit}"
    return f"{bytes_} B"
