"""Histograms, differences on a grid, mantissas: torch's numerical odds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.handle import Handle
from weft.core.types import real_number, whole, wrap_dim
from weft.ops.complex_parts import imag
from weft.ops.creation import full
from weft.ops.dispatch import dtype_of, read, shape_of, wrap
from weft.ops.join import cat
from weft.ops.returns import FrExp, Histogram, HistogramDD
from weft.ops.view import narrow, reshape


def _edges(a: np.ndarray, bins: Any, low: float | None, high: float | None) -> np.ndarray:
    if isinstance(bins, Handle):
        if shape_of(bins) == (0,):
            raise RuntimeError(
                "torch.histogramdd: bins tensor should have at least 1 element, but got 0 elements"
            )
        if len(shape_of(bins)) != 1:
            raise RuntimeError(
                "torch.histogramdd: bins tensor should have one dimension, but got "
                f"{len(shape_of(bins))} dimensions in the bins tensor"
            )
        return np.array(read(bins), a.dtype)
    if whole(bins, "histogramdd", "bins") <= 0:
        raise RuntimeError(f"torch.histogramdd(): bins must be > 0, but got {bins}")
    if low is None or high is None or low == high:
        low, high = (float(a.min()), float(a.max())) if a.size else (0.0, 0.0)
        if low == high:
            low, high = (low - 0.5, high + 0.5) if a.size else (0.0, 1.0)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RuntimeError(f"torch.histogramdd: dimension 0's range [{low}, {high}] is not finite")
    if low > high:
        raise RuntimeError("torch.histogramdd: min should not exceed max")
    return np.linspace(low, high, int(bins) + 1).astype(a.dtype)


def histogramdd(
    input: Any, bins: Any, range: Sequence[float] | None = None, weight: Any = None,
    density: bool = False,
) -> Any:  # fmt: skip
    """(hist, edges of each dim) of points (..., N): the last bin holds its right edge as well."""
    if len(shape_of(input)) < 2:
        raise RuntimeError("torch.histogramdd: input tensor should have at least 2 dimensions")
    n = shape_of(input)[-1]
    a = read(input).reshape(-1, n)
    every = [bins] * n if isinstance(bins, int) else list(bins)
    if len(every) != n:
        raise RuntimeError(f"torch.histogramdd: expected {n} sequences of bins, got {len(every)}")
    if range is not None and (not isinstance(range, (tuple, list)) or len(range) != 2 * n):
        raise TypeError(f"histogramdd(): argument 'range' must be tuple of {2 * n} floats")
    ends = [real_number(v, "histogramdd", "range") for v in range or ()] or [None] * 2 * n
    edges = [_edges(a[:, i], every[i], ends[2 * i], ends[2 * i + 1]) for i in np.arange(n)]
    w = np.ones(len(a)) if weight is None else read(weight).reshape(-1)
    shape = tuple(len(e) - 1 for e in edges)
    inside, place = np.ones(len(a), bool), np.zeros(len(a), np.int64)
    for i, e in enumerate(edges):
        v = a[:, i]
        at = np.searchsorted(e, v, "right") - 1
        at = np.where(v == e[-1], shape[i] - 1, at)
        inside &= (v >= e[0]) & (v <= e[-1]) & (at < shape[i])
        place = place * shape[i] + at
    size = math.prod(shape)
    hist = np.bincount(place[inside], w[inside], minlength=size).reshape(shape)
    if density:
        hist = hist / hist.sum()
        for i, e in enumerate(edges):
            widths = np.diff(e.astype(np.float64))
            hist = hist / widths.reshape([-1 if j == i else 1 for j in np.arange(n)])
    bounds = tuple(
        b if isinstance(b, Handle) else wrap(e) for b, e in zip(every, edges, strict=True)
    )
    return HistogramDD(wrap(hist.astype(a.dtype)), bounds)


def histogram(
    input: Any, bins: Any, *, range: Sequence[float] | None = None, weight: Any = None,
    density: bool = False, out: Any = None,
) -> Any:  # fmt: skip
    """(hist, bin_edges) of all elements."""
    points = reshape(input, (-1, 1))
    hist, edges = histogramdd(points, [bins], range, weight, density)
    y = Histogram(hist, edges[0].clone() if isinstance(bins, Handle) else edges[0])
    return y if out is None else Histogram(*(o.copy_result(v) for o, v in zip(out, y, strict=True)))


def frexp(input: Any, *, out: Any = None) -> Any:
    """(mantissa, exponent): input = mantissa * 2^exponent, 0.5 <= |mantissa| < 1 or 0."""
    if dtype_of(input).category != dt.FLOAT:
        raise RuntimeError("torch.frexp() only supports floating-point dtypes")
    exponent = wrap(np.asarray(np.frexp(read(input))[1], np.int32))
    wide = exponent.to(dtype_of(input))
    half = wide.div(2, rounding_mode="floor")  # in two steps: 2^exponent may overflow
    y = FrExp(input * (-half).exp2() * (half - wide).exp2(), exponent)
    return y if out is None else FrExp(*(o.copy_result(v) for o, v in zip(out, y, strict=True)))


def _slope(y: Any, places: Any, d: int, edge_order: int) -> Any:
    """The derivative along d; `places` a step, or the coordinates along d."""
    n = shape_of(y)[d]
    if n < edge_order + 1:
        raise RuntimeError(
            "torch.gradient expected each dimension size to be at least edge_order+1"
        )
    part = lambda i, k=1: narrow(y, d, i, k)
    if not isinstance(places, Handle):
        h = float(places)
        inner = (part(2, n - 2) - part(0, n - 2)) / (2 * h)
        if edge_order == 1:
            first, last = (part(1) - part(0)) / h, (part(n - 1) - part(n - 2)) / h
        else:
            first = (part(0) * -1.5 + part(1) * 2 - part(2) * 0.5) / h
            last = (part(n - 1) * 1.5 - part(n - 2) * 2 + part(n - 3) * 0.5) / h
        return cat((first, inner, last), d)
    line = [1] * len(shape_of(y))
    line[d] = n - 1
    gaps = reshape(narrow(places, 0, 1, n - 1) - narrow(places, 0, 0, n - 1), line).to(dtype_of(y))
    gap = lambda i, k=1: narrow(gaps, d, i, k)
    a, b = gap(0, n - 2), gap(1, n - 2)
    inner = (
        part(0, n - 2) * (-b / (a * (a + b))) + part(1, n - 2) * ((b - a) / (a * b))
        + part(2, n - 2) * (a / (b * (a + b)))
    )  # fmt: skip
    if edge_order == 1:
        first, last = (part(1) - part(0)) / gap(0), (part(n - 1) - part(n - 2)) / gap(n - 2)
    else:
        a, b = gap(0), gap(1)
        first = (
            part(0) * (-(2 * a + b) / (a * (a + b))) + part(1) * ((a + b) / (a * b))
            - part(2) * (a / (b * (a + b)))
        )  # fmt: skip
        a, b = gap(n - 3), gap(n - 2)
        last = (
            part(n - 3) * (b / (a * (a + b))) - part(n - 2) * ((a + b) / (a * b))
            + part(n - 1) * ((a + 2 * b) / (b * (a + b)))
        )  # fmt: skip
    return cat((first, inner, last), d)


def gradient(input: Any, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1) -> tuple:
    """The derivative along each dim by central differences of second order."""
    rank = len(shape_of(input))
    if edge_order not in (1, 2):
        raise RuntimeError("torch.gradient only supports edge_order=1 and edge_order=2.")
    if dim is None:
        dims = list(np.arange(rank).tolist())
    else:
        dims = [wrap_dim(d, rank, "gradient") for d in ((dim,) if isinstance(dim, int) else dim)]
    if len(set(dims)) != len(dims):
        raise RuntimeError("dim appears multiple times in the list of dims")
    spacing = 1 if spacing is None else spacing
    steps = [spacing] * len(dims) if isinstance(spacing, int | float) else list(spacing)
    if isinstance(spacing, Handle):
        steps = [spacing]
    if len(steps) != len(dims):
        raise RuntimeError(
            "torch.gradient expected spacing to be unspecified, a scalar, or a list of length equal"
            f" to 'self.dim() = {rank}', but got a list of length {len(steps)}"
        )
    for s, d in zip(steps, dims, strict=True):
        if isinstance(s, Handle) and len(shape_of(s)) and shape_of(s)[0] != shape_of(input)[d]:
            raise RuntimeError(
                "torch.gradient expected each spacing tensor to have as many elements as its dim"
            )
    x = input if dtype_of(input).category >= dt.FLOAT else input.to(dt.float32)
    return tuple(_slope(x, s, d, edge_order) for s, d in zip(steps, dims, strict=True))


def nonzero_static(input: Any, *, size: int, fill_value: int = -1, out: Any = None) -> Any:
    """The places that are not 0, cut to `size` rows or filled up with fill_value."""
    if size < 0:
        raise RuntimeError("nonzero_static: 'size' must be an non-negative integer")
    found = input.nonzero()[:size]
    missing = size - shape_of(found)[0]
    rest = full((missing, len(shape_of(input))), fill_value, dtype=dt.int64)
    y = cat((found, rest), 0) if missing else found
    return y if out is None else out.copy_result(y)


def fill(input: Any, value: Any) -> Any:
    """A tensor as the input, each element `value`; a 0-dim tensor gets the gradient."""
    if isinstance(value, Handle) and len(shape_of(value)):
        raise RuntimeError(
            "fill only supports 0-dimension value tensor but got tensor with "
            f"{len(shape_of(value))} dimensions."
        )
    return input.masked_fill(full((), True, dtype=dt.bool), value)


def isreal(input: Any) -> Any:
    """Whether each element has no imaginary part."""
    if dtype_of(input).is_complex:
        return imag(input) == 0
    return full(shape_of(input), True, dtype=dt.bool)
