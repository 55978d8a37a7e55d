"""Writing ONNX nodes: names, constants, and sizes computed from the inputs' shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.onnx_rules import NoRule
from weft.core.scalar import Expr
from weft.core.types import Dim, Type
from weft.io.onnx import scalars
from weft.io.onnx.package import onnx_package

# names in onnx.TensorProto
_ELEMENT = {
    dt.float64: "DOUBLE", dt.float32: "FLOAT", dt.float16: "FLOAT16", dt.bfloat16: "BFLOAT16",
    dt.int64: "INT64", dt.int32: "INT32", dt.int16: "INT16", dt.int8: "INT8", dt.uint8: "UINT8",
    dt.bool: "BOOL",
}  # fmt: skip


def element_type(d: dt.dtype) -> int:
    """The number of a dtype in onnx.TensorProto; ValueError: complex, which few ops there take."""
    if d.is_complex:
        raise ValueError(f"no ONNX export of complex numbers ({d.name})")
    return getattr(onnx_package().TensorProto, _ELEMENT[d])


def tensor(name: str, a: np.ndarray) -> Any:
    """An array as an onnx.TensorProto (its raw bytes, which ONNX keeps little-endian)."""
    made = onnx_package().TensorProto()
    made.name = name
    made.data_type = element_type(dt.from_np(a.dtype))
    made.dims.extend(a.shape)
    made.raw_data = np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<"), copy=False).tobytes()
    return made


class Emit:
    """Collects the nodes and initializers of one ONNX graph (core.onnx_rules.Emitter)."""

    def __init__(self, opset: int, inputs: Mapping[str, Type], taken: Sequence[str]) -> None:
        """`inputs`: those a caller gives, where symbolic sizes are read; `taken`: names in use."""
        self.opset = opset
        self.inputs = inputs
        self.protos: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.names = set(taken)
        self.prefix = ""
        self.doc = ""
        self._consts: dict[tuple, str] = {}
        self._sizes: dict[Dim, str] = {}
        self._helper = onnx_package().helper

    def name(self, wanted: str) -> str:
        """A name that nothing has yet."""
        made, i = wanted, 1
        while made in self.names:
            made, i = f"{wanted}.{i}", i + 1
        self.names.add(made)
        return made

    def node(self, name: str, *ins: str, **attrs: Any) -> str:
        """One node with one result, whose name is returned."""
        return self.nodes(name, 1, *ins, **attrs)[0]

    def nodes(self, name: str, count: int, *ins: str, **attrs: Any) -> list[str]:
        """One node; its results' names.  NumPy dtypes among the attributes become ONNX's."""
        outs = [self.name(f"{self.prefix}/{name}") for _ in range(count)]
        while ins and not ins[-1]:  # optional operands at the end are left out
            ins = ins[:-1]
        ready = {
            k: element_type(dt.from_np(np.dtype(v))) if isinstance(v, np.dtype | type) else v
            for k, v in attrs.items()
        }
        self.protos.append(
            self._helper.make_node(
                name, list(ins), outs, name=f"{outs[0]}:node", doc_string=self.doc, **ready
            )
        )
        return outs

    def scalar(self, expr: Expr, ins: Sequence[str]) -> str:
        """A scalar expression on operands `ins`, broadcast."""
        return scalars.emit(self, expr, ins)

    def const(self, value: Any, np_dtype: Any = None) -> str:
        """An array or number as an initializer; equal ones are shared."""
        a = np.asarray(value) if np_dtype is None else np.asarray(value).astype(np_dtype)
        key = (a.dtype, a.shape, a.tobytes())
        if key not in self._consts:
            name = self.name(f"const{len(self._consts)}")
            self.initializers[name] = tensor(name, a)
            self._consts[key] = name
        return self._consts[key]

    def dims(self, shape: Sequence[int | Dim]) -> str:
        """Sizes as a 1-d int64 tensor; symbolic ones are read off the inputs."""
        if not any(isinstance(n, Dim) for n in shape):
            return self.const(list(shape), np.int64)
        parts: list[str] = []
        run: list[int] = []
        for n in shape:
            if not isinstance(n, Dim):
                run.append(n)
                continue
            if run:
                parts.append(self.const(run, np.int64))
                run = []
            parts.append(self._size(n))
        if run:
            parts.append(self.const(run, np.int64))
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=0)

    def _size(self, n: Dim) -> str:
        """scale * symbol + shift, as a tensor of one element."""
        if n not in self._sizes:
            y = self._symbol(n.name)
            if n.scale != 1:
                y = self.node("Mul", y, self.const([n.scale], np.int64))
            if n.shift:
                y = self.node("Add", y, self.const([n.shift], np.int64))
            self._sizes[n] = y
        return self._sizes[n]

    def _symbol(self, name: str) -> str:
        plain = Dim(name)
        if plain in self._sizes:
            return self._sizes[plain]
        for key, t in self.inputs.items():
            for i, n in enumerate(t.shape):
                if isinstance(n, Dim) and n.name == name:
                    y = self.node("Shape", key, start=i, end=i + 1)
                    if n.shift:
                        y = self.node("Sub", y, self.const([n.shift], np.int64))
                    if n.scale != 1:
                        y = self.node("Div", y, self.const([n.scale], np.int64))
                    self._sizes[plain] = y
                    return y
        raise NoRule(f"the size {name!r} is no input's")
