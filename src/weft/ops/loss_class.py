"""Losses over classes, rankings and distances: cross entropy, margins, triplets, divergences."""

from __future__ import annotations

import warnings
from typing import Any

from weft.core import dtype as dt
from weft.core.types import numel, real_number
from weft.ops.activation import spelled
from weft.ops.arithmetic import minimum
from weft.ops.cast import cast, in_float32
from weft.ops.cross_entropy import CrossEntropy
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.einsum import pairwise_distance
from weft.ops.gather import gather
from weft.ops.loss import PickClass, Xlogx, legacy_reduction, reduced
from weft.ops.promote import only_tensors
from weft.ops.reduce import any, mean, sum
from weft.ops.scan import cumprod
from weft.ops.softmax import log_softmax
from weft.ops.unary import exp, relu, sqrt
from weft.ops.view import expand, reshape, unsqueeze


@in_float32
def nll_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """l[n] = -w[t] x[n, t], t = target[n]; the mean divides by the sum of the w[t].

    input (N, C), (C,) or (N, C, d1, ...); target int64 (N,), () or (N, d1, ...) in [0, C) or
    ignore_index.  IndexError "Target 7 is out of bounds."; ValueError where batch sizes differ.
    """
    usual = weight is size_average is reduce is None and ignore_index == -100
    if usual and reduction == "mean" and (y := _NLL_MEAN.quick(input, target)) is not None:
        return y
    reduction = legacy_reduction(size_average, reduce, reduction)
    _check_classes(input, target, weight)
    return _nll(input, target, weight, ignore_index, reduction)


def _nll(
    x: Any, target: Any, weight: Any, ignore: int, reduction: str, smoothing: float = 0.0, *,
    logits: bool = False,
) -> Any:  # fmt: skip
    """nll_loss of log-probabilities (or `logits`) x, with `smoothing` of it over all classes."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    shape = shape_of(target)
    if weight is not None and dtype_of(weight) is not dtype_of(x):
        raise RuntimeError(
            f"expected scalar type {dtype_of(x).spelled} but found {dtype_of(weight).spelled}"
        )
    if len(shape_of(x)) == 1:
        x, target = unsqueeze(x, 0), unsqueeze(target, 0)
    target = cast(target, dt.int64)
    fused = dtype_of(x).category == dt.FLOAT and (weight is None or smoothing == 0)
    if fused and weight is None and len(shape_of(x)) == 2:
        loss = apply(CrossEntropy(ignore, reduction, smoothing, -1, logits), x, target)
        return reshape(loss, shape) if reduction == "none" else loss
    if fused and logits:
        rows, (batch, *places) = len(shape_of(x)) == 2, shape_of(target)
        op = CrossEntropy(ignore, "none", smoothing, -1 if rows else -2)
        own = target if rows else reshape(target, (batch, numel(places)))
        flat = x if rows else reshape(x, (*shape_of(x)[:2], numel(places)))
        picked = reshape(apply(op, flat, own), shape_of(target))
        smoothing = 0.0  # it is in there
    else:
        x = log_softmax(x, 1) if logits else x
        picked = -apply(PickClass(ignore), x, target)
    counted: Any = None
    full: Any = 1.0
    if weight is not None:
        full = reshape(weight, (1, -1, *(1,) * (len(shape_of(x)) - 2)))
        counted = apply(PickClass(ignore), expand(full, shape_of(x)), target)
        picked = picked * counted
    elif reduction == "mean":
        counted = cast(target != ignore, dtype_of(x))
    loss = _reduce_classes(picked, counted, reduction)
    if smoothing > 0:
        spread = -sum(x if weight is None else x * full, 1)
        spread = spread.where(target != ignore, 0.0)
        rest = _reduce_classes(spread, counted, reduction)
        loss = (1 - smoothing) * loss + (smoothing / shape_of(x)[1]) * rest
    return reshape(loss, shape) if reduction == "none" else loss


def _reduce_classes(loss: Any, counted: Any, reduction: str) -> Any:
    return sum(loss) / sum(counted) if reduction == "mean" else reduced(loss, reduction)


def _check_classes(x: Any, target: Any, weight: Any) -> tuple[int, ...]:
    """The shape of the targets; errors in torch's words."""
    a, t = shape_of(x), shape_of(target)
    if not a:
        raise ValueError(f"Expected 1 or more dimensions (got {len(a)})")
    if len(a) > 1 and (a[0] != (t[0] if t else 1)):
        raise ValueError(
            f"Expected input batch_size ({a[0]}) to match target batch_size ({t[0] if t else 1})."
        )
    if len(a) <= 2 and len(t) != len(a) - 1:
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
    if len(a) > 2 and len(t) != len(a) - 1:
        raise RuntimeError(
            f"only batches of spatial targets supported ({len(a) - 1}D tensors) but got targets "
            f"of dimension: {len(t)}"
        )
    if a[2:] != t[1:]:
        raise RuntimeError(f"size mismatch (got input: {list(a)} , target: {list(t)}")
    if dtype_of(target) not in (dt.int64, dt.uint8):
        raise RuntimeError(f"expected target dtype to be Long or Byte, but got {spelled(target)}")
    classes = a[1] if len(a) > 1 else a[0]  # pyright: ignore[reportGeneralTypeIssues]
    if weight is not None and shape_of(weight) != (classes,):
        raise RuntimeError(
            f"weight tensor should be defined either for all {classes} classes or no classes but "
            f"got weight tensor of shape: {list(shape_of(weight))}"
        )
    return t


