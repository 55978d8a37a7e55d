"""Export: the graph of a model file as an ONNX model, and the proof of it.

Weights are initializers under their state_dict names; symbolic sizes are dim_params; each node's
doc_string is the op and the user's source line.  An op is written by its own rule (core/op.py:
Onnx), an elementwise one also by its scalar expression, any other by its body.

The proof: recorded inputs run through the ONNX file (in onnxruntime where installed, else in ONNX's
own reference in NumPy), answers compared with eager's.  On a failure the values of every node are
compared, and the first that differs is named with the user's line.
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
from weft.io import container, report
from weft.io.container import BadFile
from weft.io.onnx.emit import (
    Emit,
    element_type,
    onnx_package,
    onnxruntime_or_none,
    tensor,
    widened,
)
from weft.io.report import Report
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
            return widened(self.e, rule.name, n.type.dtype, ins, [t.dtype for t in types], **attrs)
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


def verify(
    model_file: Any,
    path: str | os.PathLike,
    rtol: float = 1e-3,
    atol: float = 1e-4,
    *,
    runtime: str | None = None,
    keep: bool = False,
) -> Report:
    """Replay the file's records on the ONNX model at `path`.

    Another runtime sums in another order, so the bound is atol + rtol |answer|.
    runtime  "onnxruntime", "reference", or None: the first that is installed
    keep     put the report into the model file's metadata (``ModelFile.write` writes it)
    BadFile: the file is no ONNX model.  ImportError without the onnx package.
    """
    onnx = onnx_package()
    try:
        model = onnx.load(os.fspath(path))
    except FileNotFoundError:
        raise
    except Exception as e:  # protobuf's own errors have no common base
        raise BadFile(f"{path}: not an ONNX model: {type(e).__name__}") from None
    if not model.graph.node:
        raise BadFile(f"{path}: not an ONNX model: it has no graph")
    run, version = _runner(model, runtime)
    found = Report(f"ONNX in {version}")
    if isinstance(run, str):  # the runtime lacks an operator, or refuses the model
        found.problems.append(run)
        return found
    for i, record in enumerate(model_file.records()):
        names = list(record["outputs"])
        try:
            got = dict(zip(names, run(names, record["inputs"]), strict=True))
        except Exception as e:  # each runtime raises classes of its own
            found.problems.append(f"record {i}: {type(e).__name__}: {e}")
            continue
        for name, want in record["outputs"].items():
            found.checks.append(report.compare(i, name, np.asarray(got[name]), want, rtol, atol))
        if not found.ok and found.first_difference is None:
            found.first_difference = _first(model_file, model, record, runtime, rtol, atol)
    if keep:
        model_file.keep_report("onnx", found)
    return found


def _runner(model: Any, runtime: str | None) -> tuple[Any, str]:
    """(run(output names, inputs) -> arrays, or why not; the runtime's name and version)."""
    if runtime not in (None, "onnxruntime", "reference"):
        raise ValueError(f'verify: runtime is "onnxruntime" or "reference", got {runtime!r}')
    ort = None if runtime == "reference" else onnxruntime_or_none()
    if ort is None and runtime == "onnxruntime":
        raise ImportError('onnxruntime is not installed: pip install "weft[onnx]"')
    if ort is not None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        version = f"onnxruntime {ort.__version__}"
        try:
            session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:  # each kind of refusal has a class of its own
            if runtime is None and "NOT_IMPLEMENTED" in str(e):  # bfloat16, some of float64
                run, instead = _runner(model, "reference")
                return run, f"{instead} ({version} has no kernel for some node)"
            return str(e), version
        return session.run, version
    onnx = onnx_package()
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run, f"onnx.reference {onnx.__version__}"


def _first(
    model_file: Any, model: Any, record: Mapping, runtime: str | None, rtol: float, atol: float
) -> str | None:
    """The weight that differs, or the first op whose value in the other runtime does."""
    onnx = onnx_package()
    for t in model.graph.initializer:
        if model_file.is_weight(t.name):
            have = onnx.numpy_helper.to_array(t)
            if have.tobytes() != np.ascontiguousarray(model_file.weight(t.name)).tobytes():
                return f"none before the weight {t.name!r}, which is not the model file's"
    opset = next(o.version for o in model.opset_import if not o.domain)
    exported = to_model(model_file, opset)
    made = {name for p in model.graph.node for name in p.output}
    nodes = [n for n in exported.graph.nodes() if exported.values.get(n.serial) in made]
    wanted = list(dict.fromkeys(exported.values[n.serial] for n in nodes))
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    shown = {o.name for o in model.graph.output}
    for name in wanted:
        if name not in shown:
            open_model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    run, _ = _runner(open_model, runtime)
    if isinstance(run, str):
        return None
    theirs = dict(zip(wanted, run(wanted, record["inputs"]), strict=True))
    ours = report.every_value(model_file, exported.graph, record["inputs"])
    for n in nodes:
        got = np.asarray(theirs[exported.values[n.serial]])
        check = report.compare(0, str(n.op), got, ours[n.serial], rtol, atol)
        if not check.ok:
            return report.where(n, exported.graph, check)
    return None
