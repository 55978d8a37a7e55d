"""How a workload's work is shared out among 1, 2, 4 and 16 threads, on a machine with fewer cores.

    python bench/scaling.py [--only gpt,resnet50_b1] [--threads 1,2,4,16] [--worst 3]

The stages of a compiled program are called for each thread's part one after another on one core,
and timed. A stage that shares its units out beforehand takes as long as its slowest part; one whose
threads take units from a counter as long as one thread's share of them, rounded up. Their sum over
the program against one thread's is the speed-up that the partition allows; a number of threads more
the hand-overs, of 1 to 3 us each, and what a memory that all share takes from it. Work that lies in
no parallel stage, or in too few units, shows: the launches that lose most are named.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import models
import numpy as np
import works
from tqdm import tqdm

import weft
from weft.compile.program import Program
from weft.compile.steps import Entry

REPEATS = 3
_Stage = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)


def program_of(work: works.Work) -> Program:
    """The workload's compiled program."""
    if work.kind == "training":
        f = weft.compile(models.training_step(weft, work.name))
    else:
        model, inputs = models.inference(weft, work.name)
        f = weft.compile(lambda: model(*inputs))
    with weft.set_grad_enabled(work.kind == "training"):
        for _ in range(4):
            f()
    return f._last.program


def seconds(call: Callable[[], Any]) -> float:
    """The fastest of a few."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def stage_seconds(function: Any, parallel: bool, block: Any, n: int) -> float:
    """Until the last of n threads is done with its part."""
    if not parallel:
        return seconds(lambda: function(block, 0, 1))
    counter = ctypes.c_int64.from_address(ctypes.addressof(block) + 8)

    def first() -> None:
        counter.value = 0
        function(block, 0, n)

    mine = seconds(first)
    if counter.value:  # it took all units; the last draw found none
        units = max(counter.value - 1, 1)
        return mine * -(-units // n) / units
    return max([mine, *[seconds(lambda t=t: function(block, t, n)) for t in range(1, n)]])


def measure(program: Program, n: int) -> list[tuple[str, float]]:
    """(label, seconds on n threads) of every launch."""
    rows = []
    entries = [s for s in program.steps if isinstance(s, Entry) and s.launch.stages]
    with program.on_zeros():
        blocks = zip(program.table._blocks, program.table._slots, strict=True)
        for e, (block, slots) in zip(entries, blocks, strict=True):
            scratch = np.zeros(e.launch.scratch + n * e.launch.scratch_per_thread + 64, np.uint8)
            block[2 + slots] = -(-scratch.ctypes.data // 64) * 64
            block[0] = block[1] = 0
            stages = [(_Stage(s.function), bool(s.shared)) for s in e.launch.stages]
            rows.append((e.label, sum(stage_seconds(f, p, block, n) for f, p in stages)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--threads", default="1,2,4,16")
    parser.add_argument("--worst", type=int, default=3)
    options = parser.parse_args()
    counts = [int(n) for n in options.threads.split(",")]
    if counts[0] != 1:
        parser.error("--threads starts with 1, which the others are compared with")
    own = [w for w in works.WORKS if w.name in models.MODELS]  # not what others' files define
    chosen = [w for w in own if not options.only or w.name in options.only.split(",")]
    print(f"{'work':12s} {'one thread':>12s} " + " ".join(f"{f'x{n}':>6s}" for n in counts[1:]))
    for work in tqdm(chosen, leave=False, disable=None):
        totals, lost = {}, defaultdict[str, float](float)
        for n in counts:
            weft.set_num_threads(n)  # launches are planned for a number of threads
            rows = measure(program_of(work), n)
            totals[n] = sum(t for _, t in rows)
            if n in (1, counts[-1]):
                for label, t in rows:  # beyond an equal share on the most threads
                    lost[label] += t if n == counts[-1] else -t / counts[-1]
        gains = " ".join(f"{totals[1] / totals[n]:6.2f}" for n in counts[1:])
        tqdm.write(f"{work.name:12s} {1e3 * totals[1]:9.2f} ms {gains}")
        for label in sorted(lost, key=lambda k: -lost[k])[: options.worst]:
            share = 100 * lost[label] / totals[counts[-1]]
            if share >= 1:
                tqdm.write(f"{'':12s} {share:3.0f} % of the time on {counts[-1]}: {label}")


if __name__ == "__main__":
    main()
