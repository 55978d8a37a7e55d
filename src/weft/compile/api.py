"""weft.compile(f): f, whose ops run as fused native programs after the first call."""

from __future__ import annotations

import functools
import struct
import sys
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import numpy as np

from weft.compile.arena import ARENA, Memory
from weft.compile.former import Former, Inputs
from weft.compile.functionalize import CannotFunctionalize, Segment, functionalize
from weft.compile.generalise import may_follow, synthesize
from weft.compile.program import Program
from weft.compile.record import PASS, Session, TrieNode, run_eagerly
from weft.compile.replay import Replays, WatchedCall
from weft.core import config
from weft.core.graph import Node
from weft.core.handle import state
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.runtime import memory
from weft.runtime.random import default_generator

if TYPE_CHECKING:
    from weft.compile.direct import Call

P = ParamSpec("P")
R = TypeVar("R")
_MAX_OPS = 100_000  # recorded ops kept a function; beyond it the trie starts anew
_MAX_SIZES = 10_000
_MAX_DERIVED = 300_000  # ops of paths for sizes that were not recorded
PLANNING = 1.2e-4  # seconds an op that a path of another size takes to make and plan, about
_NOWHERE: AbstractSet[str] = frozenset()
_LIVE_SETS = 3  # programs of one segment for different results held, before one gives them all


class Recorded:
    """What a call's program is planned from; it holds none of the call's tensors."""

    def __init__(self, session: Session) -> None:
        self.cursor, self.start = session.cursor, session.start
        self.outside = [Layout.of(t._a) for t in session.outside]
        self.shared = _shared(session)
        self.markable = [memory.may_be_marked(t._a) for t in session.outside]


class SegmentProgram:
    """A segment of a recorded path, compiled for one set of live results."""

    def __init__(
        self, session: Session | Recorded, live: tuple[int, ...], *, autotune: bool, pack: bool
    ) -> None:
        known = session if isinstance(session, Recorded) else Recorded(session)
        cursor, outside = known.cursor, known.outside
        path = cursor.path(known.start)
        before = cursor.path(0)[: known.start]
        self.segment: Segment = functionalize(path, before, outside, known.shared, live)
        s = self.segment
        layouts = {}
        self.names: list[tuple[str, int]] = []
        for j, n in s.outside.items():
            layouts[n.name] = outside[j]
            self.names.append((n.name, ~j))
        for k, n in s.earlier.items():
            assert isinstance(session, Session)  # a recorded call is one segment
            layouts[n.name] = Layout.of(session.array(k))
            self.names.append((n.name, k))
        self.refs = dict(self.names)
        self.named = {ref: name for name, ref in self.names}
        for _, n in s.numbers:
            layouts[n.name] = Layout((), (), n.type.dtype.np)
        into = {}
        for name, ref in s.written.items():
            into[name] = f"x{~ref}" if ref < 0 else f"v{ref}"
        self.program = Program(s.graph, layouts, into, autotune=autotune)
        self.program.weights.keep(
            {n.name for j, n in s.outside.items() if known.markable[j] and pack}
        )
        self.numbers = _number_arrays(s.numbers, self.program)
        self.views = s.views
        drawing = [getattr(n.op, "generator", None) or default_generator for n in s.graph.effects]
        self.generators = list({id(g): g for g in drawing}.values())
        self.calls = {n.depth: n for n in (*before, *path)}

    def run(self, session: Session) -> None:
        former, others = session.former()
        inputs: Mapping[str, np.ndarray]
        elsewhere = _NOWHERE
        if not former:
            inputs = session.inputs(self.names)
        else:
            inputs = Inputs(session, self.refs)
            named = self.named
            elsewhere = {named[ref] for ref in others if ref in named}
        before = [(g, g.get_state()) for g in self.generators]
        try:
            with ARENA.lock:  # the numbers' memory is the program's: another thread may call it too
                if self.numbers:
                    self.write_numbers(session.numbers)
                outs = self.program.run(inputs, former, elsewhere)
        except Exception:  # an index out of range: go as far as eager would have gone
            for g, drawn in before:
                g.set_state(drawn)
            session.give_up()
            raise
        ghosts = session.ghosts
        for k, name in self.segment.results.items():
            ghosts[k].array = outs[name]  # type: ignore[union-attr]
        if self.views:
            self.make_views(session)

    def make_views(self, session: Session | Call) -> None:
        """Of the results, which are there."""
        for k in self.views:
            self._view(session, k)

    def is_of_results(self, k: int) -> bool:
        """Whether this is a result, or a view of one."""
        while k >= 0 and k not in self.segment.results:
            k = self.calls[k].args[0]
        return k >= 0

    def write_numbers(self, numbers: list) -> None:
        """Put a call's Python numbers where the program reads them; ARENA.lock is held."""
        for array, places, whole, pack in self.numbers:
            values = [numbers[at] for at in places]
            try:  # a third of NumPy's time
                if pack is not None:
                    pack(array, 0, *values)
                    continue
            except (OverflowError, struct.error):
                pass
            with np.errstate(over="ignore"):  # a half of 1e6 is inf, as eager's
                array[:] = [v & _64_BITS for v in values] if whole else np.array(values)

    def _view(self, session: Session | Call, k: int) -> np.ndarray:
        """The array of a result that is a view, taken from what it views."""
        g = session.ghosts[k]
        assert g is not None
        if g.array is None:
            call = self.calls[k]
            ref = call.args[0]
            g.array = call.op.host(session.array(ref) if ref < 0 else self._view(session, ref))
        return g.array


