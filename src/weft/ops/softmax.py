"""Softmax along a dim, its logarithm, and a differentiable choice drawn from it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core.op import Onnx, Op, sample
from weft.core.types import Type, need_floats, one_type, wrap_dim
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.ops.cast import cast
from weft.ops.creation import arange
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.reduce import AMax, Sum, argmax
from weft.ops.unary import exp, log
from weft.runtime.native import Launch

__all__ = ["log_softmax", "softmax"]

SAMPLES = (
    sample((3, 4)),
    sample((2, 3, 5), dim=1),
    sample((4, 0), dim=0),
    sample((5, 1), dim=1),
)


class RowOp(Op, abstract=True):
    """An op on lines along `dim`, each line for itself; halves compute in float32."""

    dim: int = -1

    def type(self, x: Type) -> Type:
        need_floats(self, x)
        return x

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        moved = x.movedim(dims[0], 0)
        own = wrap_dim(self.dim, moved.ndim - 1, self.name) + 1 if moved.ndim > 1 else -1
        if moved.ndim == 1:  # lines of a single element
            return apply(type(self)(1), moved.unsqueeze(1)).squeeze(1), 0
        return apply(type(self)(own), moved), 0

    def place(self, ndim: int) -> tuple[int, ...]:
        return (wrap_dim(self.dim, ndim, self.name),) if ndim else ()


class Softmax(RowOp):
    """y = exp(x - max x) / sum exp(x - max x) along `dim`"""

    def body(self, x: Any) -> Any:
        d = dtype_of(x)
        if d in (dt.float16, dt.bfloat16):
            return cast(self.body(cast(x, dt.float32)), d)
        along = self.place(len(shape_of(x)))
        z = exp(x - apply(AMax(along, True), x))
        return z / apply(Sum(along, True), z)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_softmax(ins[0], self.dim, out)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        if x.size == 0:
            return x.copy()
        axis = self.dim if x.ndim else None
        z = np.exp(x - x.max(axis, keepdims=True))
        return z / z.sum(axis, keepdims=True)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (_slope(g, y, self.place(x.ndim), log=False),)

    onnx = Onnx("Softmax", 13, build=onnx_rules.softmax("Softmax"))
    samples = SAMPLES


class LogSoftmax(RowOp):
    """y = x - max x - log(sum exp(x - max x)) along `dim`"""

    def body(self, x: Any) -> Any:
        d = dtype_of(x)
        if d in (dt.float16, dt.bfloat16):
            return cast(self.body(cast(x, dt.float32)), d)
        along = self.place(len(shape_of(x)))
        z = x - apply(AMax(along, True), x)
        return z - log(apply(Sum(along, True), exp(z)))

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_softmax(ins[0], self.dim, out, log=True)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        if x.size == 0:
            return x.copy()
        axis = self.dim if x.ndim else None
        z = x - x.max(axis, keepdims=True)
        return z - np.log(np.exp(z).sum(axis, keepdims=True))

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (_slope(g, y, self.place(x.ndim), log=True),)

    onnx = Onnx("LogSoftmax", 13, build=onnx_rules.softmax("LogSoftmax"))
    samples = SAMPLES


class SoftmaxGrad(Op):
    """y = p (g - sum g p) along the last dim, p = softmax x; g - e^p sum g where p is its `log`"""

    log: bool = False

    def type(self, g: Type, p: Type) -> Type:
        return one_type(self, g, p)

    def body(self, g: Any, p: Any) -> Any:
        d = dtype_of(p)
        if d in (dt.float16, dt.bfloat16):
            return cast(self.body(cast(g, dt.float32), cast(p, dt.float32)), d)
        return _composed_slope(g, p, (len(shape_of(p)) - 1,), log=self.log)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        g, p = ins
        return kernels.plan_softmax_grad(g, p, out, log=self.log)

    def oracle(self, g: np.ndarray, p: np.ndarray) -> np.ndarray:
        if self.log:
            return g - np.exp(p) * g.sum(-1, keepdims=True)
        return p * (g - (g * p).sum(-1, keepdims=True))

    def vjp(self, h: Any, y: Any, g: Any, p: Any) -> tuple:
        last = Sum((p.ndim - 1,), True)
        if self.log:
            e = exp(p)
            return h - apply(last, h * e), lambda: -(h * e * apply(last, g))
        return (
            lambda: apply(self, h, p),
            lambda: h * (g - apply(last, g * p)) - g * apply(last, h * p),
        )

    samples = (
        sample((3, 4), (3, 4)),
        sample((2, 3, 5), (2, 3, 5), log=True),
        sample((4, 0), (4, 0)),
        sample((2, 70), (2, 70), log=True),
    )


def _composed_slope(g: Any, y: Any, along: tuple[int, ...], *, log: bool) -> Any:
    if log:
        return g - exp(y) * apply(Sum(along, True), g)
    return y * (g - apply(Sum(along, True), g * y))


def _slope(g: Any, y: Any, along: tuple[int, ...], *, log: bool) -> Any:
    """The cotangent of (log) softmax's operand: lines along the last dim in one kernel."""
    if along and along[0] == y.ndim - 1 and dtype_of(g) is dtype_of(y):
        return apply(SoftmaxGrad(log), g, y)
    return _composed_slope(g, y, along, log=log)


