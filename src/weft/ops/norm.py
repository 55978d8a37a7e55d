"""Normalisation: x made to have mean 0 and variance 1 over some dims, then scaled and shifted.

    y = (x - m) r w + b,   m = mean of x over dims,   r = 1 / sqrt(mean of (x - m)^2 + eps)
    dx = r (h - mean h - (x - m) r^2 mean(h (x - m))),   h = g w

Batch, instance, group and layer norm differ in their dims only.  Sums are in the strict order; the
gradient's sums are taken of products formed on the fly (`Moment`).

Long because all norms share one gradient, whose pieces are ops of this room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, ClassVar

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core import scalar as S
from weft.core.handle import state
from weft.core.op import Onnx, Op, sample
from weft.core.types import Type, broadcast_shapes, need_dims, need_floats, numel, whole
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.ops.cast import cast
from weft.ops.creation import full
from weft.ops.dispatch import apply, chained, dtype_of, shape_of
from weft.ops.join import cat, split
from weft.ops.kinds import Elementwise, by_batch, by_loop
from weft.ops.reduce import Sum, sum, sum_to
from weft.ops.unary import rsqrt
from weft.ops.view import narrow, reshape
from weft.ops.write import write
from weft.runtime.native import Launch

__all__ = ["rms_norm"]

_INSIDE = "double backward goes through the composition instead (see the norms' vjp)"

_MOMENTS: dict[str, Callable[..., S.Expr]] = {
    "squares": lambda x, m: S.mul(S.sub(x, m), S.sub(x, m)),
    "product": S.mul,
    "centred": lambda g, x, m: S.mul(g, S.sub(x, m)),
    "weighted": lambda g, w, x, m: S.mul(S.mul(g, w), S.sub(x, m)),
    "scaled": lambda g, x, m, r: S.mul(g, S.mul(S.sub(x, m), r)),
    "square": lambda x: S.mul(x, x),
    "size": S.abs,
}


class Moment(Op):
    """y = the sum over dims of a product of the operands, broadcast; dims stay as size 1.

    squares (x - m)^2 · product g w · centred g (x - m) · weighted g w (x - m) · scaled g (x - m) r
    square x^2 · size |x|
    With `total`, y[0] is the sum of the first operand and y[1] that of the product, in one pass.
    """

    kind: str = "squares"
    dims: tuple[int, ...] = ()
    total: bool = False
    nondiff = _INSIDE
    combine: ClassVar[str] = "sum"
    keepdim: ClassVar[bool] = True

    def type(self, *xs: Type) -> Type:
        shape = broadcast_shapes(*(x.shape for x in xs), op="moment")
        if self.total and shape != xs[0].shape:
            raise RuntimeError(f"moment: {xs[0]} is not of the operands' shape {shape}")
        need_dims(self, Type(shape, xs[0].dtype), self.dims)
        kept = tuple(1 if d in self.dims else n for d, n in enumerate(shape))
        return Type((2, *kept) if self.total else kept, xs[0].dtype)

    def terms(self, *xs: S.Expr) -> tuple[S.Expr, ...]:
        """What is summed, as scalar expressions of the operands'."""
        product = _MOMENTS[self.kind](*xs)
        return (xs[0], product) if self.total else (product,)

    def _terms(self, xs: Sequence[Layout | np.ndarray]) -> tuple[S.Expr, ...]:
        return self.terms(*(S.Arg(i, dt.from_np(x.dtype)) for i, x in enumerate(xs)))

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        first, *others = self._terms(ins)
        return kernels.plan_reduce("sum", first, self.dims, True, ins, out, others=others)

    def takes_channels_last(self, *types: Type) -> bool:
        return True

    def oracle(self, *xs: np.ndarray) -> np.ndarray:
        sums = [np.sum(S.evaluate(e, xs), axis=self.dims, keepdims=True) for e in self._terms(xs)]
        return np.stack(sums) if self.total else sums[0]

    def vmap(self, size: int, dims: tuple, *xs: Any) -> tuple[Any, int]:
        return (by_loop if xs[1:] else by_batch)(self, size, dims, *xs)

    onnx = Onnx("ReduceSum", 13, build=onnx_rules.moment)
    samples = (
        sample((2, 3, 4), (1, 3, 1), kind="squares", dims=(0, 2)),
        sample((3, 5), (5,), kind="product", dims=(1,)),
        sample((3, 5), (5,), (3, 5), (3, 1), kind="weighted", dims=(1,)),
        sample((3, 5), (3, 5), (3, 1), (3, 1), kind="scaled", dims=(0,)),
        sample((2, 3, 80), (2, 3, 80), (1, 3, 1), kind="centred", dims=(0, 2), total=True),
        sample((3, 5), kind="square", dims=(0, 1)),
        sample((2, 3, 5), kind="size", dims=(1,)),
    )


