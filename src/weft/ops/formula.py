"""What a composite op's body comes to: nodes of a graph, or one launch of its ops' kernels.

A launch is a chain: each op's own kernel on its place of the scratch memory, so the bits are those
of the ops one by one.  An op that is called often is chained for small tensors (`dispatch`), where
the handles and checks of a body's ops take longer than what they compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core.graph import Builder, Node, postorder
from weft.core.handle import Handle, state
from weft.core.op import Op
from weft.core.types import Type, array_type, contiguous_strides
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.ops.creation import Literal
from weft.ops.dispatch import NUMBERS
from weft.ops.view import Reshape
from weft.runtime import native, random_code
from weft.runtime.random_code import INS, OUT

LARGEST = 65_536  # elements of a constant that a body may bring along


class SymbolicGhost:
    """A value that is only a node: what a body computes with while it is being expanded."""

    __slots__ = ("dtype", "node", "offset", "outer", "session", "shape", "strides")
    array = None

    def __init__(self, node: Node) -> None:
        self.node = node
        self.session = None
        self.shape = node.type.shape
        self.dtype = node.type.dtype
        self.strides = contiguous_strides(node.type.shape)
        self.offset = 0
        self.outer = None

    def demand(self, handle: Handle) -> Any:
        raise RuntimeError("an op's body may not ask for a value")


class Expander:
    """The recorder while a body runs: every op becomes a node."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def apply(self, op: Op, args: tuple) -> Any:
        nodes = [a if a.__class__ in NUMBERS else self._node(a) for a in args]
        return wrap_node(self.builder.node(op, *nodes))

    def _node(self, t: Handle) -> Node:
        ghost = t._ghost
        if isinstance(ghost, SymbolicGhost):
            return ghost.node
        if t._a.size <= LARGEST:  # a constant that the body made
            d = dispatch.dtype_of(t)
            wide = np.ascontiguousarray(t._a)
            if d.is_complex:
                wide = wide.reshape(-1).view(d.to_real().np)
            wide = wide if d.category < dt.FLOAT else wide.astype(np.float64)
            op = Literal(tuple(t._a.shape), tuple(wide.reshape(-1).tolist()), d)
            return self.builder.node(op)
        raise RuntimeError(f"an op's body brings in a constant of {t._a.size} > {LARGEST} elements")

    def write(self, t: Handle, value: Handle) -> None:
        raise RuntimeError("an op's body may not write in place")

    def flush(self) -> None:
        raise RuntimeError("an op's body may not ask for a value")


def wrap_node(node: Node) -> Any:
    """A tensor that stands for a node."""
    y = dispatch.fresh()
    y._ghost = SymbolicGhost(node)
    return y


def is_composite(op: Op) -> bool:
    """Whether the op has neither kernel nor host code."""
    return op.plan is None and op.host is None


def expanded(b: Builder, op: Op, args: tuple, wanted: Callable[[Op], bool]) -> Node:
    before = (state.recorder, state.grad)
    expander = Expander(b)
    state.recorder, state.grad = _Deep(expander, wanted), False
    try:
        y = op.body(*(wrap_node(a) if isinstance(a, Node) else a for a in args))
    finally:
        state.recorder, state.grad = before
    return expander._node(y)


class _Deep:
    """Expands bodies within bodies."""

    def __init__(self, expander: Expander, wanted: Callable[[Op], bool]) -> None:
        self.expander = expander
        self.wanted = wanted
        self.write = expander.write
        self.flush = expander.flush

    def apply(self, op: Op, args: tuple) -> Any:
        if self.wanted(op):
            nodes = tuple(a if a.__class__ in NUMBERS else self.expander._node(a) for a in args)
            return wrap_node(expanded(self.expander.builder, op, nodes, self.wanted))
        return self.expander.apply(op, args)


# ------------------------------------------------------------------------------- one launch

MOST_BYTES = 1 << 16  # of what lies between a chain's kernels


class _Unchained(Exception):
    """A body that is no chain: it has random numbers, host code or much work."""


def plan_body(op: Op, arrays: Sequence[np.ndarray], out: np.ndarray) -> native.Launch | None:
    """The launch of an op of a body, or of copies, on arrays like these, which writes an array like
    `out`, the op's result; None where its body is no chain, or one to something else.
    """
    b = Builder()
    ins = [b.input(f"x{i}", array_type(a)) for i, a in enumerate(arrays)]
    try:
        root = expanded(b, op, tuple(ins), is_composite) if is_composite(op) else b.node(op, *ins)
        if (root.type.shape, root.type.dtype.np) != (out.shape, out.dtype):
            return None
        chain = _Chain(len(arrays))
        for i, (n, a) in enumerate(zip(ins, arrays, strict=True)):
            chain.places[id(n)] = INS + i, 0, Layout.of(a)
        return chain.launch(root)
    except (_Unchained, RuntimeError, ValueError):  # it asks for a value; a layout no kernel reads
        return None


