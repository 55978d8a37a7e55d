"""What a replay gives; and a recording as one native call: guards, arguments, results, program.

The native call is for recordings whose arguments are tensors, one by one, that draw no random
numbers and write to no argument.  Anything unusual (another mode, a tensor on the tape, an argument
that shares memory) makes it give None, and the recording runs the long way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from weft.compile.arena import ARENA
from weft.core.handle import Handle
from weft.ops import dispatch
from weft.runtime import guards, memory, native, replay_code

if TYPE_CHECKING:
    from weft.compile.replay import Recording

_LONGEST = 4096  # replays the long way before the call is made anew, at most
_RUN = native.Table.run  # another one while a profile is taken


# ------------------------------------------------------------------------------ results


class Call:
    """One replay, as a program sees a session."""

    def __init__(self, arrays: list[np.ndarray], numbers: list) -> None:
        self.arrays = arrays
        self.numbers = numbers
        self.ghosts: dict[int, Any] = _Slots()
        self.handles: dict[int, Any] = {}

    def inputs(self, names: list[tuple[str, int]]) -> dict[str, np.ndarray]:
        return {name: self.array(ref) for name, ref in names}

    def former(self) -> tuple[int, list[int]]:
        return 0, []

    def array(self, ref: int) -> np.ndarray:
        return self.arrays[~ref] if ref < 0 else self.ghosts[ref].array

    def handle(self, k: int) -> Any:
        """The tensor of result k."""
        found = self.handles.get(k)
        if found is None:
            found = self.handles[k] = dispatch.wrap(self.array(k))
        return found

    def give_up(self) -> None:
        """Nothing to clean up: the call runs again with Python."""


class _Slot:
    array: Any = None


class _Slots(dict):
    def __missing__(self, k: int) -> _Slot:
        made = self[k] = _Slot()
        return made


def give(r: Recording, call: Call, tensors: Sequence[Handle]) -> Any:
    """What the recorded function returns, of this call's results."""
    return _give(r, r.result, call, tensors)


def _give(r: Recording, spec: Any, call: Call, tensors: Sequence[Handle]) -> Any:
    what = spec[0]
    if what == "result":
        if not spec[2]:
            return call.handle(spec[1])
        y = dispatch.wrap(call.array(spec[1]))
        y._fn, y._rg = r.spent[spec[1]], True
        return y
    if what == "view":
        y = dispatch.wrap(call.array(spec[2]))
        dispatch.link_view(y, call.handle(spec[1]))
        return y
    if what == "static":
        return r.world.tensors[spec[1]]
    if what == "argument":
        return tensors[spec[1]]
    if what == "same":
        return spec[1]
    if what is dict:
        return {k: _give(r, v, call, tensors) for k, v in spec[1]}
    return what(_give(r, v, call, tensors) for v in spec[1])


# ------------------------------------------------------------------------------ the native call


def may_be_direct(r: Recording) -> bool:
    """Whether the recording is of that kind, and its arguments are tensors, one by one."""
    segment, p = r.program, r.program.program
    flat = r.key[0] is tuple and all(x.__class__ is tuple and _is_layout(x) for x in r.key[1:])
    return (
        guards.available() and flat and not r.objects
        and all(kind in ("argument", "static", "number") for kind, _ in r.sources)
        and not segment.generators
        and all(segment.is_of_results(k) for k in segment.views)
        and all(ref < 0 for _, ref in segment.names)
        and [x.__class__ for x in p.ranges] == [tuple]
        and 0 < len(p.out_types) - len(p.into) <= replay_code.MOST
        and len(r.key) - 1 <= replay_code.MOST
    )  # fmt: skip


def _is_layout(x: tuple) -> bool:
    return len(x) == 3 and x[0].__class__ is tuple


class Direct:
    """How a recording, which has just run, runs again: its numbers are in their places.

    Another run of the program ends it.
    """

    def __init__(self, r: Recording, tensors: Sequence[Handle]) -> None:
        """ValueError where a weight is not packed yet, or an argument is written to."""
        p = r.program.program
        inputs: dict[str, np.ndarray] = {}
        arguments: list[tuple[np.ndarray, list]] = [(t._a, []) for t in tensors]
        names = [name for name in p.out_types if name not in p.into]
        moving: list[tuple[str, str]] = [("out", name) for name in names]
        for name, ref in r.program.names:
            static, (_, i) = r.outside[~ref], r.sources[~ref]
            if static is None:
                moving.append(("in", name))
                arguments[i][1].extend(p.pointers("in", name))
            else:
                inputs[name] = static._a
        weights = p.weights.watched(inputs)
        if weights is None or not inputs.keys() >= set(p.into.values()):
            raise ValueError("a weight is not packed, or an argument is written to")
        self._written = [memory.lease_of(inputs[source]) for source in p.into.values()]
        owner = object()
        p.take(owner, inputs, moving)
        self._owner = owner
        types = [(k, p.out_types[k]) for k in names]
        results = [(t.shape, t.dtype.np, p.pointers("out", k)) for k, t in types]
        places = (p, "owner", owner), (p.table, "form", p.table.form), (native.Table, "run", _RUN)
        self.stream = r.guard.native([*places, (ARENA, "memory", ARENA.memory), *weights])
        kind = type(dispatch.wrap(np.empty(0)))
        self._call = guards.GuardedRun(self.stream, arguments, results, r.roots, p.table, kind)
        self._order = [(k, names.index(name)) for k, name in r.program.segment.results.items()]
        self._recording = r
        self._counters: list[tuple[dict, dict]] = []
        grown = r.growing or r.growing_more
        pure = not (r.updates or r.effects or grown or p.into or r.world.optimizers)
        self.single = pure and len(names) == 1 and r.result[0] == "result" and not r.result[2]
        # run(*tensors) -> the arrays of the results, or None: nothing was done
        self.run: Callable[..., Any] = self._call.call if pure else self._step

    def _step(self, *tensors: Any) -> Any:
        """`run` of a recording that has effects."""
        r = self._recording
        if r.program.program.owner is not self._owner:  # the numbers there are another's
            return None
        if r.updates:
            numbers = list(r.numbers)
            try:
                self._counters = r.refresh(numbers)
                r.program.write_numbers(numbers)
            except Exception:  # the long way says what is wrong
                return None
        found = self._call.call(*tensors)
        for lease in self._written:  # as memory.wrote
            if lease is not None:
                lease.mark = None
        return found

    def given(self, arrays: Any, tensors: Sequence[Any]) -> Any:
        """The function's result, of what `call` gave."""
        found = arrays if arrays.__class__ is tuple else (arrays,)
        call = Call([], [])
        for k, i in self._order:
            call.ghosts[k].array = found[i]
        self._recording.program.make_views(call)
        self._recording.after(call, self._counters, tensors)
        return give(self._recording, call, tensors)


class Directs:
    """The direct calls of one recording, made when there were some replays without."""

    def __init__(self, r: Recording) -> None:
        self.wanted = may_be_direct(r)
        self.now: Direct | None = None
        self._wait = self._left = 1

    def note(self, r: Recording, tensors: Sequence[Handle]) -> None:
        """A replay went the long way."""
        if not self.wanted or (self.now is not None and self.now.stream.check()):
            return
        self.now = None
        self._left -= 1
        if self._left or r.guard.stream is None or r.guard.rest or not r.guard.holds():
            return
        self._wait = self._left = min(2 * self._wait, _LONGEST)
        try:
            self.now = Direct(r, tensors)
        except ValueError:
            self.now = None
