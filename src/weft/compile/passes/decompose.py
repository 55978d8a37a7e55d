"""decompose: ops that are compositions, replaced by their bodies where they have no kernel."""

from __future__ import annotations

from typing import Any

from weft.core.graph import Builder, Graph, Node, transform
from weft.core.handle import Handle, state
from weft.core.op import Op
from weft.ops import dispatch
from weft.ops.creation import Full
from weft.ops.dispatch import NUMBERS


class SymbolicGhost:
    """A value that is only a node: what a body computes with while it is being expanded."""

    __slots__ = ("dtype", "node", "offset", "session", "shape", "strides")
    array = None

    def __init__(self, node: Node) -> None:
        self.node = node
        self.session = None
        self.shape = node.type.shape
        self.dtype = node.type.dtype
        self.strides = dispatch.contiguous_strides(node.type.shape)
        self.offset = 0

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
        if t._a.size == 1:  # a number that the body made a tensor of
            return self.builder.node(Full(t._a.shape, t._a.item(), dispatch.dtype_of(t)))
        raise RuntimeError("an op's body may not bring in tensors of its own")

    def write(self, t: Handle, value: Handle) -> None:
        raise RuntimeError("an op's body may not write in place")

    def flush(self) -> None:
        raise RuntimeError("an op's body may not ask for a value")


def wrap_node(node: Node) -> Any:
    """A tensor that stands for a node."""
    y = dispatch._new(dispatch._tensor_class)
    y._ghost = SymbolicGhost(node)
    return y


def decompose(g: Graph) -> Graph:
    """The graph with every op that has neither kernel nor host code replaced by its body."""
    if has_no_composites(g):
        return g

    def rule(b: Builder, n: Node, args: tuple) -> Any:
        return _expanded(b, n.op, args) if _is_composite(n.op) else b.node(n.op, *args)  # type: ignore[arg-type]

    return transform(g, rule)


def has_no_composites(g: Graph) -> bool:
    return not any(_is_composite(n.op) for n in g.nodes())


def _is_composite(op: Op | None) -> bool:
    return op is not None and op.plan is None and op.host is None


def _expanded(b: Builder, op: Op, args: tuple) -> Node:
    before = (state.recorder, state.grad)
    expander = Expander(b)
    state.recorder, state.grad = _Deep(expander), False
    try:
        y = op.body(*(wrap_node(a) if isinstance(a, Node) else a for a in args))
    finally:
        state.recorder, state.grad = before
    return expander._node(y)


class _Deep:
    """Expands bodies within bodies."""

    def __init__(self, expander: Expander) -> None:
        self.expander = expander
        self.write = expander.write
        self.flush = expander.flush

    def apply(self, op: Op, args: tuple) -> Any:
        if _is_composite(op):
            nodes = tuple(a if a.__class__ in NUMBERS else self.expander._node(a) for a in args)
            return wrap_node(_expanded(self.expander.builder, op, nodes))
        return self.expander.apply(op, args)

