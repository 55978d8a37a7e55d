"""Calls timed in turns, so that ratios hold whatever state a shared machine is in.

A round times each call once, in an order that turns, one right after the other: what a neighbour
takes of the cores for seconds or minutes hits all of them.  So ratios are taken within a round, and
a table gives their medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from weft.kernels.limits import peak_loop

Call = Callable[[], Any]
Times = dict[str, list[float]]

BLOCK_S = 2e-3  # calls that are shorter go in blocks; long against a clock, short against a state
WARM_S = 5e-3  # shorter ones find their arrays in the caches, as the ones before left them
QUIET_S = 0.02  # a peer's idle threads spin for some ms and would take a core of the next
LEAST = 5  # rounds


def take(calls: dict[str, Call], *, seconds: float, threads: int) -> Times:
    """Seconds of a call of each, one number a round, for about so long.

    One thread is timed by its own clock: what others take of the machine does not count.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    repeats, length = {}, {}
    for name, call in calls.items():
        call()
        call()
        length[name] = max(block(call, 1, clock), 1e-7)
        repeats[name] = max(1, min(5000, round(BLOCK_S / length[name])))
    names, times = list(calls), {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while len(times[names[0]]) < LEAST or time.perf_counter() < end:
        for name in names:
            if threads > 1:
                time.sleep(QUIET_S)
            if length[name] < WARM_S:
                calls[name]()
            times[name].append(block(calls[name], repeats[name], clock))
        names.append(names.pop(0))
    return times


def ratio(times: Times, other: str, own: str) -> float:
    """The median of how many times as long `other` takes."""
    return statistics.median(o / t for o, t in zip(times[other], times[own], strict=True))


def middle(times: Times, name: str) -> float:
    return statistics.median(times[name])


def peak(threads: int, operations: float) -> tuple[Call, float]:
    """Multiply-adds in registers, and the part of these operations (of two) that a call does."""
    call, done = peak_loop(threads)
    return call, done / operations


def block(call: Call, repeat: int, clock: Callable[[], float]) -> float:
    """Seconds a call, of `repeat` calls."""
    start = clock()
    for _ in range(repeat):
        call()
    return (clock() - start) / repeat
