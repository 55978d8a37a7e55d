"""decompose: ops that are compositions, replaced by their bodies where they have no kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.graph import Builder, Graph, Node, transform
from weft.core.handle import Handle, state
from weft.core.op import Op
from weft.core.types import contiguous_strides
from weft.ops import dispatch
from weft.ops.creation import Literal
from weft.ops.dispatch import NUMBERS

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


def decompose(g: Graph, wanted: Callable[[Op], bool] = is_composite) -> Graph:
    """The graph with every op that is `wanted` replaced by its body, to the bottom."""
    if not any(wanted(n.op) for n in g.nodes()):  # type: ignore[arg-type]
        return g

    def rule(b: Builder, n: Node, args: tuple) -> Any:
        return _expanded(b, n.op, args, wanted) if wanted(n.op) else b.node(n.op, *args)  # type: ignore[arg-type]

    return transform(g, rule)


def has_no_composites(g: Graph) -> bool:
    return not any(is_composite(n.op) for n in g.nodes())  # type: ignore[arg-type]


def _expanded(b: Builder, op: Op, args: tuple, wanted: Callable[[Op], bool]) -> Node:
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
            return wrap_node(_expanded(self.expander.builder, op, nodes, self.wanted))
        return self.expander.apply(op, args)
