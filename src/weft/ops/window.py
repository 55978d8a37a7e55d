"""Sliding windows as columns: unfold takes an image apart, fold adds it up again."""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core import onnx_rules
from weft.core.op import Onnx, Op, sample
from weft.core.types import Type
from weft.ops.conv import sizes
from weft.ops.dispatch import apply, chained, shape_of
from weft.ops.kinds import by_folding
from weft.ops.pad import pad
from weft.ops.shape import unfold as image_windows
from weft.ops.view import reshape, unsqueeze

Pair = tuple[int, int]


class WindowOp(Op, abstract=True):
    """Windows of an image (N, C, H, W) of `size`."""

    size: Pair = (1, 1)
    kernel: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Pair = (0, 0)
    stride: Pair = (1, 1)

    @property
    def fields(self) -> tuple:
        return self.size, self.kernel, self.dilation, self.padding, self.stride

    def grid(self) -> Pair:
        """How many windows down and across."""
        return tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, d, p, s in zip(*self.fields, strict=True)
        )

    def taps(self) -> Any:
        """For each place in the window: (p, q, where the padded image shows it)."""
        oh, ow = self.grid()
        for p in range(self.kernel[0]):
            for q in range(self.kernel[1]):
                y, x = p * self.dilation[0], q * self.dilation[1]
                rows = slice(y, y + (oh - 1) * self.stride[0] + 1, self.stride[0])
                yield p, q, (..., rows, slice(x, x + (ow - 1) * self.stride[1] + 1, self.stride[1]))

    vmap = by_folding


class ImageToColumns(WindowOp):
    """y[n, (c, p, q), (i, j)] = x[n, c, i s - P + p d, j s - P + q d]"""

    def type(self, x: Type) -> Type:
        oh, ow = self.grid()
        if x.shape[2:] != self.size or min(oh, ow) < 1:
            raise RuntimeError(f"{self}: an image of {x.shape}")
        area = self.kernel[0] * self.kernel[1]
        return Type((x.shape[0], x.shape[1] * area, oh * ow), x.dtype)

    def body(self, x: Any) -> Any:
        (top, left), (down, across) = self.padding, self.dilation
        x = pad(x, (left, left, top, top)) if top or left else x
        for d, k, apart, step in zip((2, 3), self.kernel, self.dilation, self.stride, strict=True):
            x = image_windows(x, d, apart * (k - 1) + 1, step)
        y = x[..., ::down, ::across].permute(0, 1, 4, 5, 2, 3)
        n, c, kh, kw, oh, ow = shape_of(y)
        return reshape(y, (n, c * kh * kw, oh * ow))

    def oracle(self, x: np.ndarray) -> np.ndarray:
        n, c = x.shape[:2]
        top, left = self.padding
        padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
        y = np.empty((n, c, *self.kernel, *self.grid()), x.dtype)
        for p, q, at in self.taps():
            y[:, :, p, q] = padded[at]
        oh, ow = self.grid()
        return y.reshape(n, c * self.kernel[0] * self.kernel[1], oh * ow)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(ColumnsToImage(*self.fields), g),)

    onnx = Onnx("Gather", 13, build=onnx_rules.columns)
    samples = (
        sample((2, 3, 5, 6), size=(5, 6), kernel=(2, 3)),
        sample((1, 2, 5, 6), size=(5, 6), kernel=(2, 2), dilation=(2, 1), padding=(1, 0),
               stride=(2, 2)),
    )  # fmt: skip


