"""Symbolic dims by comparison: two traces that differ only in a size give one graph for any size.

Where the traces at sizes p and q hold ints u and v that differ, the int is scale * n + shift with
scale = (v - u) / (q - p).  A third trace at another size must agree with the formula.  `bind`
puts a size in again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from weft.core.graph import Builder, Graph, Node
from weft.core.op import Op
from weft.core.types import Dim, Type


class NotUniform(ValueError):
    """The traces are not one program at two sizes."""


def generalise(first: Graph, second: Graph, p: int, q: int, name: str = "b") -> Graph:
    """The graph of which `first` is the case name=p and `second` the case name=q."""
    if len(first.nodes()) != len(second.nodes()):
        raise NotUniform(f"{len(first.nodes())} ops at {name}={p}, {len(second.nodes())} at {q}")
    new: dict[int, Node] = {}
    pair = _Pair(p, q, name)
    inputs = []
    for a, b in zip(first.inputs, second.inputs, strict=True):
        made = Node(None, (), pair.type(a.type, b.type), a.name, a.serial)
        inputs.append(made)
        new[id(a)] = made
    for a, b in zip(first.nodes(), second.nodes(), strict=True):
        if type(a.op) is not type(b.op) or len(a.args) != len(b.args):
            raise NotUniform(f"{a.op} at {name}={p} is {b.op} at {name}={q}")
        args = tuple(
            new[id(x)] if isinstance(x, Node) else pair.number(x, y, a.op)
            for x, y in zip(a.args, b.args, strict=True)
        )
        new[id(a)] = Node(pair.op(a.op, b.op), args, pair.type(a.type, b.type), "", a.serial)
    outputs = {k: new[id(v)] for k, v in first.outputs.items()}
    return Graph(inputs, outputs, dict(first.lines))


class _Pair:
    """Two values of one thing, at sizes p and q."""

    def __init__(self, p: int, q: int, name: str) -> None:
        self.p, self.q, self.name = p, q, name

    def value(self, u: Any, v: Any, where: str) -> Any:
        if type(u) is not type(v):
            raise NotUniform(f"{where}: {u!r} and {v!r}")
        if u == v:
            return u
        if isinstance(u, tuple) and len(u) == len(v):
            return tuple(self.value(x, y, where) for x, y in zip(u, v, strict=True))
        if isinstance(u, int) and not isinstance(u, bool):
            scale, rest = divmod(v - u, self.q - self.p)
            if rest == 0:
                return Dim(self.name, scale, u - scale * self.p)
        raise NotUniform(f"{where}: {u!r} at {self.name}={self.p}, {v!r} at {self.name}={self.q}")

    def type(self, a: Type, b: Type) -> Type:
        if a.dtype is not b.dtype:
            raise NotUniform(f"{a} and {b}")
        return Type(self.value(tuple(a.shape), tuple(b.shape), "a shape"), a.dtype)

    def op(self, a: Op | None, b: Op | None) -> Op | None:
        if a is b or a is None:
            return a
        values = [
            self.value(getattr(a, f.name), getattr(b, f.name), f"{a.name}.{f.name}")
            for f in fields(a)
        ]
        return type(a)(*values)

    def number(self, x: Any, y: Any, op: Op | None) -> Any:
        if x != y or type(x) is not type(y):
            # a mean over the batch: n * scale as a float operand
            raise NotUniform(f"{op}: the operand {x!r} is {y!r} at {self.name}={self.q}")
        return x


def bind(
    g: Graph, sizes: dict[str, int], op_of: Callable[[Op, dict[str, int]], Op] | None = None
) -> Graph:
    """The graph at given sizes, its types inferred anew; `op_of` in place of `with_sizes`.

    KeyError names a size that is missing; ValueError a type that is not what the graph says.
    """
    b, op_of = Builder(), op_of or with_sizes
    new: dict[int, Any] = {}
    inputs = []
    for n in g.inputs:
        made = b.input(n.name, Type(_fill(tuple(n.type.shape), sizes), n.type.dtype))
        inputs.append(made)
        new[id(n)] = made
    lines = {}
    for n in g.nodes():
        assert n.op is not None
        args = [new[id(a)] if isinstance(a, Node) else a for a in n.args]
        made = new[id(n)] = b.node(op_of(n.op, sizes), *args)
        told = Type(_fill(tuple(n.type.shape), sizes), n.type.dtype)
        if made.type != told:
            raise ValueError(f"{made.op} gives {made.type}, and the graph says {told}")
        if n.serial in g.lines:
            lines[made.serial] = g.lines[n.serial]
    return Graph(inputs, {k: new[id(v)] for k, v in g.outputs.items()}, lines)


def with_sizes(op: Op, sizes: dict[str, int]) -> Op:
    """The op with sizes put in for its symbols."""
    return type(op)(*(_fill(getattr(op, f.name), sizes) for f in fields(op)))


def _fill(v: Any, sizes: dict[str, int]) -> Any:
    if isinstance(v, Dim):
        return v.at(sizes[v.name])
    return tuple(_fill(x, sizes) for x in v) if isinstance(v, tuple) else v


def symbols(g: Graph) -> list[str]:
    """The names of the graph's symbolic dims."""
    found = {d.name for n in g.inputs for d in n.type.shape if isinstance(d, Dim)}
    return sorted(found)


def sizes_of(g: Graph, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """The symbols' values for inputs of these shapes; ValueError where a shape does not fit."""
    sizes: dict[str, int] = {}
    for n in g.inputs:
        if n.name not in shapes:
            continue
        want, have = tuple(n.type.shape), tuple(shapes[n.name])
        if len(want) != len(have):
            raise ValueError(f"input {n.name!r} has shape {list(have)}, wanted {n.type}")
        for w, h in zip(want, have, strict=True):
            if isinstance(w, Dim):
                size, rest = divmod(h - w.shift, w.scale)
                if rest or sizes.setdefault(w.name, size) != size:
                    raise ValueError(f"input {n.name!r} has shape {list(have)}, wanted {n.type}")
            elif w != h:
                raise ValueError(f"input {n.name!r} has shape {list(have)}, wanted {n.type}")
    return sizes
