"""Cast: the same values in another dtype.  Bitcast: the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core import scalar as S
from weft.core.handle import Handle
from weft.core.op import Onnx, sample
from weft.core.types import Type
from weft.ops.dispatch import apply, dtype_of
from weft.ops.kinds import Elementwise


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
    )


def cast(x: Handle, dtype: dt.dtype) -> Any:
    """`x` in `dtype`; `x` itself when it already is."""
    return x if dtype_of(x) is dtype else apply(Cast(dtype), x)