_64_BITS = 0xFFFFFFFFFFFFFFFF
_PACKED = {np.dtype(np.float16): "e", np.dtype(np.float32): "f", np.dtype(np.float64): "d"}


def _number_arrays(
    numbers: list[tuple[int, Node]], program: Program
) -> list[tuple[np.ndarray, list[int], bool, Callable[..., None] | None]]:
    """Memory for the call's Python numbers, which the program reads at each run: one array a
    dtype, the numbers' places in the call, whether they are integers (which wrap, as in C), and
    struct's writer for the dtypes that it knows."""
    by_dtype: dict[np.dtype, list[tuple[int, str]]] = {}
    for at, n in numbers:
        by_dtype.setdefault(n.type.dtype.np, []).append((at, n.name))
    found = []
    for np_dtype, members in by_dtype.items():
        whole = np_dtype.kind in "iu"
        array = np.zeros(len(members), np_dtype)
        # integers are written as 64 unsigned bits and read in their own width
        wide = np.zeros(len(members), np.uint64) if whole else array
        for i, (_, name) in enumerate(members):
            part = wide[i : i + 1].view(np_dtype)[:1] if whole else array[i : i + 1]
            program.fix_input(name, part)
        known = _PACKED.get(np_dtype)
        pack = struct.Struct(f"{len(members)}{known}").pack_into if known else None
        found.append((wide, [at for at, _ in members], whole, pack))
    return found


def _shared(session: Session) -> set[int]:
    """Outside tensors whose memory another outside tensor shares."""
    by_memory: dict[int, list[int]] = {}
    for j, t in enumerate(session.outside):
        by_memory.setdefault(session.memory_of(t), []).append(j)
    return {j for group in by_memory.values() if len(group) > 1 for j in group}


class OpByOp:
    """A segment that runs as recorded: its writes are beyond what a graph can say."""

    def __init__(self, why: str) -> None:
        self.why = why

    def run(self, session: Session) -> None:
        run_eagerly(session, session.cursor.path(session.start))


