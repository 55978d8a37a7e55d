"""The machine's limits, measured once a process: multiply-adds and bytes read, a second.

The peak is that of independent vector multiply-adds on registers, the bandwidth that of summing an
array larger than the caches.  Shares of the limit in profiles and benchmarks are against these.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import numpy as np

from weft.core import dtype as dt
from weft.core.scalar import Arg
from weft.kernels.eager import plan_reduce
from weft.kernels.layout import Layout
from weft.runtime import memory, native, threads

CHAINS = 14  # independent sums: a multiply-add takes 4 cycles or more, two start in each
ROUNDS = 20_000
READ_BYTES = 256 << 20
_LINE_WORDS = 16  # 64 bytes


@cache
def peak_flops(thread_count: int | None = None) -> float:
    """Float32 operations a second (two a multiply-add), on as many threads as kernels use."""
    count = threads.get_num_threads() if thread_count is None else thread_count
    bits = native.host().vector_bits
    address = native.load(_peak_text(bits), ["peak"])["peak"]
    launch = native.Launch((native.Stage(address, True),))
    out = np.zeros((count + 1) * _LINE_WORDS, np.float32)
    with _threads(count):
        seconds = _best(lambda: native.launch(launch, out, ()), runs=40)
    return count * ROUNDS * CHAINS * (bits // 32) * 2 / seconds


@cache
def read_bandwidth(thread_count: int | None = None) -> float:
    """Bytes a second that as many threads read from memory."""
    count = threads.get_num_threads() if thread_count is None else thread_count
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


def _peak_text(bits: int) -> str:
    """CHAINS sums, each multiplied and added to in a loop of ROUNDS."""
    v = f"<{bits // 32} x float>"
    fma = f"@llvm.fma.v{bits // 32}f32"
    chains = range(CHAINS)
    sums = [f"  %s{c} = fadd {v} {'%b0' if c == 1 else f'%s{c - 1}'}, %b{c}" for c in chains[1:]]
    return "\n".join([
        f"declare {v} {fma}({v}, {v}, {v})",
        'define void @peak(ptr %args, i32 %tid, i32 %nth) "min-legal-vector-width"="512" {',
        "entry:",
        "  %place = getelementptr i64, ptr %args, i64 2",
        "  %out = load ptr, ptr %place",
        f"  %one = load {v}, ptr %out, align 4",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [0, %entry], [%i1, %loop]",
        *[f"  %a{c} = phi {v} [%one, %entry], [%b{c}, %loop]" for c in chains],
        *[f"  %b{c} = call {v} {fma}({v} %a{c}, {v} %one, {v} %one)" for c in chains],
        "  %i1 = add i64 %i, 1",
        f"  %more = icmp slt i64 %i1, {ROUNDS}",
        "  br i1 %more, label %loop, label %done",
        "done:",
        *sums,
        f"  %slot = getelementptr <{_LINE_WORDS} x float>, ptr %out, i32 %tid",
        f"  store {v} %s{CHAINS - 1}, ptr %slot, align 4",
        "  ret void",
        "}",
    ])  # fmt: skip


def _best(call: Callable[[], object], runs: int) -> float:
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
