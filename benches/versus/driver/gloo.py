"""gloo as torch's users have it: the driver, as a library, calls back into torch.distributed.

gloo.py LIBRARY FOLDER CORES [once]
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable

import torch
import torch.distributed as dist


class Call(ctypes.Structure):
    """`struct call` of adaptor.h."""

    _fields_ = [
        ("input", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("dtype", ctypes.c_int),
    ]


OPERATION = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Call))
START = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)
FINISH = ctypes.CFUNCTYPE(ctypes.c_int)
ERROR = ctypes.CFUNCTYPE(ctypes.c_char_p)


class Python(ctypes.Structure):
    """`struct python` of gloo.c."""

    _fields_ = [
        ("start", START),
        ("finish", FINISH),
        ("error", ERROR),
        ("version", ctypes.c_char_p),
        ("operations", OPERATION * 4),
    ]


failure = b"?"


def guarded(work: Callable[..., object]) -> Callable[..., int]:
    """1 where `work` raises; exceptions cannot pass through C."""

    @functools.wraps(work)
    def run(*arguments: object) -> int:
        global failure
        try:
            work(*arguments)
            return 0
        except Exception as error:  # whatever torch raises
            failure = f"{type(error).__name__}: {error}".encode()
            return 1

    return run


@functools.lru_cache(maxsize=8)
def tensor(address: int, count: int) -> torch.Tensor:
    """The floats at an address."""
    return torch.frombuffer((ctypes.c_float * count).from_address(address), dtype=torch.float32)


@guarded
def start(rank: int, size: int) -> None:
    torch.set_num_threads(1)
    store = "file://" + os.path.join(os.environ["TMPDIR"], "gloo")
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)


@guarded
def finish() -> None:
    dist.barrier()
    dist.destroy_process_group()


@guarded
def all_reduce(call: ctypes._Pointer) -> None:
    c = call.contents
    # torch reduces in place, and so it is measured, but for the driver's first small call.
    if c.input != c.output:
        ctypes.memmove(c.output, c.input, 4 * c.count)
    dist.all_reduce(tensor(c.output, c.count))


@guarded
def all_gather(call: ctypes._Pointer) -> None:
    c = call.contents
    dist.all_gather_into_tensor(tensor(c.output, c.count * dist.get_world_size()), tensor(c.input, c.count))


@guarded
def reduce_scatter(call: ctypes._Pointer) -> None:
    c = call.contents
    dist.reduce_scatter_tensor(tensor(c.output, c.count), tensor(c.input, c.count * dist.get_world_size()))


@guarded
def broadcast(call: ctypes._Pointer) -> None:
    c = call.contents
    dist.broadcast(tensor(c.output, c.count), 0)


def main(library: str, *arguments: str) -> int:
    driver = ctypes.CDLL(library)
    # Kept alive until main returns.
    functions = Python.in_dll(driver, "python")
    functions.start, functions.finish = START(start), FINISH(finish)
    functions.error = ERROR(lambda: failure)
    functions.version = f"gloo of torch {torch.__version__}".encode()
    for number, operation in enumerate((all_reduce, all_gather, reduce_scatter, broadcast)):
        functions.operations[number] = OPERATION(operation)
    words = [b"driver", *(argument.encode() for argument in arguments)]
    return driver.main(len(words), (ctypes.c_char_p * (len(words) + 1))(*words, None))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
