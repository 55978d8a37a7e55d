"""Many small stages on more threads than cores, beside programs that take the cores in bursts.

`python tests/runtime/test_late_workers.py 300` goes on for 300 seconds.
"""

import os
import subprocess
import sys
import threading
import time
from functools import cache

import numpy as np
import pytest

from weft.kernels.target.llvm import Module
from weft.runtime import native, threads

LAUNCHES, ROOM = 60, 16
COMPETITOR = """
import random, time
while True:
    end = time.perf_counter() + random.choice([0.0001, 0.002, 0.006])
    while time.perf_counter() < end:
        pass
    time.sleep(random.choice([0.0001, 0.003]))
"""


@cache
def stages() -> tuple[native.Stage, ...]:
    """turn: scratch[i] = 3 out[n - 1 - i] + i, shared by tid, each through its own room;
    add: out[i] += scratch[i], in units of 8 that threads draw; step: out[i] = 5 out[i] + 1, by tid.
    """
    m = Module(native.host().vector_bits)
    names = ("turn", "add", "step")
    for name in names:
        f = m.kernel(name)
        out, scratch, n = f.words("%args", 2, ["ptr", "ptr", "i64"])
        if name == "turn":
            tid = f.cast("sext", f.arg("tid"), "i64")
            room = f.gep(scratch, f.mul(f.add(n, f.mul(tid, ROOM)), 8))
            start, stop = f.split(n, ROOM)
            with f.loop(start, stop, ROOM) as blocks:
                with f.loop(0, ROOM) as L:
                    at = f.sub(f.sub(n, 1), f.add(blocks.i, L.i))
                    f.store(f.load("i64", f.gep(out, at, "i64")), f.gep(room, L.i, "i64"))
                with f.loop(0, ROOM) as L:
                    at = f.add(blocks.i, L.i)
                    v = f.add(f.mul(f.load("i64", f.gep(room, L.i, "i64")), 3), at)
                    f.store(f.typed(v, "i64"), f.gep(scratch, at, "i64"))
        elif name == "add":
            with f.units(f.div(n, 8)) as unit, f.loop(0, 8) as L:
                at = f.add(f.mul(unit, 8), L.i)
                cell = f.gep(out, at, "i64")
                v = f.add(f.load("i64", cell), f.load("i64", f.gep(scratch, at, "i64")))
                f.store(f.typed(v, "i64"), cell)
        else:
            start, stop = f.split(n)
            with f.loop(start, stop) as L:
                cell = f.gep(out, L.i, "i64")
                f.store(f.typed(f.add(f.mul(f.load("i64", cell), 5), 1), "i64"), cell)
        f.ret()
    found = native.load(m.text(), names)
    return tuple(native.Stage(found[name], True) for name in names)


def expected(x: np.ndarray) -> np.ndarray:
    for _ in range(LAUNCHES):
        x = 5 * (x + (3 * x[::-1] + np.arange(len(x)))) + 1
    return x


class Chain:
    """Launches one behind another on the same numbers: each reads what all parts of the last one
    wrote, and a part run twice or not at all changes the result."""

    def __init__(self, n: int) -> None:
        self.start = np.arange(n, dtype=np.int64) * 12345
        self.out = np.empty(n, np.int64)
        plan = native.Launch(stages(), (n,), 8 * n, 8 * ROOM)
        self.table = native.make_table([(plan, native.address(self.out), [])] * LAUNCHES)
        self.expected = expected(self.start)

    def run(self) -> None:
        self.out[:] = self.start
        assert self.table.run() == (-1, 0, 0)
        assert (self.out == self.expected).all(), threads.get_num_threads()


def stress(seconds: float) -> int:
    """How many chains gave the right numbers."""
    chains, beside = [Chain(n) for n in (16, 160, 1600, 48_000)], Chain(320)
    end, runs, failures = time.monotonic() + seconds, 0, []

    def other() -> None:  # a caller that mostly finds the pool taken
        try:
            while time.monotonic() < end:
                beside.run()
                time.sleep(0.001)
        except BaseException as error:
            failures.append(error)

    command = [sys.executable, "-c", COMPETITOR]
    competitors = [subprocess.Popen(command) for _ in range(2)]
    thread = threading.Thread(target=other)
    thread.start()
    try:
        while time.monotonic() < end:
            for count in (1, 2, 3, 4, 8, 5, 16):
                threads.set_num_threads(count)
                for chain in chains:
                    for _ in range(6):
                        chain.run()
                        runs += 1
                time.sleep(0.0002)  # workers fall asleep
    finally:
        thread.join()
        for competitor in competitors:
            competitor.kill()
            competitor.wait()
    assert not failures, failures
    return runs


@pytest.mark.parametrize("pool", ["", "condition"])
def test_whoever_comes_late_every_part_runs_once(pool):
    """In a process of its own: what hangs is ended."""
    run = subprocess.run(
        [sys.executable, __file__, "2"],
        env={**os.environ, "WEFT_POOL": pool}, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 100


if __name__ == "__main__":
    print(stress(float(sys.argv[1])))
