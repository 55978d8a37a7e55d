"""Writing ONNX nodes: names, constants, sizes computed from the inputs' shapes.

An elementwise op is written row by row of its scalar expression, so it needs no rule of its own.
Where ONNX lacks a row it is composed so that it stays accurate (expm1 and log1p near 0); rows that
cannot be are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core import scalar as S
from weft.core.onnx_rules import Emitter, NoRule
from weft.core.scalar import Expr
from weft.core.types import Dim, Type

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
        return emit(self, expr, ins)

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


def onnx_package() -> Any:
    """The `onnx` module.  ImportError says how to install it."""
    try:
        import onnx
    except ImportError:
        raise ImportError('ONNX needs the onnx package: pip install "weft[onnx]"') from None
    return onnx


def onnxruntime_or_none() -> Any:
    """The `onnxruntime` module where it is installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    return onnxruntime


_DIRECT = {
    "neg": "Neg", "abs": "Abs", "sign": "Sign", "floor": "Floor", "ceil": "Ceil",
    "round": "Round", "sqrt": "Sqrt", "exp": "Exp", "log": "Log", "sin": "Sin", "cos": "Cos",
    "tan": "Tan", "tanh": "Tanh", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh",
    "cosh": "Cosh", "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "erf": "Erf",
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "min": "Min",
    "max": "Max", "eq": "Equal",
}  # fmt: skip
_ORDER = {"lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}
_BITS = {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}


def emit(e: Emitter, root: S.Expr, ins: Sequence[str]) -> str:
    """The expression on operands `ins`.  NoRule names a row that ONNX lacks."""
    done: dict[int, str] = {}
    for n in S.postorder((root,)):
        xs = [done[id(a)] for a in n.args]
        if isinstance(n, S.Const):
            y = e.const(n.value, n.dtype.np)
        elif isinstance(n, S.Arg):
            y = ins[n.index]
        elif isinstance(n, S.Select):
            y = widened(e, "Where", n.dtype, xs, [a.dtype for a in n.args])
        elif isinstance(n, S.Cast):
            y = e.node("Cast", xs[0], to=n.dtype.np)
        elif isinstance(n, S.Scalar):
            y = _row(e, n, xs)
        else:
            raise NoRule(f"{n!r} has no ONNX form")
        done[id(n)] = y
    return done[id(root)]


_NARROW = (dt.int8, dt.int16, dt.uint8)
_LACK = {"Where": (*_NARROW, dt.bool), "Equal": (dt.int16,)}  # onnxruntime 1.23; others: _NARROW


def widened(
    e: Emitter, name: str, out: dt.dtype, ins: Sequence[str], types: Sequence[dt.dtype],
    **attrs: Any,
) -> str:  # fmt: skip
    """The node, computed in int32 where it lacks the dtype: the last bits are the same."""
    lack = _LACK.get(name, _NARROW)
    if types[-1] not in lack:
        return e.node(name, *ins, **attrs)
    wide = np.dtype(np.int32)
    xs = [
        e.node("Cast", x, to=wide) if d in lack and (d is not dt.bool or i) else x
        for i, (x, d) in enumerate(zip(ins, types, strict=True))
    ]
    return e.node("Cast", e.node(name, *xs, **attrs), to=out.np)


def _row(e: Emitter, n: S.Scalar, xs: list[str]) -> str:
    d = n.operands[0].dtype
    if n.name in _DIRECT:
        return widened(e, _DIRECT[n.name], n.dtype, xs, [a.dtype for a in n.operands])
    if n.name == "ne":
        return e.node("Not", e.node("Equal", *xs))
    if n.name in _ORDER:
        if d is dt.bool:
            xs = [e.node("Cast", x, to=np.dtype(np.int32)) for x in xs]
        return e.node(_ORDER[n.name], *xs)
    if n.name in _BITS:
        if d is not dt.bool and e.opset < 18:
            raise NoRule("bits of integers need opset 18")
        return e.node(("" if d is dt.bool else "Bitwise") + _BITS[n.name], *xs)
    made = _MADE.get(n.name)
    if made is None:
        raise NoRule(f"the scalar function {n.name!r} has no ONNX form")
    return made(e, d, *xs)


def _one(e: Emitter, d: dt.dtype, v: float) -> str:
    return e.const(v, d.np)


def _trunc(e: Emitter, d: dt.dtype, x: str) -> str:
    low = e.node("Less", x, _one(e, d, 0))
    return e.node("Where", low, e.node("Ceil", x), e.node("Floor", x))


def _expm1(e: Emitter, d: dt.dtype, x: str) -> str:
    """(u - 1) x / log u, u = exp x, where |x| < 1: there the error of u cancels (Kahan)."""
    u, one = e.node("Exp", x), _one(e, d, 1)
    less = e.node("Sub", u, one)
    near = e.node("Mul", less, e.node("Div", x, e.node("Log", u)))
    near = e.node("Where", e.node("Equal", u, one), x, near)
    return e.node("Where", e.node("Less", e.node("Abs", x), one), near, less)


def _log1p(e: Emitter, d: dt.dtype, x: str) -> str:
    """x log u / (u - 1), u = 1 + x, where |x| < 1: there the error of u cancels (Kahan)."""
    one = _one(e, d, 1)
    u = e.node("Add", x, one)
    far, less = e.node("Log", u), e.node("Sub", u, one)
    near = e.node("Mul", far, e.node("Div", x, less))
    near = e.node("Where", e.node("Equal", u, one), x, near)
    small = e.node("Less", e.node("Abs", x), one)
    return e.node("Where", small, near, far)


def _remainder(e: Emitter, d: dt.dtype, x: str, y: str) -> str:
    """fmod, moved by y where its sign is not y's; of ints ONNX's Mod itself."""
    if not d.is_floating_point:
        return e.node("Mod", x, y)
    r, zero = e.node("Mod", x, y, fmod=1), _one(e, d, 0)
    other = e.node("Xor", e.node("Less", r, zero), e.node("Less", y, zero))
    wrong = e.node("And", other, e.node("Not", e.node("Equal", r, zero)))
    return e.node("Where", wrong, e.node("Add", r, y), r)


def _floor_divide(e: Emitter, d: dt.dtype, x: str, y: str) -> str:
    q = e.node("Div", e.node("Sub", x, _remainder(e, d, x, y)), y)
    return e.node("Round", q) if d.is_floating_point else q


def _atan2(e: Emitter, d: dt.dtype, y: str, x: str) -> str:
    """atan(y / x), half a turn further left of 0; the signs of zeros are not told apart."""
    zero = _one(e, d, 0)
    base = e.node("Atan", e.node("Div", y, x))
    turn = e.node("Where", e.node("Less", y, zero), _one(e, d, -math.pi), _one(e, d, math.pi))
    angle = e.node("Where", e.node("Less", x, zero), e.node("Add", base, turn), base)
    none = e.node("And", e.node("Equal", x, zero), e.node("Equal", y, zero))
    return e.node("Where", none, zero, angle)


def _area(e: Emitter, d: dt.dtype, x: str) -> str:
    inner = e.node("Mul", x, _one(e, d, math.sqrt(0.5)))
    return e.node("Mul", e.node("Erf", inner), _one(e, d, 0.5))


def _lift(e: Emitter, d: dt.dtype, x: str) -> str:
    power = e.node("Exp", e.node("Mul", e.node("Mul", x, x), _one(e, d, -0.5)))
    density = e.node("Mul", power, _one(e, d, 1 / math.sqrt(2 * math.pi)))
    return e.node("Add", _area(e, d, x), e.node("Mul", x, density))


_MADE: dict[str, Callable[..., Any]] = {
    "trunc": _trunc,
    "expm1": _expm1,
    "log1p": _log1p,
    "rem": _remainder,
    "floordiv": _floor_divide,
    "atan2": _atan2,
    "rsqrt": lambda e, d, x: e.node("Reciprocal", e.node("Sqrt", x)),
    "exp2": lambda e, d, x: e.node("Pow", _one(e, d, 2), x),
    "log2": lambda e, d, x: e.node("Mul", e.node("Log", x), _one(e, d, 1 / math.log(2))),
    "log10": lambda e, d, x: e.node("Mul", e.node("Log", x), _one(e, d, 1 / math.log(10))),
    "erfc": lambda e, d, x: e.node("Sub", _one(e, d, 1), e.node("Erf", x)),
    "area": _area,
    "lift": _lift,
    "fmod": lambda e, d, x, y: e.node("Mod", x, y, fmod=1),
    "fma": lambda e, d, a, b, c: e.node("Add", e.node("Mul", a, b), c),
}
