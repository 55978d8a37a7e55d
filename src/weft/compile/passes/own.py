"""own: every output is a value with memory of its own, so that a run can hand it out.

An output that is an input, a view, a constant of the program (which a caller could write to), or
an output already under another name becomes a Clone of it.
"""

from __future__ import annotations

from dataclasses import replace

from weft.core.graph import Builder, Graph, Node, transform
from weft.ops.creation import Clone, Full
from weft.ops.kinds import Create
from weft.ops.view import Expand


def own(g: Graph) -> Graph:
    """The graph with shared and viewed outputs copied."""
    if outputs_are_own(g):
        return g
    builders: list[Builder] = []

    def rule(b: Builder, n: Node, args: tuple) -> Node:
        builders[:] = [b]
        assert n.op is not None
        return b.node(n.op, *args)

    new = transform(g, rule)
    b = builders[0] if builders else Builder()
    taken: set[int] = set()
    for name, n in new.outputs.items():
        while _belongs_elsewhere(n) or id(n) in taken:
            if isinstance(n.op, Full):  # is not copied from memory
                n = b.node(Expand(n.op.shape), b.node(replace(n.op, shape=())))
            n = b.node(Clone(), n)
        taken.add(id(n))
        new.outputs[name] = n
    return new


def outputs_are_own(g: Graph) -> bool:
    taken: set[int] = set()
    for n in g.outputs.values():
        if _belongs_elsewhere(n) or id(n) in taken:
            return False
        taken.add(id(n))
    return True


def _belongs_elsewhere(n: Node) -> bool:
    return n.op is None or n.op.is_view or (isinstance(n.op, Create) and not n.op.effect)
