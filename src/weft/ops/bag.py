"""Layers of several operands: sums of embeddings, bilinear forms, slopes drawn at random."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.handle import state
from weft.core.op import sample
from weft.core.types import numel
from weft.ops.activation import leaky_relu
from weft.ops.cast import cast
from weft.ops.contract import matmul
from weft.ops.creation import arange, zeros
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.gather import scatter_reduce
from weft.ops.index import embedding, index_add
from weft.ops.pointwise import clamp_min
from weft.ops.random import DrawFrom
from weft.ops.reduce import amax, sum
from weft.ops.view import expand, permute, reshape, unsqueeze
from weft.ops.write import check_writable, write

__all__ = ["bilinear", "rrelu"]


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """y[..., o] = sum over i, j of x1[..., i] w[o, i, j] x2[..., j] + b[o].

    input1 (..., I), input2 (..., J), weight (O, I, J), bias (O,).
    """
    a, b, w = shape_of(input1), shape_of(input2), shape_of(weight)
    if not a or not b or len(w) != 3:
        raise RuntimeError(
            "bilinear(): expected inputs of 1 or more dims and a weight of 3, got "
            f"{list(a)}, {list(b)} and {list(w)}"
        )
    if a[:-1] != b[:-1]:
        raise RuntimeError(
            f"bilinear(): input batch dimensions do not match: got {list(a)} and {list(b)}"
        )
    for i, (x, n) in enumerate(((a, w[1]), (b, w[2])), 1):
        if x[-1] != n:
            raise RuntimeError(
                f"bilinear(): input{i} size does not match weight size: got {x[-1]} but expected "
                f"{n}"
            )
    if bias is not None and shape_of(bias) != w[:1]:
        raise RuntimeError(
            f"bilinear(): bias size does not match weight size: got {list(shape_of(bias))} but "
            f"expected {[w[0]]}"
        )
    rows = numel(a[:-1])
    left = matmul(
        reshape(input1, (rows, w[1])), reshape(permute(weight, (1, 0, 2)), (w[1], w[0] * w[2]))
    )
    y = matmul(reshape(left, (rows, w[0], w[2])), reshape(input2, (rows, w[2], 1)))
    y = reshape(y, (*a[:-1], w[0]))
    return y if bias is None else y + bias


class RreluSlopes(DrawFrom):
    """y = 1 where x > 0, else a number of [lower, upper)"""

    lower: float = 0.125
    upper: float = 1 / 3

    def host(self, x: np.ndarray) -> np.ndarray:
        y = np.ones(x.shape, x.dtype)
        low = ~(x > 0)
        drawn = self.source().uniform(int(low.sum()), self.lower, self.upper, np.float64)
        y[low] = drawn.astype(x.dtype)
        return y

    oracle = host
    samples = (sample((3, 4)),)


def rrelu(
    input: Any,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Any:
    """y = x where x > 0, else r x: r drawn from [lower, upper) in training, else their mean.

    Source: Xu et al. 2015.
    """
    if lower > upper:
        raise RuntimeError("Lower bound should be less than or equal to the upper bound")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    x = input.clone() if inplace and input._rg and state.grad else input
    y = x * apply(RreluSlopes(None, float(lower), float(upper)), input.detach())
    if not inplace:
        return y
    check_writable(input)
    return write(input, y)


def embedding_bag(
    input: Any,
    weight: Any,
    offsets: Any = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """The sum, mean or maximum of each bag's embeddings, (bags, d); zeros for an empty bag.

    input (bags, n), or (n,) with offsets (bags,) where each bag begins; include_last_offset: the
    last offset ends the last bag.  padding_idx: such entries count as absent.  per_sample_weights:
    factors, for "sum" only.  sparse: weight's gradient is a sparse tensor of the rows that occur.
    ValueError: ranks or sizes that do not fit.
    """
    shape = shape_of(input)
    if per_sample_weights is not None and shape_of(per_sample_weights) != shape:
        raise ValueError(
            f"embedding_bag: If per_sample_weights ({shape_of(per_sample_weights)}) is not None, "
            f"then it must have the same shape as the input ({shape})"
        )
    if len(shape_of(weight)) != 2:
        raise ValueError(
            f"weight has to be a 2D Tensor, but got Tensor of dimension {len(shape_of(weight))}"
        )
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported "
            f"for mode='sum' (got mode='{mode}'). Please open a feature request on GitHub."
        )
    if len(shape) == 2:
        if offsets is not None:
            raise ValueError(
                "if input is 2D, then offsets has to be None, as input is treated is a mini-batch "
                f"of fixed length sequences. However, found offsets of type {type(offsets)}"
            )
        bags, n = shape
        bag = reshape(expand(unsqueeze(arange(bags), 1), (bags, n)), (bags * n,))
    elif len(shape) == 1:
        if offsets is None or len(shape_of(offsets)) != 1:
            raise ValueError("offsets has to be a 1D Tensor" + " but got None" * (offsets is None))
        bags = shape_of(offsets)[0] - bool(include_last_offset)
        starts = offsets[:bags]
        bag = sum(cast(unsqueeze(arange(shape[0]), 1) >= starts, dt.int64), 1) - 1
    else:
        raise ValueError(
            f"input has to be 1D or 2D Tensor, but got Tensor of dimension {len(shape)}"
        )
    flat = reshape(input, (-1,))
    rows = embedding(flat, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    d, width = dtype_of(rows), shape_of(weight)[1]
    if per_sample_weights is not None:
        rows = rows * unsqueeze(reshape(per_sample_weights, (-1,)), 1)
    kept = None if padding_idx is None else flat != padding_idx % shape_of(weight)[0]
    if mode == "max":
        return _largest(rows, bag, kept, bags, width)
    if kept is not None:
        rows = rows.where(unsqueeze(kept, 1), 0.0)
    if len(shape) == 2:
        total = sum(reshape(rows, (bags, -1, width)), 1)
    else:
        total = index_add(zeros(bags, width, dtype=d), 0, bag, rows)
    if mode == "sum":
        return total
    ones = cast(flat == flat if kept is None else kept, d)
    count = index_add(zeros(bags, dtype=d), 0, bag, ones)
    return total / unsqueeze(clamp_min(count, 1.0), 1)


def _largest(rows: Any, bag: Any, kept: Any, bags: int, width: int) -> Any:
    """The maximum of each bag's rows; 0 where a bag has none."""
    if kept is not None:
        rows = rows.where(unsqueeze(kept, 1), -math.inf)
    start = zeros(bags, width, dtype=dtype_of(rows))
    at = expand(unsqueeze(bag, 1), shape_of(rows))
    found = scatter_reduce(start, 0, at, rows, "amax", include_self=False)
    none = amax(found.detach(), 1, keepdim=True) == -math.inf
    return found.where(~none, 0.0)
