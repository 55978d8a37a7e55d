"""decompose: ops that are compositions, replaced by their bodies where they have no kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft.core.graph import Builder, Graph, Node, transform
from weft.core.op import Op
from weft.ops.formula import expanded, is_composite


def decompose(g: Graph, wanted: Callable[[Op], bool] = is_composite) -> Graph:
    """The graph with every op that is `wanted` replaced by its body, to the bottom."""
    if not any(wanted(n.op) for n in g.nodes()):  # type: ignore[arg-type]
        return g

    def rule(b: Builder, n: Node, args: tuple) -> Any:
        return expanded(b, n.op, args, wanted) if wanted(n.op) else b.node(n.op, *args)  # type: ignore[arg-type]

    return transform(g, rule)


def has_no_composites(g: Graph) -> bool:
    return not any(is_composite(n.op) for n in g.nodes())  # type: ignore[arg-type]
