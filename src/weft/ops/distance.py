"""Lengths and angles of vectors: normalize, pairwise_distance, cosine_similarity."""

from __future__ import annotations

import math
from typing import Any

from weft.core.types import broadcast_shapes, wrap_dim
from weft.ops.dispatch import shape_of
from weft.ops.pointwise import clamp_min
from weft.ops.promote import operands
from weft.ops.reduce import amax, amin, sum
from weft.ops.unary import abs, sqrt
from weft.ops.view import expand

__all__ = ["cosine_similarity", "pairwise_distance"]


def length(x: Any, p: float, dim: Any, keepdim: bool) -> Any:
    """(sum |x|^p)^(1/p) along dim; the largest or smallest |x| for p = inf, -inf."""
    if p == 2:
        return sqrt(sum(x * x, dim, keepdim))
    if p == 1:
        return sum(abs(x), dim, keepdim)
    if p == math.inf:
        return amax(abs(x), dim, keepdim)
    if p == -math.inf:
        return amin(abs(x), dim, keepdim)
    if p == 0:
        return sum((x != 0).to(x.dtype), dim, keepdim)
    return sum(abs(x) ** p, dim, keepdim) ** (1 / p)


def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Any:
    """y = x / max(length of x along dim, eps); lengths in the p-norm."""
    shape = shape_of(input)
    if isinstance(dim, int):
        wrap_dim(dim, len(shape), "normalize")
    y = input / expand(clamp_min(length(input, p, dim, True), eps), shape)
    return y if out is None else out.copy_result(y)


def pairwise_distance(
    x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Any:
    """y = the p-norm of x1 - x2 + eps along the last dim; x1 and x2 broadcast."""
    return length(x1 - x2 + eps, float(p), -1, keepdim)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """y = <x1, x2> / (max(|x1|, eps) max(|x2|, eps)) along dim; x1 and x2 broadcast."""
    x1, x2 = operands("cosine_similarity", x1, x2, floating=True)
    shape = broadcast_shapes(shape_of(x1), shape_of(x2), op="cosine_similarity")
    wrap_dim(dim, len(shape), "cosine_similarity")
    x1, x2 = expand(x1, shape), expand(x2, shape)
    n1 = clamp_min(length(x1, 2, dim, True), eps)
    n2 = clamp_min(length(x2, 2, dim, True), eps)
    return sum((x1 / n1) * (x2 / n2), dim)
