"""masks: what a relu lets through of its cotangent is made anew by each kernel that reads it.

    y = relu((x - m) r w + b);  d = g where y > 0, else 0      batch norm's gradient reads d and x

Its sums and its loop have x at hand: each makes d of g and x, so that d is neither written nor read
and y is not read again. Where g is a loop's result, d belongs to that loop: it stays. The bits are
those of the first time.
"""

from __future__ import annotations

from typing import Any

from weft.compile.fuse import readers_of
from weft.core.graph import Builder, Graph, Node, transform
from weft.ops.kinds import Elementwise
from weft.ops.norm import Moment, ScaleShift
from weft.ops.unary import Relu, ReluBack


def masks(g: Graph) -> Graph:
    """The graph with such values made once for each reader."""
    outputs, users = {id(n) for n in g.outputs.values()}, readers_of(g)
    found = {
        id(n)
        for n in g.nodes()
        if id(n) not in outputs and not g.again and _is_near(n, users.get(id(n), []))
    }
    if not found:
        return g

    def rule(b: Builder, n: Node, args: tuple) -> Node:
        assert n.op is not None
        return b.node(n.op, *(again(b, a, new) for a, new in zip(n.args, args, strict=True)))

    def again(b: Builder, old: Any, new: Any) -> Any:
        if id(old) not in found:
            return new
        cotangent, y = new.args
        return b.node(old.op, cotangent, b.node(y.op, b.anew(y.args[0])))

    return transform(g, rule)


def is_masked(g: Graph) -> bool:
    """Whether nothing is left to do."""
    outputs, users = {id(n) for n in g.outputs.values()}, readers_of(g)
    return bool(g.again) or not any(
        len(users.get(id(n), [])) > 1 and id(n) not in outputs and _is_near(n, users[id(n)])
        for n in g.nodes()
    )


def _is_near(n: Node, readers: list[Node]) -> bool:
    """Whether all who read n = d(g, y(x)) read x too, or reduce n and x."""
    if not isinstance(n.op, ReluBack):
        return False
    cotangent, y = n.args
    h = y.args[0] if isinstance(y, Node) and isinstance(y.op, Relu) else None
    if not isinstance(h, Node) or not isinstance(h.op, ScaleShift):
        return False
    loop = isinstance(cotangent, Node) and isinstance(cotangent.op, Elementwise)
    return not loop and all(
        isinstance(u.op, (Elementwise, Moment))
        and h.args[0] in u.args
        and u.args[0] is n
        and n not in u.args[1:]
        for u in readers
    )
