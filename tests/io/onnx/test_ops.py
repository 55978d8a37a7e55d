"""Every op of the registry in ONNX: its samples run in onnxruntime give what the oracle says."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest

from tests.core.graph_interp import interpret
from weft import ops
from weft.compile.passes.decompose import decompose
from weft.core import dtype as dt
from weft.core import sampling
from weft.core.graph import Builder, Graph, Node
from weft.core.op import REGISTRY
from weft.core.types import Type
from weft.ops.kinds import Elementwise

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from weft.io.onnx import to_model  # noqa: E402

for _room in pkgutil.iter_modules(ops.__path__):
    importlib.import_module(f"weft.ops.{_room.name}")

# What the forward pass of a model may hold, elementwise ops aside: all of these must have a form.
FORWARD = {
    "AMax", "AMin", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "All_", "Any_", "Arange", "ArgMax",
    "ArgMin", "ArgSort", "AsStrided", "Attention", "AvgPool2d", "BatchNormEval", "Cast", "Clone",
    "Concat", "Conv2d", "Conv2dInput", "CumSum", "Diagonal", "Embedding", "Expand", "Eye", "Flip",
    "Full", "Gather", "ImageToColumns", "Index", "IndexPut", "LayerNorm", "Linear", "LogSoftmax",
    "MatMul", "MaxPool2d", "MaxPool2dPlaces", "Norm", "Pad", "Permute", "PickClass", "Prod",
    "Reshape", "Resize", "RmsNorm", "Scatter", "ScatterReduce", "Select", "Slice", "SliceBack",
    "Softmax", "Sum", "Unfold", "VectorNorm", "WriteStrided",
}  # fmt: skip
# Elementwise, and ONNX has nothing that they could be made of; Slope is a gradient, Conj complex.
NO_ROW = {"Conj", "Digamma", "Erfinv", "Lgamma", "Nextafter", "ShiftLeft", "ShiftRight", "Slope"}


def _graph(name: str, index: int) -> tuple[Graph, dict[str, np.ndarray]]:
    op = sampling.op_of(name, index)
    b = Builder()
    inputs, args, values = [], [], {}
    for i, a in enumerate(sampling.draw(name, index)):
        if isinstance(a, np.ndarray):
            node = b.input(f"x{i}", Type(a.shape, dt.from_np(a.dtype)))
            inputs.append(node)
            values[node.name] = a
            args.append(node)
        else:
            args.append(a)
    return Graph(inputs, {"y": b.node(op, *args)}), values


def _has_form(name: str) -> bool:
    try:
        to_model(_graph(name, 0)[0], opset=20)
    except ValueError:
        return False
    return True


WITH_FORM = {name for name in REGISTRY if _has_form(name)}


@pytest.mark.parametrize(("name", "index"), [c for c in sampling.cases() if c[0] in WITH_FORM])
def test_sample(name: str, index: int) -> None:
    graph, values = _graph(name, index)
    dtypes = {n.type.dtype for n in (*graph.inputs, *graph.outputs.values())}
    if any(d.is_complex for d in dtypes):
        with pytest.raises(ValueError, match="complex"):
            to_model(graph, opset=18)
        return
    model = to_model(graph, opset=20 if name == "Gelu" else 18).model
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options)
    except Exception as e:
        if "NOT_IMPLEMENTED" in str(e) or "NotImplemented" in type(e).__name__:
            pytest.skip(f"onnxruntime has no kernel: {str(e)[-120:]}")
        raise
    node = graph.outputs["y"]
    if node.type.dtype is dt.bfloat16 or any(v.dtype == dt.bfloat16.np for v in values.values()):
        return  # loads, but onnxruntime hands no bfloat16 to NumPy
    (got,) = session.run(None, values)
    assert isinstance(node, Node) and node.op is not None
    want = interpret(decompose(graph, lambda op: op.oracle is None), values)["y"]
    assert got.shape == tuple(node.type.shape)
    assert got.dtype == node.type.dtype.np or got.dtype.itemsize == 2
    if node.type.dtype.category != dt.FLOAT:
        np.testing.assert_array_equal(got, want)
        return
    loose = node.type.dtype.itemsize == 2
    tolerance = 2e-2 if loose else 2e-5
    np.testing.assert_allclose(
        got.astype(np.float64), want.astype(np.float64), rtol=tolerance, atol=tolerance
    )


def test_every_op_of_a_forward_pass_has_a_form() -> None:
    assert set() == FORWARD - WITH_FORM
    elementwise = {k for k, c in REGISTRY.items() if issubclass(c, Elementwise)}
    assert elementwise - WITH_FORM - NO_ROW == set()