class ScaleShift(Elementwise):
    """y = (x - m) r w + b"""

    def scalar(self, x: S.Expr, m: S.Expr, r: S.Expr, w: S.Expr, b: S.Expr) -> S.Expr:
        return S.add(S.mul(S.mul(S.sub(x, m), r), w), b)

    def vjp(self, g: Any, y: Any, x: Any, m: Any, r: Any, w: Any, b: Any) -> tuple:
        return (
            lambda: g * (r * w),
            lambda: -(g * (r * w)),
            lambda: g * (x - m) * w,
            lambda: g * ((x - m) * r),
            g,
        )

    samples = (sample((2, 3, 4), (3, 1), (3, 1), (3, 1), (3, 1)),)


class Affine(Elementwise):
    """y = x s + t, rounded twice"""

    def scalar(self, x: S.Expr, s: S.Expr, t: S.Expr) -> S.Expr:
        return S.add(S.mul(x, s), t)

    def vjp(self, g: Any, y: Any, x: Any, s: Any, t: Any) -> tuple:
        return lambda: g * s, lambda: g * x, g

    samples = (sample((2, 3, 4), (3, 1), (3, 1)),)


class Toward(Elementwise):
    """y = b t + a (1 - t)"""

    def scalar(self, a: S.Expr, b: S.Expr, t: S.Expr) -> S.Expr:
        return S.add(S.mul(b, t), S.mul(a, S.sub(S.const(1.0, t.dtype), t)))

    def vjp(self, g: Any, y: Any, a: Any, b: Any, t: Any) -> tuple:
        return lambda: g * (1 - t), lambda: g * t, lambda: g * (b - a)

    samples = (sample((3, 4), (3, 4), 0.1),)


class NormInput(Elementwise):
    """y = r (g w - s - (x - m) r^2 t): the gradient of a norm in its input, s and t being means"""

    nondiff = _INSIDE

    def scalar(self, g: S.Expr, w: S.Expr, x: S.Expr, m: S.Expr, r: S.Expr, s: S.Expr,
               t: S.Expr) -> S.Expr:  # fmt: skip
        slope = S.mul(t, S.mul(r, r))
        inner = S.sub(S.mul(g, w), s)
        return S.mul(r, S.sub(inner, S.mul(S.sub(x, m), slope)))

    samples = (sample((3, 5), (5,), (3, 5), (3, 1), (3, 1), (3, 1), (3, 1)),)


