"""Export: the graph of a model file as an ONNX model.

Weights are initializers under their state_dict names; symbolic sizes are dim_params; each node's
doc_string is the op and the user's source line.  An op is written by its own rule (core/op.py:
Onnx), an elementwise one also by its scalar expression, any other by its body.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weft._version import __version__
from weft.compile.passes.decompose import decompose
from weft.compile.symbolic import bind, generalise, symbols
from weft.core import dtype as dt
from weft.core.graph import Graph, Node
from weft.core.onnx_rules import NoRule
from weft.core.op import Onnx, Op
from weft.core.types import Dim, Type
from weft.io import container
from weft.io.onnx.emit import Emit, element_type, onnx_package, tensor
from weft.ops.kinds import Elementwise

OLDEST = 17  # LayerNormalization
_LARGEST = 1 << 31  # bytes of one protobuf message


@dataclass
class Exported:
    """An ONNX model, the graph it was written from, and the name of each node's value in it."""

    model: Any
    graph: Graph
    values: dict[int, str]  # node serial -> ONNX value


def export(
    model: Any,
    path: str | os.PathLike,
    opset: int = 18,
    *,
    weights: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a ModelFile (or a Graph and its weights by input name) to `path` as ONNX, atomically.

    ImportError without the onnx package.  ValueError: an op that has no ONNX form (named with the
    user's line), or an opset outside 17 .. what the package knows.
    """
    made = to_model(model, opset, weights=weights).model
    onnx = onnx_package()
    onnx.checker.check_model(made, full_check=True)
    container.replace(path, made.SerializeToString())


def to_model(
    model: Any, opset: int = 18, *, weights: Mapping[str, np.ndarray] | None = None
) -> Exported:
    """The ONNX model in memory; see `export`."""
    onnx = onnx_package()
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST <= opset <= newest:
        raise ValueError(f"export: opset {opset} is outside {OLDEST} .. {newest}")
    if isinstance(model, Graph):
        graph, held, title = model, dict(weights or {}), "weft"
    else:
        graph, title = model.graph(), Path(model.path).stem or "weft"
        held = {n.name: model.weight(n.name) for n in graph.inputs if model.is_weight(n.name)}
    size = sum(a.nbytes for a in held.values())
    if size >= _LARGEST:
        raise ValueError(f"export: {size} bytes of weights; one ONNX file holds less than 2 GiB")
    return _Exporter(lowered(graph, opset), held, opset, title).run()


def lowered(g: Graph, opset: int) -> Graph:
    """The graph with the ops that ONNX lacks replaced by their bodies."""

    def lacks(op: Op) -> bool:
        return op.body is not None and _rule(op, opset) is None

    if not any(lacks(n.op) for n in g.nodes()):  # type: ignore[arg-type]
        return g
    names = symbols(g)
    if not names:
        return decompose(g, lacks)
    # bodies compute with sizes: they run at two sizes, and the two results become one graph
    if len(names) > 1:
        raise ValueError(f"export: {len(names)} symbolic sizes ({', '.join(names)}), one at most")
    two, three = (decompose(bind(g, {names[0]: n}), lacks) for n in (2, 3))
    return generalise(two, three, 2, 3, names[0])


def _rule(op: Op, opset: int) -> Onnx | None:
    rule = op.onnx
    return rule if rule is not None and rule.since <= opset else None


class _Exporter:
    def __init__(
        self, graph: Graph, weights: Mapping[str, np.ndarray], opset: int, title: str
    ) -> None:
        self.graph = graph
        self.weights = weights
        self.opset = opset
        self.title = title
        self.given = [n for n in graph.inputs if n.name not in weights]
        taken = [n.name for n in graph.inputs] + list(graph.outputs)
        self.e = Emit(opset, {n.name: n.type for n in self.given}, taken)
        self.env: dict[int, str] = {id(n): n.name for n in graph.inputs}

    def run(self) -> Exported:
        values = {}
        for i, n in enumerate(self.graph.nodes()):
            self._node(i, n)
            values[n.serial] = self.env[id(n)]
        for key, n in self.graph.outputs.items():
            self._output(key, n)
        return Exported(self._model(), self.graph, values)

    def _node(self, i: int, n: Node) -> None:
        assert n.op is not None
        line = self.graph.lines.get(n.serial, "")
        e = self.e
        label = e.name(f"{n.op.name.lower()}_{i}")
        e.prefix, e.doc = label, f"{n.op}{f'  # {line}' if line else ''}"
        start = len(e.protos)
        try:
            made = self._emit(n)
        except NoRule as problem:
            at = f" at {line}" if line else ""
            raise ValueError(f"export: {n.op}{at} cannot be written as ONNX: {problem}") from None
        self.env[id(n)] = label if _rename(e.protos[start:], made, label) else made

    def _emit(self, n: Node) -> str:
        op = n.op
        assert op is not None
        first = next((a.type.dtype for a in n.args if isinstance(a, Node)), dt.float32)
        ins = [
            self.env[id(a)] if isinstance(a, Node) else self.e.const(a, first.np) for a in n.args
        ]
        types = [a.type if isinstance(a, Node) else Type((), first) for a in n.args]
        rule = _rule(op, self.opset)
        if rule is not None and rule.build is not None:
            return rule.build(self.e, op, ins, types, n.type)
        if rule is not None:
            attrs = {onnx_name: _plain(getattr(op, ours)) for ours, onnx_name in rule.rename}
            return self.e.node(rule.name, *ins, **attrs)
        if isinstance(op, Elementwise):
            return self.e.scalar(op.expr(*(t.dtype for t in types)), ins)
        raise NoRule("the op has no rule")

    def _output(self, key: str, n: Node) -> None:
        """Outputs have names of their own, whatever value they are."""
        self.e.prefix, self.e.doc = key, ""
        copy = self.e.node("Identity", self.env[id(n)])
        _rename(self.e.protos[-1:], copy, key)

    def _model(self) -> Any:
        onnx = onnx_package()
        helper = onnx.helper
        used = {name for p in self.e.protos for name in p.input}
        initializers = [tensor(k, a) for k, a in self.weights.items() if k in used]
        initializers += [t for k, t in self.e.initializers.items() if k in used]
        graph = helper.make_graph(
            self.e.protos,
            self.title,
            [_value(n.name, n.type) for n in self.given],
            [_value(k, n.type) for k, n in self.graph.outputs.items()],
            initializers,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),
            producer_name="weft",
            producer_version=__version__,
        )


def _rename(protos: list[Any], old: str, new: str) -> bool:
    """Call a value that these nodes make `new`; False when none of them makes it."""
    if not any(old in p.output for p in protos):
        return False
    for p in protos:
        for names in (p.input, p.output):
            for k, name in enumerate(names):
                if name == old:
                    names[k] = new
    return True


def _plain(v: Any) -> Any:
    if isinstance(v, tuple):
        return [_plain(x) for x in v]
    return int(v) if isinstance(v, bool) else v


def _value(name: str, t: Type) -> Any:
    """An input or output: sizes, a symbolic one by its text (b, 2*b)."""
    shape = [str(n) if isinstance(n, Dim) else n for n in t.shape]
    return onnx_package().helper.make_tensor_value_info(name, element_type(t.dtype), shape)