class CompiledFunction(Generic[P, R]):
    """What `weft.compile` returns: call it as the function it wraps."""

    def __init__(
        self, fn: Callable[P, R], *, replay: bool = False, autotune: bool = False,
        pack: bool | None = None,
    ) -> None:  # fmt: skip
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._ways = {
            "autotune": autotune, "pack": config.packs_weights() if pack is None else pack,
        }  # fmt: skip
        self._root = TrieNode(None, None, (), None)
        self._former = Former()
        self._recorded = 0
        self.stats = {"calls": 0, "recorded_ops": 0, "programs": 0, "op_by_op": 0, "other_sizes": 0}
        self.stats["eager_calls"] = 0
        self._length = 0  # ops of the last recorded call
        self._spent: dict[tuple, float] = {}  # seconds of eager calls, by size
        self._derived = 0
        self._last: Any = None  # the last program that ran, or a recorded call not planned yet
        self._replays = Replays(fn, self.stats) if replay else None

    def __call__(self, *args: P.args, **kw: P.kwargs) -> R:
        if state.recorder is not None:  # inside another compiled function: part of it
            return self._fn(*args, **kw)
        self.stats["calls"] += 1
        replays = self._replays
        if replays is None:
            return self._match(args, kw, None)
        with ARENA.lock:  # a replay's effects on tensors are one step for other threads
            direct = replays.direct
            if direct is not None and not kw and (found := direct.run(*args)) is not None:
                self.stats["replayed"] += 1
                return dispatch.wrap(found) if direct.single else direct.given(found, args)
            done, result, asked = replays.attempt(args, kw)
        if done:
            return result
        watch = replays.watch(asked)
        result = self._match(args, kw, watch)
        replays.note(asked, watch, result)
        return result

    def __reduce__(self) -> str | tuple:
        """A copy knows the function and records anew; a module's global is itself."""
        place = getattr(self, "__qualname__", "")
        found: Any = sys.modules.get(self.__module__)
        for name in place.split("."):
            found = getattr(found, name, None)
        if found is self:
            return place
        replay = self._replays is not None
        return functools.partial(CompiledFunction, replay=replay, **self._ways), (self._fn,)

    def _match(self, args: tuple, kw: dict, watch: WatchedCall | None) -> Any:
        """Run the function's Python, its ops matched."""
        session = Session(self._root, self._program_of, self._other_size)
        self._former.begin(session)
        start = time.perf_counter()
        if watch is not None:
            session.updates = []
        state.recorder = session
        try:
            result = self._fn(*args, **kw)
            if watch is not None:
                watch.returned(session, result)
        finally:
            state.recorder = None
            self._former.end(session)
            held = session.held() if session.recorded and not session.looked else None
            session.finish()
            if session.program is not None:
                self._last = session.program
            elif held is not None:
                session.start = 0
                self._last = (Recorded(session), held)
            if watch is not None:
                watch.program = session.program
            self.stats["other_sizes"] += session.synthesized
            if session.recorded:
                self.stats["recorded_ops"] += session.recorded
                self._recorded += session.recorded
                self._length = session.cursor.depth + 1
            if session.passing is not None:
                self.stats["eager_calls"] += 1
                cursor, key = session.passing
                self._note_spent((id(cursor), key), time.perf_counter() - start)
            if self._derived > _MAX_DERIVED:
                self._root.drop_derived()
                self._derived = 0
            if self._recorded > _MAX_OPS:
                self._root = TrieNode(None, None, (), None)
                self._recorded = 0
        return result

    def _other_size(self, cursor: TrieNode, key: tuple, outside: list[Layout]) -> Any:
        """The path for a size that was not recorded; or PASS: run eagerly for now; or None: record.

        Making and planning a path takes longer than a small model's eager step.  It is done when
        the eager steps at this size have together taken as long: a size that comes once costs no
        more than in eager, one that comes again and again at most twice its planning.
        """
        ops = max(self._length - cursor.depth, 1)
        if self._spent.get((id(cursor), key), 0.0) < ops * PLANNING:
            return PASS if may_follow(cursor, key) else None
        found = synthesize(cursor, key, outside)
        self._derived += ops * (found is not None)
        return found

    def _note_spent(self, size: tuple, seconds: float) -> None:
        if len(self._spent) > _MAX_SIZES:
            self._spent.clear()
        self._spent[size] = self._spent.get(size, 0.0) + seconds

    def memory(self) -> Memory:
        """The bytes that a call like the last one needs, known before such a program ever ran.

        RuntimeError before the first call, or where the ops run one by one.
        """
        if self._last.__class__ is tuple:  # recorded: plan what its program will be
            recorded, held = self._last
            key = (0, held)
            made = recorded.cursor.programs.get(key)
            if made is None:
                made = recorded.cursor.programs[key] = self._make(recorded, held)
            self._last = made
        if not isinstance(self._last, SegmentProgram):
            raise RuntimeError(
                "memory: no program yet: call the function first (twice if Python looks at values "
                f"in it); its ops may also run one by one ({self.stats['op_by_op']} segments do)"
            )
        return self._last.program.memory()

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def _program_of(self, session: Session) -> Any:
        """The program of the segment that ends here, giving at least the results still held.

        Which results are held is the caller's doing, and may change with the garbage collector's
        moods: a program that gives more is as good, and after a few, one that gives all is made.
        """
        live = session.live()
        programs = session.cursor.programs
        found = programs.get((session.start, live))
        if found is not None:
            return found
        others = [held for start, held in programs if start == session.start]
        wanted = set(live)
        enough = [held for held in others if wanted <= set(held)]
        if enough:
            return programs[session.start, min(enough, key=len)]
        if len(others) >= _LIVE_SETS:
            live = tuple(sorted(wanted.union(*others)))
        made = programs[session.start, live] = self._make(session, live)
        return made

    def _make(self, session: Session | Recorded, live: tuple[int, ...]) -> Any:
        recorder, state.recorder = state.recorder, None
        start = time.perf_counter()
        try:
            made: Any = SegmentProgram(session, live, **self._ways)
            self.stats["programs"] += 1
        except CannotFunctionalize as e:
            made = OpByOp(str(e))
            self.stats["op_by_op"] += 1
        finally:
            state.recorder = recorder
        _report(self._fn, session, made, time.perf_counter() - start)
        return made


def _report(fn: Callable, session: Session | Recorded, made: Any, seconds: float) -> None:
    if not config.wants(1):
        return
    name = getattr(fn, "__qualname__", repr(fn))
    ops = session.cursor.depth + 1 - session.start
    if isinstance(made, OpByOp):
        config.show(1, "compile", f"weft.compile {name}: {ops} ops run one by one: {made.why}")
        return
    p = made.program
    nodes = len(p.graph.nodes())
    config.show(
        1,
        "compile",
        f"weft.compile {name}: {ops} ops, {nodes} nodes, {len(p.steps)} steps, "
        f"arena {p.arena_bytes / 1e6:.2f} MB, {1e3 * seconds:.1f} ms",
    )


def compiled(model: Callable, **ways: Any) -> Any:
    """The function compiled, or the Module whose call is; `ways` as of CompiledFunction."""
    if hasattr(model, "_compile_as_module"):
        return model._compile_as_module(functools.partial(CompiledFunction, **ways))  # type: ignore[union-attr]
    return CompiledFunction(model, **ways)
