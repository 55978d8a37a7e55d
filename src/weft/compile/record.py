"""Record and match: what the ops of a compiled function do when they are called.

A compiled function's Python runs on every call, but its ops only *match*: a cursor walks a trie
of recorded ops.

    match   the op is the one recorded here: return a ghost (a tensor promised, not computed)
    differ  nothing of this segment ran yet: run it op by op, fork the trie, go on recording
    demand  Python asks for a value (bool, item, numpy): run the segment so far, go on matching

A key in the trie is the op and where its operands come from: the k-th result of this call (k >= 0),
the j-th outside tensor in order of first use (~j, with its layout at the first use), or the class
of a Python number.  Numbers themselves are run-time operands, so a changing learning rate does
not fork.  Recording runs eager kernels, so the first call has eager's results by definition.

Long because a call's state is one object, and what its methods share is written out in them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from weft.compile import expect, tape
from weft.compile.repeat import WRITE, Repeats
from weft.core import dtype as dt
from weft.core.caller import user_line
from weft.core.handle import Handle, state, storage_of
from weft.core.op import Op
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.ops.dispatch import NUMBERS
from weft.runtime import memory, native

PASS: Any = object()  # a size for which the call shall run eagerly, unrecorded
_probe = [object()]
# What `getrefcount(ghosts[k])` says of a ghost that only the list has. Always asked of a subscript:
# whether a local variable that is passed counts twice depends on Python's version (not from 3.14).
_UNHELD = sys.getrefcount(_probe[0])


class Meta:
    """What is known of a result: layout, and the operand it is a view of (or None)."""

    __slots__ = ("dtype", "offset", "shape", "strides", "view")

    def __init__(self, a: np.ndarray, *, view: bool, offset: int) -> None:
        self.shape = a.shape
        self.strides = tuple(s // a.itemsize for s in a.strides)
        self.dtype = dt.from_np(a.dtype)
        self.view = view
        self.offset = offset  # in elements, from the start of the outside tensor or result it views


class TrieNode:
    """A recorded call: an op (or a write), its operands, what it gave, and what came next."""

    __slots__ = (
        "args", "children", "depth", "derived", "jumps", "line", "meta", "native", "next",
        "numbers", "op", "parent", "programs",
    )  # fmt: skip

    def __init__(self, parent: TrieNode | None, op: Any, args: tuple, meta: Meta | None) -> None:
        self.parent = parent
        self.depth = -1 if parent is None else parent.depth + 1
        self.numbers = 0 if parent is None else parent.numbers_after()  # Python numbers before it
        self.op = op
        self.args = args
        self.meta = meta
        self.line: str | None = None
        self.derived = False  # for a size that was not recorded (compile/generalise.py)
        self.children: dict[tuple, TrieNode] = {}
        self.programs: dict[tuple, Any] = {}
        self.jumps: dict[tuple, Any] = {}  # see compile/repeat.py
        self.next: TrieNode | None = None  # the child that came last, of which `native` is known
        self.native: Any = None  # see compile/expect.py

    def numbers_after(self) -> int:
        """How many Python numbers the path has met, this call's own among them."""
        return self.numbers + sum(r in NUMBERS for r in self.args)

    def drop_derived(self) -> None:
        """Forget the paths below this node that were not recorded."""
        stack: list[TrieNode] = [self]
        while stack:
            node = stack.pop()
            node.jumps = {k: j for k, j in list(node.jumps.items()) if not j.end.derived}
            node.children = {k: c for k, c in list(node.children.items()) if not c.derived}
            node.next = None
            stack.extend(node.children.values())

    def path(self, start: int) -> list[TrieNode]:
        """The nodes from depth `start` to this one."""
        out = []
        node: TrieNode | None = self
        while node is not None and node.depth >= start:
            out.append(node)
            node = node.parent
        out.reverse()
        return out


