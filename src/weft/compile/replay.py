"""replay=True: a call whose Python is known to do nothing new is its program alone.

Two matched calls in a row that took the same path, in a world (compile/world.py) that neither of
them changed, with the same effects, make a recording.  From then on a call whose arguments have the
same structure, in the world that is still so, runs the program without Python: tensors are bound
where the recording found them (an argument, a parameter, a parameter's gradient), and what Python
would have done to tensors is done (`.grad`, version counters, step counters, results).

Python numbers are the same in every replay, but for those of an optimizer's updates: each kind of
update is called on stand-ins to learn them, so learning rates and step counts are the present ones.
A number that changes for any other reason, a value that Python looked at, a tensor that nobody can
reach: such a function goes on being matched, and `stats["replay"]` says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from weft.compile.direct import Call, Direct, Directs, give
from weft.compile.guard import Guard
from weft.compile.record import Ghost
from weft.compile.repeat import Absent, Numbers
from weft.compile.world import Unseen, World
from weft.core.handle import Handle, TapeNode, computed, storage_of
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.runtime.memory import root

if TYPE_CHECKING:
    from weft.compile.record import Session

_TRIES = 20  # calls without a recording after which none is tried any more
_KEPT = 8  # structures of arguments of which there are recordings
_SETS = 4  # recordings of each
_PLAIN = (type(None), bool, int, float, complex, str, bytes)

Program = Any  # api.SegmentProgram


# ------------------------------------------------------------------------------ arguments


def _structure(x: Any, tensors: list[Handle], objects: list[Any]) -> Any:
    """A nested argument as something to compare; its tensors and objects are collected."""
    if isinstance(x, Handle):
        ghost = x._ghost
        promised = ghost is not None and ghost.session is not None
        if x._rg or x._fn is not None or promised or x._hooks:
            objects.append(x)  # on the tape: only the same tensor will do
            return id(x)
        tensors.append(x)
        a = x._a
        return a.shape, a.strides, a.dtype
    if x.__class__ in (tuple, list):
        return (x.__class__, *[_structure(v, tensors, objects) for v in x])
    if x.__class__ is dict:
        return (dict, *[(k, _structure(v, tensors, objects)) for k, v in x.items()])
    if x.__class__ in _PLAIN:
        return x.__class__, repr(x)
    objects.append(x)
    return id(x)


def _version(t: Any) -> int:
    return 0 if t is None else storage_of(t).version


# ------------------------------------------------------------------------------ a watched call


class WatchedCall:
    """What one matched call did, as far as a replay must do it too."""

    def __init__(self, world: World, tensors: list[Handle]) -> None:
        self.world = world
        self.arguments = tensors
        self.grads = [t._grad for t in world.tensors]
        self.none = [g is None for g in self.grads]
        self.versions = [_version(t) for t in (*world.tensors, *self.grads, *tensors)]
        self.counters = world.counters()
        self.program: Program = None
        self.why: str | None = None

    def returned(self, session: Session, result: Any) -> None:
        """The function has returned, its segment has not run yet."""
        self.updates = session.updates or []
        self.cursor = session.cursor
        self.outside = list(session.outside)
        self.numbers = list(session.numbers)
        lists = ("argument", self.arguments), ("grad", self.grads), ("static", self.world.tensors)
        self.known = {id(t): (kind, i) for kind, ts in lists for i, t in enumerate(ts)}
        self.by_array = {
            id(t._a): (kind, i)
            for kind, ts in lists
            for i, t in enumerate(ts)
            if t is not None and computed(t) is not None
        }
        try:
            self._check(session)
            self.sources = [self._source(t) for t in session.outside]
            self.constants = [
                t if kind == "number" else None
                for t, (kind, _) in zip(session.outside, self.sources, strict=True)
            ]
            self.effects = [
                self._effect(session, t, g)
                for t, g in zip(self.world.tensors, self.grads, strict=True)
            ]
            self.result = self._result(session, result)
        except Unseen as e:
            self.why = str(e)

    def finished(self) -> None:
        """The segment has run: what is left to look at."""
        now = [_version(t) for t in (*self.world.tensors, *self.grads, *self.arguments)]
        self.grown = [a - b for a, b in zip(now, self.versions, strict=True)]
        if self.why is None:
            change = self.world.change()
            own = {id(u.state) for u in self.updates}
            after = self.world.counters()
            if change is None and any(
                v != self.counters.get(k) for k, v in after.items() if k not in own
            ):
                change = "a counter of an optimizer"
            if change is not None:
                self.why = f"the function changes what it can reach: {change}"
            self.layouts = [Layout.of(t._a) for t in self.outside]
        # let go of the call's tensors
        self.known, self.by_array = {}, {}
        self.outside, self.arguments, self.grads = [], [], []

    def _check(self, session: Session) -> None:
        if session.looked:
            raise Unseen("Python looks at a value")
        if session.start or not session.matching or session.cursor.depth < 0:
            raise Unseen("the call is not one matched segment")
        memories = [session.memory_of(t) for t in session.outside]
        if len(set(memories)) < len(memories):
            raise Unseen("outside tensors share memory")

    def _source(self, t: Handle) -> tuple[str, Any]:
        """Where a later call finds this outside tensor."""
        found = self.known.get(id(t))
        if found is None and (a := computed(t)) is not None:
            found = self.by_array.get(id(a))  # p.detach(), p.data
            if (
                found is None and not a.ndim and not a.flags.writeable
            ):  # a Python number as a tensor
                return "number", (a.dtype, repr(a[()]))
        if found is None:
            raise Unseen("a tensor that no name or argument leads to")
        return found

    def _effect(self, session: Session, t: Handle, before: Any) -> Any:
        """What becomes of t.grad: None, "kept", or the result that it is."""
        now = t._grad
        if now is before:
            return "kept"
        if now is None:
            return None
        ghost = now._ghost
        own = ghost is not None and ghost.session is session and ghost.__class__ is Ghost
        if own and now._base is None and now._fn is None and ghost.outer is None:  # type: ignore[union-attr]
            return ghost.k  # type: ignore[union-attr]
        raise Unseen("a gradient that is not a result of the call")

    def _result(self, session: Session, x: Any) -> Any:
        if isinstance(x, Handle):
            ghost = x._ghost
            if ghost is None or ghost.session is not session or ghost.__class__ is not Ghost:
                kind, i = self._source(x)
                if kind in ("grad", "number"):
                    raise Unseen("the result is a tensor of the function's own making")
                return kind, i
            base = x._base
            if ghost.outer is not None:
                raise Unseen("the result is a view of the function's tensors")
            if base is not None and base._ghost is not ghost:
                return "view", self._viewed(session, x), ghost.k
            if x._fn is not None and not _is_spent(x._fn):
                raise Unseen("the result is on the tape (return it detached)")
            if x._hooks or x._grad is not None or (x._rg and x._fn is None):
                raise Unseen("the result has a gradient or hooks")
            return "result", ghost.k, x._fn is not None
        if x.__class__ in (tuple, list):
            return (x.__class__, [self._result(session, v) for v in x])
        if x.__class__ is dict:
            return (dict, [(k, self._result(session, v)) for k, v in x.items()])
        if x.__class__ in _PLAIN:
            return "same", x
        raise Unseen(f"the result holds an object of type {type(x).__name__}")

    def _viewed(self, session: Session, x: Handle) -> int:
        """The result of the call that x, another result, is a view of."""
        base = x._base
        assert base is not None
        own = base._ghost
        if own.__class__ is not Ghost or own.session is not session or own.outer is not None:
            raise Unseen("the result is a view of what is no result")
        if any(t._fn is not None or t._rg or t._hooks or t._grad is not None for t in (x, base)):
            raise Unseen("the result is a view on the tape")
        return own.k


def _is_spent(node: Any) -> bool:
    """Whether every way from here down the tape meets a node whose values are freed."""
    stack, seen = [node], set()
    while stack:
        n = stack.pop()
        if n.__class__ is not TapeNode or n.hooks or n.post:
            return False
        if id(n) in seen or n.saved is None:
            continue
        seen.add(id(n))
        stack += [e for e in n.edges if e is not None]
    return True


# ------------------------------------------------------------------------------ a recording


class Broken(Exception):
    """A replay failed: Weft's fault, unless Python's call fails too."""


class Recording:
    """A path and how to run it without Python."""

    def __init__(
        self, key: Any, objects: list, watch: WatchedCall, last: WatchedCall, result: Any
    ) -> None:
        self.key = key
        self.objects = objects  # their ids are in the key
        self.world = world = last.world
        self.program = last.program
        self.sources = last.sources
        self.numbers = list(last.numbers)
        self.outside = [
            world.tensors[i] if kind == "static" else number
            for (kind, i), number in zip(last.sources, last.constants, strict=True)
        ]
        self.layouts = last.layouts
        self.effects = [
            (t, e) for t, e in zip(world.tensors, last.effects, strict=True) if e != "kept"
        ]
        self.grown = last.grown
        self.guard = Guard(world, last.none)
        if not world.holds():
            raise Unseen("another thread changes what it can reach")
        self.result = last.result
        grown = [i for i, n in enumerate(self.grown) if n]
        static = len(world.tensors)
        self.growing = [(world.tensors[i], self.grown[i]) for i in grown if i < static]
        self.growing_more = [i for i in grown if i >= static]  # gradients, arguments
        self.spent = _tape_ends(result)
        self.roots = {root(t._a) for t in world.tensors}
        self.updates = [Numbers(u) for u in last.updates]
        covered = {p for u in self.updates for p in range(u.at, u.at + u.count)}
        for i, (a, b) in enumerate(zip(watch.numbers, last.numbers, strict=True)):
            if i not in covered and (a != b or repr(a) != repr(b)):
                raise Unseen(f"a number changes from call to call ({a!r}, {b!r})")
        self.directs = Directs(self)

    def arrays(self, tensors: list[Handle]) -> list[np.ndarray] | None:
        """The arrays of the outside tensors; None where they are not what they were."""
        found, roots = [], []
        world = self.world.tensors
        for (kind, i), layout, static in zip(self.sources, self.layouts, self.outside, strict=True):
            if static is not None:
                found.append(static._a)
                continue
            t = tensors[i] if kind == "argument" else world[i]._grad
            if t is None or (t._ghost is not None and t._ghost.session is not None):
                return None
            a = t._a
            if kind == "grad" and (Layout.of(a) != layout or t._rg or t._hooks):
                return None
            found.append(a)
            roots.append(root(a))
        if len(set(roots)) < len(roots) or not self.roots.isdisjoint(roots):
            return None
        return found

    def run(self, tensors: list[Handle]) -> tuple[bool, Any]:
        """(True, the result), or (False, None) and nothing done: let Python run.

        Broken: it failed. Where the data is at fault Python says so, in eager's words.
        """
        if not self.guard.holds():
            return False, None
        arrays = self.arrays(tensors)
        if arrays is None:
            return False, None
        numbers = list(self.numbers)
        call = Call(arrays, numbers)
        try:
            counters = self.refresh(numbers)
            self.program.run(call)
        except Absent:  # an update that takes another path now
            return False, None
        except Exception as e:
            raise Broken(f"{type(e).__name__}: {e}") from e
        self.after(call, counters, tensors)
        self.directs.note(self, tensors)
        return True, give(self, call, tensors)

    def after(
        self, call: Call, counters: list[tuple[dict, dict]], tensors: Sequence[Handle]
    ) -> None:
        """What Python would have done to tensors and optimizers, once the program has run."""
        for kept, values in counters:
            kept.update(values)
        for t, n in self.growing:
            storage_of(t).version += n
        if self.growing_more:
            world = self.world.tensors
            changed = (*world, *[t._grad for t in world], *tensors)
            for i in self.growing_more:
                storage_of(changed[i]).version += self.grown[i]
        for t, k in self.effects:
            t._grad = None if k is None else call.handle(k)
        for o in self.world.optimizers:
            o._opt_called = True

    def refresh(self, numbers: list) -> list[tuple[dict, dict]]:
        """Put the present numbers of the optimizers' updates in; the counters after them."""
        known: dict[tuple, tuple[list, dict]] = {}
        counters = []
        for u in self.updates:
            state = u.state
            kind = (id(u.group), u.counters, *[state[k] for k in u.counters])
            found = known.get(kind)
            if found is None or len(found[0]) != u.count:
                found = known[kind] = u.ask()
            numbers[u.at : u.at + u.count] = found[0]
            counters.append((state, found[1]))
        return counters


