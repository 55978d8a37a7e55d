"""torch.profiler's names over what Weft measures: every kernel's time beside the machine's limit.

    with weft.profile() as p:
        step(x, y)
    print(p.table())                      # time, GFLOP/s, GB/s, share of the limit, the user's line
    p.export_chrome_trace("trace.json")   # for chrome://tracing and Perfetto

The limit of a kernel is the longer of its arithmetic at the machine's peak and its bytes at the
memory's bandwidth, both measured when a table is first made.  What lies in the caches can be read
faster than memory: shares above 100 % say so.
"""

from __future__ import annotations

import enum
import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.compile.profile import Collector, Event, time_steps

_collector: Collector | None = None


class ProfilerActivity(enum.Enum):
    """What to watch; Weft runs on the CPU only."""

    CPU = 0
    XPU = 1
    CUDA = 2


class ProfilerAction(enum.Enum):
    """What a schedule says of a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


class record_function:
    """A label around a block: a range in the trace of the profile that is being taken."""

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name = name if args is None else f"{name}({args})"

    def __enter__(self) -> record_function:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        if _collector is not None:
            seconds = time.perf_counter() - self._start
            _collector.events.append(Event(self.name, self._start, seconds, "range"))

    def __call__(self, fn: Callable) -> Callable:
        """As a decorator: each call of the function is a range."""

        def labelled(*args: Any, **kw: Any) -> Any:
            with record_function(self.name):
                return fn(*args, **kw)

        return labelled


@dataclass
class Average:
    """All calls of one kernel on one line: sums over `count` calls."""

    key: str
    line: str | None
    kind: str
    count: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    nbytes: float = 0.0
    limit: float = 0.0
    shapes: tuple = ()

    @property
    def cpu_time_total(self) -> float:
        """Microseconds."""
        return 1e6 * self.seconds

    self_cpu_time_total = cpu_time_total

    @property
    def cpu_time(self) -> float:
        """Microseconds a call."""
        return self.cpu_time_total / self.count

    @property
    def share(self) -> float:
        """The part of the machine's limit that was reached: 1 is as fast as it can be."""
        return self.limit / self.seconds if self.seconds else 0.0


_SORT = {
    None: "seconds", "cpu_time_total": "seconds", "self_cpu_time_total": "seconds",
    "cpu_time": "cpu_time", "count": "count", "flops": "flops", "seconds": "seconds",
}  # fmt: skip


class EventList(list[Average]):
    """Averages, printed by `table`."""

    def table(
        self, sort_by: str | None = None, row_limit: int = 100, max_name_column_width: int = 44
    ) -> str:
        """A row a kernel: calls, time, GFLOP/s, GB/s, share of the limit, the user's line."""
        if sort_by not in _SORT:
            known = ", ".join(sorted(k for k in _SORT if k))
            raise ValueError(f"table: sort_by must be one of {known}, got {sort_by!r}")
        rows = sorted(self, key=lambda a: -getattr(a, _SORT[sort_by]))
        work = [a for a in rows if a.kind != "range"]
        total = sum(a.seconds for a in work)
        width = max(min(max((len(a.key) for a in rows), default=6), max_name_column_width), 6)
        head = (
            f"{'kernel':<{width}} {'calls':>7} {'total ms':>9} {'%':>6} {'us/call':>9} "
            f"{'GFLOP/s':>8} {'GB/s':>7} {'limit':>6}  line"
        )
        out = [head, "-" * len(head)]
        for a in rows[:row_limit]:
            name = a.key if len(a.key) <= width else a.key[: width - 3] + "..."
            part = f"{100 * a.seconds / total:6.1f}" if a.kind != "range" and total else " " * 6
            out.append(
                f"{name:<{width}} {a.count:>7} {1e3 * a.seconds:>9.3f} {part} {a.cpu_time:>9.1f} "
                f"{_rate(a.flops, a.seconds):>8} {_rate(a.nbytes, a.seconds):>7} "
                f"{f'{a.share:.0%}' if a.limit else '':>6}  "
                f"{a.line or ''}{' (NumPy)' if a.kind == 'host' else ''}"
            )
        bound = sum(a.limit for a in work)
        out.append(
            f"{len(work)} kernels, {1e3 * total:.3f} ms; at the machine's limit "
            f"{1e3 * bound:.3f} ms ({bound / total if total else 0.0:.0%})"
        )
        return "\n".join(out)


def _rate(amount: float, seconds: float) -> str:
    return f"{amount / seconds / 1e9:.1f}" if amount and seconds else ""


def averages(events: Iterable[Event]) -> EventList:
    """One row for all events of one name, line and shapes."""
    rows: dict[tuple, Average] = {}
    for e in events:
        key = (e.name, e.line, e.shapes, e.kind)
        shown = e.name if e.kind == "range" or not e.shapes else f"{e.name} -> {list(e.shapes[0])}"
        row = rows.get(key)
        if row is None:
            row = rows[key] = Average(shown, e.line, e.kind, shapes=e.shapes)
        row.count += 1
        row.seconds += e.seconds
        row.flops += e.flops
        row.nbytes += e.nbytes
        row.limit += e.limit() if e.kind != "range" else 0.0
    return EventList(rows.values())


def steps_of(program: Any, runs: int) -> EventList:
    """The steps of a compiled program (`ModelFile.programs`), each timed alone `runs` times."""
    return averages(time_steps(program, runs))


