"""Calls that are alike: an optimizer's update of one parameter, matched as one node.

An optimizer updates every parameter by the same code, from the same settings and step counters:
the Python numbers that reach the ops are the same for all parameters whose counters agree, and
which ops are called depends on nothing but the settings, the counters and the layouts.  So one
parameter of a kind is matched op by op.  For the others the trie knows, from an earlier call, where
the path goes from here when these tensors stand in these places: the cursor jumps there, with the
numbers that the first one met.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from weft.core.handle import Handle, storage_of
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.ops.contract import FastMath
from weft.runtime import memory

if TYPE_CHECKING:
    from weft.compile.record import Session, TrieNode

_PLAIN = (bool, int, str, type(None))


class Jump:
    """Where a path goes: its last node, and what its ops do to tensors from outside."""

    __slots__ = ("end", "firsts", "length", "versions", "written")

    def __init__(
        self, end: TrieNode, length: int, firsts: list[int], written: list[int], versions: list[int]
    ) -> None:
        self.end = end
        self.length = length  # ops
        self.firsts = firsts  # which of the tensors are first used on it, in this order
        self.written = written  # which of them it writes to
        self.versions = versions  # by how many writes their memory's version grows


class Kind:
    """Parameters whose updates meet the same numbers: what the first of them met."""

    __slots__ = ("counters", "flavour", "numbers")

    def __init__(self, flavour: tuple, numbers: list, counters: list) -> None:
        self.flavour = flavour
        self.numbers = numbers
        self.counters = counters  # after the update


class Absent(Exception):
    """Somebody asks a stand-in for its value."""


class Promise:
    """In place of a value: shape and dtype."""

    session = outer = array = None
    k = offset = 0

    def __init__(self, shape: tuple, strides: tuple, dtype: Any) -> None:
        self.shape, self.strides, self.dtype = shape, strides, dtype

    def demand(self, handle: Handle) -> Any:
        raise Absent


def stand_in(shape: tuple, strides: tuple, dtype: Any) -> Any:
    """A tensor without a value."""
    y = dispatch._new(dispatch._tensor_class)
    y._ghost = Promise(shape, strides, dtype)
    return y


def _like(t: Handle) -> Any:
    strides = t._ghost.strides if t._ghost is not None else Layout.of(t._a).strides
    return stand_in(dispatch.shape_of(t), strides, dispatch.dtype_of(t))


class Update:
    """One update of one parameter, as it was matched; its tensors are stand-ins."""

    def __init__(self, call: Callable, p: Handle, grad: Handle, state: dict, group: dict) -> None:
        self.call = call
        self.p = _like(p)
        self.grad = _like(grad)
        self.state = state
        self.tensors = {k: _like(v) for k, v in state.items() if isinstance(v, Handle)}
        self.group = group
        self.at = 0  # the place of its first number among the call's
        self.path: list[TrieNode] = []


class Repeats:
    """One `optimizer.step()` inside a compiled function."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.kinds: dict[tuple, Kind] = {}

    def __call__(self, update: Callable, p: Handle, grad: Handle, state: dict, group: dict) -> None:
        """update(p, grad, state, group), or its effect."""
        session = self.session
        if session.updates is None:
            self._match(update, p, grad, state, group)
            return
        seen = Update(update, p, grad, state, group)
        seen.at, before = len(session.numbers), session.cursor.depth
        self._match(update, p, grad, state, group)
        seen.path = session.cursor.path(before + 1)
        session.updates.append(seen)

    def _match(self, update: Callable, p: Handle, grad: Handle, state: dict, group: dict) -> None:
        tensors, counters = [p, grad], []
        for k, v in state.items():
            if isinstance(v, Handle):
                tensors.append(v)
            elif v.__class__ is float:
                counters.append((k, v))
            else:  # a state in the making
                update(p, grad, state, group)
                return
        name = (id(group), *counters)
        kind = self.kinds.get(name)
        if kind is not None and self._jump(kind, tensors):
            state.update(kind.counters)
            return
        flavour = _flavour(update, group) if kind is None else kind.flavour
        numbers = self._learn(flavour, tensors, lambda: update(p, grad, state, group))
        if kind is None:
            after = [(k, v) for k, v in state.items() if v.__class__ is float]
            self.kinds[name] = Kind(flavour, numbers, after)

    def _jump(self, kind: Kind, tensors: list[Handle]) -> bool:
        session = self.session
        if not session.matching:
            return False
        jumps = session.cursor.jumps
        found = jumps.get((kind.flavour, *self._places(tensors))) if jumps else None
        if found is None or found.end.numbers_after() - len(session.numbers) != len(kind.numbers):
            return False
        for i in found.firsts:
            session.first_use(tensors[i])
        for i in found.written:
            session.promise_write(tensors[i])
            storage_of(tensors[i]).version += found.versions[i]
        session.jump(found.end, found.length, kind.numbers)
        return True

    def _places(self, tensors: list[Handle]) -> list:
        """Where the tensors come from: like a trie key's operands, but nothing becomes known."""
        session = self.session
        places, new = [], set()
        for t in tensors:
            ghost = t._ghost
            if ghost is not None and ghost.session is session:
                places.append(ghost.k)
                continue
            known = session.known_place(t)
            if known is not None:
                places.append(known)
                continue
            a = t._a
            whole = memory.root(a)
            if session.knows_memory(t) or whole in new:
                places.append(object())  # a view of memory met before: never found
            else:
                new.add(whole)
                places.append((a.shape, a.strides, a.dtype))
        return places

    def _learn(self, flavour: tuple, tensors: list[Handle], run: Callable[[], None]) -> list:
        """Run op by op, and note the path if it is one that can be jumped; the numbers met."""
        session = self.session
        start, begin, known = session.cursor, session.start, len(session.outside)
        at = len(session.numbers)
        if not session.matching:
            run()
            return session.numbers[at:]
        key = (flavour, *self._places(tensors))
        before = [storage_of(t).version for t in tensors]
        run()
        numbers = session.numbers[at:]
        if key in start.jumps or not session.matching or session.start != begin:
            return numbers
        path = session.cursor.path(start.depth + 1)
        made = session.cursor.depth - start.depth
        firsts = [_index(tensors, t) for t in session.outside[known:]]
        written = _written(path, start.depth + 1, [session.place(t) for t in tensors])
        held = any(session.is_held(n.depth) for n in path)
        if written is not None and None not in firsts and not held and made:
            versions = [storage_of(t).version - v for t, v in zip(tensors, before, strict=True)]
            grown = {i for i, n in enumerate(versions) if n}
            if grown == set(written):
                start.jumps[key] = Jump(session.cursor, made, firsts, written, versions)  # type: ignore[arg-type]
        return numbers


def _flavour(update: Callable, group: dict) -> tuple:
    """What decides, beside layouts and counters, which ops an update calls."""
    settings = []
    for k, v in group.items():
        if k != "params":
            settings.append(v if v.__class__ in _PLAIN else bool(v) if v.__class__ is float else k)
    return (update.__func__, FastMath.on, *settings)  # type: ignore[attr-defined]


def _index(tensors: list[Handle], t: Handle) -> int | None:
    return next((i for i, x in enumerate(tensors) if x is t), None)


def _written(path: list[TrieNode], first: int, places: list[Any]) -> list[int] | None:
    """Which of the tensors (at these places) the path writes to; None: to others too."""
    by_depth = {n.depth: n for n in path}
    written: list[int] = []
    for n in path:
        if n.meta is not None:
            continue
        ref = n.args[0]
        while ref >= first and (meta := by_depth[ref].meta) is not None and meta.view:
            ref = by_depth[ref].args[0]
        if ref >= first:  # a result of its own
            continue
        if ref not in places:
            return None
        if (i := places.index(ref)) not in written:
            written.append(i)
    return written
