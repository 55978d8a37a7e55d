"""From the graph of a file to a program: sizes put in, types inferred, safety checked, compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from weft.compile.passes.decompose import decompose
from weft.compile.program import Layout, Program
from weft.compile.symbolic import bind, sizes_of, with_sizes
from weft.core.graph import Builder, Graph
from weft.core.op import Op
from weft.io.check import Refused, check_sized, check_text
from weft.ops.contract import Product, is_fast_math
from weft.ops.conv import ConvOp
from weft.ops.creation import Clone


def sizes_for(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The graph's symbols for inputs of these shapes.  ValueError: a shape that does not fit."""
    sizes = sizes_of(graph, dict(shapes))
    if any(n < 0 for n in sizes.values()):
        raise ValueError(f"inputs of shapes {dict(shapes)} are too small for the model")
    return sizes


def sized(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """The graph at these sizes, of primitives only, safe to run.  Refused where it is not."""
    check_text(graph)
    try:
        bound = decompose(bind(graph, dict(sizes), _obeying))
    except MemoryError:
        raise
    except Exception as e:  # a type rule that meets what it was not made for may raise anything
        raise Refused(f"the graph does not fit sizes {dict(sizes)}: {e}") from None
    check_sized(bound)
    return bound


def _obeying(op: Op, sizes: dict[str, int]) -> Op:
    """What may be rounded in a file obeys the present `set_fast_math`, not its writer's."""
    op = with_sizes(op, sizes)
    return replace(op, fast=is_fast_math()) if isinstance(op, Product | ConvOp) else op


def compiled(bound: Graph) -> Program:
    """A program for contiguous inputs.  Refused: an op that no kernel serves."""
    own = _with_own_outputs(bound)
    layouts = {n.name: Layout.contiguous(n.type.shape, n.type.dtype.np) for n in own.inputs}
    try:
        return Program(own, layouts)
    except MemoryError:
        raise
    except Exception as e:  # planners meet dtypes and shapes that no function would give them
        raise Refused(f"the graph cannot be compiled: {type(e).__name__}: {e}") from None


def _with_own_outputs(g: Graph) -> Graph:
    """Every output as memory of its own: views, inputs, constants and repeats become copies."""
    b = Builder()
    b._count = max((n.serial for n in [*g.inputs, *g.nodes()]), default=0)  # operands come first
    taken: set[int] = set()
    outputs = {}
    for name, n in g.outputs.items():
        if n.op is None or n.op.is_view or not n.args:
            n = b.node(Clone(), n)
        while id(n) in taken:
            n = b.node(Clone(), n)
        taken.add(id(n))
        outputs[name] = n
    return Graph(g.inputs, outputs, g.lines)


def every_value(model_file: Any, graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[int, Any]:
    """Each node's value (by its serial) when the graph runs as a program on these inputs."""
    nodes = graph.nodes()
    exposed = Graph(graph.inputs, {f"v{n.serial}": n for n in nodes}, graph.lines)
    sizes = sizes_for(graph, {k: a.shape for k, a in inputs.items()})
    program = compiled(sized(exposed, sizes))
    weights = {n.name: model_file.weight(n.name) for n in graph.inputs if n.name not in inputs}
    ready = {k: np.ascontiguousarray(a) for k, a in inputs.items()}
    values = program.run({**weights, **ready})
    return {n.serial: values[f"v{n.serial}"] for n in nodes}
