"""Weighted sums and quotients in one pass: addcmul addcdiv lerp, the steps of optimizers.

Where torch's kernels round once (a fused multiply-add), so do these: optimizer steps then agree
with torch's bit for bit in float32.
"""

from __future__ import annotations

from typing import Any

from weft.core import dtype as dt
from weft.core import scalar as S
from weft.core.op import sample
from weft.ops.dispatch import dtype_of
from weft.ops.kinds import Elementwise
from weft.ops.promote import apply_widened, operands

__all__ = ["addcdiv", "addcmul", "lerp"]


class Addcmul(Elementwise):
    """y = a + (value * b) * c, the last product and the sum rounded once"""

    def scalar(self, a: S.Expr, b: S.Expr, c: S.Expr, value: S.Expr) -> S.Expr:
        if a.dtype.category != dt.FLOAT:
            return S.add(a, S.mul(S.mul(value, b), c))
        return S.fma(S.mul(value, b), c, a)

    def vjp(self, g: Any, y: Any, a: Any, b: Any, c: Any, value: Any) -> tuple:
        return g, lambda: g * c * value, lambda: g * b * value, None

    samples = (
        sample((3, 4), (3, 4), (3, 4), 0.5),
        sample((2, 3), (3,), (2, 1), -1.5),
        sample((0, 3), (3,), (3,), 1.0),
        sample((3, 4), (3, 4), (3, 4), 0.5, of="complex64"),
    )


class Addcdiv(Elementwise):
    """y = a + (value * b) / c"""

    def scalar(self, a: S.Expr, b: S.Expr, c: S.Expr, value: S.Expr) -> S.Expr:
        return S.add(a, S.div(S.mul(value, b), c))

    def vjp(self, g: Any, y: Any, a: Any, b: Any, c: Any, value: Any) -> tuple:
        # d(v b / c) = v db / c - (v b / c) dc / c
        return g, lambda: g * value / c, lambda: -(g * (b * value / c) / c), None

    samples = (
        sample((3, 4), (3, 4), (3, 4), 0.5, low=0.5),
        sample((2, 3), (3,), (2, 1), -1.5, low=0.5),
        sample((0, 3), (3,), (3,), 1.0),
        sample((3, 4), (3, 4), (3, 4), 0.5, of="complex64", low=0.5),
    )


class Lerp(Elementwise):
    """y = a + w (b - a) where |w| < 1/2, else b - (1 - w) (b - a): exact at both ends"""

    def scalar(self, a: S.Expr, b: S.Expr, w: S.Expr) -> S.Expr:
        d = S.sub(b, a)
        one, half = S.const(1.0, w.dtype), S.const(0.5, w.dtype)
        near_b = S.fma(S.neg(d), S.sub(one, w), b)
        return S.where(S.lt(S.abs(w), half), S.fma(w, d, a), near_b)

    def vjp(self, g: Any, y: Any, a: Any, b: Any, w: Any) -> tuple:
        return lambda: g * (1 - w), lambda: g * w, lambda: g * (b - a)

    samples = (
        sample((3, 4), (3, 4), 0.1),
        sample((3, 4), (3, 4), 0.9),
        sample((2, 3), (3,), (2, 1)),
        sample((0, 3), (3,), 0.5),
    )


def addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1, out: Any = None) -> Any:
    """y = input + value * tensor1 * tensor2, broadcast and promoted."""
    y = apply_widened(_ADDCMUL, operands("addcmul", input, tensor1, tensor2, value))
    return y if out is None else out.copy_result(y)


def addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1, out: Any = None) -> Any:
    """y = input + value * tensor1 / tensor2, broadcast; RuntimeError on integers."""
    if dtype_of(tensor1).category < dt.FLOAT and dtype_of(tensor2).category < dt.FLOAT:
        raise RuntimeError(
            "Integer division with addcdiv is no longer supported, and in a future release "
            "addcdiv will perform a true division of tensor1 and tensor2."
        )
    y = apply_widened(_ADDCDIV, operands("addcdiv", input, tensor1, tensor2, value))
    return y if out is None else out.copy_result(y)


def lerp(input: Any, end: Any, weight: Any, *, out: Any = None) -> Any:
    """y = input + weight * (end - input); the weight is a number or a tensor."""
    if dtype_of(input).is_complex:
        y = input + weight * (end - input)
        return y if out is None else out.copy_result(y)
    if not input.is_floating_point():
        raise RuntimeError(f'"lerp_kernel_scalar" not implemented for {input.dtype}')
    y = apply_widened(_LERP, operands("lerp", input, end, weight))
    return y if out is None else out.copy_result(y)


_ADDCMUL, _ADDCDIV, _LERP = Addcmul(), Addcdiv(), Lerp()
