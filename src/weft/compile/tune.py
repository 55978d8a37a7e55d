"""autotune=True: what plans choose by a model of the machine is timed, and the fastest kept.

Each launch of a program is planned with the numbers that its plan asks for (kernels/choices.py) one
after another changed, and run with cold caches; a number that makes it 3 % faster stays.  Choices
are kept on disk, by the op and the layouts, for this machine and number of threads: what was timed
once is not timed again.  No choice changes a bit of a result.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TypeVar

import numpy as np

from weft.kernels.choices import picking
from weft.kernels.layout import Layout
from weft.runtime import machine, native, threads

T = TypeVar("T")
RUNS = 5
GAIN = 0.97  # of the time before, at most, for another number to stay
_FLUSH_BYTES = 64 << 20


def shown(groups: Sequence[T]) -> Iterable[T]:
    """The groups of a program, with a bar on a terminal: timing takes a while."""
    from tqdm import tqdm  # not for `import weft`

    return tqdm(groups, desc="autotune", unit="kernel", leave=False, disable=None)


def tuned(key: str, plan: Callable[[], native.Launch], operands: Sequence[Layout]) -> native.Launch:
    """The fastest launch that `plan` makes; operands: its result's layout, then its inputs'."""
    full = f"{key} {operands} {threads.get_num_threads()}"
    name = machine.digest(full.encode()).hex()[:32]
    known = _table().get(name)
    if known is not None:
        with picking(known):
            return plan()
    with picking({}) as asked:
        launch = plan()
    if not any(len(options) > 1 for options in asked.values()):
        return launch
    machine.improve_now()
    best: dict[str, int] = {}
    arrays = [x.zeros() for x in operands]  # an index of zero is in range
    fastest = _seconds(launch, arrays)
    for what, (_, *others) in asked.items():
        for other in others:
            with picking(best | {what: other}):
                made = plan()
            if (made.ints, made.stages) == (launch.ints, launch.stages):
                continue
            spent = _seconds(made, arrays)
            if spent < GAIN * fastest:
                launch, fastest, best = made, spent, best | {what: other}
    _keep(name, best)
    return launch


def _seconds(launch: native.Launch, arrays: list[np.ndarray]) -> float:
    """The median of a few runs, each behind a sweep through more memory than the caches hold."""
    spent = []
    for _ in range(RUNS):
        _flush()
        start = time.perf_counter()
        native.launch(launch, arrays[0], arrays[1:])
        spent.append(time.perf_counter() - start)
    return sorted(spent)[RUNS // 2]


def _flush() -> None:
    sweep = _sweep()
    np.add(sweep, 1, out=sweep)


@cache
def _sweep() -> np.ndarray:
    return np.zeros(_FLUSH_BYTES // 8)


# ------------------------------------------------------------------------------ kept on disk


def _file() -> str | None:
    place = machine.cache_dir()
    if place is None:
        return None
    host = machine.host()
    made_for = machine.digest(f"{host.cpu} {host.features}".encode()).hex()[:12]
    return os.path.join(os.path.dirname(place), f"tuned-{made_for}.json")


@cache
def _table() -> dict[str, dict[str, int]]:
    """Choices by launch, as far as this process knows; a damaged file is as none."""
    file = _file()
    try:
        if file is None:
            return {}
        with open(file, encoding="utf-8") as text:
            found = json.load(text)
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in found.items() if _is_choices(v)} if isinstance(found, dict) else {}


def _is_choices(x: object) -> bool:
    return isinstance(x, dict) and all(type(v) is int for v in x.values())


def _keep(name: str, choices: Mapping[str, int]) -> None:
    """Add a launch's choices, in memory and beside what other processes have written."""
    table, file = _table(), _file()
    table[name] = dict(choices)
    if file is not None:
        machine.write_whole(file, json.dumps(table).encode())