_MEAN = CrossEntropy(-100, "mean", 0.0)
_NLL_MEAN = CrossEntropy(-100, "mean", 0.0, -1, False)


@in_float32
def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """l[n] = -w[t] log softmax(x[n])[t], or -sum_c w[c] p[n, c] log softmax(x[n])[c].

    input (N, C), (C,) or (N, C, d1, ...), unnormalised.  target: class indices (int64, the shape
    without C), or class probabilities (the input's shape and a floating dtype).  The mean divides
    by the sum of w[t] over targets that are not ignore_index; for probabilities by the row count.
    IndexError "Target 7 is out of bounds."
    """
    usual = weight is size_average is reduce is None and ignore_index == -100
    usual = usual and reduction == "mean" and label_smoothing == 0
    if usual and (y := _MEAN.quick(input, target)) is not None:  # as it came before
        return y
    reduction = legacy_reduction(size_average, reduce, reduction)
    if not 0 <= real_number(label_smoothing, "cross_entropy", "label_smoothing") <= 1:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing:g}")
    shape = shape_of(input)
    dim = 0 if len(shape) == 1 else 1
    if shape != shape_of(target):
        if shape:
            _check_classes(input, target, weight)
        smoothing = float(label_smoothing)
        return _nll(input, target, weight, ignore_index, reduction, smoothing, logits=True)
    if dtype_of(target).category != dt.FLOAT:
        raise RuntimeError(
            "Expected floating point type for target with class probabilities, got "
            f"{spelled(target)}"
        )
    if ignore_index >= 0:
        raise RuntimeError("ignore_index is not supported for floating point target")
    classes = shape[dim]
    rows = len(shape) == 2 and dtype_of(target) is dtype_of(input)
    rows = rows and reduction in ("none", "mean", "sum")
    if rows and weight is None:
        return apply(CrossEntropy(-100, reduction, float(label_smoothing)), input, target)
    if label_smoothing > 0:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    if weight is not None:
        target = target * reshape(weight, (-1, *(1,) * (len(shape) - 1 - dim)))
    if rows and dtype_of(target) is dtype_of(input):
        return apply(CrossEntropy(-100, reduction), input, target)
    loss = log_softmax(input, dim) * target
    if reduction == "none":
        return -sum(loss, dim)
    count = numel(shape[:dim]) * numel(shape[dim + 1 :])
    total = -sum(loss)
    return total / float(count) if reduction == "mean" else reduced(total, reduction)


@in_float32
def kl_div(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Any:
    """l = t (log t - x) of log-probabilities x; log_target: l = e**t (t - x).

    reduction "batchmean" divides the sum by the first size, which is the divergence a row.
    """
    only_tensors("kl_div", input, target, names=("input", "target"))
    legacy = size_average is not None or reduce is not None
    reduction = legacy_reduction(size_average, reduce, reduction)
    if reduction == "mean" and not legacy:
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size."
            "'batchmean' divides only by the batch size, and aligns with the KL div math "
            "definition.'mean' will be changed to behave the same as 'batchmean' in the next major "
            "release.",
            stacklevel=2,
        )
    loss = exp(target) * (target - input) if log_target else apply(Xlogx(), target) - target * input
    if reduction == "batchmean":
        rows = shape_of(input)[0] if shape_of(input) else 1
        return sum(loss) / float(rows)
    return reduced(loss, reduction)


