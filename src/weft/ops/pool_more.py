"""Made of pools: three dims, power averages, unpooling, a norm over neighbouring channels."""

from __future__ import annotations

import math
from typing import Any

from weft.core import dtype as dt
from weft.core.op import Op
from weft.core.types import need_floats, numel
from weft.ops.arithmetic import floor_divide
from weft.ops.cast import cast
from weft.ops.conv import sizes
from weft.ops.creation import zeros
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.gather import gather, scatter
from weft.ops.pool import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool2dPlaces,
    AvgPool2d,
    MaxPool2d,
    MaxPool2dPlaces,
    avg_pool1d,
    avg_pool2d,
    largest,
    max_pool1d,
    max_pool2d,
    windows_of,
)
from weft.ops.promote import only_tensors
from weft.ops.unary import abs, relu, sign
from weft.ops.view import narrow, reshape

__all__ = ["max_pool3d"]


def _volumes(name: str, x: Any) -> tuple[Any, bool]:
    """x as (N, C, D, H, W), and whether it had no batch."""
    shape = shape_of(x)
    if len(shape) not in (4, 5):
        raise RuntimeError(f"{name}: non-empty 4D or 5D (batch mode) tensor expected for input")
    if dtype_of(x) is dt.int64:  # whole numbers up to 2^53 are exact in float64
        x = x.to(dt.float64)
    need_floats(name, x)
    return (reshape(x, (1, *shape)), True) if len(shape) == 4 else (x, False)


def _by_depth(x: Any, images: Any, depths: Any, run: Any = apply) -> Any:
    """`images` on every H x W slice, then `depths` along D."""
    n, c, d, h, w = shape_of(x)
    y = run(images, reshape(x, (n, c * d, h, w)))
    oh, ow = shape_of(y)[2:]
    y = run(depths, reshape(y, (n, c, d, oh * ow)))
    return reshape(y, (n, c, shape_of(y)[2], oh, ow))


def _places_by_depth(x: Any, images: Op, image_places: Op, depth_places: Op) -> Any:
    """Where in D x H x W the maxima of `_by_depth` stand: the first of equals in both passes."""
    n, c, d, h, w = shape_of(x)
    slices = reshape(x, (n, c * d, h, w))
    y, at = apply(images, slices), apply(image_places, slices)
    oh, ow = shape_of(y)[2:]
    p = apply(depth_places, reshape(y, (n, c, d, oh * ow)))
    od = shape_of(p)[2]
    flat = reshape(p, (n, c, od * oh * ow))
    inner = gather(reshape(at, (n, c, d * oh * ow)), 2, flat)
    return reshape(floor_divide(flat, oh * ow) * (h * w) + inner, (n, c, od, oh, ow))


def _finished(input: Any, found: list, single: bool) -> Any:
    """Without the batch that was added, values in the input's dtype; alone or (values, places)."""
    out = [reshape(y, shape_of(y)[1:]) if single else y for y in found]
    out[0] = cast(out[0], dtype_of(input))
    return out[0] if len(out) == 1 else tuple(out)


def _geometry(name: str, x: Any, *given: Any) -> tuple[tuple, tuple]:
    """`windows_of` volumes x, as the fields of the image pool and of the depth pool."""
    found = windows_of(name, 3, x, *given)
    depths = ((v[0], flat) for v, flat in zip(found, (1, 1, 0, 1), strict=True))
    return (*(v[1:] for v in found), given[-1]), (*depths, given[-1])


def max_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest of each window of (N, C, D, H, W) or (C, D, H, W)."""
    x, single = _volumes("max_pool3d", input)
    if 0 in shape_of(x)[1:]:
        raise RuntimeError(
            "max_pool3d(): Expected input's non-batch dimensions to have positive length, but "
            f"input has a shape of {list(shape_of(input))}"
        )
    images, depths = _geometry("max_pool3d", x, kernel_size, stride, padding, dilation, ceil_mode)
    pools = MaxPool2d(*images), MaxPool2d(*depths)
    found = [_by_depth(x, *pools, largest)]
    if return_indices:
        places = MaxPool2dPlaces(*images), MaxPool2dPlaces(*depths)
        found.append(_places_by_depth(x, pools[0], *places))
    return _finished(input, found, single)


def avg_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """The average of each window of (N, C, D, H, W) or (C, D, H, W)."""
    if divisor_override == 0:
        raise RuntimeError("divisor must be not zero")
    x, single = _volumes("avg_pool3d", input)
    images, depths = _geometry("avg_pool3d", x, kernel_size, stride, padding, 1, ceil_mode)
    divisor = None if divisor_override is None else 1
    rest = (bool(count_include_pad), divisor)
    y = _by_depth(x, AvgPool2d(*images, *rest), AvgPool2d(*depths, *rest))
    y = y if divisor is None else y / float(divisor_override or 1)
    return _finished(input, [y], single)


def _adaptive(name: str, input: Any, output_size: Any, kind: Any, places: Any = None) -> Any:
    if len(shape_of(input)) < 4 and isinstance(output_size, (tuple, list)):
        raise ValueError("Input dimension should be at least 4")
    x, single = _volumes(name, input)
    given = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * 3
    if len(given) != 3:
        raise RuntimeError(f"{name}: output_size must be 3")
    size = [n if o is None else int(o) for o, n in zip(given, shape_of(x)[2:], strict=True)]
    oh, ow = size[1:]
    sizes_of = (oh, ow), (size[0], oh * ow)
    pools = [kind(s) for s in sizes_of]
    found = [_by_depth(x, *pools)]
    if places is not None:
        found.append(_places_by_depth(x, pools[0], *(places(s) for s in sizes_of)))
    return _finished(input, found, single)


def adaptive_avg_pool3d(input: Any, output_size: Any) -> Any:
    """The averages of (OD, OH, OW) parts of (N, C, D, H, W) or (C, D, H, W); None keeps a size."""
    return _adaptive("adaptive_avg_pool3d", input, output_size, AdaptiveAvgPool2d)


def adaptive_max_pool3d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of (OD, OH, OW) parts of (N, C, D, H, W) or (C, D, H, W), and their places."""
    places = AdaptiveMaxPool2dPlaces if return_indices else None
    return _adaptive("adaptive_max_pool3d", input, output_size, AdaptiveMaxPool2d, places)


