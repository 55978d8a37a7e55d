"""Losses: a number that says how far an output is from its target.

`reduction` is "none" (a value an element or row), "mean" or "sum"; torch's deprecated arguments
size_average and reduce are honoured with a warning.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core import scalar as S
from weft.core.op import Onnx, Op, sample
from weft.core.types import Type, broadcast_shapes, numel, real_number
from weft.kernels.layout import Layout
from weft.ops.activation import Activation, logsigmoid
from weft.ops.cast import in_float32
from weft.ops.creation import ones_like
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.kinds import Elementwise, by_folding
from weft.ops.promote import only_tensors
from weft.ops.reduce import mean, sum
from weft.ops.unary import abs, exp, log, log1p, relu
from weft.ops.view import expand, unsqueeze
from weft.runtime.native import Launch


class PickClass(Op):
    """y[n, ...] = x[n, target[n, ...], ...], and 0 where target == ignore"""

    ignore: int = -100

    def type(self, x: Type, target: Type) -> Type:
        if (x.shape[0], *x.shape[2:]) != target.shape or (x.shape[1] == 0 != numel(target.shape)):
            raise RuntimeError(f"{self}: targets {target.shape} for an input {x.shape}")
        _need_classes(self, target)
        return Type(target.shape, x.dtype)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        x, target = ins
        return kernels.plan_gather(
            x, 1, _between(target), _between(out), wrap=False, skip=self.ignore
        )

    def fail(self, status: int, arrays: list[np.ndarray]) -> Exception:
        return no_class(arrays[1], arrays[0].shape[1], self.ignore)

    def oracle(self, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        skip = target == self.ignore
        at = np.where(skip, 0, target)[:, None]
        y = np.take_along_axis(x, at, 1)[:, 0] if target.size else np.empty(target.shape, x.dtype)
        return np.where(skip, np.zeros((), x.dtype), y)

    def vjp(self, g: Any, y: Any, x: Any, target: Any) -> tuple:
        return (apply(PutClass(x.shape[1], self.ignore), g, target), None)

    vmap = by_folding

    onnx = Onnx("GatherElements", 13, build=onnx_rules.pick_class)
    samples = (
        sample((3, 5), (3,), of=("float32", "int64"), low=0, high=5),
        sample((2, 4, 3), (2, 3), of=("float32", "int64"), low=0, high=4, ignore=1),
        sample((1, 4, 9), (1, 9), of=("float32", "int64"), low=0, high=4, ignore=2),
        sample((1, 4), (1,), of=("float32", "int64"), low=0, high=2, ignore=0),
    )


class PutClass(Op):
    """y[n, c, ...] = g[n, ...] where c == target[n, ...] != ignore, else 0"""

    classes: int = 0
    ignore: int = -100

    def type(self, g: Type, target: Type) -> Type:
        if g.shape != target.shape or not g.shape:
            raise RuntimeError(f"{self}: targets {target.shape} for a gradient {g.shape}")
        _need_classes(self, target)
        return Type((g.shape[0], self.classes, *g.shape[1:]), g.dtype)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        g, target = ins
        return kernels.plan_scatter(
            "set", 1, None, _between(target), _between(g), out, wrap=False, skip=self.ignore
        )

    def fail(self, status: int, arrays: list[np.ndarray]) -> Exception:
        return no_class(arrays[1], self.classes, self.ignore)

    def oracle(self, g: np.ndarray, target: np.ndarray) -> np.ndarray:
        y = np.zeros((g.shape[0], self.classes, *g.shape[1:]), g.dtype)
        if g.size:
            skip = target == self.ignore
            at = np.where(skip, 0, target)[:, None]
            np.put_along_axis(y, at, np.where(skip, np.zeros((), g.dtype), g)[:, None], 1)
        return y

    def vjp(self, gg: Any, y: Any, g: Any, target: Any) -> tuple:
        return (apply(PickClass(self.ignore), gg, target), None)

    vmap = by_folding

    samples = (
        sample((3,), (3,), of=("float32", "int64"), low=0, high=5, classes=5),
        sample((2, 3), (2, 3), of=("float32", "int64"), low=0, high=3, classes=3, ignore=1),
        sample((1, 9), (1, 9), of=("float32", "int64"), low=0, high=4, classes=4, ignore=0),
    )


def _between(x: Layout) -> Layout:
    """The layout with a dim of 1 at place 1, where the classes are."""
    return Layout((x.shape[0], 1, *x.shape[1:]), (x.strides[0], 0, *x.strides[1:]), x.dtype)


def _need_classes(op: Op, target: Type) -> None:
    if target.dtype.category != dt.INT:
        raise TypeError(f"{op}: targets must be integers, not {target.dtype}")


def no_class(target: np.ndarray, classes: int, ignore: int) -> Exception:
    """What is said of a target outside [0, classes)."""
    bad = target[(target != ignore) & ((target < 0) | (target >= classes))]
    return IndexError(f"Target {bad[0] if bad.size else '?'} is out of bounds.")


class SmoothL1(Activation):
    """y = x^2 / (2 beta) where |x| < beta, else |x| - beta / 2"""

    beta: float = 1.0

    def formula(self, x: S.Expr) -> S.Expr:
        z = S.abs(x)
        if self.beta == 0:
            return z
        inner = S.div(S.mul(S.mul(0.5, z), z), self.beta)
        return S.where(S.lt(z, self.beta), inner, S.sub(z, 0.5 * self.beta))

    def slope(self, x: S.Expr) -> S.Expr:
        if self.beta == 0:
            return S.sign(x)
        return S.where(S.ge(S.abs(x), self.beta), S.sign(x), S.div(x, self.beta))


class Huber(Activation):
    """y = x^2 / 2 where |x| <= delta, else delta (|x| - delta / 2)"""

    delta: float = 1.0

    def formula(self, x: S.Expr) -> S.Expr:
        z = S.abs(x)
        outer = S.mul(self.delta, S.sub(z, 0.5 * self.delta))
        return S.where(S.le(z, self.delta), S.mul(S.mul(0.5, z), z), outer)

    def slope(self, x: S.Expr) -> S.Expr:
        return S.clamp(x, -self.delta, self.delta)


class Xlogx(Activation):
    """y = x log x, 0 at 0"""

    def formula(self, x: S.Expr) -> S.Expr:
        return S.where(S.eq(x, 0.0), S.const(0.0, x.dtype), S.mul(x, S.log(x)))

    def slope(self, x: S.Expr) -> S.Expr:
        return S.add(S.log(x), 1.0)

    samples = (sample((3, 4), low=0.1, high=2.0), sample((0,)))


class LogClamped(Activation):
    """y = max(log x, -100), the log of a binary cross entropy"""

    def formula(self, x: S.Expr) -> S.Expr:
        return S.max(S.log(x), -100.0)

    def slope(self, x: S.Expr) -> S.Expr:
        return S.div(1.0, S.max(x, 1e-12))

    samples = (sample((3, 4), low=0.1, high=1.0), sample((0,)))


class BinaryCrossEntropy(Elementwise):
    """y = -t max(log x, -100) - (1 - t) max(log(1 - x), -100)"""

    def scalar(self, x: S.Expr, t: S.Expr) -> S.Expr:
        yes = S.max(S.log(x), -100.0)
        no = S.max(S.log1p(S.neg(x)), -100.0)
        return S.sub(S.mul(S.sub(t, 1.0), no), S.mul(t, yes))

    def vjp(self, g: Any, y: Any, x: Any, t: Any) -> tuple:
        return (
            lambda: g * (x - t) / ((1.0 - x) * x).clamp_min(1e-12),
            lambda: g * (apply(LogClamped(), 1.0 - x) - apply(LogClamped(), x)),
        )

    samples = (sample((3, 4), (3, 4), low=0.1, high=0.9),)


# ------------------------------------------------------------------------------- reductions


def legacy_reduction(
    size_average: bool | None, reduce: bool | None, reduction: str, *, stacklevel: int = 4
) -> str:
    """The reduction that torch's deprecated arguments ask for, else `reduction` itself."""
    if size_average is None and reduce is None:
        return reduction
    average, reduces = size_average in (None, True), reduce in (None, True)
    reduction = "none" if not reduces else ("mean" if average else "sum")
    warnings.warn(
        "size_average and reduce args will be deprecated, please use "
        f"reduction='{reduction}' instead.",
        stacklevel=stacklevel,
    )
    return reduction


