"""conv_transpose3d: the adjoint of conv3d, as a conv3d of the input spread apart.

Between neighbours of the input come stride - 1 zeros, around it dilation (k - 1) - padding; the
kernel is turned around and its two channel dims change places within each group.
"""

from __future__ import annotations

from typing import Any

from weft.core.handle import state
from weft.ops.cast import lowered
from weft.ops.conv import conv3d, sizes
from weft.ops.dispatch import shape_of
from weft.ops.pad import pad
from weft.ops.shape import flip
from weft.ops.view import reshape, transpose, unsqueeze


def _spread(x: Any, stride: tuple) -> Any:
    """stride - 1 zeros after each element of the last three dims, but for the last of each."""
    if stride == (1, 1, 1):
        return x
    n, c, *size = shape_of(x)
    apart = reshape(x, (n, c, *(v for k in size for v in (k, 1))))
    zeros = [v for s in reversed(stride) for v in (0, s - 1, 0, 0)]
    wide = reshape(pad(apart, zeros), (n, c, *(k * s for k, s in zip(size, stride))))
    return pad(wide, [v for s in reversed(stride) for v in (0, 1 - s)])


def conv_transpose3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """input (N, O, d, h, w), weight (O, C/groups, kd, kh, kw), result (N, C, D, H, W).

    D = (d - 1) stride - 2 padding + dilation (kd - 1) + output_padding + 1, H and W likewise.
    RuntimeError: shapes that do not fit, an output_padding not below stride or dilation.
    """
    if state.autocast is not None:
        input, weight, bias = lowered(input, weight, bias)
    op = "conv_transpose3d"
    stride, dilation = sizes("stride", stride, 3), sizes("dilation", dilation, 3)
    padding, extra = sizes("padding", padding, 3), sizes("output_padding", output_padding, 3)
    xs, ws = shape_of(input), shape_of(weight)
    if len(xs) not in (4, 5) or len(ws) != 5:
        raise RuntimeError(
            f"Expected 4D (unbatched) or 5D (batched) input to {op}, but got input of size: "
            f"{list(xs)}"
        )
    if xs[-4] != ws[0] or ws[0] % groups:
        raise RuntimeError(
            f"Given transposed=1, weight of size {list(ws)}, expected input{list(xs)} to have "
            f"{ws[0]} channels, but got {xs[-4]} channels instead"
        )
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation)):
        raise RuntimeError("output padding must be smaller than either stride or dilation")
    x = input if len(xs) == 5 else unsqueeze(input, 0)
    around = [
        v
        for k, p, d, e in reversed(list(zip(ws[2:], padding, dilation, extra)))
        for v in (d * (k - 1) - p, d * (k - 1) - p + e)
    ]
    o, c = ws[0] // groups, ws[1]
    w = reshape(flip(weight, (2, 3, 4)), (groups, o, c, *ws[2:]))
    w = reshape(transpose(w, 1, 2), (groups * c, o, *ws[2:]))
    y = conv3d(pad(_spread(x, stride), around), w, bias, 1, 0, dilation, groups)
    return y if len(xs) == 5 else y.squeeze(0)
