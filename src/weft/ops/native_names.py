"""Names by which torch exports its inner functions: norms with their statistics, raw tensors,
views as copies (`*_copy`, `unsafe_*`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.types import numel, wholes, wrap_dim
from weft.ops.cast import cast
from weft.ops.contract import linear
from weft.ops.creation import clone, empty, ones, zeros
from weft.ops.dispatch import dtype_of, shape_of
from weft.ops.getitem import index_put
from weft.ops.grid import grid_sample
from weft.ops.index import index_select
from weft.ops.join import cat, chunk, split, unbind
from weft.ops.loss_class import cross_entropy
from weft.ops.norm import batch_norm, group_norm, layer_norm
from weft.ops.pad import pad
from weft.ops.shape import diagonal, triu, unfold
from weft.ops.strided import as_strided
from weft.ops.view import expand, permute, reshape, squeeze, t, transpose, unsqueeze

_MODES = ("bilinear", "nearest", "bicubic")
_PADDING = ("zeros", "border", "reflection")


def constant_pad_nd(input: Any, pad_: Any, value: float = 0) -> Any:
    """F.pad in constant mode."""
    return pad(input, pad_, "constant", value)


def grid_sampler_2d(
    input: Any, grid: Any, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Any:
    """F.grid_sample with its modes by number."""
    modes = _MODES[interpolation_mode], _PADDING[padding_mode]
    return grid_sample(input, grid, *modes, align_corners)


def grid_sampler_3d(
    input: Any, grid: Any, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Any:
    """F.grid_sample of volumes with its modes by number."""
    return grid_sampler_2d(input, grid, interpolation_mode, padding_mode, align_corners)


def _statistics(x: Any, dims: tuple[int, ...], eps: float) -> tuple[Any, Any]:
    """(mean, 1 / sqrt(var + eps)) along dims, kept as size 1."""
    mean = x.mean(dims, keepdim=True)
    return mean, ((x - mean).square().mean(dims, keepdim=True) + eps).rsqrt()


def native_layer_norm(
    input: Any, normalized_shape: Any, weight: Any, bias: Any, eps: float
) -> tuple:
    """(layer_norm, mean, 1 / deviation)"""
    y = layer_norm(input, normalized_shape, weight, bias, eps)
    rank = len(shape_of(input))
    dims = tuple(rank - 1 - i for i in np.arange(len(tuple(normalized_shape))).tolist())
    return (y, *_statistics(input.detach(), dims, eps))


def native_group_norm(
    input: Any, weight: Any, bias: Any, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple:
    """(group_norm, mean, 1 / deviation), the last two (N, group)"""
    y = group_norm(input, group, weight, bias, eps)
    mean, scale = _statistics(reshape(input, (N, group, C // group * HxW)), (2,), eps)
    return y, reshape(mean, (N, group)), reshape(scale, (N, group))


def native_batch_norm(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool,
    momentum: float, eps: float, *, out: Any = None,
) -> tuple:  # fmt: skip
    """(batch_norm, mean, 1 / deviation); the last two are empty outside training."""
    x = input.detach()
    y = batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        return y, zeros((0,), dtype=dtype_of(x)), zeros((0,), dtype=dtype_of(x))
    dims = (0, *(i + 2 for i in np.arange(len(shape_of(x)) - 2).tolist()))
    mean, scale = _statistics(x, dims, eps)
    channels = (shape_of(x)[1],)
    return y, reshape(mean, channels), reshape(scale, channels)


def _native_batch_norm_legit(
    input: Any, weight: Any, bias: Any, *rest: Any, out: Any = None, **kw: Any
) -> tuple:
    """native_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps);
    the running ones may be left out."""
    rest = rest if len(rest) + len(kw) == 5 else (None, None, *rest)
    return native_batch_norm(input, weight, bias, *rest, **kw)


def _chunk_cat(tensors: Any, dim: int, num_chunks: int, *, out: Any = None) -> Any:
    """Each tensor cut into num_chunks along dim (filled up with zeros), flattened from dim on, and
    all joined: (..., num_chunks, size)."""
    parts = []
    if not len(tensors):
        raise RuntimeError("_chunk_cat expects a non-empty input tensor list")
    if num_chunks < 1:
        raise RuntimeError("_chunk_cat expects positive num_chunks")
    dim = wrap_dim(dim, len(shape_of(tensors[0])), "_chunk_cat")
    lead = shape_of(tensors[0])[:dim]
    for x in tensors:
        if 0 in shape_of(x) or len(shape_of(x)) <= dim or shape_of(x)[:dim] != lead:
            raise RuntimeError(
                "_chunk_cat expects non-empty tensors of the same sizes before dim, got "
                f"{list(shape_of(x))} beside {list(shape_of(tensors[0]))}"
            )
        n = shape_of(x)[dim]
        size = -(-n // num_chunks)
        x = pad(x, (0, 0) * (len(shape_of(x)) - dim - 1) + (0, size * num_chunks - n))
        parts.append(reshape(x, (*shape_of(x)[:dim], num_chunks, -1)))
    y = cat(parts, dim + 1)
    return y if out is None else out.copy_result(y)


def _unsafe_masked_index(input: Any, mask: Any, indices: Any, fill: Any) -> Any:
    """input[indices] where mask, else fill; what the mask hides may point anywhere."""
    at = [None if i is None else i.clamp(0, n - 1)
          for i, n in zip(indices, shape_of(input), strict=False)]  # fmt: skip
    return input[tuple(slice(None) if i is None else i for i in at)].where(mask, fill)


def _unsafe_masked_index_put_accumulate(input: Any, mask: Any, indices: Any, values: Any) -> Any:
    """input with values added at indices where mask; the rest may point anywhere."""
    at = tuple(None if i is None else i.clamp(-n, n - 1)
               for i, n in zip(indices, shape_of(input), strict=False))  # fmt: skip
    return index_put(input, at, cast(values.where(mask, 0), dtype_of(input)), accumulate=True)


def empty_strided(
    size: Any, stride: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Any:  # fmt: skip
    """Memory as it is found, under a size and strides."""
    size, stride = wholes(size, "empty_strided", "size"), wholes(stride, "empty_strided", "stride")
    if len(size) != len(stride):
        raise RuntimeError(
            f"empty_strided: dimensionality of sizes ({len(size)}) must match dimensionality of "
            f"strides ({len(stride)})"
        )
    length = 0 if 0 in size else 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    y = as_strided(empty((length,), dtype=dtype), size, stride)
    return y.detach().requires_grad_(requires_grad)


def empty_permuted(
    size: Any, physical_layout: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Any:  # fmt: skip
    """Memory as it is found, its dims laid out in the order of physical_layout."""
    order = wholes(physical_layout, "empty_permuted", "physical_layout")
    size = wholes(size, "empty_permuted", "size")
    if sorted(order) != np.arange(len(size)).tolist():
        raise RuntimeError(f"Number of dimensions in size and physical_layout {order} must agree")
    y = empty(tuple(size[i] for i in order), dtype=dtype)
    places = tuple(order.index(i) for i in np.arange(len(order)).tolist())
    return permute(y, places).detach().requires_grad_(requires_grad)


def pdist(input: Any, p: float = 2.0) -> Any:
    """The p-norms of the differences of all pairs of rows, (0, 1), (0, 2), ... (1, 2), ..."""
    if len(shape_of(input)) != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {len(shape_of(input))}D")
    if p < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    n = shape_of(input)[0]
    pairs = triu(ones((n, n), dtype=dt.int64), 1).nonzero()
    a, b = (index_select(input, 0, pairs[:, i]) for i in (0, 1))
    return (a - b).norm(p, 1)


def linear_cross_entropy(
    input: Any, linear_weight: Any, target: Any, *, linear_bias: Any = None, weight: Any = None,
    reduction: str = "mean", ignore_index: int | None = None, label_smoothing: float = 0.0,
    options: Any = None,
) -> Any:  # fmt: skip
    """cross_entropy(linear(input, linear_weight, linear_bias), target, ...)

    linear_weight (C, d1 ... dK, in).  `options` choose torch's chunks; here the whole is one.
    """
    shape, rows = shape_of(linear_weight), shape_of(input)
    if len(rows) not in (1, 2):
        raise RuntimeError(f"expected input with dimensionality 1 or 2, got {len(rows)}")
    if len(shape) < 2:
        raise RuntimeError(
            f"expected linear_weight with dimensionality at least 2, got {len(shape)}"
        )
    if rows[-1] != shape[-1]:
        raise RuntimeError(
            "expected equal input and linear_weight last dimensions (in_features), "
            f"got {rows[-1]} and {shape[-1]}, respectively"
        )
    if linear_bias is not None and shape_of(linear_bias) != shape[:-1]:
        raise RuntimeError(f"expected linear_bias shape {shape[:-1]}, got {shape_of(linear_bias)}")
    if len(shape) > 2 and len(rows) == 1:
        raise RuntimeError(
            f"K-dimensional loss defined by linear_weight shape {shape} requires batched input, "
            f"(N, {rows[0]}), got unbatched input with shape {rows}"
        )
    logits = (*rows[:-1], *shape[:-1])
    if shape_of(target) == logits and ignore_index is not None:
        raise RuntimeError("ignore_index cannot be specified when target contains probabilities")
    flat = numel(shape[:-1])
    bias = None if linear_bias is None else reshape(linear_bias, (flat,))
    y = reshape(linear(input, reshape(linear_weight, (flat, shape[-1])), bias), logits)
    return cross_entropy(
        y, target, weight, ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction, label_smoothing=label_smoothing,
    )  # fmt: skip


def _copied(view: Callable[..., Any]) -> Callable[..., Any]:
    """view_copy"""

    def copied(input: Any, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        seen = view(input, *args, **kwargs)
        if not isinstance(seen, tuple):
            return seen.clone() if out is None else out.copy_result(seen.clone())
        y = tuple(p.clone() for p in seen)
        return y if out is None else tuple(o.copy_result(p) for o, p in zip(out, y, strict=True))

    name = view.__name__.strip("_")
    copied.__name__ = copied.__qualname__ = f"{name}_copy"
    copied.__doc__ = f"Copied memory of what {name} sees."
    return copied


def _view(input: Any, size: Any) -> Any:
    return reshape(input, size) if isinstance(size, (tuple, list)) else input.view(size)


def split_with_sizes(input: Any, split_sizes: Any, dim: int = 0) -> tuple:
    """Views of parts of the sizes given along dim."""
    return split(input, wholes(split_sizes, "split_with_sizes", "split_sizes"), dim)


def alias_copy(input: Any, *, out: Any = None) -> Any:
    """A copy."""
    return clone(input) if out is None else out.copy_result(input)


as_strided_copy, diagonal_copy, expand_copy = map(_copied, (as_strided, diagonal, expand))
permute_copy, squeeze_copy, t_copy = map(_copied, (permute, squeeze, t))
transpose_copy, unbind_copy, unfold_copy = map(_copied, (transpose, unbind, unfold))
unsqueeze_copy, view_copy = map(_copied, (unsqueeze, _view))
split_with_sizes_copy = _copied(split_with_sizes)
# safe here
unsafe_split, unsafe_chunk, unsafe_split_with_sizes = split, chunk, split_with_sizes