# ------------------------------------------------------------------------------- functions


def _along(name: str, x: Any, dim: int, dtype: Any) -> tuple[Any, int]:
    """The operand as it is computed on, and the dim."""
    if dtype is not None:
        x = cast(x, dtype)
    rank = len(shape_of(x))
    need_floats(name, x)
    return x, wrap_dim(dim, rank, name)


_SOFTMAX, _LOG_SOFTMAX = dispatch.wish(), dispatch.wish()


def softmax(input: Any, dim: int, dtype: Any = None, *, out: Any = None) -> Any:
    """y = exp(x) / sum exp(x) along dim; any shape; `dtype`: cast to it first.

    IndexError: no such dim.  NotImplementedError: an integer dtype.
    """
    plain = dtype is None and out is None
    if plain and (y := dispatch.known(input, _SOFTMAX, dim)) is not None:
        return y
    x, d = _along("softmax", input, dim, dtype)
    y = dispatch.told(Softmax(d), x, _SOFTMAX, dim) if plain else apply(Softmax(d), x)
    return y if out is None else out.copy_result(y)


def log_softmax(input: Any, dim: int, dtype: Any = None, *, out: Any = None) -> Any:
    """y = x - log(sum exp(x)) along dim; any shape; `dtype`: cast to it first."""
    plain = dtype is None and out is None
    if plain and (y := dispatch.known(input, _LOG_SOFTMAX, dim)) is not None:
        return y
    x, d = _along("log_softmax", input, dim, dtype)
    y = dispatch.told(LogSoftmax(d), x, _LOG_SOFTMAX, dim) if plain else apply(LogSoftmax(d), x)
    return y if out is None else out.copy_result(y)


def implicit_dim(name: str, x: Any, dim: int | None) -> int:
    """`dim`, or with a warning the one that torch takes when none is given."""
    if dim is not None:
        return dim
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include "
        "dim=X as an argument.",
        stacklevel=3,
    )
    return 0 if len(shape_of(x)) in (0, 1, 3) else 1


def gumbel_softmax(
    logits: Any, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Any:
    """y = softmax((logits + G) / tau), G Gumbel noise; `hard`: one-hot, with y's gradient.

    Source: Jang et al. 2017.
    """
    shape = shape_of(logits)
    noise = -logits.detach().new_empty(shape).exponential_().log()
    y = softmax((logits + noise) / tau, dim)
    if not hard:
        return y
    picked = argmax(y.detach(), dim, keepdim=True)
    d = wrap_dim(dim, len(shape_of(y)), "gumbel_softmax")
    places = arange(shape_of(y)[d]).reshape(-1, *(1,) * (len(shape_of(y)) - 1 - d))
    one_hot = cast(places == picked, dtype_of(y))
    return one_hot - y.detach() + y