def _power_mean(
    x: Any, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool, n: int
) -> Any:
    """(sum of x^p over each window)^(1/p)"""
    only_tensors(f"lp_pool{n}d", x)
    pairs = ((avg_pool1d, max_pool1d), (avg_pool2d, max_pool2d), (avg_pool3d, max_pool3d))
    average, largest = pairs[n - 1]
    if norm_type == math.inf:
        return largest(abs(x), kernel_size, stride, 0, 1, ceil_mode)
    if norm_type == -math.inf:
        return -largest(-abs(x), kernel_size, stride, 0, 1, ceil_mode)
    count = math.prod(sizes("kernel_size", kernel_size, n, "lp_pool"))
    out = average(x**norm_type, kernel_size, stride, 0, ceil_mode)
    return (sign(out) * relu(abs(out)) * count) ** (1.0 / norm_type)


def lp_pool1d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """(sum of x^p over each window)^(1/p) of (N, C, L) or (C, L)."""
    return _power_mean(input, norm_type, kernel_size, stride, ceil_mode, 1)


def lp_pool2d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """(sum of x^p over each window)^(1/p) of (N, C, H, W) or (C, H, W)."""
    return _power_mean(input, norm_type, kernel_size, stride, ceil_mode, 2)


def lp_pool3d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """(sum of x^p over each window)^(1/p) of (N, C, D, H, W) or (C, D, H, W)."""
    return _power_mean(input, norm_type, kernel_size, stride, ceil_mode, 3)


def _unpool(
    n: int, input: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Any:
    name = f"max_unpool{n}d"
    shape = shape_of(input)
    if len(shape) not in (n + 1, n + 2):
        raise RuntimeError(f"{name}: expected {n + 1}D or {n + 2}D input, got {list(shape)}")
    if shape_of(indices) != shape:
        raise RuntimeError(
            "Expected shape of indices to be same as that of the input tensor "
            f"({list(shape)}) but got indices tensor with shape: {list(shape_of(indices))}"
        )
    if dtype_of(indices) is not dt.int64:
        raise RuntimeError(
            f"elements in indices should be type int64 but got: {dtype_of(indices).name}"
        )
    kernel = sizes("kernel_size", kernel_size, n, name)
    step = kernel if stride is None else sizes("stride", stride, n, name)
    pad = sizes("padding", padding, n, name)
    size = tuple(
        (m - 1) * s + k - 2 * p for m, s, k, p in zip(shape[-n:], step, kernel, pad, strict=True)
    )
    if output_size is not None:
        size = tuple(int(s) for s in tuple(output_size)[-n:])
    lead = shape[:-n]
    flat = reshape(input, (*lead, numel(shape[-n:])))
    places = reshape(indices, shape_of(flat))
    empty = zeros((*lead, numel(size)), dtype=dtype_of(input))
    return reshape(scatter(empty, -1, places, flat), (*lead, *size))


def max_unpool1d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Any = None,
) -> Any:  # fmt: skip
    """Zeros, with input's elements where max_pool1d's indices say; of several at one the last."""
    return _unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Any = None,
) -> Any:  # fmt: skip
    """Zeros, with input's elements where max_pool2d's indices say; of several at one the last."""
    return _unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Any = None,
) -> Any:  # fmt: skip
    """Zeros, with input's elements where max_pool3d's indices say; of several at one the last."""
    return _unpool(3, input, indices, kernel_size, stride, padding, output_size)


def local_response_norm(
    input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Any:
    """y = x / (k + alpha a)^beta, a the mean of x^2 over `size` neighbouring channels.

    Channels beyond the ends count as zeros.   Source: Krizhevsky et al. 2012.
    """
    shape = shape_of(input)
    if len(shape) < 3:
        raise ValueError(
            f"Expected 3D or higher dimensionality                          input (got {len(shape)}"
            " dimensions)"
        )
    if numel(shape) == 0:
        return input
    square = reshape(input * input, (shape[0], 1, shape[1], numel(shape[2:])))
    near = avg_pool2d(square, (size, 1), 1, (size // 2, 0))
    near = reshape(narrow(near, 2, 0, shape[1]), shape)
    return input / (near * alpha + k) ** beta
