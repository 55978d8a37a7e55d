"""The machine's limits, measured: multiply-adds a second and bytes a second.

    python bench/limits.py

The peak is that of independent vector multiply-adds on registers, made as Weft makes its kernels;
the bandwidth that of summing an array larger than the caches, on huge pages where the system gives
them.  Both with as many threads as asked for; a share of peak in the tables is against these.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import weft
from weft.kernels.layout import Layout
from weft.runtime import memory, native

CHAINS = 14  # independent sums: multiply-adds take 4 cycles, two start in each
ROUNDS = 20_000


def _fma_text(bits: int) -> str:
    """An endless chain of multiply-adds on CHAINS vectors, `args` as native kernels get them."""
    v = f"<{bits // 32} x float>"
    name = f"@llvm.fma.v{bits // 32}f32"
    lines = [
        f"declare {v} {name}({v}, {v}, {v})",
        'define void @peak(ptr %args, i32 %tid, i32 %nth) "min-legal-vector-width"="512" {',
        "entry:",
        "  %place = getelementptr i64, ptr %args, i64 2",
        "  %out = load ptr, ptr %place",
        f"  %one = load {v}, ptr %out, align 4",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [0, %entry], [%i1, %loop]",
    ]
    lines += [f"  %a{c} = phi {v} [%one, %entry], [%b{c}, %loop]" for c in range(CHAINS)]
    lines += [f"  %b{c} = call {v} {name}({v} %a{c}, {v} %one, {v} %one)" for c in range(CHAINS)]
    lines += [
        "  %i1 = add i64 %i, 1",
        f"  %more = icmp slt i64 %i1, {ROUNDS}",
        "  br i1 %more, label %loop, label %done",
        "done:",
    ]
    total = "%b0"
    for c in range(1, CHAINS):
        lines.append(f"  %s{c} = fadd {v} {total}, %b{c}")
        total = f"%s{c}"
    lines += [
        f"  %slot = getelementptr {v}, ptr %out, i32 %tid",
        f"  store {v} {total}, ptr %slot, align 4",
        "  ret void",
        "}",
    ]
    return "\n".join(lines)


def peak_flops(threads: int, seconds: float = 0.5) -> float:
    """Float32 operations a second of multiply-adds (two each) on `threads` threads."""
    bits = native.host().vector_bits
    address = native.load(_fma_text(bits), ["peak"])["peak"]
    launch = native.Launch((native.Stage(address, True),))
    weft.set_num_threads(threads)
    out = np.zeros((threads + 1) * bits // 32, np.float32)
    best = 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        native.launch(launch, out, ())
        spent = time.perf_counter() - start
        best = max(best, threads * ROUNDS * CHAINS * (bits // 32) * 2 / spent)
    return best


def bandwidth(threads: int, nbytes: int = 256 << 20) -> float:
    """Bytes a second that `threads` threads read from memory."""
    from weft import kernels
    from weft.core import dtype as dt
    from weft.core.scalar import Arg

    weft.set_num_threads(threads)
    x = memory.empty((nbytes // 4,), np.dtype(np.float32))
    x[:] = 1.0
    out = np.zeros((), np.float32)
    launch = kernels.plan_reduce(
        "sum", Arg(0, dt.float32), (0,), False, [Layout.of(x)], Layout.of(out)
    )
    return nbytes / _best(lambda: native.launch(launch, out, (x,)))


def _best(call: Callable[[], object], runs: int = 7) -> float:
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    for n in sorted({1, args.threads}):
        print(
            f"{n} thread(s): {peak_flops(n) / 1e9:.0f} GFLOP/s, reads {bandwidth(n) / 1e9:.1f} GB/s"
        )


if __name__ == "__main__":
    main()
