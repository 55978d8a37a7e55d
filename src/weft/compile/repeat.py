"""Calls that are alike: an optimizer's update of one parameter, matched as one node.

An optimizer updates every parameter by the same code, from the same settings and step counters:
the Python numbers that reach the ops are the same for all parameters whose counters agree, and
which ops are called depends on nothing but the settings, the counters and the layouts.  So one
parameter of a kind is matched op by op.  For the others the trie knows, from an earlier call, where
the path goes from here when these tensors stand in these places: the cursor jumps there, with the
numbers that the first one met.

Where a whole step was matched before from the same node, with the parameters, gradients and state
in the same places, it is one jump: the numbers follow from settings and counters (formula.py).
That parameters, settings and state are the objects they were is one native look (`Watch`).

Long because an update, a step of them and what is watched of it hang together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

from weft.compile.formula import formula
from weft.compile.guard import counter, setting
from weft.compile.world import MODES
from weft.core import dtype as dt
from weft.core.handle import Handle, computed, state, storage_of
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.ops.contract import FastMath
from weft.ops.dispatch import NUMBERS
from weft.runtime import guards, memory

if TYPE_CHECKING:
    from weft.compile.record import Session, TrieNode

WRITE = "write"  # the op of a node that writes to memory
_PLAIN = (bool, int, str, type(None))
_LOOKS = 8  # watches made of one step; then Python looks alone
_TRIES = 8  # whole steps learned at one node; then its parameters are matched one by one


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
    y = dispatch.fresh()
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
        self.counters = {k: v for k, v in state.items() if v.__class__ is float}  # before it
        self.at = 0  # the place of its first number among the call's
        self.path: list[TrieNode] = []


class Numbers:
    """An update that is asked for its numbers: its ops are compared with the path, not run."""

    looked = False

    def __init__(self, update: Update) -> None:
        self.update = update
        self.at, self.group, self.state = update.at, update.group, update.state
        self.counters = tuple(k for k, v in self.state.items() if v.__class__ is float)
        self.count = sum(r in NUMBERS for n in update.path for r in n.args)
        self.formula: Any = None  # once asked: a function, or False

    def function(self) -> Any:
        """Its numbers and the counters after it as a function of settings and state, or None."""
        u = self.update
        return formula(u.call, self._run, self.group, {**u.counters, **u.tensors})

    def ask(self) -> tuple[list, dict]:
        """(its numbers, the counters after it); Absent where it is another update now."""
        if self.formula is None:
            self.formula = formula(self.update.call, self._run, self.group, self.state) or False
        found = self.formula(self.group, self.state) if self.formula else None
        return self._run(self.group, self.state) if found is None else found

    def _run(self, group: dict, counters: dict) -> tuple[list, dict]:
        """By calling the update on stand-ins."""
        u = self.update
        kept = {**counters, **u.tensors}
        self._left = iter(u.path)
        self._found: list = []
        before = state.recorder, state.grad
        state.recorder, state.grad = self, False
        try:
            u.call(u.p, u.grad, kept, group)
        finally:
            state.recorder, state.grad = before
        if next(self._left, None) is not None or len(self._found) != self.count or self.looked:
            raise Absent
        return self._found, {k: v for k, v in kept.items() if v.__class__ is float}

    def _next(self, op: Any) -> TrieNode:
        node = next(self._left, None)
        if node is None or node.op is not op:
            raise Absent
        return node

    def apply(self, op: Any, args: tuple) -> Any:
        meta = self._next(op).meta
        self._found += [a for a in args if a.__class__ in NUMBERS]
        assert meta is not None
        return stand_in(meta.shape, meta.strides, meta.dtype)

    def write(self, t: Handle, value: Handle) -> None:
        self._next(WRITE)

    def flush(self) -> None:
        raise Absent


class Part:
    """One parameter's part of a whole step: where its tensors were, and its jump."""

    __slots__ = ("count", "grad", "jump", "kind", "p", "places")

    def __init__(self, places: tuple, jump: Jump, kind: int, count: int) -> None:
        self.p, self.grad, *_ = self.places = places  # then those of the state's tensors
        self.jump = jump
        self.kind = kind  # which of the step's formulas gives its numbers
        self.count = count  # numbers


