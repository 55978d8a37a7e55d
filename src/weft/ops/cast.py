"""Cast: the same values in another dtype.  Bitcast: the same bits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core import scalar as S
from weft.core.handle import Handle, state
from weft.core.op import Onnx, sample
from weft.core.types import Type, array_type
from weft.ops.dispatch import apply, dtype_of
from weft.ops.kinds import Elementwise, View, by_batch


class Cast(Elementwise):
    """y = x rounded to `dtype` once: float to int truncates, to bool is `x != 0`."""

    dtype: dt.dtype = dt.float32

    def scalar(self, x: S.Expr) -> S.Expr:
        return S.cast(x, self.dtype)

    def type(self, x: Type) -> Type:
        return Type(x.shape, self.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        return S.round_to(x, self.dtype)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (cast(g, x.dtype),)

    onnx = Onnx("Cast", 13, build=onnx_rules.cast)
    samples = (
        sample((3, 4), dtype=dt.float64),
        sample((5,), dtype=dt.int32, low=-5, high=5),
        sample((2, 3), of="int64", dtype=dt.float32, low=-5, high=5),
        sample((0, 2), dtype=dt.bfloat16),
        sample((3, 4), dtype=dt.complex64),
        sample((3, 4), of="complex128", dtype=dt.float64),
    )


class Bitcast(View):
    """The same bytes read as another dtype; the last dim's size changes with the element's"""

    dtype: dt.dtype = dt.int32
    nondiff = "its result is bits"

    def type(self, x: Type) -> Type:
        old, new = x.dtype.itemsize, self.dtype.itemsize
        if old == new:
            return Type(x.shape, self.dtype)
        if not x.shape:
            raise RuntimeError(
                f"self.dim() cannot be 0 to view {x.dtype.name} as {self.dtype.name} (different "
                "element sizes)"
            )
        if x.shape[-1] * old % new:
            raise RuntimeError(
                f"self.size(-1) must be divisible by {new // old} to view {x.dtype.name} as "
                f"{self.dtype.name} (different element sizes), but got {x.shape[-1]}"
            )
        return Type((*x.shape[:-1], x.shape[-1] * old // new), self.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        t = self.type(array_type(x))
        if not x.size:  # there are no bytes, and the strides mean nothing
            return np.empty(t.shape, self.dtype.np)
        if x.itemsize != self.dtype.itemsize and x.strides[-1] != x.itemsize:
            raise RuntimeError(
                f"self.stride(-1) must be 1 to view {x.dtype} as {self.dtype.name} (different "
                f"element sizes), but got {x.strides[-1] // x.itemsize}"
            )
        return x.view(self.dtype.np)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        t = self.type(array_type(x))
        return np.frombuffer(np.ascontiguousarray(x).tobytes(), self.dtype.np).reshape(t.shape)

    vmap = by_batch

    samples = (
        sample((3, 4), dtype=dt.int32),
        sample((2, 4), of="int64", dtype=dt.int16),
        sample((2, 4), of="int32", dtype=dt.float64, low=0, high=9),
    )


def cast(x: Handle, dtype: dt.dtype) -> Any:
    """`x` in `dtype`; `x` itself when it already is."""
    if dtype_of(x) is dtype or dtype_of(x) is (dtype := dt.asked(dtype)):
        return x
    return apply(Cast(dtype), x)


def lowered(*xs: Any) -> tuple:
    """The operands of a product under autocast: floating ones, float64 aside, in its dtype."""
    return tuple(
        cast(x, state.autocast) if isinstance(x, Handle) and dtype_of(x) in _NARROW else x
        for x in xs
    )


def in_float32(fn: Callable) -> Callable:
    """`fn`, whose tensors autocast turns back to float32: functions that lose too much in bfloat16.

    Source: https://docs.pytorch.org/docs/stable/amp.html#cpu-ops-that-can-autocast-to-float32
    """

    @functools.wraps(fn)
    def inside(*args: Any, **kw: Any) -> Any:
        if state.autocast is None:
            return fn(*args, **kw)
        before, state.autocast = state.autocast, None
        try:
            return fn(*map(_widened, args), **{k: _widened(v) for k, v in kw.items()})
        finally:
            state.autocast = before

    return inside


_NARROW = (dt.float32, dt.bfloat16, dt.float16)


def _widened(x: Any) -> Any:
    return cast(x, dt.float32) if isinstance(x, Handle) and dtype_of(x) in _NARROW else x
