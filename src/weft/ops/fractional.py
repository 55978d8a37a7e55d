"""Pooling over windows at random places, and reduction of segments.

A fractional pool's windows begin at floor((i + u) a) - floor(u a), a = (n - k) / (m - 1), for n
places, m windows of size k and a u of [0, 1) a plane and dim; the last one ends at the edge.
Source: Graham 2014, with torch's draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.types import numel
from weft.ops.cast import cast
from weft.ops.compare import where
from weft.ops.creation import arange, full
from weft.ops.dispatch import apply, dtype_of, read, shape_of
from weft.ops.gather import gather
from weft.ops.join import cat, stack
from weft.ops.pool import sizes
from weft.ops.random import rand
from weft.ops.reduce import ArgMax
from weft.ops.view import expand, narrow, reshape, select, unsqueeze


def fractional_max_pool2d(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Any = None,
) -> Any:  # fmt: skip
    """The largest of each of output_size windows of (N, C, H, W) or (C, H, W).

    output_size: (h, w), or its share `output_ratio` of the input's; one must be given (ValueError).
    """
    return _pool(2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool3d(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Any = None,
) -> Any:  # fmt: skip
    """The largest of each of output_size windows of (N, C, D, H, W) or (C, D, H, W)."""
    return _pool(3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool2d_with_indices(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Any = None,
) -> Any:  # fmt: skip
    """(fractional_max_pool2d, the places row W + column of the elements chosen)"""
    return _pool(2, input, kernel_size, output_size, output_ratio, True, _random_samples)


def fractional_max_pool3d_with_indices(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Any = None,
) -> Any:  # fmt: skip
    """(fractional_max_pool3d, the flat places of the elements chosen)"""
    return _pool(3, input, kernel_size, output_size, output_ratio, True, _random_samples)


def _pool(
    n: int, input: Any, kernel_size: Any, output_size: Any, output_ratio: Any,
    return_indices: bool, samples: Any,
) -> Any:  # fmt: skip
    name = f"fractional_max_pool{n}d"
    shape = shape_of(input)
    if len(shape) not in (n + 1, n + 2) or 0 in shape[-n - 1 :]:
        raise RuntimeError(
            f"{name}(): Expected {n + 1}D or {n + 2}D tensor with non-zero size, but got: "
            f"{list(shape)}"
        )
    if output_size is None and output_ratio is None:
        raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
    if output_size is None:
        ratio = output_ratio if isinstance(output_ratio, Sequence) else (output_ratio,) * n
        output_size = [int(s * r) for s, r in zip(shape[-n:], ratio, strict=True)]
    kernel, out = (
        sizes("kernel_size", kernel_size, n, name),
        sizes("output_size", output_size, n, name),
    )
    for size, k, m in zip(shape[-n:], kernel, out, strict=True):
        if m + k - 1 > size or min(k, m) < 1:
            raise RuntimeError(f"{name}(): pool size {k} too large relative to input size {size}")
    x = input if len(shape) == n + 2 else unsqueeze(input, 0)
    batch, channels = shape_of(x)[:2]
    if samples is None:
        samples = rand(batch, channels, n, dtype=dtype_of(input))
    elif shape_of(samples)[0] > batch and shape_of(samples)[1:] == (channels, n):
        samples = narrow(samples, 0, 0, batch)
    elif shape_of(samples) != (batch, channels, n):
        raise RuntimeError(
            f"{name}(): Expect _random_samples of shape {[batch, channels, n]}, got "
            f"{list(shape_of(samples))}"
        )
    # torch draws for the last dim of a picture first, for the first dim of a volume
    order = (1, 0) if n == 2 else (0, 1, 2)
    at = None
    for d, which in enumerate(order):
        first = _starts(select(samples, 2, which), shape[-n + d], kernel[d], out[d])
        near = unsqueeze(first, -1) + arange(kernel[d])  # (batch, channels, windows, kernel)
        spread = [1] * (2 * n)
        spread[d], spread[n + d] = out[d], kernel[d]
        near = reshape(near, (batch, channels, *spread))
        at = near if at is None else at * shape[-n + d] + near
    windows = (batch, channels, numel(out))
    at = reshape(at, (*windows, numel(kernel)))
    flat = reshape(x, (batch, channels, numel(shape[-n:])))
    seen = gather(flat, 2, reshape(at, (batch, channels, numel(out) * numel(kernel))))
    best = apply(ArgMax((3,), True), reshape(seen.detach(), shape_of(at)))
    chosen = reshape(gather(at, 3, best), windows)
    y = reshape(gather(flat, 2, chosen), (*shape[:-n], *out))
    return (y, reshape(chosen, (*shape[:-n], *out))) if return_indices else y


def _starts(u: Any, n: int, k: int, m: int) -> Any:
    """Where the m windows of a plane begin: (batch, channels, m)."""
    last = expand(full((1,), n - k, dtype=dt.int64), (*shape_of(u), 1))
    if m == 1:
        return last
    step = (n - k) / (m - 1)
    u = unsqueeze(u, -1)
    near = cast((arange(m - 1) + u) * step, dt.int64) - cast(u * step, dt.int64)
    return cat((near, last), -1)


_NOTHING = {
    "sum": 0.0,
    "mean": float("nan"),
    "max": -float("inf"),
    "min": float("inf"),
    "prod": 1.0,
}


def segment_reduce(
    data: Any, reduce: str, *, lengths: Any = None, indices: Any = None, offsets: Any = None,
    axis: int = 0, unsafe: bool = False, initial: Any = None,
) -> Any:  # fmt: skip
    """sum, mean, max, min or prod of the segments of data along `axis`, begun with `initial`.

    lengths (..., k), or offsets (..., k + 1): the dims of data before that axis, then segments.
    RuntimeError: neither is given, lengths that do not fill the axis (unless `unsafe`).
    """
    if reduce not in _NOTHING:
        raise RuntimeError(f"segment_reduce(): unknown reduction {reduce!r}")
    if indices is not None or (lengths is None) == (offsets is None):
        raise RuntimeError(
            "segment_reduce(): Either lengths or offsets must be defined, not indices."
        )
    marks = lengths if lengths is not None else offsets
    counts = read(marks).astype(np.int64)
    if lengths is None:
        counts = np.diff(counts, axis=-1)
    shape, rank = shape_of(data), counts.ndim
    axis = axis + len(shape) if axis < 0 else axis
    if rank != axis + 1 or counts.shape[:-1] != shape[:axis]:
        raise RuntimeError(
            f"segment_reduce(): lengths {list(counts.shape)} do not fit data {list(shape)} at axis "
            f"{axis}"
        )
    if not unsafe and ((counts < 0).any() or (counts.sum(-1) != shape[axis]).any()):
        raise RuntimeError(
            "segment_reduce(): Expected all rows of lengths along axis to sum to data.size(axis) "
            f"({shape[axis]}), none negative"
        )
    rows = reshape(data, (numel(shape[:axis]), *shape[axis:]))
    found = []
    for i, own in enumerate(counts.reshape(-1, counts.shape[-1])):
        row, start = select(rows, 0, i), 0
        for n in own.tolist():
            found.append(_segment(narrow(row, 0, start, n), reduce, initial))
            start += n
    whole = (*shape[:axis], counts.shape[-1], *shape[axis + 1 :])
    return reshape(stack(found), whole) if found else full(whole, 0.0, dtype=dtype_of(data))


def _segment(x: Any, reduce: str, initial: Any) -> Any:
    n, rest = shape_of(x)[0], shape_of(x)[1:]
    if n == 0:
        return full(
            rest, _NOTHING[reduce] if initial is None else float(initial), dtype=dtype_of(x)
        )
    if reduce in ("sum", "mean"):
        y = x.sum(0) if initial is None else x.sum(0) + initial
        return y / n if reduce == "mean" else y
    if reduce == "prod":
        return x.prod(0) if initial is None else x.prod(0) * initial
    y = x.amax(0) if reduce == "max" else x.amin(0)
    if initial is None:
        return y
    kept = (y >= initial) if reduce == "max" else (y <= initial)
    return where(kept | (y != y), y, float(initial))


_segment_reduce = segment_reduce
