"""Cross entropy of rows of logits: the logits are read once, also by the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core.op import Op, sample
from weft.core.types import Type, need_floats
from weft.kernels.layout import Layout
from weft.ops.cast import cast
from weft.ops.creation import full
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.kinds import by_batch, by_folding
from weft.ops.loss import PickClass, PutClass, no_class
from weft.ops.reduce import sum
from weft.ops.softmax import SoftmaxGrad, log_softmax, softmax
from weft.ops.view import expand, unsqueeze
from weft.runtime.native import Launch

_TARGET = {"of": ("float32", "int64"), "low": 0, "high": 5}
_G_TARGET = {"of": ("float32", "float32", "int64"), "low": 0, "high": 5}


class RowLoss(Op, abstract=True):
    """Of x (N, C) and a class a row (N,) or probabilities (N, C), or groups of both (G, N, C) and
    (G, N) or (G, N, C); rows whose class is `ignore` are left out. classes = -2: of x (C, N) or
    (G, C, N) and classes."""

    ignore: int = -100
    reduction: str = "mean"  # none mean sum
    smoothing: float = 0.0  # the share of each target that is spread over all classes
    classes: int = -1  # their dim: -1, or -2

    @property
    def _given(self) -> dict[str, Any]:
        return {"ignore": self.ignore, "reduction": self.reduction, "smoothing": self.smoothing}

    def turned(self, x: Any) -> Any:
        """x with its classes last; with its classes where they were, if they are last."""
        return x if self.classes == -1 else x.swapaxes(-1, -2)

    def layout(self, x: Layout) -> Layout:
        """`turned`"""
        if self.classes == -1:
            return x
        order = (*range(len(x.shape) - 2), -1, -2)
        shape, strides = (tuple(v[i] for i in order) for v in (x.shape, x.strides))
        return Layout(shape, strides, x.dtype)

    def fits(self, x: Type, target: Type) -> Type:
        """The type of the loss."""
        need_floats(self, x)
        rows = x.shape[:-1] if self.classes == -1 else (*x.shape[:-2], x.shape[-1])
        known = (rows, dt.int64), (x.shape, x.dtype)
        soft = target.dtype.category == dt.FLOAT and self.classes != -1
        if x.ndim not in (2, 3) or (target.shape, target.dtype) not in known or soft:
            raise RuntimeError(f"{self}: targets {target} for an input {x}")
        return Type(rows if self.reduction == "none" else rows[:-1], x.dtype)

    def reduced(self, loss: Any, target: Any) -> Any:
        if self.reduction == "none":
            return loss
        total = sum(loss, -1)
        return total / self.counted(target, dtype_of(loss)) if self.reduction == "mean" else total

    def counted(self, target: Any, d: dt.dtype) -> Any:
        if _soft(target):
            return float(shape_of(target)[-2])
        return sum(cast(target != self.ignore, d), -1)

    def cotangents(self, g: Any, target: Any) -> Any:
        """What each row's loss gets of the cotangent of the result."""
        if self.reduction == "mean":
            g = g / self.counted(target, dtype_of(g))
        g = g if self.reduction == "none" else unsqueeze(g, -1)
        if _soft(target):
            return expand(g, shape_of(target)[:-1])
        return g.where(target != self.ignore, 0.0)

    def expected(self, target: Any, classes: int) -> Any:
        """The distribution that probabilities stand for."""
        return target * (1.0 - self.smoothing) + self.smoothing / max(classes, 1)

    def vmap(self, size: int, dims: tuple, *xs: Any) -> tuple[Any, int]:
        """The batch becomes groups, or joins them."""
        rule = by_batch if len(shape_of(xs[-2])) - (dims[-2] is not None) == 2 else by_folding
        return rule(self, size, dims, *xs)


