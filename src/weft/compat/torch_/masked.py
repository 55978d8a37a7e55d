"""torch.masked: reductions and normalisations that leave out what a mask holds False.

A place left out counts as the operation's identity; `mask` broadcasts to the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import weft
from weft.nn import functional as F

__all__ = [
    "amax", "amin", "argmax", "argmin", "cumprod", "cumsum", "log_softmax", "logaddexp",
    "logsumexp", "mean", "median", "norm", "normalize", "prod", "softmax", "softmin", "std", "sum",
    "var",
]  # fmt: skip


def _dims(dim: Any, rank: int) -> tuple[int, ...]:
    """The reduced dims, sorted; of () and None all of them."""
    if dim == () or dim is None:
        return tuple(range(rank))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    size = max(rank, 1)
    for d in dims:
        if not -size <= d < size:
            raise IndexError(
                f"Dimension out of range (expected to be in range of [{-size}, {size - 1}], "
                f"but got {d})"
            )
    wrapped = sorted(d % size for d in dims)
    if len(set(wrapped)) != len(wrapped):
        raise RuntimeError(f"dim={dims} appears multiple times in the list of dims")
    return tuple(wrapped) if rank else ()


def _mask(input: Any, mask: Any) -> Any:
    if mask.ndim > input.ndim:
        raise IndexError(
            "_input_mask expected broadcastable mask (got mask dimensionality higher than of the "
            "input)"
        )
    return weft.broadcast_to(mask, input.shape).bool()


def _filled(input: Any, mask: Any, identity: Any) -> Any:
    return input if mask is None else input.masked_fill(~_mask(input, mask), identity)


def _lowest(input: Any) -> Any:
    return -math.inf if input.is_floating_point() else _range(input).min


def _highest(input: Any) -> Any:
    return math.inf if input.is_floating_point() else _range(input).max


def _range(input: Any) -> Any:
    if input.dtype is weft.bool:
        raise NotImplementedError("no identity of this operation on bool input")
    return weft.iinfo(input.dtype)


def _wide(input: Any, dtype: Any) -> Any:
    small = (weft.uint8, weft.bool, weft.int8, weft.int16, weft.int32)
    return dtype or (weft.int64 if input.dtype in small else input.dtype)


def sum(
    input: Any, dim: Any = None, *, keepdim: bool | None = False, dtype: Any = None,
    mask: Any = None,
) -> Any:  # fmt: skip
    """The sum of what the mask lets through; 0 of nothing."""
    dims = _dims(dim, input.ndim)
    x = _filled(input, mask, 0)
    return weft.sum(x, dims, bool(keepdim), dtype=_wide(input, dtype))


def prod(
    input: Any, dim: Any = None, *, keepdim: bool | None = False, dtype: Any = None,
    mask: Any = None,
) -> Any:  # fmt: skip
    """The product of what the mask lets through; 1 of nothing."""
    x = _filled(input, mask, 1).to(_wide(input, dtype))
    for d in reversed(_dims(dim, input.ndim)):
        x = x.prod(dim=d, keepdim=bool(keepdim))
    return x.clone() if x is input and dim not in (None, ()) else x


def cumsum(input: Any, dim: int, *, dtype: Any = None, mask: Any = None) -> Any:
    """Running sums along dim."""
    d, kind = _dims(dim, max(input.ndim, 1))[0], dtype or input.dtype
    return weft.cumsum(_filled(input, mask, 0), d, dtype=kind).to(kind)


def cumprod(input: Any, dim: int, *, dtype: Any = None, mask: Any = None) -> Any:
    """Running products along dim."""
    d, kind = _dims(dim, max(input.ndim, 1))[0], dtype or input.dtype
    return weft.cumprod(_filled(input, mask, 1), d, dtype=kind).to(kind)


def _extreme(name: str, identity: Callable[[Any], Any]) -> Callable:
    def reduce(
        input: Any, dim: Any = None, *, keepdim: bool | None = False, dtype: Any = None,
        mask: Any = None,
    ) -> Any:  # fmt: skip
        x = _filled(input, mask, identity(input))
        return getattr(weft, name)(x, _dims(dim, x.ndim), bool(keepdim)).to(dtype or input.dtype)

    def place(
        input: Any, dim: int | None = None, *, keepdim: bool | None = False, dtype: Any = None,
        mask: Any = None,
    ) -> Any:  # fmt: skip
        x = _filled(input, mask, identity(input))
        return getattr(weft, name)(x, dim, bool(keepdim)).to(dtype or input.dtype)

    made = place if name.startswith("arg") else reduce
    made.__name__ = made.__qualname__ = name
    made.__doc__ = f"weft.{name} of what the mask lets through, in the input's dtype."
    return made


amax, argmax = _extreme("amax", _lowest), _extreme("argmax", _lowest)
amin, argmin = _extreme("amin", _highest), _extreme("argmin", _highest)


def mean(
    input: Any, dim: Any = None, *, keepdim: bool | None = False, dtype: Any = None,
    mask: Any = None,
) -> Any:  # fmt: skip
    """The mean of what the mask lets through; NaN of nothing."""
    kind = dtype or input.dtype
    if not kind.is_floating_point:
        raise ValueError(
            "mean(): Could not infer output dtype. "
            f"{'Optional' if dtype else 'Input'} dtype must be either a floating point or complex "
            f"dtype. Got: {kind}"
        )
    inside = weft.ones(input.shape, dtype=weft.int64) if mask is None else _mask(input, mask)
    count = sum(inside, dim, keepdim=keepdim)
    return sum(input, dim, keepdim=keepdim, dtype=kind, mask=mask) / count


def median(
    input: Any, dim: int = -1, *, keepdim: bool = False, dtype: Any = None, mask: Any = None
) -> Any:
    """The lower median of what the mask lets through."""
    d = _dims(dim, max(input.ndim, 1))[0]
    floating = input.is_floating_point()
    x = _filled(input if floating else input.to(weft.float32), mask, math.nan)
    y = weft.nanmedian(x, d, keepdim).values
    if floating:
        return y
    if bool(y.isnan().any()):
        raise ValueError(
            "masked median expects no fully masked out rows if dtype is not floating point"
        )
    return y.to(dtype or input.dtype)


def logsumexp(
    input: Any, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Any = None
) -> Any:
    """log of the sum of exp of what the mask lets through."""
    x = _filled(input, mask, _lowest(input))
    return weft.logsumexp(x, _dims(dim, x.ndim), keepdim=keepdim).to(dtype or input.dtype)


def logaddexp(
    input: Any, other: Any, *, dtype: Any = None, input_mask: Any = None, other_mask: Any = None
) -> Any:
    """log(exp input + exp other); what a mask leaves out counts as -inf."""
    a = _filled(input, input_mask, _lowest(input))
    b = _filled(other, other_mask, _lowest(other))
    return weft.logaddexp(a, b).to(dtype or input.dtype)


def norm(
    input: Any, ord: float | None = 2.0, dim: Any = None, *, keepdim: bool | None = False,
    dtype: Any = None, mask: Any = None,
) -> Any:  # fmt: skip
    """The vector norm of what the mask lets through."""
    x = _filled(input, mask, math.inf if ord == -math.inf else 0)
    power = 2.0 if ord is None else ord
    dims = _dims(dim, x.ndim)
    return weft.linalg.vector_norm(x, power, dims, bool(keepdim), dtype=dtype or input.dtype)


def _spread(
    input: Any, dim: Any, unbiased: bool | None, correction: Any, keepdim: Any, dtype: Any,
    mask: Any, root: bool,
) -> Any:  # fmt: skip
    if unbiased is not None and correction is not None:
        raise AssertionError("Only one of unbiased and correction may be given")
    if correction is None:
        correction = 1.0 if unbiased is None or unbiased else 0.0
    kind = dtype or (input.dtype if input.is_floating_point() else weft.float32)
    compute = kind if kind.is_floating_point else weft.float32
    inside = weft.ones(input.shape, dtype=weft.int64) if mask is None else _mask(input, mask)
    count = sum(inside, dim, keepdim=True)
    apart = input - sum(input, dim, keepdim=True, dtype=kind, mask=mask) / count
    total = sum(apart * apart, dim, keepdim=keepdim, dtype=compute, mask=mask)
    count = (count if keepdim else count.reshape(total.shape)).to(compute) - float(correction)
    y = (total / count.clamp_min(0)).to(kind)
    return y.sqrt() if root else y


def var(
    input: Any, dim: Any = None, unbiased: bool | None = None, *, correction: Any = None,
    keepdim: bool | None = False, dtype: Any = None, mask: Any = None,
) -> Any:  # fmt: skip
    """The variance of what the mask lets through."""
    return _spread(input, dim, unbiased, correction, keepdim, dtype, mask, False)


def std(
    input: Any, dim: Any = None, unbiased: bool | None = None, *, correction: Any = None,
    keepdim: bool | None = False, dtype: Any = None, mask: Any = None,
) -> Any:  # fmt: skip
    """The standard deviation of what the mask lets through."""
    return _spread(input, dim, unbiased, correction, keepdim, dtype, mask, True)


def softmax(input: Any, dim: int, *, dtype: Any = None, mask: Any = None) -> Any:
    """softmax along dim; what the mask leaves out is 0."""
    d = _dims(dim, max(input.ndim, 1))[0]
    return F.softmax(_filled(input, mask, _lowest(input)), d, dtype=dtype or input.dtype)


def log_softmax(input: Any, dim: int, *, dtype: Any = None, mask: Any = None) -> Any:
    """log of softmax along dim; what the mask leaves out is -inf."""
    d = _dims(dim, max(input.ndim, 1))[0]
    return F.log_softmax(_filled(input, mask, _lowest(input)), d, dtype=dtype or input.dtype)


def softmin(input: Any, dim: int, *, dtype: Any = None, mask: Any = None) -> Any:
    """softmin along dim; what the mask leaves out is 0."""
    d = _dims(dim, max(input.ndim, 1))[0]
    return F.softmin(_filled(input, mask, _highest(input)), d, dtype=dtype or input.dtype)


def normalize(
    input: Any, ord: float, dim: int, *, eps: float = 1e-12, dtype: Any = None, mask: Any = None
) -> Any:
    """input / max(its norm along dim, eps); what the mask leaves out is 0."""
    x = _filled(input, mask, 0)
    size = norm(input, ord, dim, keepdim=True, dtype=dtype or input.dtype, mask=mask)
    return x / size.clamp_min(eps)