Place = tuple[int, int, Layout]  # a word of the block, bytes behind its pointer


class _Chain:
    """The steps of a launch, as its graph's nodes come."""

    def __init__(self, operands: int) -> None:
        self.scratch = INS + operands
        self.places: dict[int, Place] = {}
        self.used = 0
        self.steps: list[tuple[native.Launch, list[Place]]] = []
        self.kept: list[np.ndarray] = []  # constants

    def launch(self, root: Node) -> native.Launch | None:
        out = Layout.contiguous(root.type.shape, root.type.dtype.np)
        last = root
        while isinstance(last.op, Reshape) and isinstance(last.args[0], Node):
            last = last.args[0]
        for n in postorder([root]):
            if n.op is not None:
                self.places[id(n)] = self._place(n, out if n is last else None)
        place = self.places[id(root)]
        if INS <= place[0] < self.scratch:  # the operand itself, or a view of it
            raise _Unchained
        if place != (OUT, 0, out):
            self.steps.append((kernels.plan_copy(place[2], out), [(OUT, 0, out), place]))
        self.used = -(-self.used // 64) * 64
        return random_code.chain(
            [(launch, [p[:2] for p in places]) for launch, places in self.steps],
            self.scratch, self.used, self.kept,
        )  # fmt: skip

    def _place(self, n: Node, out: Layout | None) -> Place:
        op = n.op
        assert op is not None
        if op.effect:
            raise _Unchained
        if not n.args:
            return self._constant(dispatch.execute(op, ()))
        first = next(a.type.dtype.np for a in n.args if isinstance(a, Node))
        ins = [
            self.places[id(a)] if isinstance(a, Node)
            else self._constant(dispatch.number_array(a, first))
            for a in n.args
        ]  # fmt: skip
        if op.is_view:
            word, at, layout = ins[0]
            base = layout.zeros()
            seen = op.host(base)
            if dispatch.shares_memory(seen, base):
                return word, at + native.address(seen) - native.address(base), Layout.of(seen)
            if not isinstance(op, Reshape):
                raise _Unchained
            whole = Layout.contiguous(layout.shape, layout.dtype)
            return self._step(kernels.plan_copy(layout, whole), whole, ins, out, n.type)
        if op.copies is not None and not n.type.dtype.is_complex:
            return self._copied(op, n, ins, out)
        if op.plan is None or n.type.dtype.is_complex:
            raise _Unchained
        layout = Layout.contiguous(n.type.shape, n.type.dtype.np)
        launch = dispatch.plan_of(op, [p[2] for p in ins], layout)
        return self._step(launch, layout, ins, out, n.type)

    def _step(
        self, launch: native.Launch | None, layout: Layout, ins: list[Place], out: Layout | None,
        type: Type,
    ) -> Place:  # fmt: skip
        """Where the launch's result lies, which it writes as `layout`."""
        if launch is None or any(s.parallel for s in launch.stages):
            raise _Unchained
        place = self._room(layout, out)
        self.steps.append((launch, [(*place, layout), *ins]))
        return *place, Layout.contiguous(type.shape, layout.dtype)

    def _copied(self, op: Op, n: Node, ins: list[Place], out: Layout | None) -> Place:
        layout = Layout.contiguous(n.type.shape, n.type.dtype.np)
        word, at = self._room(layout, out)
        for launch, to, operand, first in op.copies([p[2] for p in ins], layout):
            if any(s.parallel for s in launch.stages):
                raise _Unchained
            places = [(word, at + to, layout)]
            if operand is not None:
                source = ins[operand]
                places.append((source[0], source[1] + first, source[2]))
            self.steps.append((launch, places))
        return word, at, layout

    def _room(self, layout: Layout, out: Layout | None) -> tuple[int, int]:
        """Where a result may lie: in the launch's own, or in scratch memory."""
        if out is not None:
            return OUT, 0
        at = self.used
        self.used += -(-layout.size * layout.dtype.itemsize // 64) * 64
        if self.used > MOST_BYTES:
            raise _Unchained
        return self.scratch, at

    def _constant(self, a: np.ndarray) -> Place:
        self.kept.append(a)
        return 0, native.address(a), Layout.of(a)
