"""Graph: a tensor program as values.  The IR of `weft.compile`, of `.weft` files and of exports.

A Node is an op applied to earlier nodes (or Python numbers); its type is inferred, never given.
Within one Builder, nodes are interned: equal op, equal operands, one node (so common
subexpressions meet by construction), except ops with an effect.  Source lines are a side table.

    graph (x: f32[b,4], w: f32[3,4]) {
      %0: f32[4,3] = Permute(dims=(1, 0))(w)
      %1: f32[b,3] = MatMul()(x, %0)  # model.py:12
      return y=%1
    }
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.op import Op
from weft.core.types import Type

Number = float | int | bool


class Node:
    """One value: an input (op is None, name set) or an op on operands."""

    __slots__ = ("args", "name", "op", "serial", "type")

    def __init__(
        self, op: Op | None, args: tuple[Node | Number, ...], type: Type, name: str, serial: int
    ) -> None:
        self.op = op
        self.args = args
        self.type = type
        self.name = name
        self.serial = serial  # creation order: operands come first

    def __repr__(self) -> str:
        if self.op is None:
            return f"{self.name}: {self.type}"
        args = ", ".join(ref(a, {}) for a in self.args)
        return f"%{self.serial}: {self.type} = {self.op}({args})"


class Builder:
    """Makes nodes, interned."""

    def __init__(self) -> None:
        self._interned: dict[tuple, Node] = {}
        self._count = 0

    def input(self, name: str, type: Type) -> Node:
        """A new input (never interned)."""
        self._count += 1
        return Node(None, (), type, name, self._count)

    def node(self, op: Op, *args: Node | Number) -> Node:
        """`op` on these operands; raises what op.type raises for operands that do not fit."""
        key = (op, *((id(a) if isinstance(a, Node) else (type(a), a)) for a in args))
        found = None if op.effect else self._interned.get(key)
        if found is None:
            self._count += 1
            found = Node(op, args, infer(op, args), "", self._count)
            if not op.effect:
                self._interned[key] = found
        return found

    def anew(self, n: Node) -> Node:
        """A second node for the value of `n`, to be computed again: never interned."""
        self._count += 1
        return Node(n.op, n.args, n.type, "", self._count)


def infer(op: Op, args: Iterable[Node | Number]) -> Type:
    """The type of `op` on these operands; a number has the dtype of the first tensor operand."""
    args = tuple(args)
    first = next((a.type.dtype for a in args if isinstance(a, Node)), dt.float32)
    return op.type(*(a.type if isinstance(a, Node) else Type((), first) for a in args))


@dataclass
class Graph:
    """Inputs and named outputs; nodes are reached from the outputs."""

    inputs: list[Node]
    outputs: dict[str, Node]
    lines: dict[int, str] = field(default_factory=dict)  # node serial -> "file.py:41"
    effects: list[Node] = field(default_factory=list)  # random draws, in program order
    # (a value that is computed a second time, a node whose loop shall do it)
    again: list[tuple[Node, Node]] = field(default_factory=list)
    # what `nodes` said last, of which roots: passes ask again and again
    _known: tuple[list[Node], list[Node]] = field(default=([], []), repr=False, compare=False)

    def nodes(self) -> list[Node]:
        """Every node that the outputs or effects need, operands first, inputs left out."""
        roots = [*self.outputs.values(), *self.effects]
        if roots != self._known[0]:
            self._known = roots, [n for n in postorder(roots) if n.op is not None]
        return self._known[1].copy()

    def __str__(self) -> str:
        return to_text(self)


def postorder(roots: Iterable[Node]) -> list[Node]:
    """Operands before users; among the free choices, creation order."""
    seen: set[int] = set()
    found: list[Node] = []
    stack = list(roots)
    while stack:
        n = stack.pop()
        if id(n) in seen:
            continue
        seen.add(id(n))
        found.append(n)
        stack.extend(a for a in n.args if isinstance(a, Node))
    found.sort(key=lambda n: n.serial)  # a node is always made after its operands
    return found


def ref(a: Node | Number, names: Mapping[int, str]) -> str:
    """How an operand is written."""
    if not isinstance(a, Node):
        return repr(a)
    return names.get(id(a)) or a.name or f"%{a.serial}"


def to_text(g: Graph) -> str:
    """The graph's text; `core.graph_text.parse` reads it back."""
    names = {id(n): n.name for n in g.inputs}
    head = ", ".join(f"{n.name}: {n.type}" for n in g.inputs)
    lines = [f"graph ({head}) {{"]
    for i, n in enumerate(g.nodes()):
        names[id(n)] = f"%{i}"
        args = ", ".join(ref(a, names) for a in n.args)
        line = g.lines.get(n.serial)
        lines.append(f"  %{i}: {n.type} = {n.op}({args})" + (f"  # {line}" if line else ""))
    outs = ", ".join(f"{k}={ref(v, names)}" for k, v in g.outputs.items())
    return "\n".join([*lines, f"  return {outs}", "}"])


def verify(g: Graph) -> None:
    """ValueError unless every node's type is what its op infers and every input is declared."""
    declared = {id(n) for n in g.inputs}
    for n in postorder([*g.outputs.values(), *g.effects]):
        if n.op is None:
            if id(n) not in declared:
                raise ValueError(f"graph: input {n.name!r} is used but not declared")
            continue
        inferred = infer(n.op, n.args)
        if inferred != n.type:
            raise ValueError(f"graph: {n!r} should have type {inferred}")


def transform(g: Graph, rule: Callable[[Builder, Node, tuple], Node | Number]) -> Graph:
    """The graph rebuilt: `rule(builder, node, new_args)` gives each op node's replacement."""
    b = Builder()
    new: dict[int, Any] = {}
    for n in g.inputs:
        new[id(n)] = b.input(n.name, n.type)
    lines = {}
    for n in g.nodes():
        args = tuple(new[id(a)] if isinstance(a, Node) else a for a in n.args)
        made = new[id(n)] = rule(b, n, args)
        if n.serial in g.lines and isinstance(made, Node):
            lines.setdefault(made.serial, g.lines[n.serial])
    return Graph(
        [new[id(n)] for n in g.inputs],
        {k: new[id(v)] for k, v in g.outputs.items()},
        lines,
        [new[id(n)] for n in g.effects],
    )


def meaning(op: Op, operands: Sequence[Any]) -> np.ndarray:
    """What `op` gives by its oracle; a Python number has the dtype of the first array."""
    if op.oracle is None:
        raise TypeError(f"{op} has no oracle: it is what its body is")
    first = next((a.dtype for a in operands if isinstance(a, np.ndarray)), None)
    with np.errstate(all="ignore"):
        arrays = [a if isinstance(a, np.ndarray) else np.asarray(a, first) for a in operands]
        return np.asarray(op.oracle(*arrays))
