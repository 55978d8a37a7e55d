"""The machine's limits: what shares of the limit in the other tables are against.

    python bench/limits.py [--threads 2] [--megabytes 64]

Multiply-adds in registers of each kind of numbers and each way, reading, and mixes of arrays read
and written, by loops that do nothing else: past the caches ("streamed": an output's lines are not
read first) and through them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import cache

import numpy as np

import weft
from weft.kernels.limits import PRODUCTS, peaks, read_bandwidth
from weft.kernels.target.llvm import Module, zero
from weft.runtime import memory, native

MIXES = ((1, 0), (0, 1), (1, 1), (2, 1), (3, 1), (4, 3))
UNROLL = 4  # vectors a step


def mix(
    reads: int, writes: int, nbytes: int, *, in_place: bool = False
) -> list[Callable[[], object]]:
    """Calls that sum `reads` arrays of `nbytes` each into `writes` others (`in_place`: into the
    first of them): the ways to write.
    """
    count = reads if in_place else reads + max(writes, 1)
    arrays = [memory.empty((nbytes // 4,), np.dtype(np.float32)) for _ in range(count)]
    for a in arrays:
        a[:] = 1  # zeros move faster here

    def call(*, stream: bool) -> Callable[[], object]:
        address = native.load(_text(reads, writes, stream=stream, in_place=in_place), ["mix"])[
            "mix"
        ]
        launch = native.Launch((native.Stage(address, True),), (nbytes // 4,))
        return lambda: native.launch(launch, arrays[0], arrays[1:])

    return [call(stream=s) for s in ((False, True) if writes else (False,))]


@cache
def _text(reads: int, writes: int, *, stream: bool, in_place: bool) -> str:
    host = native.host()
    lanes = host.lanes(4)
    kind, step = f"<{lanes} x float>", UNROLL * lanes
    f = (m := Module(host.vector_bits)).kernel("mix")
    others = 0 if in_place else max(writes, 1)
    pointers = f.words("%args", 2, ["ptr"] * (reads + others))
    outs, ins = pointers[: max(writes, 1)], pointers[others:]
    (n,) = f.words("%args", 3 + len(pointers), ["i64"])
    first, last = f.split(n, step)
    with f.loop(first, last, step, [(kind, zero(kind))] * UNROLL) as loop:
        for u, v in enumerate(loop.carry):
            at = f.add(loop.i, u * lanes)
            for p in ins:
                v = f.op("fadd", v, f.load(kind, f.gep(p, at, "float")))
            for p in outs if writes else ():
                f.store(v, f.gep(p, at, "float"), 4 * lanes, stream=stream)
            if not writes:
                loop.next[u] = v
    if not writes:
        total = loop.carry[0]
        for v in loop.carry[1:]:
            total = f.op("fadd", total, v)
        own = f.mul(f.cast("sext", f.arg("tid"), "i64"), lanes)
        f.store(total, f.gep(outs[0], own, "float"), 4 * lanes)
    if stream and host.arch in ("x86_64", "amd64"):
        f.intrinsic("x86.sse.sfence", "void")
    f.ret()
    return m.text()


def main() -> None:
    parser = argparse.ArgumentParser(description="The machine's limits.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--megabytes", type=int, default=64, help="an array's size in the mixes")
    args = parser.parse_args()
    size = args.megabytes << 20
    for n in sorted({1, args.threads}):
        weft.set_num_threads(n)
        print(f"{n} thread(s): {read_bandwidth(n) / 1e9:.1f} GB/s read")
        for of in PRODUCTS:
            rates = (f"{rate / 1e9:.0f} GOP/s in {way}" for way, rate in peaks(of, n).items())
            print(f"  {of}: {', '.join(rates)}")
        for r, w in MIXES:
            calls = mix(r, w, size)
            times: list[list[float]] = [[] for _ in calls]
            for _ in range(9):
                for call, found in zip(calls, times, strict=True):
                    start = time.perf_counter()
                    call()
                    found.append(time.perf_counter() - start)
            rates = [(r + w) * size / statistics.median(t) / 1e9 for t in times]
            ways = zip(("through the caches", "streamed"), rates, strict=False)
            print(f"  {r} read, {w} written: " + ", ".join(f"{v:.1f} GB/s {k}" for k, v in ways))


if __name__ == "__main__":
    main()