class Step:
    """A whole `optimizer.step()`, as it was matched: a part or None for each parameter."""

    __slots__ = (
        "end", "flavours", "formulas", "length", "looks", "owner", "parts", "tries", "watch",
    )  # fmt: skip

    def __init__(
        self, end: TrieNode, length: int, flavours: list, formulas: list, parts: list, tries: int
    ) -> None:
        self.end = end
        self.length = length
        self.flavours = flavours  # by group
        self.formulas = formulas
        self.parts = parts
        self.tries = tries
        self.watch: Watch | None = None  # once it was matched again
        self.looks = 0  # how many watches there were
        self.owner: Any = None  # a weak reference to the optimizer

    def look(self, optimizer: Any, groups: list[dict], states: dict, todo: list) -> None:
        """Watch what was found in its place, for as long as the optimizer lives."""
        if self.looks < _LOOKS and Watch.fits(groups, states, todo):
            self.looks += 1
            self.owner = ref(optimizer, self._forget)
            self.watch = Watch(self.parts, groups, states, todo)

    def _forget(self, _: Any) -> None:
        self.watch = None


class Watch:
    """What a whole step reads beside gradients and numbers, in native form."""

    def __init__(self, parts: list, groups: list[dict], states: dict, todo: list) -> None:
        self.groups, self.states = groups, states
        s = guards.Stream()
        s.attributes([(x, name, getattr(x, name)) for x, name in MODES])
        s.items(groups)
        s.entries(states)
        left, all_parts = iter(todo), iter(parts)
        self.memories: set[int] = set()  # names of those that no call may have met before
        self.met = Met(todo)
        # part, group, parameter, state's tensors, their roots, state, its counters
        self.each: list[tuple] = []
        for group in groups:
            s.entries(group, setting)
            s.items(group["params"])
            for p in group["params"]:
                part = next(all_parts)
                if part is None:
                    self.each.append((None, group, p, [], {}, {}, ()))
                    continue
                _, tensors, roots, kept, _ = next(left)
                s.entries(kept, counter)
                for t in tensors[2:]:
                    s.kind(t)
                    s.places(t, Handle, ("_a", "_ghost", "_st"))
                    s.data(t._a)
                    self.memories.add(id(t._st))
                self.memories.update(roots.values())
                names = tuple([k for k, v in kept.items() if v.__class__ is float])
                self.each.append((part, group, p, tensors[2:], roots, kept, names))
        self.holds = s.ready().check

    @staticmethod
    def fits(groups: list[dict], states: dict, todo: list) -> bool:
        """Whether native code can read it all, and every tensor of the state is met here first."""
        dicts = [states, *groups, *[kept for _, _, _, kept, _ in todo]]
        return (
            guards.available()
            and groups.__class__ is list
            and all(d.__class__ in (dict, defaultdict) for d in dicts)
            and all(group["params"].__class__ is list for group in groups)
            and all(
                len(tensors) - 2 == len(roots) == len(part.jump.firsts)
                for part, tensors, roots, _, _ in todo
            )
            and all(
                computed(t) is not None and t._base is None
                for _, tensors, *_ in todo
                for t in tensors[2:]
            )
        )


class Met:
    """Tensors that calls meet one after the other, each the first in its memory."""

    def __init__(self, todo: list[tuple]) -> None:
        """`todo`: as `Repeats._place_all` gives it."""
        found: list[tuple[Handle, int]] = [
            (tensors[i], roots[i]) for part, tensors, roots, *_ in todo for i in part.jump.firsts
        ]
        self.tensors = [t for t, _ in found]
        self.names = [id(storage_of(t)) for t in self.tensors]
        self.memories = {k: n for n, (_, r) in zip(self.names, found, strict=True) for k in (n, r)}
        self.at = -1  # the place of the first one, which the others' follow from
        self.places: dict[int, int] = {}

    def meet(self, session: Session) -> None:
        """What `Session.first_use` of each would note."""
        if self.at != len(session.outside):
            self.at = len(session.outside)
            self.places = {id(t): i for i, t in enumerate(self.tensors, self.at)}
        session.outside += self.tensors
        places, memories, handles = session.tables()
        places.update(self.places)
        memories.update(self.memories)
        handles.update(zip(self.names, map(list, zip(self.tensors))))