class CrossEntropy(RowLoss):
    """l[n] = -log softmax(x[n])[t], t = target[n], or -sum_c p[c] log softmax(x[n])[c],
    p = target[n] (smoothed); their mean, sum, or all. Without `logits` x is the log softmax, and
    the targets are classes, not smoothed"""

    logits: bool = True

    def type(self, x: Type, target: Type) -> Type:
        return self.fits(x, target)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        x, target = ins
        return kernels.plan_cross_entropy(
            self.layout(x), target, out, **self._given, logits=self.logits
        )

    def fail(self, status: int, arrays: list[np.ndarray]) -> Exception:
        return no_class(arrays[-1], arrays[-2].shape[self.classes], self.ignore)

    def body(self, x: Any, target: Any) -> Any:
        y = self.turned(x)
        y = log_softmax(y, -1) if self.logits else y
        classes = shape_of(x)[self.classes]
        if _soft(target):
            return self.reduced(-sum(y * self.expected(target, classes), -1), target)
        loss = -apply(PickClass(self.ignore), y.movedim(-1, 1), target)
        if self.smoothing:
            spread = -sum(y, -1) * (self.smoothing / classes)
            loss = loss * (1.0 - self.smoothing) + spread.where(target != self.ignore, 0.0)
        return self.reduced(loss, target)

    def oracle(self, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        y, kept = self.turned(x), _kept(self, target)
        if self.logits:
            z = y - y.max(-1, keepdims=True, initial=-np.inf)
            y = z - np.log(np.exp(z).sum(-1, keepdims=True))
        q = _expected(self, y, target)
        loss = -np.where(q == 0, 0.0, q * y).sum(-1)
        if self.reduction == "none":
            return loss
        return loss.sum(-1) / kept.sum(-1) if self.reduction == "mean" else loss.sum(-1)

    def vjp(self, g: Any, y: Any, x: Any, target: Any) -> tuple:
        def to_target() -> Any:
            each = unsqueeze(self.cotangents(g, target), -1)
            return log_softmax(x, -1) * each * (self.smoothing - 1.0)

        if not self.logits:
            own = -self.cotangents(g, target)
            put = apply(PutClass(x.shape[self.classes], self.ignore), own, target)
            return self.turned(put.movedim(1, -1)), None
        to_x = apply(CrossEntropyGrad(**self._given, classes=self.classes), g, x, target)
        return to_x, to_target if _soft(target) else None

    samples = (
        sample((3, 5), (3,), **_TARGET),
        sample((4, 6), (4,), **_TARGET, ignore=1, reduction="sum"),
        sample((4, 70), (4,), **_TARGET, ignore=2, reduction="none", smoothing=0.25),
        sample((2, 5, 5), (2, 5), **_TARGET, ignore=0, smoothing=0.1),
        sample((3, 5), (3, 5)),
        sample((2, 3, 19), (2, 3, 19), reduction="none", smoothing=0.1),
        sample((2, 5, 19), (2, 19), **_TARGET, reduction="none", classes=-2),
        sample((5, 3), (3,), **_TARGET, ignore=1, smoothing=0.1, classes=-2),
        sample((3, 5), (3,), **_TARGET, ignore=1, logits=False),
        sample((2, 5, 5), (2, 5), **_TARGET, reduction="none", classes=-2, logits=False),
    )


class CrossEntropyGrad(RowLoss):
    """y[n] = g (softmax(x[n]) - the target's distribution): the cotangent of CrossEntropy's x"""

    def type(self, g: Type, x: Type, target: Type) -> Type:
        if self.fits(x, target) != g:
            raise RuntimeError(f"{self}: cotangent {g} does not fit {x}")
        return x

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        g, x, target = ins
        x, out = self.layout(x), self.layout(out)
        return kernels.plan_cross_entropy_grad(g, x, target, out, **self._given)

    fail = CrossEntropy.fail

    def body(self, g: Any, x: Any, target: Any) -> Any:
        each = self.cotangents(g, target)
        x, classes = self.turned(x), shape_of(x)[self.classes]
        if _soft(target):
            q = self.expected(target, classes)
            return unsqueeze(each, -1) * (softmax(x, -1) * sum(q, -1, keepdim=True) - q)
        mine = apply(PutClass(classes, self.ignore), each * (1.0 - self.smoothing), target)
        each = unsqueeze(each, -1)
        rest = each * (self.smoothing / max(classes, 1))
        return self.turned(each * softmax(x, -1) - mine.movedim(1, -1) - rest)

    def oracle(self, g: np.ndarray, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        x, kept = self.turned(x), _kept(self, target)
        e = np.exp(x - x.max(-1, keepdims=True, initial=-np.inf))
        if self.reduction != "none":
            g = (g / kept.sum(-1) if self.reduction == "mean" else g)[..., None]
        q = _expected(self, x, target)
        p = e / e.sum(-1, keepdims=True) * q.sum(-1, keepdims=True)
        return self.turned(np.where(kept, g, 0.0)[..., None] * (p - q))

    def vjp(self, h: Any, y: Any, g: Any, x: Any, target: Any) -> tuple:
        def to_g() -> Any:
            ones = full(shape_of(target)[: x.ndim - 1], 1, dtype=g.dtype)
            each = CrossEntropyGrad(self.ignore, "none", self.smoothing, self.classes)
            return self.reduced(sum(h * apply(each, ones, x, target), self.classes), target)

        def to_x() -> Any:
            each = self.cotangents(g, target)
            if _soft(target):
                each = each * sum(self.expected(target, x.shape[-1]), -1)
            to_logits = apply(SoftmaxGrad(), self.turned(h), softmax(self.turned(x), -1))
            return self.turned(to_logits * unsqueeze(each, -1))

        def to_target() -> Any:
            each = unsqueeze(self.cotangents(g, target), -1) * (1.0 - self.smoothing)
            return each * (sum(h * softmax(x, -1), -1, keepdim=True) - h)

        return to_g, to_x, to_target if _soft(target) else None

    samples = (
        sample((), (3, 5), (3,), **_G_TARGET),
        sample((), (4, 6), (4,), **_G_TARGET, ignore=1, reduction="sum"),
        sample((4,), (4, 70), (4,), **_G_TARGET, ignore=2, reduction="none", smoothing=0.25),
        sample((2,), (2, 5, 5), (2, 5), **_G_TARGET, ignore=0, smoothing=0.1),
        sample((), (3, 5), (3, 5)),
        sample((2, 3), (2, 3, 19), (2, 3, 19), reduction="none", smoothing=0.1),
        sample((2, 19), (2, 5, 19), (2, 19), **_G_TARGET, reduction="none", classes=-2),
        sample((), (5, 3), (3,), **_G_TARGET, ignore=1, smoothing=0.1, classes=-2),
    )


def _soft(target: Any) -> bool:
    return dtype_of(target).category == dt.FLOAT


def _kept(op: RowLoss, target: np.ndarray) -> np.ndarray:
    return np.full(target.shape[:-1], True) if target.dtype.kind == "f" else target != op.ignore


def _expected(op: RowLoss, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The distribution over the classes that each target stands for; 0 where it is ignored."""
    if target.dtype.kind == "f":
        return op.expected(target, x.shape[-1])
    kept = target != op.ignore
    q = np.full(x.shape, op.smoothing / max(x.shape[-1], 1), x.dtype)
    q[kept, target[kept]] += 1.0 - op.smoothing
    return q * kept[..., None]
