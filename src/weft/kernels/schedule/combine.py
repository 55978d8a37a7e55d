"""What a reduction combines: accumulator dtypes, identities, and the step of each kind."""

from __future__ import annotations

import math

from weft.core import dtype as D
from weft.core.dtype import dtype
from weft.kernels.target.element import Element, register
from weft.kernels.target.llvm import Function, Value, const, vector

KINDS = ("sum", "prod", "max", "min", "argmax", "argmin", "any", "all")


def accumulator(kind: str, d: dtype) -> dtype:
    """The dtype in which `kind` of elements of dtype `d` is accumulated."""
    if kind in ("any", "all"):
        return D.uint8
    if d in (D.float16, D.bfloat16):
        return D.float32
    if d.category == D.FLOAT:
        return d
    if kind in ("sum", "prod"):
        return D.int64
    return D.uint8 if d is D.bool else d


def identity(kind: str, d: dtype) -> int | float:
    """What a lane starts from."""
    if kind in ("sum", "any"):
        return 0
    if kind in ("prod", "all"):
        return 1
    low = kind in ("max", "argmax")
    if d.category == D.FLOAT:
        return -math.inf if low else math.inf
    bits = d.itemsize * 8
    if not d.is_signed:
        return 0 if low else (1 << bits) - 1
    return -(1 << (bits - 1)) if low else (1 << (bits - 1)) - 1


ROW = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "max", "all": "min"}


Acc = list[Value]


class Combine:
    """The operation: `count` accumulator registers side by side, or (value, index) for argmax and
    argmin."""

    def __init__(self, f: Function, kind: str, acc: dtype, count: int = 1) -> None:
        self.f, self.kind, self.acc, self.count = f, kind, acc, count
        self.arg = kind in ("argmax", "argmin")

    def types(self, lanes: int) -> list[str]:
        one = [vector(lanes, register(self.acc))]
        return [*one, vector(lanes, "i64")] if self.arg else one * self.count

    def start(self, lanes: int) -> Acc:
        first = Element(self.f, lanes).const(self.acc, identity(self.kind, self.acc))
        if not self.arg:
            return [first] * self.count
        return [first, const(vector(lanes, "i64"), (1 << 63) - 1)]

    def step(self, a: Acc, b: Acc, lanes: int) -> Acc:
        """a combined with b, a being the earlier one."""
        if not self.arg:
            element = Element(self.f, lanes)
            return [
                element.scalar(ROW[self.kind], self.acc, v, w) for v, w in zip(a, b, strict=True)
            ]
        f = self.f
        (v, i), (w, j) = a, b
        more = "gt" if self.kind == "argmax" else "lt"
        element = Element(f, lanes)
        better = element.scalar(more, self.acc, w, v)
        same = element.scalar("eq", self.acc, w, v)
        if self.acc.category == D.FLOAT:
            v_nan, w_nan = f.fcmp("uno", v, v), f.fcmp("uno", w, w)
            not_v = f.op("xor", v_nan, const(v_nan.type, True))
            better = f.op("or", f.op("and", better, not_v), f.op("and", w_nan, not_v))
            same = f.op("or", same, f.op("and", v_nan, w_nan))
        better = f.op("or", better, f.op("and", same, f.icmp("slt", j, i)))
        return [f.select(better, w, v), f.select(better, j, i)]

    def results(self, a: Acc) -> Acc:
        return a[1:] if self.arg else a