class ColumnsToImage(WindowOp):
    """y = the image to which each window of x is added: the adjoint of ImageToColumns"""

    def type(self, x: Type) -> Type:
        oh, ow = self.grid()
        area = self.kernel[0] * self.kernel[1]
        if x.shape[1] % area or x.shape[2] != oh * ow or min(oh, ow) < 1:
            raise RuntimeError(f"{self}: columns of {x.shape}")
        return Type((x.shape[0], x.shape[1] // area, *self.size), x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        n = x.shape[0]
        c = x.shape[1] // (self.kernel[0] * self.kernel[1])
        (h, w), (top, left) = self.size, self.padding
        wide = x if x.dtype.itemsize > 2 else x.astype(np.float32)
        blocks = wide.reshape(n, c, *self.kernel, *self.grid())
        y = np.zeros((n, c, h + 2 * top, w + 2 * left), wide.dtype)
        for p, q, at in self.taps():
            y[at] += blocks[:, :, p, q]
        y = y[:, :, top : top + h, left : left + w].astype(x.dtype)
        return np.ascontiguousarray(y)

    oracle = host

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(ImageToColumns(*self.fields), g),)

    samples = (
        sample((2, 8, 12), size=(4, 5), kernel=(2, 2)),
        sample((1, 4, 6), size=(5, 6), kernel=(2, 2), dilation=(2, 1), padding=(1, 0),
               stride=(2, 3)),
    )  # fmt: skip


def _show(op: WindowOp) -> str:
    return f"kernel_size={op.kernel}, dilation={op.dilation}, padding={op.padding}"


@chained
def unfold(
    input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Any:
    """The windows of (N, C, H, W) as columns (N, C kh kw, windows); (C, H, W) without N."""
    shape = shape_of(input)
    if len(shape) not in (3, 4):
        raise RuntimeError(
            f"Expected 3D or 4D (batch mode) tensor for input, but got input of size: {list(shape)}"
        )
    given = {"kernel_size": kernel_size, "dilation": dilation, "padding": padding,
             "stride": stride}  # fmt: skip
    op = ImageToColumns(shape[-2:], *(sizes(name, v, 2, "unfold") for name, v in given.items()))
    _positive(op)
    if min(op.grid()) < 1:
        oh, ow = op.grid()
        raise RuntimeError(
            f"Given input with spatial size {tuple(shape[-2:])}, {_show(op)}, calculated shape of "
            f"the array of sliding blocks as ({oh}, {ow}), but its components must be at least one."
        )
    y = apply(op, unsqueeze(input, 0) if len(shape) == 3 else input)
    return reshape(y, shape_of(y)[1:]) if len(shape) == 3 else y


def _positive(op: WindowOp) -> None:
    for name, v in (("kernel size", op.kernel), ("dilation", op.dilation), ("stride", op.stride)):
        if min(v) < 1:
            raise RuntimeError(
                f"{name} should be greater than zero, but got {name.replace(' ', '_')}: {v}"
            )
    if min(op.padding) < 0:
        raise RuntimeError(f"padding should be non-negative, but got padding: {op.padding}")


def fold(
    input: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Any:
    """Columns (N, C kh kw, windows) added into images (N, C, *output_size); also without N."""
    shape = shape_of(input)
    if len(shape) not in (2, 3):
        raise RuntimeError(
            "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and "
            f"non-zero dimensions for input, but got: {list(shape)}"
        )
    given = {"output_size": output_size, "kernel_size": kernel_size, "dilation": dilation,
             "padding": padding, "stride": stride}  # fmt: skip
    op = ColumnsToImage(*(sizes(name, v, 2, "fold") for name, v in given.items()))
    _positive(op)
    area = op.kernel[0] * op.kernel[1]
    if shape[-2] % area:
        raise RuntimeError(
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, "
            f"but got input.size(1)={shape[-2]} and kernel_size={op.kernel}."
        )
    oh, ow = op.grid()
    if shape[-1] != oh * ow or min(oh, ow) < 1:
        raise RuntimeError(
            f"Given output_size={op.size}, {_show(op)}, stride={op.stride}, expected size of "
            "input's dimension 2 to match the calculated number of sliding blocks "
            f"{oh} * {ow} = {oh * ow}, but got input.size(2)={shape[-1]}."
        )
    y = apply(op, unsqueeze(input, 0) if len(shape) == 2 else input)
    return reshape(y, shape_of(y)[1:]) if len(shape) == 2 else y