def reduced(loss: Any, reduction: str) -> Any:
    """The loss, its mean, or its sum; ValueError for another word."""
    if reduction == "mean":
        return mean(loss)
    if reduction == "sum":
        return sum(loss)
    if reduction == "none":
        return loss
    raise ValueError(f"{reduction} is not a valid value for reduction")


def _pair(name: str, input: Any, target: Any) -> tuple[Any, Any]:
    """Both operands under one shape, with torch's warning where they had two."""
    a, b = shape_of(input), shape_of(target)
    if a != b:
        warnings.warn(
            f"Using a target size (torch.Size({list(b)})) that is different to the input size "
            f"(torch.Size({list(a)})). This will likely lead to incorrect results due to "
            "broadcasting. Please ensure they have the same size.",
            stacklevel=3,
        )
        shape = broadcast_shapes(a, b, op=name)
        input, target = expand(input, shape), expand(target, shape)
    return input, target


# ------------------------------------------------------------------------------- regression


@in_float32
def mse_loss(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Any:
    """l = (x - t)^2, averaged (weighted: by the sum of the weights) or summed."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    input, target = _pair("mse_loss", input, target)
    d = input - target
    return _weighted(d * d, weight, reduction)


@in_float32
def l1_loss(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Any:
    """l = |x - t|"""
    reduction = legacy_reduction(size_average, reduce, reduction)
    input, target = _pair("l1_loss", input, target)
    return _weighted(abs(input - target), weight, reduction)


def _weighted(loss: Any, weight: Any, reduction: str) -> Any:
    if weight is None:
        return reduced(loss, reduction)
    if shape_of(weight) != shape_of(loss):
        raise ValueError("Weights and input must have the same size.")
    loss = loss * weight
    return sum(loss) / sum(weight) if reduction == "mean" else reduced(loss, reduction)


@in_float32
def smooth_l1_loss(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Any:
    """l = d^2 / (2 beta) where |d| < beta, else |d| - beta/2; d = x - t."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    input, target = _pair("smooth_l1_loss", input, target)
    return reduced(apply(SmoothL1(float(beta)), input - target), reduction)


@in_float32
def huber_loss(
    input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None
) -> Any:
    """l = d^2 / 2 where |d| <= delta, else delta (|d| - delta/2); d = x - t."""
    if real_number(delta, "huber_loss", "delta") <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    input, target = _pair("huber_loss", input, target)
    return _weighted(apply(Huber(float(delta)), input - target), weight, reduction)


@in_float32
def poisson_nll_loss(
    input: Any,
    target: Any,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """l = e**x - t x (log_input), or x - t log(x + eps); full: + Stirling's term where t > 1."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    loss = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        stirling = target * log(target) - target + 0.5 * log(2 * math.pi * target)
        loss = loss + stirling.where(target > 1, 0.0)
    return reduced(loss, reduction)


def gaussian_nll_loss(
    input: Any,
    target: Any,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Any:
    """l = (log max(var, eps) + (x - t)^2 / max(var, eps)) / 2; full: + log(2 pi) / 2.

    `var` has the input's shape, or one size 1, or lacks the last dim.  The clamp has slope 1.
    """
    given = (input, target) if isinstance(var, float) else (input, target, var)
    only_tensors("gaussian_nll_loss", *given, names=("input", "target", "var"))
    if isinstance(var, float):
        if var < 0:
            raise ValueError("var has negative entry/entries")
        var = var * ones_like(input)
    elif bool((var < 0).any()):
        raise ValueError("var has negative entry/entries")
    a, b = shape_of(input), shape_of(var)
    if a != b:
        differ = [n for m, n in zip(a, b, strict=False) if m != n]
        if a[:-1] == b:
            var = unsqueeze(var, -1)
        elif len(a) != len(b) or differ != [1]:
            raise ValueError("var is of incorrect size")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(reduction + " is not valid")
    value = var.detach()
    var = var + (value.clamp_min(eps) - value)
    loss = 0.5 * (log(var) + (input - target) ** 2 / var)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return reduced(loss, reduction)


# ------------------------------------------------------------------------------- two classes


@in_float32
def binary_cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """l = -w (t log x + (1 - t) log(1 - x)), logs at least -100; x and t in [0, 1], of one shape.

    ValueError: the shapes differ.  RuntimeError: an x outside [0, 1].
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    a, b = shape_of(input), shape_of(target)
    if a != b:
        raise ValueError(
            f"Using a target size (torch.Size({list(b)})) that is different to the input size "
            f"(torch.Size({list(a)})) is deprecated. Please ensure they have the same size."
        )
    if dtype_of(target) is not dtype_of(input):
        raise RuntimeError(
            f"Found dtype {dtype_of(target).spelled} but expected {dtype_of(input).spelled}"
        )
    inside = input._ghost is not None or bool(((input._a >= 0) & (input._a <= 1)).all())
    if not inside:
        raise RuntimeError("all elements of input should be between 0 and 1")
    loss = apply(BinaryCrossEntropy(), input, target)
    return reduced(loss if weight is None else loss * weight, reduction)


@in_float32
def binary_cross_entropy_with_logits(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Any:
    """l = -w (p t log s(x) + (1 - t) log(1 - s(x))), s the sigmoid, p = pos_weight.

    ValueError: the shapes differ.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    a, b = shape_of(input), shape_of(target)
    if a != b:
        raise ValueError(
            f"Target size (torch.Size({list(b)})) must be the same as input size "
            f"(torch.Size({list(a)}))"
        )
    log_s = logsigmoid(input)
    if pos_weight is not None:
        log_s = ((pos_weight - 1) * target + 1) * log_s
    loss = (1 - target) * input - log_s
    return reduced(loss if weight is None else loss * weight, reduction)


@in_float32
def soft_margin_loss(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """l = log(1 + e**(-t x)), t = 1 or -1."""
    only_tensors("soft_margin_loss", input, target, names=("input", "target"))
    reduction = legacy_reduction(size_average, reduce, reduction)
    return reduced(log1p(exp(-target * input)), reduction)


@in_float32
def hinge_embedding_loss(
    input: Any,
    target: Any,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """l = x where t = 1, max(0, margin - x) where t = -1."""
    only_tensors("hinge_embedding_loss", input, target, names=("input", "target"))
    reduction = legacy_reduction(size_average, reduce, reduction)
    apart = relu(margin - input).where(target != 1, 0.0)
    return reduced(apart + input.where(target != -1, 0.0), reduction)


def multilabel_soft_margin_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """l = the mean over classes of -w (t log s(x) + (1 - t) log s(-x))."""
    only_tensors("multilabel_soft_margin_loss", input, target, names=("input", "target"))
    reduction = legacy_reduction(size_average, reduce, reduction)
    loss = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    if weight is not None:
        loss = loss * weight
    return reduced(mean(loss, -1), reduction)