class profile:
    """Watch a block; afterwards `table`, `key_averages`, `export_chrome_trace` tell what ran.

    The arguments are torch's.  `schedule` (see below) says by step which steps are kept, and
    `on_trace_ready` is called with the profile at the end of each kept cycle.  Shapes, stacks and
    FLOPs are always recorded; `profile_memory` has no effect.  One profile at a time: RuntimeError.
    """

    def __init__(
        self,
        *,
        activities: Iterable[ProfilerActivity] | None = None,
        schedule: Callable[[int], ProfilerAction] | None = None,
        on_trace_ready: Callable[[profile], Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        with_modules: bool = False,
        experimental_config: Any = None,
        execution_trace_observer: Any = None,
        acc_events: bool = False,
        use_cuda: bool | None = None,
        custom_trace_id_callback: Any = None,
    ) -> None:
        self.schedule = schedule or (lambda _: ProfilerAction.RECORD)
        self.on_trace_ready = on_trace_ready
        self.step_num = 0
        self._events: list[Event] = []
        self._collector: Collector | None = None

    def start(self) -> None:
        """Begin with step 0."""
        self.step_num = 0
        self._events = []
        self._turn(self.schedule(0))

    def stop(self) -> None:
        """End; a cycle that is being recorded is given to `on_trace_ready`."""
        recording = self._collector is not None
        self._turn(ProfilerAction.NONE)
        if recording and self.on_trace_ready is not None:
            self.on_trace_ready(self)

    def step(self) -> None:
        """The next step begins."""
        done = self.schedule(self.step_num)
        self.step_num += 1
        if done is ProfilerAction.RECORD_AND_SAVE:
            self._turn(ProfilerAction.NONE)
            if self.on_trace_ready is not None:
                self.on_trace_ready(self)
            self._events = []
        self._turn(self.schedule(self.step_num))

    def _turn(self, action: ProfilerAction) -> None:
        global _collector
        wanted = action in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)
        if wanted and self._collector is None:
            made = Collector()
            made.start()
            self._collector = _collector = made
        elif not wanted and self._collector is not None:
            self._collector.stop()
            self._events += self._collector.events
            self._collector = _collector = None

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def events(self) -> list[Event]:
        """Every kernel call, NumPy call and range, in order of their starts."""
        return sorted(self._events, key=lambda e: e.start)

    def key_averages(self, group_by_input_shape: bool = False, **kw: Any) -> EventList:
        """One row for all calls of a kernel on a line with the same shapes."""
        return averages(self.events())

    def table(self, sort_by: str | None = None, row_limit: int = 30) -> str:
        """`key_averages().table()`: a row a kernel, the longest first."""
        return self.key_averages().table(sort_by, row_limit)

    def export_chrome_trace(self, path: str | os.PathLike) -> None:
        """Write the events as JSON for chrome://tracing, Perfetto, TensorBoard's profile page."""
        rows = []
        for e in self.events():
            args: dict[str, Any] = {"shapes": [list(s) for s in e.shapes]}
            if e.line:
                args["line"] = e.line
            if e.kind != "range" and e.seconds:
                args["GFLOP/s"] = round(e.flops / e.seconds / 1e9, 2)
                args["GB/s"] = round(e.nbytes / e.seconds / 1e9, 2)
            rows.append({
                "ph": "X", "cat": "user_annotation" if e.kind == "range" else "cpu_op",
                "name": e.name, "pid": os.getpid(), "tid": e.thread, "ts": 1e6 * e.start,
                "dur": 1e6 * e.seconds, "args": args,
            })  # fmt: skip
        whole = {"schemaVersion": 1, "traceEvents": rows, "displayTimeUnit": "ms"}
        Path(path).write_text(json.dumps(whole), encoding="utf-8")


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0,
    skip_first_wait: int = 0,
) -> Callable[[int], ProfilerAction]:  # fmt: skip
    """Cycles of `wait` steps unwatched, `warmup` steps, `active` recorded ones; `repeat` cycles, 0
    for no end, behind `skip_first` steps.
    """
    if min(wait, warmup, repeat, skip_first) < 0 or active <= 0:
        raise AssertionError(
            f"Invalid profiler schedule arguments: wait {wait}, warmup {warmup}, active {active}, "
            f"repeat {repeat}, skip_first {skip_first}"
        )

    def action(step: int) -> ProfilerAction:
        step -= skip_first
        if step < 0:
            return ProfilerAction.NONE
        if skip_first_wait:  # the first cycle does not wait
            step += wait
        length = wait + warmup + active
        if repeat and step // length >= repeat:
            return ProfilerAction.NONE
        place = step % length
        if place < wait:
            return ProfilerAction.NONE
        if place < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD if place < length - 1 else ProfilerAction.RECORD_AND_SAVE

    return action


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False
) -> Callable[[profile], None]:
    """An `on_trace_ready` that writes DIR/WORKER.TIME.pt.trace.json, where TensorBoard looks."""
    if use_gzip:
        raise NotImplementedError("tensorboard_trace_handler: use_gzip is not supported")
    folder = Path(dir_name)

    def write(p: profile) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        p.export_chrome_trace(folder / f"{worker}.{time.time_ns() // 1_000_000}.pt.trace.json")

    return write


def supported_activities() -> set[ProfilerActivity]:
    """The CPU alone."""
    return {ProfilerActivity.CPU}


def kineto_available() -> bool:
    """False: the measurements are Weft's own."""
    return False
