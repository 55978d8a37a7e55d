"""The machine's limits, measured once a process: multiply-adds and bytes read, a second.

The peak of a kind of numbers is that of the fastest instruction that multiplies them here, on
registers alone; the bandwidth that of summing an array larger than the caches.  Shares of the limit
in profiles and benchmarks are against these.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from weft.core import dtype as dt
from weft.core.scalar import Arg
from weft.kernels.eager import plan_reduce
from weft.kernels.layout import Layout
from weft.kernels.schedule import amx
from weft.kernels.schedule.conv_int8 import dot
from weft.kernels.schedule.ending_int8 import FOUR
from weft.kernels.schedule.gemm_micro import multiply_add
from weft.kernels.schedule.tile import tile_for
from weft.kernels.target.llvm import Module
from weft.runtime import memory, native, threads

PRODUCTS = ("float32", "float64", "bfloat16", "int8")  # the kinds of numbers that are multiplied
CHAINS = 14  # independent sums: a multiply-add takes 4 cycles or more, two start in each
TILES = 4  # the same for tile registers: 52 cycles, one starts every 16
ROUNDS = 20_000
TILE_ROUNDS = 2_000
READ_BYTES = 256 << 20
_LINE = 64  # bytes


def peak_flops(thread_count: int | None = None, of: str = "float32") -> float:
    """Operations a second (two a multiply-add), on as many threads as kernels use."""
    return max(peaks(of, thread_count or threads.get_num_threads()).values())


@cache
def peaks(of: str, thread_count: int) -> dict[str, float]:
    """The same by each way to multiply: in "vectors", in "tiles" where the host has these."""
    found = {"vectors": _rate(*_in_vectors(of), thread_count)}
    if of == "bfloat16":  # they may be widened as well
        found["vectors"] = max(found["vectors"], peaks("float32", thread_count)["vectors"])
    if _has_tiles(of):
        found["tiles"] = _rate(*_in_tiles(of), thread_count)
    return found


def peak_loop(thread_count: int) -> tuple[Callable[[], object], int]:
    """float32 multiply-adds in registers of all threads: a call, and the operations it does."""
    text, operations = _in_vectors("float32")
    return _looped(text, thread_count), thread_count * operations


def _rate(text: str, operations: int, thread_count: int) -> float:
    """What so many threads do in a second, if one does these operations in a call of the kernel."""
    with _threads(thread_count):
        return thread_count * operations / _best(_looped(text, thread_count), runs=400)


def _looped(text: str, thread_count: int) -> Callable[[], object]:
    launch = native.Launch((native.Stage(native.load(text, ["peak"])["peak"], True),))
    out = np.ones((thread_count + 1) * _LINE, np.uint8)
    return lambda: native.launch(launch, out, ())


def read_bandwidth(thread_count: int | None = None) -> float:
    """Bytes a second that as many threads read from memory."""
    return _read_bandwidth(thread_count or threads.get_num_threads())


@cache
def _read_bandwidth(count: int) -> float:
    x = memory.empty((READ_BYTES // 4,), np.dtype(np.float32))
    x[:] = 1.0
    out = np.zeros((), np.float32)
    launch = plan_reduce("sum", Arg(0, dt.float32), (0,), False, [Layout.of(x)], Layout.of(out))
    with _threads(count):
        return READ_BYTES / _best(lambda: native.launch(launch, out, (x,)), runs=7)


class _threads:
    """A block in which kernels use this many threads."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> None:
        self.before = threads.get_num_threads()
        threads.set_num_threads(self.count)

    def __exit__(self, *exc: object) -> None:
        threads.set_num_threads(self.before)


def _in_vectors(of: str) -> tuple[str, int]:
    """CHAINS sums, each multiplied and added to in a loop of ROUNDS, and its operations."""
    host = native.host()
    tile = replace(tile_for("double" if of == "float64" else "float"), pairs=of == "bfloat16")
    type = f"<{host.lanes(4)} x i32>" if of == "int8" else tile.type
    per = {"bfloat16": 2, "int8": FOUR}.get(of, 1)
    f = Module(host.vector_bits).kernel("peak")
    (out,) = f.words("%args", 2, ["ptr"])
    one = f.load(type, out)
    with f.loop(0, ROUNDS, 1, [(type, one)] * CHAINS) as loop:
        for c, total in enumerate(loop.carry):
            step = (
                dot(f, total, one, one) if per == FOUR else multiply_add(f, tile, one, one, total)
            )
            loop.next[c] = step
    total = loop.carry[0]
    for value in loop.carry[1:]:
        total = f.op("xor" if of == "int8" else "fadd", total, value)
    f.store(total, f.gep(out, f.mul(f.thread(), _LINE)))
    f.ret()
    lanes = host.lanes(8 if of == "float64" else 4)
    return f.module.text(), ROUNDS * CHAINS * lanes * per * 2


def _has_tiles(of: str) -> bool:
    if of == "bfloat16":
        return amx.multiplies_pairs_in_tiles()
    return of == "int8" and amx.multiplies_bytes_in_tiles()


def _in_tiles(of: str) -> tuple[str, int]:
    """TILES sums of whole registers in a loop of TILE_ROUNDS, and its operations."""
    multiply = amx.multiply_bytes if of == "int8" else amx.multiply_pairs
    f = Module().kernel("peak")
    (one,) = f.words("%args", 2, ["ptr"])
    amx.configure(f, [(amx.ROWS, amx.CELL * amx.DEPTH)] * (TILES + 2))
    for register in range(TILES, TILES + 2):
        amx.load(f, register, one, 0)
    with f.loop(0, TILE_ROUNDS):
        for register in range(TILES):
            multiply(f, register, TILES, TILES + 1)
    amx.release(f)
    f.ret()
    products = amx.ROWS * amx.DEPTH * 16 * (FOUR if of == "int8" else 2)
    return f.module.text(), TILE_ROUNDS * TILES * products * 2


def _best(call: Callable[[], object], runs: int) -> float:
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
