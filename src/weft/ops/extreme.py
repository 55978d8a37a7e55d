"""max and min: of all elements, along a dim with their places, or of two tensors."""

from __future__ import annotations

from typing import Any

from weft.core import dtype as dt
from weft.core.handle import Handle
from weft.core.types import numel, numpy_words, wrap_dim
from weft.ops.arithmetic import maximum, minimum
from weft.ops.cast import cast
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.gather import gather
from weft.ops.reduce import AMax, AMin, ArgMax, ArgMin, amax, amin
from weft.ops.returns import AMinMax, Max, Min
from weft.ops.view import reshape, squeeze

__all__ = ["aminmax", "max", "min"]


@numpy_words
def max(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None,
        out: Any = None) -> Any:  # fmt: skip
    """The largest of all; (values, indices) along dim; or of two tensors, elementwise.

    NaN wins.  Of equal elements along dim the first is taken, and gets the gradient; of all
    elements those that are equal share it.
    """
    return _extreme("max", AMax, ArgMax, maximum, Max, input, dim, keepdim, other, out)


@numpy_words
def min(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None,
        out: Any = None) -> Any:  # fmt: skip
    """The smallest of all; (values, indices) along dim; or of two tensors, elementwise.

    NaN wins.  Of equal elements along dim the first is taken, and gets the gradient; of all
    elements those that are equal share it.
    """
    return _extreme("min", AMin, ArgMin, minimum, Min, input, dim, keepdim, other, out)


def _extreme(
    op: str, whole: Any, place: Any, of_two: Any, kind: Any, x: Any, dim: Any, keepdim: bool,
    other: Any, out: Any,
) -> Any:  # fmt: skip
    if isinstance(dim, Handle) or other is not None:
        return of_two(x, dim if other is None else other, out=out)
    shape = shape_of(x)
    if dim is None:
        if numel(shape) == 0:
            raise RuntimeError(
                f"{op}(): Expected reduction dim to be specified for input.numel() == 0. Specify "
                "the reduction dim with the 'dim' argument."
            )
        y = apply(whole(tuple(range(len(shape))), False), x)
        return y if out is None else out.copy_result(y)
    d = wrap_dim(dim, len(shape), op)
    if not shape:
        at = apply(place((), False), x)
        return kind(x.clone(), at)
    if shape[d] == 0:
        raise IndexError(f"{op}(): Expected reduction dim {d} to have non-zero size.")
    at = apply(place((d,), True), cast(x, dt.uint8) if dtype_of(x) is dt.bool else x)
    values = gather(x, d, at)
    if not keepdim:
        values, at = squeeze(values, d), squeeze(at, d)
    if out is not None:
        return kind(out[0].copy_result(values), out[1].copy_result(at))
    return kind(values, at)


@numpy_words
def aminmax(input: Any, *, dim: int | None = None, keepdim: bool = False, out: Any = None) -> Any:
    """(min, max) of all elements or along dim; equal elements share the gradient."""
    if out is not None:
        for o in out:
            if dtype_of(o) is not dtype_of(input):
                raise RuntimeError(
                    f"Expected out tensor to have dtype {dtype_of(input).name}, but got "
                    f"{dtype_of(o).name} instead"
                )
        y = aminmax(input, dim=dim, keepdim=keepdim)
        return AMinMax(out[0].copy_result(y.min), out[1].copy_result(y.max))
    dims = () if dim is None else dim
    if dim is None and keepdim:
        one = (1,) * len(shape_of(input))
        return AMinMax(reshape(amin(input), one), reshape(amax(input), one))
    return AMinMax(amin(input, dims, keepdim), amax(input, dims, keepdim))
