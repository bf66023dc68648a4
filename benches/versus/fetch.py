"""Getting peers: each into a virtual environment of its own in the cache, by the registries' own clients."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


class Unavailable(Exception):
    """A peer cannot be had; the message is one line."""


def virtual_environment(name: str, packages: tuple[str, ...], cache: Path) -> Path:
    """The virtual environment `name` with these packages of the Python registry."""
    to = cache / name
    done = to / "installed"
    if not done.exists() or done.read_text() != " ".join(packages):
        print(f"fetching {' '.join(packages)} into {to}", file=sys.stderr, flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(to)])
        _run([str(to / "bin/pip"), "install", "--quiet", "--no-input", *packages])
        done.write_text(" ".join(packages))
    return to


def debian_headers(package: str, pattern: str, cache: Path) -> Path:
    """A header of a Debian package: the system's, or else unpacked into the cache."""
    to = cache / package
    for root in (Path("/usr"), to / "usr"):
        found = sorted(root.glob(pattern))
        if found:
            return found[0]
    print(f"fetching {package} into {to}", file=sys.stderr, flush=True)
    to.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "download", package], folder=to)
    for archive in to.glob("*.deb"):
        _run(["dpkg", "-x", str(archive), str(to)])
    found = sorted((to / "usr").glob(pattern))
    if not found:
        raise Unavailable(f"the package {package} has no {pattern}")
    return found[0]


def _run(command: list[str], folder: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unavailable(f"there is no {command[0]}") from None
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise Unavailable(f"{' '.join(command)}: {lines[-1][:200]}")
