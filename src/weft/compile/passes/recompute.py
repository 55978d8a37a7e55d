"""recompute: an activation that is wanted again much later is computed anew instead of kept.

    h = gelu(u); y = h @ w          forward
    dw = g^T @ h; du = slope(g, u)  long after: u is kept for du, so du's loop computes h again

Where u must stay anyway for a loop of h's shape near the late uses, h needs no memory between: that
loop reads u already, and has most of h's arithmetic in it. The bits are those of the first time.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from weft.core.graph import Builder, Graph, Node, transform
from weft.core.types import numel
from weft.ops.kinds import Elementwise

_LARGE = 1 << 20  # bytes below which a value is kept
_LONG = 64  # nodes between the uses
_NEAR = 24  # nodes between the first late use and the loop


def recompute(g: Graph) -> Graph:
    """The graph with such values made twice; `again` names the loops that make them."""
    found = _candidates(g)
    if not found:
        return g
    late = {id(u): n for n, (users, _) in found.items() for u in users}
    fresh: dict[Node, Node] = {}
    loops: dict[int, Node] = {id(loop): n for n, (_, loop) in found.items()}
    new: dict[int, Node] = {}

    def rule(b: Builder, n: Node, args: tuple) -> Node:
        assert n.op is not None
        if id(n) in late:
            args = tuple(again(b, old, a) for old, a in zip(n.args, args, strict=True))
        made = new[id(n)] = b.node(n.op, *args)
        return made

    def again(b: Builder, old: Any, arg: Any) -> Any:
        """The operand on top of the value computed anew, where it is that value or a view of it."""
        if not isinstance(old, Node) or old.op is None:
            return arg
        if old in found:
            if old not in fresh:
                fresh[old] = b.anew(new[id(old)])
            return fresh[old]
        if not old.op.is_view:
            return arg
        inner = again(b, old.args[0], new.get(id(old.args[0]), old.args[0]))
        return b.node(old.op, inner, *arg.args[1:]) if inner is not arg.args[0] else arg

    made = transform(g, rule)
    made.again = [(fresh[n], new[loop]) for loop, n in loops.items()]
    return made


def is_done(g: Graph) -> bool:
    """Whether each value that is computed anew, and its loop, are of one shape."""
    return all(a.type.shape == b.type.shape for a, b in g.again)


def _candidates(g: Graph) -> dict[Node, tuple[list[Node], Node]]:
    """Value -> (its late users, the loop that shall compute it)."""
    nodes = g.nodes()
    at = {id(n): i for i, n in enumerate(nodes)}
    outputs = {id(n) for n in g.outputs.values()}
    users: dict[int, list[Node]] = {}
    for n in nodes:
        for a in n.args:
            users.setdefault(id(a), []).append(n)

    def readers(n: Node) -> list[Node]:
        """Who reads the value, itself or through views."""
        found: list[Node] = []
        for u in users.get(id(n), ()):
            found += readers(u) if u.op.is_view else [u]  # type: ignore[union-attr]
        return found

    def seen(n: Node) -> bool:
        """Whether the value, or a view of it, is a result."""
        if id(n) in outputs:
            return True
        return any(u.op.is_view and seen(u) for u in users.get(id(n), ()))  # type: ignore[union-attr]

    found: dict[Node, tuple[list[Node], Node]] = {}
    for n in nodes:
        size = numel(n.type.shape) * n.type.dtype.itemsize
        if not isinstance(n.op, Elementwise) or size < _LARGE or seen(n):
            continue
        uses = sorted(readers(n), key=lambda u: at[id(u)])
        gaps = [(at[id(b)] - at[id(a)], i) for i, (a, b) in enumerate(pairwise(uses))]
        gap, last = max(gaps, default=(0, 0))
        late = uses[last + 1 :]
        if gap < _LONG:
            continue
        operands = {id(a) for a in n.args if isinstance(a, Node)}
        for loop in users.get(id(n.args[0]), ()):
            if (
                isinstance(loop.op, Elementwise)
                and loop.type.shape == n.type.shape
                and operands <= {id(a) for a in loop.args}
                and at[id(loop)] > at[id(uses[last])]
                and abs(at[id(loop)] - at[id(late[0])]) <= _NEAR
                and loop not in late
            ):
                found[n] = late, loop
                break
    return found