def _tape_ends(x: Any) -> dict[int, Any]:
    """Result -> its (spent) tape node."""
    if isinstance(x, Handle):
        return {x._ghost.k: x._fn} if x._fn is not None and x._ghost is not None else {}
    if isinstance(x, (tuple, list, dict)):
        parts = x.values() if isinstance(x, dict) else x
        return {k: v for part in parts for k, v in _tape_ends(part).items()}
    return {}


# ------------------------------------------------------------------------------ the caller's side


class Replays:
    """The recordings of one compiled function."""

    def __init__(self, fn: Callable, stats: dict) -> None:
        self.fn = fn
        self.stats = stats
        stats["replay"] = "not yet"
        stats["replayed"] = 0
        # by the arguments' structure; of each, one for each set of tensors that have a gradient
        self.kept: dict[Any, list[Recording]] = {}
        self.last: dict[Any, list[WatchedCall]] = {}
        self.direct: Direct | None = None  # of the recording that ran last
        self.failed = 0

    def attempt(self, args: tuple, kw: dict) -> tuple[bool, Any, Any]:
        """(whether it was a replay, the result, what to hand to `watch` if not), where `direct`
        gave nothing.
        """
        tried = self.direct
        tensors: list[Handle] = []
        objects: list[Any] = []
        key = _structure((args, kw), tensors, objects) if kw else _structure(args, tensors, objects)
        for recording in self.kept.get(key, ()):
            direct = recording.directs.now
            if direct is not None and direct is not tried:
                self.direct = direct
                if (found := direct.run(*args)) is not None:
                    self.stats["replayed"] += 1
                    y = dispatch.wrap(found) if direct.single else direct.given(found, args)
                    return True, y, None
            try:
                done, result = recording.run(tensors)
            except Broken as e:
                return False, None, (key, tensors, objects, str(e))
            if done:
                self.direct = recording.directs.now
                self.stats["replayed"] += 1
                return True, result, None
        return False, None, (key, tensors, objects, None)

    def watch(self, asked: tuple) -> WatchedCall | None:
        """Before a call that Python runs."""
        key, tensors, objects, _ = asked
        if self.failed >= _TRIES:
            return None
        last = self.last.get(key)
        try:
            world = last[0].world if last and last[0].world.holds() else None
            if world is None:
                world = World((self.fn, *objects))
            return WatchedCall(world, tensors)
        except Unseen as e:
            self._refuse(str(e))
            return None

    def note(self, asked: tuple, watch: WatchedCall | None, result: Any) -> None:
        """After it, where it did not raise."""
        key, _, objects, broken = asked  # why a replay failed, if one did
        if broken is not None:
            self._end(broken)
        if watch is None:
            return
        watch.finished()
        if broken is not None:
            return
        others = [w for w in self.last.pop(key, ()) if w.world is watch.world]
        if watch.why is not None:
            self._refuse(watch.why)
            return
        if watch.program is None or not hasattr(watch.program, "segment"):
            self._refuse("the call is not one program")
            return
        last = next((w for w in others if w.none == watch.none), None)
        others = [w for w in others if w is not last][-_SETS + 1 :]
        if len(self.last) >= _KEPT:
            self.last.clear()
        self.last[key] = [*others, watch]
        same = ("cursor", "program", "sources", "effects", "grown", "result")
        if last is None or any(getattr(last, n) != getattr(watch, n) for n in same):
            return
        try:
            recording = Recording(key, objects, last, watch, result)
        except Unseen as e:
            self._refuse(str(e))
            return
        known = [r for r in self.kept.pop(key, ()) if r.guard.none != watch.none][-_SETS + 1 :]
        if len(self.kept) >= _KEPT:
            self.kept.clear()
        self.kept[key] = [*known, recording]
        self.last[key] = others
        self.stats["replay"] = "on"
        self.failed = 0

    def _refuse(self, why: str) -> None:
        self.failed += 1
        self.stats["replay"] = f"off: {why}"

    def _end(self, broken: str) -> None:
        """No replays any more: one failed, and Python's call of the same did not."""
        self.kept.clear()
        self.direct = None
        self._refuse(f"a replay failed ({broken})")
        self.failed = _TRIES
        name = getattr(self.fn, "__qualname__", repr(self.fn))
        warnings.warn(
            f"weft.compile: {name} is not replayed any more, for a replay failed ({broken}) and "
            "the call by Python did not: please report it",
            RuntimeWarning,
            stacklevel=4,
        )