class NormGrad(Op):
    """y = the cotangents of layer_norm's operands, (rows + 2 PARTS, n): dx a row each, then PARTS
    rows whose sum is the weight's, then PARTS for the bias; of rms_norm's, unless `centred`
    """

    ndims: int = 1
    eps: float = 1e-5
    centred: bool = True
    nondiff = _INSIDE

    def type(self, g: Type, x: Type, w: Type) -> Type:
        lead = x.ndim - self.ndims
        if (g.shape, w.shape) != (x.shape, x.shape[lead:]) or not g.dtype is x.dtype is w.dtype:
            raise RuntimeError(f"norm: cotangent {g}, weight {w} do not fit {x}")
        if x.dtype not in (dt.float32, dt.float64):
            raise RuntimeError(
                f"norm: the sums of gradients want float32 or float64, not {x.dtype}"
            )
        return Type((numel(x.shape[:lead]) + 2 * kernels.PARTS, numel(w.shape)), x.dtype)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        if out.size == 0:
            return Launch(())
        g, x, w = ins
        return kernels.plan_norm_grad(g, x, w, self.ndims, out, self.eps, centred=self.centred)

    def oracle(self, g: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        n = max(w.size, 1)
        g, x, w = g.reshape(-1, w.size), x.reshape(-1, w.size), w.reshape(-1)
        mean = lambda v: v.sum(1, keepdims=True) / n
        h, d = g * w, x - mean(x) if self.centred else x
        r = 1 / np.sqrt(mean(d * d) + self.eps)
        dx = r * (h - mean(h) * self.centred - d * (r * r * mean(h * d)))
        block = -(-len(x) // kernels.PARTS)
        sums = [
            np.array([v[p * block : (p + 1) * block].sum(0) for p in range(kernels.PARTS)])
            for v in (g * (d * r), g)
        ]
        return np.concatenate([dx, *sums])

    vmap = by_loop
    samples = (
        sample((3, 5), (3, 5), (5,)),
        sample((2, 20, 4), (2, 20, 4), (4,), centred=False),
        sample((2, 3, 4), (2, 3, 4), (3, 4), ndims=2),
        sample((0, 5), (0, 5), (5,)),
    )


def _row_grads(g: Any, x: Any, w: Any, eps: float, *, centred: bool) -> list:
    """What gives the cotangents of x, w and b: one kernel, when the first is wanted."""
    found: list = []
    ndims = w.ndim

    def part(start: int, rows: int) -> Any:
        if not found:
            operands = [_one_run(a, ndims) for a in (g, x, w)]
            found.append(apply(NormGrad(ndims, eps, centred), *operands))
        return narrow(found[0], 0, start, rows)

    rows, parts = numel(x.shape[: x.ndim - ndims]), kernels.PARTS

    def summed(start: int) -> Any:
        return reshape(apply(Sum((0,), False), part(start, parts)), w.shape)

    return [
        lambda: reshape(part(0, rows), x.shape),
        lambda: summed(rows),
        lambda: summed(rows + parts),
    ]


@contextmanager
def _off_tape() -> Iterator[None]:
    before, state.grad = state.grad, False
    try:
        yield
    finally:
        state.grad = before


def _mean(x: Any, dims: tuple[int, ...], count: int) -> Any:
    return apply(Sum(dims, True), x) / float(count)


def _statistics(x: Any, dims: tuple[int, ...], count: int) -> tuple[Any, Any]:
    """Mean and variance (biased) of x over dims, which stay as size 1."""
    m = _mean(x, dims, count)
    if state.grad:
        centred = x - m
        return m, _mean(centred * centred, dims, count)
    return m, apply(Moment("squares", dims), x, m) / float(count)


def _count(shape: tuple, dims: tuple[int, ...]) -> int:
    return numel(shape[d] for d in dims)


def _norm_vjp(
    g: Any, x: Any, w: Any, dims: tuple[int, ...], eps: float, m: Any = None, r: Any = None
) -> tuple:
    """Cotangents of x, w and b; m and r are found anew where not given or where the tape runs."""
    d = x.dtype
    if d in (dt.float16, dt.bfloat16):
        wide = [cast(a, dt.float32) for a in (g, x, w)]
        kept = [None if a is None else cast(a, dt.float32) for a in (m, r)]
        out = _norm_vjp(*wide, dims, eps, *kept)  # pyright: ignore[reportCallIssue]
        return tuple(cast(c() if callable(c) else c, d) for c in out)  # pyright: ignore[reportArgumentType]
    count = _count(x.shape, dims)
    w_shape = tuple(w.shape)
    lead = x.ndim - len(w_shape)
    rows = dims == tuple(range(lead, x.ndim)) and x.shape[lead:] == w_shape and lead
    if rows and m is None and not state.grad:
        return tuple(_row_grads(g, x, w, eps, centred=True))
    if m is None or state.grad:
        m, v = _statistics(x, dims, count)
        r = rsqrt(v + eps)
    flat = tuple(i for i in dims if i < lead or w_shape[i - lead] == 1)  # w is constant along
    outside = tuple(i for i in range(x.ndim) if i < lead or w_shape[i - lead] == 1)

    def shift() -> Any:
        return reshape(apply(Sum(outside, True), g), w_shape) if outside else g

    if state.grad:
        h, xhat = g * w, (x - m) * r
        dx = r * (h - _mean(h, dims, count) - xhat * _mean(h * xhat, dims, count))
        return dx, lambda: sum_to(g * xhat, w_shape), shift
    part = 1.0 / max(count, 1)  # not in the kernel: it would be another for each size
    if not flat:
        s = apply(Moment("product", dims), g, w)
        t = apply(Moment("weighted", dims), g, w, x, m)
        scaled = Moment("scaled", outside)
        return (
            lambda: apply(NormInput(), g, w, x, m, r, s * part, t * part),
            lambda: reshape(apply(scaled, g, x, m, r), w_shape) if outside else g * (x - m) * r,
            shift,
        )
    both = apply(Moment("centred", flat, total=True), g, x, m)
    total, moment = both[0], both[1]
    s, t = total * w, moment * w
    rest = tuple(i for i in dims if i not in flat)
    if rest:
        s, t = apply(Sum(rest, True), s), apply(Sum(rest, True), t)
    return (
        lambda: apply(NormInput(), g, w, x, m, r, s * part, t * part),
        lambda: sum_to(moment * r, w_shape),
        lambda: sum_to(total, w_shape),
    )


class Norm(Op):
    """y = (x - m) r w + b over dims; w and b broadcast.

    With two more operands (m and r of this very x) they are not computed again.
    """

    dims: tuple[int, ...] = ()
    eps: float = 1e-5

    def type(self, x: Type, *rest: Type) -> Type:
        if broadcast_shapes(x.shape, *(r.shape for r in rest), op="norm") != x.shape:
            raise RuntimeError(f"norm: operands {[r.shape for r in rest]} exceed input {x.shape}")
        return x

    def body(self, x: Any, w: Any, b: Any, m: Any = None, r: Any = None) -> Any:
        if m is None:
            m, v = _statistics(x, self.dims, _count(shape_of(x), self.dims))
            r = rsqrt(v + self.eps)
        return apply(ScaleShift(), x, m, r, w, b)

    def oracle(self, x: np.ndarray, w: np.ndarray, b: np.ndarray, *known: np.ndarray) -> np.ndarray:
        m = x.mean(self.dims, keepdims=True)
        v = ((x - m) ** 2).mean(self.dims, keepdims=True)
        return (x - m) / np.sqrt(v + self.eps) * w + b

    def vjp(self, g: Any, y: Any, x: Any, w: Any, b: Any, m: Any = None, r: Any = None) -> tuple:
        return (*_norm_vjp(g, x, w, self.dims, self.eps, m, r), None, None)

    vmap = by_loop
    samples = (
        sample((4, 3, 5), (3, 1), (3, 1), dims=(0, 2)),
        sample((2, 3, 5), (1, 3, 1), (1, 3, 1), dims=(2,)),
        sample((2, 3, 2, 4), (3, 2, 1), (3, 2, 1), dims=(2, 3)),
    )


class GroupNorm(Op):
    """y = (x - m) r w + b over each of `groups` of channels (dim 1); w and b a number a channel"""

    groups: int = 1
    eps: float = 1e-5

    def type(self, x: Type, *rest: Type) -> Type:
        return _channel_type(self, x, *rest, groups=self.groups)

    def split(self, x: Any, *params: Any) -> tuple:
        """The operands with a dim for groups, one for a group's channels and one for the rest."""
        shape = shape_of(x)
        inner = (self.groups, shape[1] // self.groups)
        x = reshape(x, (shape[0], *inner, numel(shape[2:])))
        return (x, *(reshape(p, (*inner, 1)) for p in params))

    def body(self, x: Any, w: Any, b: Any) -> Any:
        return reshape(apply(Norm((2, 3), self.eps), *self.split(x, w, b)), shape_of(x))

    def oracle(self, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        inner = (self.groups, x.shape[1] // self.groups)
        parts = x.reshape(x.shape[0], *inner, numel(x.shape[2:]))
        y = Norm((2, 3), self.eps).oracle(parts, w.reshape(*inner, 1), b.reshape(*inner, 1))
        return y.reshape(x.shape)

    def vjp(self, g: Any, y: Any, x: Any, w: Any, b: Any) -> tuple:
        (gs,), (xs, ws) = self.split(g), self.split(x, w)
        found = _norm_vjp(gs, xs, ws, (2, 3), self.eps)
        shapes = (x.shape, w.shape, w.shape)
        return tuple(partial(_shaped, c, tuple(s)) for c, s in zip(found, shapes, strict=True))

    vmap = by_loop
    samples = (
        sample((2, 6, 4), (6,), (6,), groups=3),
        sample((2, 4), (4,), (4,), groups=2),
        sample((2, 4, 3, 5), (4,), (4,), groups=1),
    )


def _shaped(c: Any, shape: tuple) -> Any:
    return reshape(c() if callable(c) else c, shape)


def _channel_type(op: Any, x: Type, *params: Type, groups: int = 1) -> Type:
    """x's type; RuntimeError unless the parameters are numbers a channel, in whole groups."""
    if x.ndim < 2 or x.shape[1] % groups or any(p.shape != x.shape[1:2] for p in params):
        raise RuntimeError(f"{op}: parameters {[p.shape for p in params]} for an input {x.shape}")
    return x


def _row_type(op: Any, x: Type, *params: Type) -> Type:
    """x's type; RuntimeError unless the parameters have the shape of its last dims."""
    need_floats(op, x, *params)
    for p in params:
        if x.ndim < op.ndims or p.shape != x.shape[x.ndim - op.ndims :]:
            raise RuntimeError(f"{op}: a parameter of shape {p.shape} for an input {x.shape}")
    return x


class LayerNorm(Op):
    """y = (x - m) r w + b over the last `ndims` dims; w and b have their shape"""

    ndims: int = 1
    eps: float = 1e-5

    def dims(self, ndim: int) -> tuple[int, ...]:
        return tuple(range(ndim - self.ndims, ndim))

    def type(self, x: Type, w: Type, b: Type) -> Type:
        return _row_type(self, x, w, b)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        if out.size == 0:
            return Launch(())
        x, w, b = ins
        return kernels.plan_layer_norm(x, self.ndims, out, self.eps, weight=w, bias=b)

    def oracle(self, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        return Norm(self.dims(x.ndim), self.eps).oracle(x, w, b)

    def vjp(self, g: Any, y: Any, x: Any, w: Any, b: Any) -> tuple:
        return _norm_vjp(g, x, w, self.dims(x.ndim), self.eps)

    def vmap(self, size: int, dims: tuple, x: Any, w: Any, b: Any) -> tuple[Any, int]:
        if dims[1:] != (None, None):
            return by_loop(self, size, dims, x, w, b)
        return apply(self, x.movedim(dims[0], 0), w, b), 0

    onnx = Onnx("LayerNormalization", 17, build=onnx_rules.layer_norm)
    samples = (
        sample((2, 3, 8), (8,), (8,)),
        sample((4, 3, 5), (3, 5), (3, 5), ndims=2),
        sample((0, 5), (5,), (5,)),
    )


class RmsNorm(Op):
    """y = x r w over the last `ndims` dims, r = 1 / sqrt(mean x^2 + eps)"""

    ndims: int = 1
    eps: float = 1e-5

    def dims(self, ndim: int) -> tuple[int, ...]:
        return tuple(range(ndim - self.ndims, ndim))

    def type(self, x: Type, w: Type) -> Type:
        return _row_type(self, x, w)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        if out.size == 0:
            return Launch(())
        return kernels.plan_rms_norm(ins[0], self.ndims, out, self.eps, weight=ins[1])

    def oracle(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        square = (x**2).mean(self.dims(x.ndim), keepdims=True)
        return x / np.sqrt(square + self.eps) * w

    def vjp(self, g: Any, y: Any, x: Any, w: Any) -> tuple:
        # dx = r (h - x r^2 mean(h x)), h = g w
        d = x.dtype
        if d in (dt.float16, dt.bfloat16):
            wide = self.vjp(*(cast(a, dt.float32) for a in (g, g, x, w)))
            return tuple(cast(c() if callable(c) else c, d) for c in wide)  # pyright: ignore[reportArgumentType]
        dims = self.dims(x.ndim)
        rows = tuple(range(x.ndim - self.ndims))
        if rows and not state.grad:
            return tuple(_row_grads(g, x, w, self.eps, centred=False)[:2])
        r = rsqrt(_mean(x * x, dims, _count(x.shape, dims)) + self.eps)
        h, xhat = g * w, x * r
        return (
            lambda: r * (h - xhat * _mean(h * xhat, dims, _count(x.shape, dims))),
            lambda: reshape(apply(Sum(rows, False), g * xhat), w.shape) if rows else g * xhat,
        )

    def vmap(self, size: int, dims: tuple, x: Any, w: Any) -> tuple[Any, int]:
        if dims[1] is not None:
            return by_loop(self, size, dims, x, w)
        return apply(self, x.movedim(dims[0], 0), w), 0

    onnx = Onnx("ReduceMean", 13, build=onnx_rules.rms_norm)
    samples = (sample((2, 3, 8), (8,)), sample((4, 3, 5), (3, 5), ndims=2))


class BatchNormEval(Op):
    """y = (x - mean) w / sqrt(var + eps) + b, one number a channel (dim 1)

    As x s + t, torch's order.
    """

    eps: float = 1e-5

    def type(self, x: Type, *rest: Type) -> Type:
        return _channel_type(self, x, *rest)

    def body(self, x: Any, w: Any, b: Any, mean: Any, var: Any) -> Any:
        s = w * rsqrt(var + self.eps)
        ndim = len(shape_of(x))
        return apply(Affine(), x, *(_per_channel(a, ndim) for a in (s, b - mean * s)))

    def oracle(self, x: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        w, b, m, v = (a.reshape(-1, *(1,) * (x.ndim - 2)) for a in rest)
        return (x - m) / np.sqrt(v + self.eps) * w + b

    def vjp(self, g: Any, y: Any, x: Any, w: Any, b: Any, mean: Any, var: Any) -> tuple:
        r = rsqrt(var + self.eps)
        others = tuple(d for d in range(x.ndim) if d != 1)

        def centred() -> Any:
            return sum(g * (x - _per_channel(mean, x.ndim)), others)

        return (
            lambda: g * _per_channel(w * r, x.ndim),
            lambda: centred() * r,
            lambda: sum(g, others),
            lambda: -sum(g, others) * (w * r),
            lambda: centred() * w * (r * r * r) * -0.5,
        )

    onnx = Onnx("BatchNormalization", 15, build=onnx_rules.batch_norm)
    vmap = by_loop
    samples = (
        sample((2, 3, 4), (3,), (3,), (3,), (3,), low=0.1, high=2.0),
        sample((2, 3), (3,), (3,), (3,), (3,), low=0.1, high=2.0),
    )


def _per_channel(a: Any, ndim: int) -> Any:
    """(C,) as (C, 1, 1): a number a channel beside (N, C, H, W)."""
    return reshape(a, (-1, *(1,) * (ndim - 2))) if ndim > 2 else a


# ------------------------------------------------------------------------------- functions


# ops by eps: floats among an op's attributes make it dear to find
rows_op = lru_cache(256)(partial(LayerNorm, 1))
eval_op = lru_cache(256)(BatchNormEval)
_groups_of = lru_cache(256)(GroupNorm)


@lru_cache(256)
def _no_affine(shape: tuple, d: dt.dtype) -> tuple[Any, Any]:
    """Ones and zeros, which nobody writes to."""
    return full(shape, 1.0, dtype=d), full(shape, 0.0, dtype=d)


def _affine(x: Any, shape: tuple, weight: Any, bias: Any) -> tuple[Any, Any]:
    """Weight and bias, ones and zeros where there are none."""
    d = dtype_of(x)
    if weight is bias is state.recorder is None:
        return _no_affine(shape, d)
    w = full(shape, 1.0, dtype=d) if weight is None else weight
    return w, full(shape, 0.0, dtype=d) if bias is None else bias


def _check_channels(channels: int, **named: Any) -> None:
    for name, a in named.items():
        if a is not None and shape_of(a) != (channels,):
            raise RuntimeError(
                f"{name} should contain {channels} elements not {numel(shape_of(a))}"
            )


def _check_batch(shape: tuple) -> None:
    if numel(shape[:1] + shape[2:]) == 1:
        raise ValueError(
            "Expected more than 1 value per channel when training, got input size "
            f"torch.Size({list(shape)})"
        )


def _move(running: Any, batch: Any, momentum: float) -> None:
    """running = (1 - momentum) running + momentum batch"""
    batch = cast(reshape(batch, shape_of(running)), dtype_of(running))
    if _TOWARD.into(running, batch, momentum):
        dispatch.wrote(running)
    else:
        write(running, apply(_TOWARD, running, batch, momentum))


_TOWARD = Toward()


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """y = (x - mean) / sqrt(var + eps) w + b, a channel (dim 1) at a time.

    Training: mean and (biased) var are the batch's, and the running ones move toward them by
    `momentum` (toward the unbiased variance).  Else they are the running ones.
    input (N, C, ...); the others (C,) or None.  ValueError: one value a channel in training.
    Source: Ioffe & Szegedy 2015.
    """
    if not training and eps.__class__ is float:
        y = eval_op(eps).quick(input, weight, bias, running_mean, running_var)
        if y is not None:
            return y
    shape = shape_of(input)
    if shape == (0,):
        return input.clone()  # torch takes a vector of nothing
    if training and eps <= 0:
        raise ValueError(f"batch_norm eps must be positive, but got {eps}")
    if len(shape) < 2:
        raise RuntimeError(f"batch_norm: expected at least 2 dims, got input of size {list(shape)}")
    if training:
        _check_batch(shape)
    elif running_mean is None or running_var is None:
        missing = "running_mean" if running_mean is None else "running_var"
        raise RuntimeError(f"{missing} must be defined in evaluation mode")
    _check_channels(
        shape[1], running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    need_floats("batch_norm", input)
    if dtype_of(input) in (dt.float16, dt.bfloat16):
        wide = [None if a is None else cast(a, dt.float32) for a in (input, weight, bias)]
        y = batch_norm(wide[0], running_mean, running_var, *wide[1:], training, momentum, eps)  # pyright: ignore[reportCallIssue]
        return cast(y, dtype_of(input))
    if not training:
        w, b = _affine(input, (shape[1],), weight, bias)
        return apply(eval_op(float(eps)), input, w, b, running_mean, running_var)
    dims = tuple(d for d in range(len(shape)) if d != 1)
    return _from_batch(
        input, dims, running_mean, running_var, weight, bias, float(momentum), float(eps)
    )


def _batch_statistics(x: Any, dims: tuple, eps: float, count: int) -> tuple[Any, Any, Any]:
    """Mean, 1 / sqrt(biased variance + eps) and unbiased variance over dims."""
    m, v = _statistics(x, dims, count)
    return m, rsqrt(v + eps), v * (count / (count - 1)) if count > 1 else v


@chained
def _joined_statistics(x: Any, dims: tuple, eps: float, count: int) -> Any:
    """These, one behind another along dim 0."""
    return cat(_batch_statistics(x, dims, eps, count))


def _from_batch(
    x: Any, dims: tuple, running_mean: Any, running_var: Any, weight: Any, bias: Any,
    momentum: float, eps: float,
) -> Any:  # fmt: skip
    """Norm of x over dims, with the running statistics moved."""
    shape = shape_of(x)
    count = _count(shape, dims)
    with _off_tape():
        if state.recorder is None:
            m, r, v = split(_joined_statistics(x, dims, eps, count), 1 if 0 in dims else shape[0])
        else:
            m, r, v = _batch_statistics(x, dims, eps, count)
        for running, batch in ((running_mean, m), (running_var, v)):
            if running is not None and count:
                _move(running, batch if 0 in dims else _mean(batch, (0,), shape[0]), momentum)
    w, b = (_per_channel(a, len(shape)) for a in _affine(x, (shape[1],), weight, bias))
    return apply(Norm(dims, eps), x, w, b, m, r)


def instance_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """batch_norm of each row's channels by themselves; running statistics average over the rows.

    ValueError: one element a channel.   Source: Ulyanov et al. 2016.
    """
    shape = shape_of(input)
    need_floats("batch_norm", input)
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if numel(shape[2:]) == 1:
        raise ValueError(
            "Expected more than 1 spatial element when training, got input size "
            f"torch.Size({list(shape)})"
        )
    _check_channels(
        shape[1], running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    dims = tuple(range(2, len(shape)))
    return _from_batch(
        input, dims, running_mean, running_var, weight, bias, float(momentum), float(eps)
    )


def _normalized(name: str, input: Any, normalized_shape: Any, *params: Any) -> tuple[int, ...]:
    says = f"{name}(): argument 'normalized_shape' (position 2) must be tuple of ints, "
    if not isinstance(normalized_shape, (tuple, list)):
        raise TypeError(f"{says}not {type(normalized_shape).__name__}")
    for at, n in enumerate(normalized_shape):
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            raise TypeError(f"{says}but found element of type {type(n).__name__} at pos {at}")
    wanted = tuple(map(int, normalized_shape))
    shape = shape_of(input)
    need_floats(name, input)
    if not wanted:
        raise RuntimeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one "
            "element, but got normalized_shape = []"
        )
    for what, p in zip(("weight", "bias"), params, strict=False):
        if p is not None and shape_of(p) != wanted:
            raise RuntimeError(
                f"Expected {what} to be of same shape as normalized_shape, but got {what} of shape "
                f"{list(shape_of(p))} and normalized_shape = {list(wanted)}"
            )
    if shape[-len(wanted) :] != wanted:
        raise RuntimeError(
            f"Given normalized_shape={list(wanted)}, expected input with shape "
            f"[*, {', '.join(map(str, wanted))}], but got input of size{list(shape)}"
        )
    return wanted


def _one_run(x: Any, ndims: int) -> Any:
    """x, contiguous where its last dims do not lie at one stride."""
    if ndims == 1 or x.is_contiguous():
        return x
    return x.contiguous()


def layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """y = (x - mean) / sqrt(var + eps) w + b over the last dims, which have normalized_shape.

    Source: Ba et al. 2016.
    """
    if (
        isinstance(normalized_shape, tuple)
        and len(normalized_shape) == 1
        and normalized_shape[0].__class__ is int  # (4.0,) is equal too
        and eps.__class__ is float
    ):
        if weight is bias is state.recorder is None:
            w, b = _no_affine(normalized_shape, dtype_of(input))
        else:
            w, b = weight, bias
        if w is not None and b is not None and normalized_shape == shape_of(w):
            y = rows_op(eps).quick(input, w, b)
            if y is not None:
                return y
    wanted = _normalized("layer_norm", input, normalized_shape, weight, bias)
    w, b = (a.contiguous() for a in _affine(input, wanted, weight, bias))
    return apply(LayerNorm(len(wanted), float(eps)), _one_run(input, len(wanted)), w, b)


def rms_norm(
    input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> Any:
    """y = x / sqrt(mean x^2 + eps) w over the last dims; eps: the dtype's epsilon when None.

    Source: Zhang & Sennrich 2019.
    """
    wanted = _normalized("rms_norm", input, normalized_shape, weight)
    w, _ = _affine(input, wanted, weight, None)
    if eps is None:
        # float16 and bfloat16 compute in float32, whose epsilon torch takes for them
        wide = np.float64 if dtype_of(input) is dt.float64 else np.float32
        eps = float(np.finfo(wide).eps)
    op = RmsNorm(len(wanted), float(eps))
    return apply(op, _one_run(input, len(wanted)), w.contiguous())


def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """layer_norm of each group of C / num_groups channels; w and b a channel.

    RuntimeError: groups do not divide C.   Source: Wu & He 2018.
    """
    if num_groups.__class__ is int and eps.__class__ is float and num_groups > 0:
        w, b = weight, bias
        if w is b is state.recorder is None and len(shape_of(input)) > 1:
            w, b = _no_affine(shape_of(input)[1:2], dtype_of(input))
        if (y := _groups_of(num_groups, eps).quick(input, w, b)) is not None:
            return y
    shape = shape_of(input)
    if len(shape) < 2:
        raise RuntimeError(
            f"Expected at least 2 dimensions for input tensor but received {len(shape)}"
        )
    need_floats("group_norm", input)
    if whole(num_groups, "group_norm", "num_groups") <= 0 or shape[1] % num_groups:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of "
            f"shape {list(shape)} and num_groups={num_groups}"
        )
    for what, p in (("weight", weight), ("bias", bias)):
        if p is not None and shape_of(p) != (shape[1],):
            raise RuntimeError(
                f"Expected {what} to be a vector of size equal to the number of channels in input, "
                f"but got {what} of shape {list(shape_of(p))} and input of shape {list(shape)}"
            )
    if dtype_of(input) in (dt.float16, dt.bfloat16):
        wide = [None if a is None else cast(a, dt.float32) for a in (input, weight, bias)]
        return cast(group_norm(wide[0], num_groups, *wide[1:], eps), dtype_of(input))  # pyright: ignore[reportCallIssue]
    return apply(
        _groups_of(num_groups, float(eps)), input, *_affine(input, (shape[1],), weight, bias)
    )