class Repeats:
    """One `optimizer.step()` inside a compiled function."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.kinds: dict[tuple, Kind] = {}
        self._start = session.cursor
        self._seen: list[tuple] | None = None  # the updates of a step that is being learned
        self._asked: list[Numbers] = []  # the first update of each kind

    def whole(self, update: Callable, groups: list[dict], states: dict) -> bool:
        """All parameters' updates in one jump; False: nothing is done."""
        session = self.session
        if not session.matching or session.updates is not None:
            return False
        known = self._start.jumps.get(update.__func__)  # type: ignore[attr-defined]
        found = met = None
        if known is not None:
            watch = known.watch
            if watch is not None:
                found = self._place_again(known, watch, groups, states)
                met = None if found is None else watch.met
            if found is None:
                found = self._place_all(known, update, groups, states)
                if found is not None:
                    known.look(update.__self__, groups, states, found[0])  # type: ignore[attr-defined]
        if known is None or found is None:
            if known is None or known.tries < _TRIES:
                self._seen = []
            return False
        todo, numbers = found
        (Met(todo) if met is None else met).meet(session)
        written = []
        for part, tensors, _, kept, after in todo:
            jump = part.jump
            for i in jump.written:
                t = tensors[i]
                written.append(t)
                t._st.version += jump.versions[i]
            kept.update(after)
        session.promise_writes(written)
        session.jump(known.end, known.length, numbers)
        return True

    def _place_again(
        self, known: Step, watch: Watch, groups: list[dict], states: dict
    ) -> tuple[list, list] | None:
        """`_place_all` where the native look finds all in its place; else None."""
        session = self.session
        same = watch.groups is groups and watch.states is states
        places, memories, _ = session.tables()
        if not (same and watch.holds() and memories.keys().isdisjoint(watch.memories)):
            known.watch = None
            return None
        numbers, todo, kinds = [], [], {}
        tensor = dispatch._tensor_class
        for part, group, p, rest, roots, kept, names in watch.each:
            grad = p._grad
            if part is None or grad.__class__ is not tensor:
                if grad is not part:
                    return None
                continue
            if not _stand_there(part, p, grad, session, places):
                return None
            name = (id(group), names, *[kept[k] for k in names])
            made = kinds.get(name)
            if made is None:
                made = kinds[name] = known.formulas[part.kind](group, kept)
            if made is None or len(made[0]) != part.count:
                return None
            numbers += made[0]
            todo.append((part, [p, grad, *rest], roots, kept, made[1]))
        return todo, numbers

    def _place_all(
        self, known: Step, update: Callable, groups: list[dict], states: dict
    ) -> tuple[list, list] | None:
        """(part, tensors, roots of those met here first, state, counters after it) of each
        parameter with a gradient, and the step's numbers; None where something is not as it was.
        """
        session, numbers, todo = self.session, [], []
        (places, memories, _), new, kinds = session.tables(), set(), {}
        tensor = dispatch._tensor_class
        left = iter(known.parts)
        if len(groups) != len(known.flavours):
            return None
        for group, flavour in zip(groups, known.flavours, strict=True):
            if _flavour(update, group) != flavour:
                return None
            for p in group["params"]:
                part, grad = next(left, None), p._grad
                if grad is None or part is None:
                    if grad is not part:
                        return None
                    continue
                if grad.__class__ is not tensor or not _stand_there(part, p, grad, session, places):
                    return None
                kept = states.get(p) or {}
                tensors, counters, roots = [p, grad], [], {}
                for k, v in kept.items():
                    if v.__class__ is float:
                        counters.append((k, v))
                    else:
                        tensors.append(v)
                if len(tensors) != len(part.places):
                    return None
                i = -1
                for wanted in part.places:
                    i += 1
                    t = tensors[i]
                    if wanted.__class__ is not tuple:
                        if i > 1 and (not isinstance(t, Handle) or self._place(t, new) != wanted):
                            return None
                        continue
                    if not isinstance(t, Handle) or id(t) in places:
                        return None
                    if (g := t._ghost) and g.session is session:
                        return None
                    # it must be met first here: `_place`, written out
                    a, st = t._a, t._st
                    whole = memory.root(a)
                    if whole in new or whole in memories or id(st) in memories:
                        return None
                    if (a.shape, a.strides, a.dtype) != wanted:
                        return None
                    new.add(whole)
                    roots[i] = whole
                name = (id(group), *counters)
                made = kinds.get(name)
                if made is None:
                    made = kinds[name] = known.formulas[part.kind](group, kept)
                if made is None or len(made[0]) != part.count:
                    return None
                numbers += made[0]
                todo.append((part, tensors, roots, kept, made[1]))
        return None if next(left, None) is not None else (todo, numbers)

    def learn(self, update: Callable, groups: list[dict]) -> None:
        """The step is over, op by op or in several jumps: know it as one."""
        seen, session, start = self._seen, self.session, self._start
        if not seen or not session.matching:
            return
        parts: list[Part | None] = []
        left = iter(seen)
        for group in groups:
            for p in group["params"]:
                if p._grad is None:
                    parts.append(None)
                    continue
                one = next(left, None)
                if one is None or one[0] is not p or one[1] is not p._grad or one[3] is None:
                    return
                _, _, places, jump, kind, count = one
                p_at, grad_at = places[:2]
                inside = p_at.__class__ is grad_at.__class__ is int and p_at < 0 <= grad_at
                alone = p_at.__class__ is grad_at.__class__ is tuple  # an eager step's: met here
                if not inside and not alone:
                    return
                parts.append(Part(places, jump, kind, count))
        length = sum(part.jump.length for part in parts if part is not None)
        formulas = [n.function() for n in self._asked]
        flavours = [_flavour(update, group) for group in groups]
        whole = length == session.cursor.depth - start.depth and next(left, None) is None
        if whole and None not in formulas:
            name: Any = update.__func__  # type: ignore[attr-defined]
            tries = 1 + (start.jumps[name].tries if name in start.jumps else 0)
            made = Step(session.cursor, length, flavours, formulas, parts, tries)
            start.jumps[name] = made

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
        kind, start = self.kinds.get(name), self.session.cursor
        flavour = _flavour(update, group) if kind is None else kind.flavour
        places = None if self._seen is None else self._places(tensors)
        if kind is not None and self._jump(kind, tensors):
            state.update(kind.counters)
        else:
            first = None
            if self._seen is not None and kind is None:
                first = Update(update, p, grad, state, group)
            numbers = self._learn(flavour, tensors, lambda: update(p, grad, state, group))
            if kind is None:
                after = [(k, v) for k, v in state.items() if v.__class__ is float]
                kind = self.kinds[name] = Kind(flavour, numbers, after)
            if first is not None:
                first.path = self.session.cursor.path(start.depth + 1)
                self._asked.append(Numbers(first))
        if self._seen is not None and places is not None:
            jump, which = start.jumps.get((flavour, *places)), list(self.kinds).index(name)
            self._seen.append((p, grad, places, jump, which, len(kind.numbers)))

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
        session.promise_writes([tensors[i] for i in found.written])
        for i in found.written:
            storage_of(tensors[i]).version += found.versions[i]
        session.jump(found.end, found.length, kind.numbers)
        return True

    def _places(self, tensors: list[Handle]) -> list:
        """Where the tensors come from: like a trie key's operands, but nothing becomes known."""
        new: set[int] = set()
        return [self._place(t, new) for t in tensors]

    def _place(self, t: Handle, new: set[int]) -> Any:
        """Where one tensor comes from; `new` are the memories met first by those before it."""
        session, ghost = self.session, t._ghost
        if ghost is not None and ghost.session is session:
            return ghost.k
        known = session.known_place(t)
        if known is not None:
            return known
        a = t._a
        whole = memory.root(a)
        if whole in new or session.knows_memory(t):
            return object()  # a view of memory met before: never found
        new.add(whole)
        return a.shape, a.strides, a.dtype

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


def _stand_there(
    part: Part, p: Any, grad: Handle, session: Session, places: dict[int, int]
) -> bool:
    """Whether a parameter and its gradient are the known step's, if they were met before it."""
    if part.p.__class__ is tuple:
        return True
    g = grad._ghost
    known = g is not None and g.session is session and g.k == part.grad
    return known and places.get(id(p)) == ~part.p


def _flavour(update: Callable, group: dict) -> tuple:
    """What decides, beside layouts and counters, which ops an update calls."""
    settings: list[Any] = []
    for k, v in group.items():
        kind = v.__class__
        if kind is float:
            settings.append("some" if v else "none")
        elif kind in _PLAIN:
            settings.append(v)
        elif kind is tuple:
            settings.append(tuple([x if x.__class__ in _PLAIN else x.__class__ for x in v]))
        elif k != "params":
            settings.append(k)
    modes = (state.autocast, dt.get_default_dtype(), FastMath.on)
    return (update.__func__, *modes, *settings)  # type: ignore[attr-defined]


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
