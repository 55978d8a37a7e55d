"""What ran, and how long it took: native launches, steps of compiled programs, NumPy's share.

While a `Collector` is on, three functions are exchanged for ones that note the time around them:
the launcher of eager kernels, the runner of a program's table (which then runs entry by entry), and
the caller of ops that NumPy computes.  Nothing is looked at while none is on.  Sums and products of
a few numbers are computed in one step by a builtin that is not seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weft.compile.program import Program
from weft.compile.steps import Entry, HostCall
from weft.core.caller import user_line
from weft.core.op import Op
from weft.core.types import array_type
from weft.kernels import limits
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.runtime import native


@dataclass
class Event:
    """One kernel, NumPy call or labelled range; times in seconds on `time.perf_counter`."""

    name: str
    start: float
    seconds: float
    kind: str  # "kernel", "host" (NumPy computes) or "range"
    line: str | None = None
    shapes: tuple[tuple[int, ...], ...] = ()  # of the result and the operands
    nbytes: float = 0.0
    flops: float = 0.0
    of: str = "float32"  # the numbers that were multiplied
    thread: int = field(default_factory=threading.get_ident)

    def limit(self) -> float:
        """Seconds that the machine needs at least: for the arithmetic, or to move the bytes."""
        moved = self.nbytes / limits.read_bandwidth() if self.nbytes else 0.0
        return max(self.flops / limits.peak_flops(of=self.of) if self.flops else 0.0, moved)


def cost(op: Op | None, ins: Sequence[Layout], out: Layout) -> tuple[float, float, str]:
    """(bytes that are read or written, arithmetic of products, of which numbers) of one call; None
    makes no products.
    """
    moved = sum(_distinct(x) * x.dtype.itemsize for x in (out, *ins))
    if op is None:
        return moved, 0.0, "float32"
    types = [array_type(x) for x in ins]
    flops = op.flops(*types)
    return moved, flops, op.multiplies(*types) if flops else "float32"


def _distinct(x: Layout) -> int:
    """Elements in memory: a dim of stride 0 repeats the same ones."""
    count = 1
    for n, s in zip(x.shape, x.strides, strict=True):
        count *= n if s else 1
    return count


class Collector:
    """Notes events from `start` to `stop`; one at a time in a process."""

    _on = threading.Lock()

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._launched: list[tuple[Event, native.Launch, Any, Any]] = []

    def start(self) -> None:
        """From now on; RuntimeError where another collector is on."""
        if not Collector._on.acquire(blocking=False):
            raise RuntimeError("profile: another profile is being taken")
        native._launcher()  # what it puts in place is what we exchange
        self._plain = native.launch, native.Table.run, dispatch.quietly
        native.stand_aside(on=True)
        native.launch = self._launch
        native.Table.run = self._runner()
        dispatch.quietly = self._host

    def stop(self) -> None:
        """No more; the events' ops and costs are looked up now."""
        native.launch, native.Table.run, dispatch.quietly = self._plain
        native.stand_aside(on=False)
        Collector._on.release()
        ops = {id(found[0]): key[0] for key, found in dispatch._launches.items()}
        for event, launch, out, ins in self._launched:
            if (op := ops.get(id(launch))) is not None:
                event.name = str(op)
            event.nbytes, event.flops, event.of = cost(op, ins, out)
        self._launched = []

    def _launch(self, launch: native.Launch, out: np.ndarray, ins: Sequence[np.ndarray]) -> int:
        start = time.perf_counter()
        status = self._plain[0](launch, out, ins)
        seconds = time.perf_counter() - start
        shapes = tuple(a.shape for a in (out, *ins))
        event = Event("kernel", start, seconds, "kernel", user_line(), shapes)
        self.events.append(event)
        self._launched.append((event, launch, Layout.of(out), [Layout.of(a) for a in ins]))
        return status

    def _runner(self) -> Any:
        return lambda table, start=0, stop=None: self._run(table, start, stop)

    def _run(self, table: native.Table, start: int, stop: int | None) -> tuple[int, int, int]:
        run = self._plain[1]
        for i in range(start, len(table) if stop is None else stop):
            began = time.perf_counter()
            result = run(table, i, i + 1)
            seconds = time.perf_counter() - began
            if table.owner is not None:
                self.events.append(event_of(table.owner.entries[i], began, seconds))
            if result[0] >= 0:
                return result
        return -1, 0, 0

    def _host(self, host: Any, arrays: list) -> Any:
        start = time.perf_counter()
        result = self._plain[2](host, arrays)
        seconds = time.perf_counter() - start
        op = getattr(host, "__self__", None)
        name = str(op) if isinstance(op, Op) else getattr(host, "__name__", "host")
        shapes = tuple(np.shape(a) for a in (result, *arrays))
        nbytes = float(sum(a.nbytes for a in (result, *arrays) if isinstance(a, np.ndarray)))
        self.events.append(Event(name, start, seconds, "host", user_line(), shapes, nbytes))
        return result


def event_of(step: Entry | HostCall, start: float, seconds: float) -> Event:
    """A step of a program that took this long."""
    ins = [p.layout for p in step.ins]
    aside = isinstance(step, Entry) and step.aside
    nbytes, flops, of = cost(None if aside else step.op, ins, step.out.layout)
    shapes = tuple(x.shape for x in (step.out.layout, *ins))
    kind, name = ("kernel", step.label) if isinstance(step, Entry) else ("host", str(step.op))
    return Event(name, start, seconds, kind, step.line, shapes, nbytes, flops, of)


def time_steps(program: Program, runs: int) -> list[Event]:
    """Each step of a program alone, again and again, on inputs of zeros: the median."""
    return [event_of(step, 0.0, seconds) for step, seconds in program.time_steps(runs)]