@in_float32
def margin_ranking_loss(
    input1: Any,
    input2: Any,
    target: Any,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """l = max(0, margin - t (x1 - x2)), t = 1 or -1."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    shapes = [shape_of(x) for x in (input1, input2, target)]
    if len({len(s) for s in shapes}) != 1:
        a, b, t = (f"torch.Size({list(s)})" for s in shapes)
        raise RuntimeError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: "
            f"input1: {a}, input2: {b}, target: {t} "
        )
    return reduced(relu(-target * (input1 - input2) + margin), reduction)


@in_float32
def cosine_embedding_loss(
    input1: Any,
    input2: Any,
    target: Any,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """l = 1 - cos(x1, x2) where t = 1, max(0, cos(x1, x2) - margin) where t = -1.

    inputs (N, D) and target (N,), or (D,) and ().
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    t, a, b = shape_of(target), shape_of(input1), shape_of(input2)
    if len(t) > 1:
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
    if len(a) != len(t) + 1 or len(b) != len(t) + 1:
        what = "0D target tensor expects 1D" if not t else "1D target tensor expects 2D"
        raise RuntimeError(
            f"{what} input tensors, but found inputs with sizes {list(a)} and {list(b)}."
        )
    small = 1e-12
    lengths = sqrt((sum(input1 * input1, -1) + small) * (sum(input2 * input2, -1) + small))
    cos = sum(input1 * input2, -1) / lengths
    together = (1 - cos).where(target == 1, 0.0)
    return reduced(together + relu(cos - margin).where(target == -1, 0.0), reduction)


def _triplet(positive: Any, negative: Any, across: Any, margin: float, reduction: str) -> Any:
    """max(0, margin + d(a, p) - min(d(a, n), d(p, n)))"""
    if across is not None:
        negative = minimum(negative, across)
    return reduced(relu(margin + positive - negative), reduction)


def _check_triplet(anchor: Any, positive: Any, negative: Any, margin: float) -> None:
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    a, p, n = (len(shape_of(x)) for x in (anchor, positive, negative))
    if not a == p == n:
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of "
            f"dimensions, but got: anchor {a}D, positive {p}D, and negative {n}D inputs"
        )


@in_float32
def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """l = max(0, margin + d(a, p) - d(a, n)), d the p-norm.

    swap: the smaller of d(a, n) and d(p, n) takes the place of d(a, n).
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    _check_triplet(anchor, positive, negative, margin)
    across = pairwise_distance(positive, negative, p, eps) if swap else None
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    return _triplet(near, far, across, margin, reduction)


def triplet_margin_with_distance_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    *,
    distance_function: Any = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Any:
    """triplet_margin_loss with a distance of the caller's (pairwise_distance by default)."""
    _check_triplet(anchor, positive, negative, margin)
    distance = distance_function or pairwise_distance
    near, far = distance(anchor, positive), distance(anchor, negative)
    return _triplet(near, far, distance(positive, negative) if swap else None, margin, reduction)


@in_float32
def multi_margin_loss(
    input: Any,
    target: Any,
    p: int = 1,
    margin: float = 1.0,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """l[n] = mean over c != t of w[t] max(0, margin - x[t] + x[c])^p (divided by C); p = 1 or 2."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    _need_classes(target, reduction, weight)
    single = len(shape_of(input)) <= 1
    x = reshape(input, (1, numel(shape_of(input)))) if single else input
    t = unsqueeze(target, 0) if not shape_of(target) else target
    mine = unsqueeze(apply(PickClass(), x, t), 1)
    gap = relu(x - mine + margin)
    gap = gap if p == 1 else gap * gap
    gap = gap.where(unsqueeze(t, 1) != _classes(t, shape_of(x)[1]), 0.0)
    if weight is not None:
        gap = gap * unsqueeze(apply(PickClass(), expand(weight, shape_of(x)), t), 1)
    loss = mean(gap, 1)
    return reduced(reshape(loss, ()) if single and reduction == "none" else loss, reduction)


@in_float32
def multilabel_margin_loss(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """l = sum over targets t and other classes c of max(0, 1 - x[t] + x[c]) / C.

    input (N, C) or (C,); target of that shape lists classes up to the first -1.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    _need_classes(target, reduction)
    single = len(shape_of(input)) <= 1
    x, t = (reshape(v, (1, numel(shape_of(v)))) if single else v for v in (input, target))
    if shape_of(x) != shape_of(t):
        raise RuntimeError(
            f"inconsistent size {list(shape_of(target))} for multi-label targets of an input of "
            f"size {list(shape_of(input))}"
        )
    classes = shape_of(x)[1]
    listed = cumprod(cast(t >= 0, dt.int64), 1) != 0
    mine = (unsqueeze(t, 2) == _classes(t, classes)) & unsqueeze(listed, 2)
    other = ~any(mine, 1)
    gap = relu(1 - unsqueeze(gather(x, 1, t.where(listed, 0)), 2) + unsqueeze(x, 1))
    loss = sum(gap.where(unsqueeze(listed, 2) & unsqueeze(other, 1), 0.0), (1, 2)) / float(classes)
    return reduced(reshape(loss, ()) if single and reduction == "none" else loss, reduction)


def _need_classes(target: Any, reduction: str, weight: Any = None) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    if weight is not None and len(shape_of(weight)) != 1:
        raise ValueError(f"weight must be one-dimensional, got {len(shape_of(weight))} dimensions")
    if dtype_of(target) is not dt.int64:
        raise RuntimeError(f"expected scalar type Long but found {dtype_of(target).spelled}")


def _classes(like: Any, n: int) -> Any:
    return like.new_tensor(list(range(n)))
