"""Products of bytes, and the way from floats to bytes and back.

q = clamp(round(x / scale) + zero, 0, 255)        activations: unsigned
w = clamp(round(w / scale), -127, 127)            weights: signed, a scale for each row
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core.op import Op, sample
from weft.core.types import Type
from weft.kernels.layout import Layout
from weft.kernels.schedule.gemm_int8 import COLUMNS, FOUR, LONGEST
from weft.ops.dispatch import apply, shape_of, wrap
from weft.ops.kinds import by_loop
from weft.runtime.native import Launch


class QuantizedProduct(Op):
    """y[m, n] = sum over k of x[m, k] * w[n, k], uint8 by int8 in int32, w packed in panels

    x (M, 4 F), panels (ceil(columns / 64), F, 64, 4), y (M, columns).
    """

    columns: int = 1
    nondiff = "bytes have no gradient"

    def type(self, x: Type, panels: Type) -> Type:
        if x.dtype is not dt.uint8 or panels.dtype is not dt.int8:
            raise TypeError(
                f"quantized product: expected uint8 and int8, got {x.dtype.name} and "
                f"{panels.dtype.name}"
            )
        count = -(-self.columns // COLUMNS)
        if (
            x.ndim != 2
            or panels.ndim != 4
            or panels.shape != (count, panels.shape[1], COLUMNS, FOUR)
            or x.shape[1] != panels.shape[1] * FOUR
        ):
            raise RuntimeError(
                f"quantized product: x {list(x.shape)} and panels {list(panels.shape)} do not give "
                f"{self.columns} columns"
            )
        if x.shape[1] > LONGEST:
            raise RuntimeError(f"quantized product: sums of {x.shape[1]} products, over {LONGEST}")
        return Type((x.shape[0], self.columns), dt.int32)

    def flops(self, x: Type, panels: Type, *rest: Type) -> float:
        # in float32 operations of the same time: one instruction does four products
        return 0.5 * x.shape[0] * x.shape[1] * self.columns

    def oracle(self, x: np.ndarray, panels: np.ndarray) -> np.ndarray:
        count, fours = panels.shape[:2]
        w = panels.transpose(0, 2, 1, 3).reshape(count * COLUMNS, fours * FOUR)[: self.columns]
        return (x.astype(np.int64) @ w.T.astype(np.int64)).astype(np.int32)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_matmul_int8(ins[0], ins[1], out)

    vmap = by_loop
    samples = (
        sample((3, 8), (1, 2, 64, 4), of=("uint8", "int8"), low=0, columns=10),
        sample((7, 12), (2, 3, 64, 4), of=("uint8", "int8"), low=0, columns=65),
        sample((0, 4), (1, 1, 64, 4), of=("uint8", "int8"), low=0, columns=64),
        sample((2, 0), (1, 0, 64, 4), of=("uint8", "int8"), low=0, columns=3),
    )


def quantized_product(x: Any, panels: Any, columns: int) -> Any:
    """x (M, K) uint8 times packed weights (`pack_weight`) of `columns` rows: (M, columns) int32.

    TypeError, RuntimeError: dtypes and shapes that do not fit.
    """
    return apply(QuantizedProduct(int(columns)), x.contiguous(), panels)


def pack_weight(weight: Any) -> Any:
    """int8 (N, K) in the panels that `quantized_product` reads, K filled up to a multiple of 4."""
    if len(shape_of(weight)) != 2 or weight.dtype is not dt.int8:
        raise TypeError(
            f"pack_weight: expected an int8 matrix, got {weight.dtype} of shape "
            f"{list(shape_of(weight))}"
        )
    return wrap(kernels.pack_int8(weight._a))


def quantize_rows(weight: Any) -> tuple[Any, Any]:
    """(int8 weight, a float32 scale for each row): w ~ q * scale, 127 the largest of a row."""
    flat = weight.detach().float()
    scale = flat.abs().amax(1) / 127
    scale = scale.where(scale > 0, 1.0)
    q = (flat / scale.unsqueeze(1)).round().clamp(-127, 127)
    return q.to(dt.int8), scale


def range_to_scale(low: Any, high: Any) -> tuple[Any, Any]:
    """(scale, zero) with which [low, high], widened to hold 0, becomes 0 ... 255."""
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = (high - low) / 255
    scale = scale.where(scale > 0, 1.0)
    return scale, (-low / scale).round()


def to_bytes(x: Any, scale: Any, zero: Any) -> Any:
    """clamp(round(x / scale) + zero, 0, 255) as uint8."""
    return ((x / scale).round() + zero).clamp(0, 255).to(dt.uint8)