class Ghost:
    """A promised value: result k of the call, with its layout."""

    __slots__ = ("array", "dtype", "k", "offset", "outer", "session", "shape", "strides")

    def __init__(self, session: Session, k: int, meta: Meta, outer: Handle | None) -> None:
        self.session: Session | None = session
        self.k = k
        self.shape = meta.shape
        self.strides = meta.strides
        self.dtype = meta.dtype
        self.offset = meta.offset
        self.outer = outer  # the outside tensor it is a view of, if it is
        self.array: np.ndarray | None = None

    def demand(self, handle: Handle) -> np.ndarray:
        """The value, computed now if need be; at last the handle becomes an ordinary tensor's."""
        session = self.session
        if session is not None and (self.array is None or session.pending):
            session.flush()
        a = self.array
        if a is None:
            raise RuntimeError(
                "a tensor without a value: in its compiled call an op failed before it"
            )
        if session is None:  # the call is over: nothing needs the promise any more
            handle._a = a
            handle._ghost = None
        elif not session.matching:  # no write can be promised any more
            handle._a = a
        return a


class Pending:
    """Stands in for the value of an outside tensor to which a write is promised.

    Operands and layouts are as before; who reads the value makes the write happen first.
    """

    __slots__ = ("array", "dtype", "k", "offset", "outer", "session", "shape", "strides")

    def __init__(self, session: Session, handle: Handle, place: int) -> None:
        self.array = handle._a
        self.session: Session | None = session
        self.k = ~place
        self.offset = 0 if handle._base is None else handle.storage_offset()
        self.outer = None

    def __getattr__(self, name: str) -> Any:
        """The layout is seldom asked for."""
        a = self.array
        if name == "shape":
            self.shape = made = a.shape
        elif name == "dtype":
            self.dtype = made = dt.from_np(a.dtype)
        elif name == "strides":
            self.strides = made = tuple([s // a.itemsize for s in a.strides])
        else:
            raise AttributeError(name)
        return made

    def demand(self, handle: Handle) -> np.ndarray:
        """The value after the promised writes."""
        session = self.session
        if session is not None and session.pending:
            session.flush()
        if handle._ghost is self and (session is None or not session.matching):
            handle._a = self.array  # no write can be promised any more
            handle._ghost = None
        return self.array


class Session:
    """One call of a compiled function."""

    # Fixed places, which native code reads (runtime/match_code.py).
    __slots__ = (
        "_handles", "_held", "_memories", "_pendings", "_places", "_program_of", "asked", "cursor",
        "ghosts", "looked", "matching", "numbers", "others", "outside", "passing", "pending",
        "program", "recorded", "serial", "start", "synthesize", "synthesized", "updates",
    )  # fmt: skip

    def __init__(self, root: TrieNode, program_of: Any, synthesize: Any = None) -> None:
        self.synthesize = synthesize or (lambda *_: None)
        self.synthesized = 0
        self.passing: Any = None  # where this call left the trie to run eagerly, unrecorded
        self.cursor = root
        self.matching = True
        self.start = 0  # depth of the segment's first op
        self.ghosts: list[Ghost | None] = []  # by depth; None for writes
        self.outside: list[Handle] = []  # tensors from outside, by order of first use
        self._held: list[int] = []  # computed results that a tensor stood for at the last flush
        self.serial = 0  # of the call that notes, or is counted on (compile/former.py)
        self.others: list[Handle] = []  # outside tensors whose memory is another than in that call
        self.asked = False  # whether the tables were
        # id of an outside handle -> place; ids of storages and NumPy arrays -> a memory's name;
        # the outside handles of each memory: see `tables`, None while they are not made
        self._places: dict[int, int] | None = {}
        self._memories: dict[int, int] | None = {}
        self._handles: dict[int, list[Handle]] | None = {}
        self.pending: list[Handle | None] = []  # handles whose memory has promised writes
        self._pendings: list[Pending] = []
        self.numbers: list[Any] = []  # Python numbers met, in order
        self._program_of = program_of
        self.recorded = 0
        self.looked = False  # whether Python looked at a value
        self.program: Any = None  # of the last segment
        self.updates: list | None = None  # optimizers' updates, for a replay

    def count_on(self, serial: int) -> None:
        """Begin without tables: a call noted where the memories lay (compile/former.py)."""
        self.serial = serial
        self._places = self._memories = self._handles = None

    def tables(self) -> tuple[dict[int, int], dict[int, int], dict[int, list[Handle]]]:
        """What is known of the outside tensors: places, memories and handles (see `__init__`)."""
        self.asked = True
        places, memories, handles = self._places, self._memories, self._handles
        if places is None or memories is None or handles is None:
            places = self._places = {id(t): j for j, t in enumerate(self.outside)}
            memories, handles = self._memories, self._handles = {}, {}
            for t in self.outside:
                handles.setdefault(self.memory_of(t), []).append(t)
        return places, memories, handles

    # -------------------------------------------------------------- the recorder's interface

    def apply(self, op: Op, args: tuple) -> Any:
        """Called by dispatch.apply in place of running the op."""
        y = expect.match(self, op, args)
        if y is not None:
            return y
        refs: list = [op]
        for a in args:  # _ref, written out: this is the cost of matching
            if a.__class__ in NUMBERS:
                self.numbers.append(a)
                refs.append(a.__class__)
            elif (known := a._ghost) is not None and known.session is self:
                refs.append(known.k)
            else:
                refs.append(self._ref(a))
        key = tuple(refs)
        if self.matching:
            found = self.cursor.children.get(key) or self._other_size(key)
            if found is not None:
                return self._matched(key, found, args)
            self._leave_trie()
        y = dispatch.fresh()
        x = args[0] if args else None
        try:
            y._a = execute_unseen(op, args)
        except BaseException:
            del self.numbers[self.cursor.numbers_after() :]  # the op was not called
            raise
        is_view = op.is_view and dispatch.shares_memory(y._a, x._a)  # type: ignore[union-attr]
        outer = None
        offset = 0
        if is_view:
            assert x is not None
            dispatch.link_view(y, x)
            outer = self._outer(x)
            offset = (native.address(y._a) - native.address(x._a)) // y._a.itemsize
            if x._ghost is not None and x._ghost.session is self:
                offset += x._ghost.offset
        if self.passing is not None:
            return y
        meta = Meta(y._a, view=is_view, offset=offset)
        node = self._append(key, op, meta)
        # the handle holds the value, not the ghost: what nobody holds is freed, as in eager
        y._ghost = ghost = Ghost(self, node.depth, meta, outer)
        self.ghosts.append(ghost)
        return y

    def _matched(self, key: tuple, found: TrieNode, args: tuple) -> Any:
        """The promise of a recorded call's result."""
        expect.expect(self.cursor, key, found, args)
        self.cursor = found
        meta = found.meta
        assert meta is not None
        y = dispatch.fresh()
        outer = None
        if meta.view:
            dispatch.link_view(y, args[0])
            outer = self._outer(args[0])
        y._ghost = ghost = Ghost(self, found.depth, meta, outer)
        self.ghosts.append(ghost)
        return y

    def known(self, op: Op, args: tuple) -> Any:
        """Called by the op's native form, before the checks of a public function: what `apply`
        gives for tensors where the path goes on with this very call, else None and no effect.
        """
        children = self.cursor.children
        if not self.matching:
            return None
        for key in tuple(children):  # another thread may record a new one meanwhile
            if key[0] is op:
                break
        else:
            return None
        met = len(self.outside)
        refs: list = [op]
        for a in args:
            known = a._ghost
            refs.append(known.k if known is not None and known.session is self else self._ref(a))
        key = tuple(refs)
        found = children.get(key)
        if found is None:
            self._forget(met)
            return None
        y = self._matched(key, found, args)
        if op.nondiff is None and state.grad:
            for a in args:
                if a._rg:
                    dispatch.record(op, args, y)
                    break
        return y

    def _forget(self, met: int) -> None:
        """The outside tensors from place `met` on were not used after all."""
        gone = self.outside[met:]
        if not gone:
            return
        if self._memories is None:
            self.others = [t for t in self.others if all(t is not g for g in gone)]
            del self.outside[met:]
            return
        places, memories, all_handles = self.tables()
        for t in gone:
            whole = self.memory_of(t)
            handles = all_handles.pop(whole, [])
            kept = [h for h in handles if places[id(h)] < met]
            for h in handles:
                if places[id(h)] >= met:
                    del places[id(h)]
            if kept:
                all_handles[whole] = kept
            else:  # nobody keeps its ids in use
                self._memories = memories = {k: m for k, m in memories.items() if m != whole}
        del self.outside[met:]

    def _outer(self, x: Handle) -> Handle | None:
        """The outside tensor whose memory x lies in, or None."""
        ghost = x._ghost
        if ghost is None or ghost.session is not self or ghost.__class__ is Pending:
            return x
        return ghost.outer

    def alike(self) -> Repeats:
        """Matches calls that differ only in their tensors as one node each."""
        return Repeats(self)

    def backward(self, root: Handle, keep: bool, walk: Callable[[], Any]) -> None:
        """root.backward(): `walk()`, or its effect where this tape was walked before."""
        tape.backward(self, root, keep, walk)

    def promise(self, made: TrieNode) -> Any:
        """A tensor for the result of a call that was jumped over."""
        y = dispatch.fresh()
        assert made.meta is not None
        y._ghost = self.ghosts[made.depth] = Ghost(self, made.depth, made.meta, None)
        return y

    def jump(self, end: TrieNode, length: int, numbers: list) -> None:
        """Match the `length` ops that lead to `end`; no tensor stands for their results."""
        self.numbers += numbers
        self.ghosts += [None] * length
        self.cursor = end

    def known_place(self, t: Handle) -> int | None:
        """The reference of an outside tensor that was used before."""
        place = self.tables()[0].get(id(t))
        return None if place is None else ~place

    def place_of(self, t: Handle) -> int:
        """The place of an outside tensor, or of another handle of the same view; a new one."""
        ref = self._ref(t)
        return ~(ref if ref.__class__ is int else ref[0])

    def place(self, t: Handle) -> int | None:
        """The reference of a tensor, as an operand has it."""
        ghost = t._ghost
        return ghost.k if ghost is not None and ghost.session is self else self.known_place(t)

    def knows_memory(self, t: Handle) -> bool:
        """Whether a tensor of this memory was used before."""
        root, memories = memory.root(t._a), self.tables()[1]
        return root in memories or (t._st is not None and id(t._st) in memories)

    def is_held(self, k: int) -> bool:
        """Whether a tensor stands for result k."""
        return self.ghosts[k] is not None and sys.getrefcount(self.ghosts[k]) > _UNHELD

    def write(self, t: Handle, value: Handle) -> None:
        """t's memory gets value: matched or recorded like an op."""
        key = (WRITE, self._ref(t), self._ref(value))
        self.ghosts.append(None)
        if self.matching:
            found = self.cursor.children.get(key) or self._other_size(key)
            if found is not None:
                self.cursor = found
                self.promise_writes((t,))
                return
            self.ghosts.pop()
            self._leave_trie()
            self.ghosts.append(None)
        dispatch.put(t._a, value._a)
        if self.passing is None:
            self._append(key, WRITE, None)

    def promise_writes(self, tensors: Iterable[Handle]) -> None:
        """Whoever reads their memory from now on must wait for the writes."""
        self.pending.append(None)  # results of earlier segments look whether this is empty
        (places, memories, all_handles), handles = self.tables(), []
        for t in tensors:
            outer = t if t._ghost is None else self._outer(t)
            if outer is not None:
                whole = memories.get(id(outer._st))
                handles += all_handles[self.memory_of(outer) if whole is None else whole]
        if expect.promise(self, handles) is None:
            for h in handles:
                if h._ghost is None:
                    h._ghost = made = Pending(self, h, places[id(h)])
                    self._pendings.append(made)
                    del h._a
                    self.pending.append(h)

    def _end_pending(self) -> None:
        """The writes happen now: give the handles their memory back."""
        for h in self.pending:
            if h is not None and h._ghost.__class__ is Pending:
                h._a = h._ghost.array
                h._ghost = None
        self.pending = []

    def flush(self) -> None:
        """Compute everything promised so far, for Python looks, or moves memories."""
        self.tables()
        self.looked = True
        self._end_pending()
        if self.matching and self.cursor.depth >= self.start:
            self._compute()
            self._held += range(self.start, self.cursor.depth + 1)
            self._drop_unheld()
        self.start = self.cursor.depth + 1

    def _compute(self) -> None:
        self.program = self._program_of(self)
        self.program.run(self)

    def _drop_unheld(self) -> None:
        """Forget the values that no tensor stands for any more: nothing can ask for them."""
        ghosts, held = self.ghosts, []
        for k in self._held:
            if ghosts[k] is not None and ghosts[k].array is not None:  # type: ignore[union-attr]
                if sys.getrefcount(ghosts[k]) > _UNHELD:
                    held.append(k)
                else:
                    ghosts[k].array = None  # type: ignore[union-attr]
        self._held = held

    # -------------------------------------------------------------- inside

    def _ref(self, a: Any) -> Any:
        if a.__class__ in NUMBERS:
            self.numbers.append(a)
            return a.__class__
        ghost = a._ghost
        if ghost is not None and ghost.session is self:
            return ghost.k
        place = self.tables()[0].get(id(a))
        if place is not None:
            return ~place
        return self.first_use(a)

    def first_use(self, t: Handle) -> Any:
        """An outside tensor met for the first time: its layout becomes part of the key."""
        a, st = t._a, t._st
        places, memories, all_handles = self.tables()
        if st is None:
            st = storage_of(t)
        whole = memories.get(name := id(st))
        if whole is None:  # memory_of, written out: most often it is new
            whole = memories[name] = memories.setdefault(memory.root(a), name)
        shape, strides, first = a.shape, a.strides, -1
        handles = all_handles.get(whole)
        if handles is None:
            all_handles[whole] = [t]  # keeps it: its id is in use
        else:
            at = native.address(a)
            for h in handles:
                b = h._ghost.array if h._ghost.__class__ is Pending else h._a
                if b.shape == shape and b.strides == strides and native.address(b) == at:
                    handles.append(t)  # another handle of the same view (p and p.data)
                    place = places[id(t)] = places[id(h)]
                    return ~place
            handles.append(t)
            first = places[id(handles[0])]
        place = places[id(t)] = len(self.outside)
        self.outside.append(t)
        return (~place, shape, strides, a.dtype, first)

    def memory_of(self, t: Handle) -> int:
        """One name for a memory, whichever storages or views of one NumPy array reach it."""
        storage, memories = t._st, self.tables()[1]
        st = id(storage_of(t) if storage is None else storage)
        found = memories.get(st)
        if found is None:
            root = memory.root(t._a)
            found = memories[st] = memories.setdefault(root, st)
        return found

    def _other_size(self, key: tuple) -> TrieNode | None:
        """The path for a size between two known ones, if this key is one."""
        if len(self.cursor.children) < 2:
            return None
        # the key's own first uses are in `outside` already: the path begins before them
        new = sum(isinstance(r, tuple) for r in key)
        known = self.outside[: len(self.outside) - new]
        arrays = [t._ghost.array if t._ghost.__class__ is Pending else t._a for t in known]
        found = self.synthesize(self.cursor, key, [Layout.of(a) for a in arrays])
        if found is PASS:
            self.passing = (self.cursor, key)
            return None
        self.synthesized += found is not None
        return found

    def _leave_trie(self) -> None:
        """The path forks here: run what was matched op by op, then record."""
        self._end_pending()
        self.matching = False
        path = self.cursor.path(self.start)
        self.start = self.cursor.depth + 1
        run_eagerly(self, path)
        if self.passing is not None and state.recorder is self:
            state.recorder = None

    def give_up(self) -> None:
        """The program failed: run its ops one by one, which raises what eager raises.

        Gradients that Python has set behind the failing op are taken back: eager never comes there.
        """
        try:
            self._leave_trie()
        finally:
            for t in self.outside:
                made = None if t._grad is None else t._grad._ghost
                if made is not None and made.session is self and made.array is None:
                    t._grad = None

    def _append(self, key: tuple, op: Any, meta: Meta | None) -> TrieNode:
        args = tuple(r[0] if isinstance(r, tuple) else r for r in key[1:])
        node = TrieNode(self.cursor, op, args, meta)
        node.line = user_line()
        above: TrieNode | None = self.cursor
        while above is not None and above.derived:  # recorded after all: later sizes learn from it
            above.derived = False
            above = above.parent
        self.cursor.children[key] = node
        self.cursor = node
        self.recorded += 1
        return node

    def finish(self) -> None:
        """The call is over: compute what is still wanted, and let the promises go."""
        if self.pending:
            self._end_pending()
        if self.matching and self.cursor.depth >= self.start:
            self.looked = True
            self._compute()
            self.start = self.cursor.depth + 1
        for g in filter(None, self.ghosts):
            g.session = None
        for p in self._pendings:  # aliases made meanwhile may still have them
            p.session = None
        self.ghosts = []

    def live(self) -> tuple[int, ...]:
        """Depths of this segment's results that somebody still holds."""
        ghosts = self.ghosts
        count = sys.getrefcount
        made = [k for k, g in enumerate(ghosts) if g is not None and g.array is None]
        return tuple([k for k in made if count(ghosts[k]) > _UNHELD])

    def held(self) -> tuple[int, ...]:
        """Depths of the call's results that somebody holds, computed or not."""
        return tuple(k for k in range(len(self.ghosts)) if self.is_held(k))

    def inputs(self, names: list[tuple[str, int]]) -> dict[str, np.ndarray]:
        """The values behind operand references, by name."""
        outside, array = self.outside, self.array
        return {name: outside[~ref]._a if ref < 0 else array(ref) for name, ref in names}

    def former(self) -> tuple[int, list[int]]:
        """The call whose outside tensors lay where this one's do (0: nobody knows), and the
        references of those that do not.
        """
        if self._memories is not None:
            return 0, []
        found = []
        for other in self.others:  # few, and most often the first: what a call is given
            for j, t in enumerate(self.outside):
                if t is other:
                    found.append(~j)
                    break
        return self.serial, found

    def array(self, ref: int) -> np.ndarray:
        """The value behind an operand reference."""
        if ref < 0:
            return self.outside[~ref]._a
        ghost = self.ghosts[ref]
        assert ghost is not None and ghost.array is not None, ref
        return ghost.array


def run_eagerly(session: Session, path: list[TrieNode]) -> None:
    """Run matched calls one by one, as eager would have: what nobody asks for any more is freed."""
    last = {r: node.depth for node in path for r in node.args if r.__class__ is int and r >= 0}
    for node in path:
        numbers = iter(session.numbers[node.numbers :])
        args = tuple(
            next(numbers) if r in NUMBERS else dispatch.wrap(session.array(r)) for r in node.args
        )
        if node.op is WRITE:
            dispatch.put(args[0]._a, args[1]._a)
            continue
        ghost = session.ghosts[node.depth]
        if ghost is None:  # jumped over: no tensor stands for it
            assert node.meta is not None
            ghost = session.ghosts[node.depth] = Ghost(session, node.depth, node.meta, None)
        ghost.array = execute_unseen(node.op, args)
        del ghost, args
        for r in {node.depth, *node.args}:
            done = r.__class__ is int and r >= 0 and last.get(r, node.depth) == node.depth
            if done and not session.is_held(r):
                session.ghosts[r].array = None


def execute_unseen(op: Op, args: tuple) -> np.ndarray:
    """Run an op as eager does, a composite's own ops unrecorded."""
    recorder, state.recorder = state.recorder, None
    try:
        return dispatch.execute(op, args)
    finally:
        state.recorder = recorder


native.install_trie(Session, TrieNode, Ghost, Pending)
