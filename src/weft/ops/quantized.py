"""Products and convolutions of bytes, and the way from floats to bytes and back.

q = clamp(round(x / scale) + zero, 0, 255)        activations: unsigned
w = clamp(round(w / scale), -127, 127)            weights: signed, a scale for each row
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import scalar as S
from weft.core.op import Op, sample
from weft.core.types import Type, need_windows
from weft.kernels.layout import Layout
from weft.kernels.schedule.conv_int8 import LONGEST
from weft.kernels.schedule.ending_int8 import COLUMNS, FOUR
from weft.kernels.schedule.image_int8 import MOST_TAPS
from weft.ops.cast import cast
from weft.ops.dispatch import apply, shape_of, wrap
from weft.ops.kinds import Elementwise, by_loop
from weft.runtime.native import Launch


class Grid(NamedTuple):
    """What the bytes 0 ... 255 stand for: (byte - zero) * scale, a float32."""

    scale: float
    zero: int


UNBOUNDED = float(np.finfo(np.float32).max)
_TO = {"int32": dt.int32, "float32": dt.float32, "uint8": dt.uint8}


class QuantizedConv(Op):
    """y[n, y, x, o] = sum over (p, q, c) of x[n, y s + p d - pad, x s + q d - pad, c] w[o, p, q, c]

    x (N, H, W, C) uint8 with the byte `border` around it, or rows (M, K) of a product; w int8,
    packed (`pack_weight`); the sum in int32.  To float32 or uint8: y * scale + shift, each of
    (panels * 64,), + other * other_scale where there is an image `other` of y's shape in uint8;
    clamped to [floor, ceiling]; to uint8 rounded to the nearest whole number, ties to even, NaN to
    floor.
    """

    columns: int = 1
    kernel: tuple = (1, 1)
    stride: tuple = (1, 1)
    padding: tuple = (0, 0)
    dilation: tuple = (1, 1)
    groups: int = 1
    border: int = 0
    to: str = "int32"
    floor: float = -UNBOUNDED
    ceiling: float = UNBOUNDED
    other_scale: float = 0.0
    single = True
    nondiff = "bytes have no gradient"

    def type(self, x: Type, panels: Type, *more: Type) -> Type:
        given = [t.dtype for t in (x, panels, *more)]
        want = [dt.uint8, dt.int8, *([dt.float32] * 2 if self.to != "int32" else []), dt.uint8]
        if given != want[: len(given)] or len(given) < len(want) - 1 or self.to not in _TO:
            raise TypeError(
                f"quantized conv: expected {[d.name for d in want[:-1]]} (and {want[-1].name}), "
                f"got {[d.name for d in given]}, to {self.to}"
            )
        if min(self.columns, self.groups) < 1 or not 0 <= self.border <= 255:
            raise RuntimeError(f"{self}: columns, groups or a border that cannot be")
        if self.to == "uint8" and not 0 <= self.floor <= self.ceiling <= 255:
            raise RuntimeError(f"{self}: bytes lie between 0 and 255")
        shape = self._shape(x)
        panel = (self.groups * -(-(self.columns // self.groups) // COLUMNS), self._fours(x))
        if panels.shape != (*panel, COLUMNS, FOUR) or self._fours(x) * FOUR > LONGEST:
            raise RuntimeError(
                f"quantized conv: x {list(x.shape)} and panels {list(panels.shape)} do not give "
                f"{self.columns} columns, or sums are over {LONGEST} products long"
            )
        shapes = [t.shape for t in more]
        if shapes != [(panel[0] * COLUMNS,), (panel[0] * COLUMNS,), shape][: len(shapes)]:
            raise RuntimeError(f"quantized conv: scale, shift, other of shapes {shapes}")
        return Type(shape, _TO[self.to])

    def _shape(self, x: Type) -> tuple[int, ...]:
        plain = (self.kernel, self.stride, self.dilation) == ((1, 1),) * 3
        if x.ndim == 2 and plain and (self.padding, self.groups) == ((0, 0), 1):
            return (x.shape[0], self.columns)
        if x.ndim != 4 or x.shape[3] % (self.groups * FOUR) or self.columns % self.groups:
            raise RuntimeError(
                f"quantized conv: x (N, H, W, C) with channels of groups in fours, got "
                f"{list(x.shape)} and {self.groups} groups to {self.columns}"
            )
        return (x.shape[0], *_windows(self, x.shape[1:3]), self.columns)

    def _fours(self, x: Type) -> int:
        if x.shape[-1] % FOUR:
            raise RuntimeError(f"quantized conv: {x.shape[-1]} bytes are not whole fours")
        return self.kernel[0] * self.kernel[1] * x.shape[-1] // self.groups // FOUR

    def flops(self, x: Type, panels: Type, *rest: Type) -> float:
        out = 1
        for n in self._shape(x):
            out *= n
        return 2.0 * out * self._fours(x) * FOUR

    def multiplies(self, *types: Type) -> str:
        return "int8"

    def oracle(self, x: np.ndarray, panels: np.ndarray, *more: np.ndarray) -> np.ndarray:
        shape = self._shape(Type(x.shape, dt.uint8))
        x = x.reshape(x.shape[0], 1, 1, x.shape[-1]) if x.ndim == 2 else x
        (kh, kw), (sh, sw), (dh, dw), g = self.kernel, self.stride, self.dilation, self.groups
        sides = [(0, 0), *((p, p) for p in self.padding), (0, 0)]
        x = np.pad(x.astype(np.int64), sides, constant_values=self.border)
        depth, each = x.shape[-1] // g, self.columns // g
        w = panels.transpose(0, 2, 1, 3).reshape(g, len(panels) // g * COLUMNS, kh, kw, depth)
        w = w[:, :each].astype(np.int64)
        h, v = (shape[1], shape[2]) if len(shape) == 4 else (1, 1)
        y = np.zeros((x.shape[0], h, v, g, each), np.int64)
        for p in range(kh):
            for q in range(kw):
                rows = x[:, p * dh :: sh, q * dw :: sw][:, :h, :v]
                y += np.einsum("nhvgc,goc->nhvgo", rows.reshape(*y.shape[:4], depth), w[:, :, p, q])
        y = y.reshape(shape)
        if self.to == "int32":
            return y.astype(np.int32)
        factors = [m.reshape(g, -1)[:, :each].reshape(-1) for m in more[:2]]
        return _finished(self, y, *factors, *more[2:])

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        if len(out.shape) == 2:  # rows as pixels
            ins = [_as_images(a) if i in (0, 4) else a for i, a in enumerate(ins)]
            out = _as_images(out)
        ending = kernels.Ending(self.border, self.floor, self.ceiling, self.other_scale)
        window = (self.kernel, self.stride, self.padding, self.dilation)
        return kernels.plan_conv_int8(ins, out, *window, self.groups, ending)

    vmap = by_loop
    samples = (
        sample((3, 8), (1, 2, 64, 4), of=("uint8", "int8"), low=0, columns=10),
        sample((7, 12), (2, 3, 64, 4), of=("uint8", "int8"), low=0, columns=65),
        sample((0, 4), (1, 1, 64, 4), of=("uint8", "int8"), low=0, columns=64),
        sample((2, 0), (1, 0, 64, 4), of=("uint8", "int8"), low=0, columns=3),
        sample((2, 5, 6, 8), (2, 12, 64, 4), of=("uint8", "int8"), columns=70, kernel=(2, 3),
               stride=(2, 1), padding=(1, 1), border=7, low=0),
        sample((1, 6, 5, 8), (2, 4, 64, 4), (128,), (128,),
               of=("uint8", "int8", "float32", "float32"), columns=6, kernel=(2, 2),
               dilation=(2, 3), groups=2, to="float32", ceiling=2.0),
        sample((1, 3, 3, 4), (1, 9, 64, 4), (64,), (64,), (1, 3, 3, 5),
               of=("uint8", "int8", "float32", "float32", "uint8"), columns=5, kernel=(3, 3),
               padding=(1, 1), to="uint8", floor=0.0, ceiling=200.0, low=0, high=9,
               other_scale=0.5),
    )  # fmt: skip


class ToBytes(Elementwise):
    """q[i] = clamp(round(x[i] / scale) + zero, 0, 255), ties to even.

    The grid is the op's own: layers that share an input share its bytes in a compiled program.
    """

    scale: float = 1.0
    zero: int = 0
    single = True
    nondiff = "bytes have no gradient"

    def type(self, x: Type) -> Type:
        if x.dtype is not dt.float32:
            raise TypeError(f"to bytes: expected float32, got {x.dtype.name}")
        if not self.scale > 0 or not 0 <= self.zero <= 255:
            raise RuntimeError(f"{self}: scale must be positive, zero a byte")
        return Type(x.shape, dt.uint8)

    def scalar(self, x: S.Expr) -> S.Expr:
        place = S.round(S.div(x, S.Const(self.scale, x.dtype)))
        place = S.add(place, S.Const(float(self.zero), x.dtype))
        return S.cast(S.clamp(place, 0.0, 255.0), dt.uint8)

    samples = (sample((3, 4), scale=0.02, zero=100), sample((0, 2)), sample((), scale=0.5))


class ImageToBytes(Op):
    """q[n, y, x, c] = clamp(round(x[n, c, y, x] / scale) + zero, 0, 255), ties to even, NaN to 0.

    x (N, C, H, W) float32, q (N, H, W, P) uint8 with P = C up to a whole four: the last channel
    again where there is none.
    """

    scale: float = 1.0
    zero: int = 0
    single = True
    nondiff = "bytes have no gradient"

    def type(self, x: Type) -> Type:
        if x.dtype is not dt.float32 or x.ndim != 4 or not x.shape[1]:
            raise TypeError(
                f"image to bytes: expected float32 (N, C, H, W), got {x.dtype.name} {x.shape}"
            )
        if not self.scale > 0 or not 0 <= self.zero <= 255:
            raise RuntimeError(f"{self}: scale must be positive, zero a byte")
        n, c, h, w = x.shape
        return Type((n, h, w, -(-c // FOUR) * FOUR), dt.uint8)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            z = np.rint(x / np.float32(self.scale)) + np.float32(self.zero)
        z = np.fmin(np.fmax(z, np.float32(0)), np.float32(255)).transpose(0, 2, 3, 1)
        return np.pad(z, [(0, 0)] * 3 + [(0, -x.shape[1] % FOUR)], mode="edge").astype(np.uint8)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_to_bytes(ins[0], out, self.scale, self.zero)

    vmap = by_loop
    samples = (
        sample((2, 3, 5, 7), scale=0.02, zero=100),
        sample((1, 9, 2, 33), scale=0.01),
        sample((0, 4, 3, 2)),
    )


class BytesMaxPool(Op):
    """y[n, y, x, c] = the largest byte of the window; (N, H, W, C) uint8, 0 around the image."""

    kernel: tuple = (1, 1)
    stride: tuple = (1, 1)
    padding: tuple = (0, 0)
    dilation: tuple = (1, 1)
    nondiff = "bytes have no gradient"

    def type(self, x: Type) -> Type:
        if x.dtype is not dt.uint8 or x.ndim != 4:
            raise TypeError(
                f"bytes pool: expected uint8 (N, H, W, C), got {x.dtype.name} {x.shape}"
            )
        size = _windows(self, x.shape[1:3])
        return Type((x.shape[0], *size, x.shape[3]), dt.uint8)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        h, w = _windows(self, x.shape[1:3])
        x = np.pad(x, [(0, 0), *((p, p) for p in self.padding), (0, 0)])
        (kh, kw), (sh, sw), (dh, dw) = self.kernel, self.stride, self.dilation
        taps = [x[:, p * dh :: sh, q * dw :: sw][:, :h, :w] for p in range(kh) for q in range(kw)]
        return np.max(taps, 0)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_max_pool_bytes(
            ins[0], out, self.kernel, self.stride, self.padding, self.dilation
        )

    vmap = by_loop
    samples = (
        sample((2, 5, 6, 70), of="uint8", low=0, high=255, kernel=(3, 3), stride=(2, 2),
               padding=(1, 1)),
        sample((1, 7, 4, 3), of="uint8", low=0, high=255, kernel=(2, 1), dilation=(3, 1)),
        sample((0, 2, 2, 4), of="uint8", low=0, high=255),
    )  # fmt: skip


def _windows(op: Any, sizes: tuple[int, ...]) -> list[int]:
    """Rows and columns of an op's result; RuntimeError for numbers that give none."""
    numbers = (*op.kernel, *op.stride, *op.dilation)
    need_windows(op, op.stride, op.padding, op.dilation, op.kernel)
    if any(len(v) != 2 for v in (op.kernel, op.stride, op.padding, op.dilation)):
        raise RuntimeError(f"{op}: two numbers each")
    size = [
        (n + 2 * p - (k - 1) * d - 1) // s + 1
        for n, p, k, d, s in zip(sizes, op.padding, op.kernel, op.dilation, op.stride, strict=True)
        if s > 0
    ]
    if min(numbers) < 1 or min(op.padding) < 0 or min(size) < 1:
        raise RuntimeError(f"{op}: no window of an image of {list(sizes)}")
    return size


def _finished(op: Any, y: np.ndarray, scale: Any, shift: Any, *others: Any) -> np.ndarray:
    """Sums as floats or bytes; a product and its sum are rounded once."""
    z = (y.astype(np.float32) * np.float64(scale) + shift).astype(np.float32)
    for other in others:
        z = (z + other * np.float64(np.float32(op.other_scale))).astype(np.float32)
    if op.to == "uint8":
        z = np.fmax(z, np.float32(op.floor))
    z = np.minimum(np.maximum(z, np.float32(op.floor)), np.float32(op.ceiling))
    return z if op.to == "float32" else np.rint(z).astype(np.uint8)


class QuantizedDepthwise(Op):
    """y[n, y, x, c] = sum over the taps in the image of (x[n, ..., c] - border) w[p, q, c]

    x (N, H, W, C) uint8, w (taps, C) whole numbers in float32, scale and shift (C,); then as
    `QuantizedConv`: to float32 or uint8.
    """

    kernel: tuple = (1, 1)
    stride: tuple = (1, 1)
    padding: tuple = (0, 0)
    dilation: tuple = (1, 1)
    border: int = 0
    to: str = "uint8"
    floor: float = 0.0
    ceiling: float = 255.0
    other_scale: float = 0.0
    single = True
    nondiff = "bytes have no gradient"

    def type(self, x: Type, w: Type, *more: Type) -> Type:
        given = [t.dtype for t in (x, w, *more)]
        want = [dt.uint8, *[dt.float32] * 3, dt.uint8]
        if given != want[: len(given)] or len(given) < 4 or self.to not in ("float32", "uint8"):
            raise TypeError(
                f"quantized depthwise: expected uint8, three of float32 (and uint8), got "
                f"{[d.name for d in given]}, to {self.to}"
            )
        if x.ndim != 4 or not 0 <= self.border <= 255:
            raise RuntimeError(f"{self}: expected images (N, H, W, C), got {list(x.shape)}")
        if self.to == "uint8" and not 0 <= self.floor <= self.ceiling <= 255:
            raise RuntimeError(f"{self}: bytes lie between 0 and 255")
        c = x.shape[3]
        shape = (x.shape[0], *_windows(self, x.shape[1:3]), c)
        area = self.kernel[0] * self.kernel[1]
        shapes = [t.shape for t in (w, *more)]
        if shapes != [(area, c), (c,), (c,), shape][: len(shapes)] or area > MOST_TAPS:
            raise RuntimeError(f"quantized depthwise: {area} taps, operands of shapes {shapes}")
        return Type(shape, _TO[self.to])

    def oracle(self, x: np.ndarray, w: np.ndarray, *more: np.ndarray) -> np.ndarray:
        h, v = _windows(self, x.shape[1:3])
        sides = [(0, 0), *((p, p) for p in self.padding), (0, 0)]
        x = np.pad(x.astype(np.float64) - self.border, sides)
        (kh, kw), (sh, sw), (dh, dw) = self.kernel, self.stride, self.dilation
        y = np.zeros((x.shape[0], h, v, x.shape[3]))
        for p in range(kh):
            for q in range(kw):
                y += x[:, p * dh :: sh, q * dw :: sw][:, :h, :v] * w[p * kw + q]
        return _finished(self, y, *more)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        ending = kernels.Ending(self.border, self.floor, self.ceiling, self.other_scale)
        window = (self.kernel, self.stride, self.padding, self.dilation)
        return kernels.plan_depthwise_int8(ins, out, *window, ending)

    vmap = by_loop
    samples = (
        sample((2, 5, 6, 20), (6, 20), (20,), (20,), of=("uint8", *["float32"] * 3), low=0, high=9,
               kernel=(2, 3), stride=(2, 1), padding=(1, 1), border=7, to="float32"),
        sample((1, 4, 3, 8), (9, 8), (8,), (8,), (1, 4, 3, 8), low=0, high=9,
               of=("uint8", *["float32"] * 3, "uint8"), kernel=(3, 3), padding=(1, 1),
               other_scale=0.5, ceiling=200.0),
    )  # fmt: skip


def _as_images(a: Layout) -> Layout:
    """A matrix's rows as the pixels of one image."""
    if not a.is_contiguous:
        raise ValueError("quantized conv: operands must be contiguous")
    return Layout.contiguous((1, a.shape[0], 1, a.shape[1]), a.dtype)


def on_bytes(op: Op, x: Any, panels: Any, *more: Any) -> Any:
    """QuantizedConv or QuantizedDepthwise of x, a packed weight and, but for int32, (scale,
    shift[, other]).  TypeError, RuntimeError: dtypes, shapes and settings that do not fit.
    """
    if (y := op.quick(x, panels, *more)) is not None:
        return y
    return apply(op, x.contiguous(), panels, *[m.contiguous() for m in more])


def image_to_bytes(x: Any, grid: Grid) -> Any:
    """x (N, C, H, W) float32 as bytes (N, H, W, C up to a whole four) on a grid."""
    return apply(ImageToBytes(grid.scale, grid.zero), x)


def bytes_max_pool(x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    """The largest byte of each window of x (N, H, W, C); 0 around it."""
    return apply(BytesMaxPool(kernel, stride, padding, dilation), x.contiguous())


def pack_weight(weight: Any, groups: int = 1) -> Any:
    """int8 (N, ..., C) in the panels that `QuantizedConv` reads, C filled up to whole fours."""
    if len(shape_of(weight)) < 2 or weight.dtype is not dt.int8:
        raise TypeError(
            f"pack_weight: expected int8 rows, got {weight.dtype} of shape {list(shape_of(weight))}"
        )
    return wrap(kernels.pack_int8(weight._a, groups))


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


def grid_of(low: float, high: float) -> Grid:
    """`range_to_scale` of numbers."""
    scale, zero = range_to_scale(*(wrap(np.array([v], np.float32)) for v in (low, high)))
    return Grid(float(scale._a[0]), int(zero._a[0]))


def on_grid(x: Any, grid: Grid) -> Any:
    """x as bytes on a grid."""
    return apply(ToBytes(grid.scale, grid.zero), cast(x, dt.float32))


def to_bytes(x: Any, scale: Any, zero: Any) -> Any:
    """clamp(round(x / scale) + zero, 0, 255) as uint8; scale and zero are tensors."""
    return ((x / scale).round() + zero).clamp(0, 255).to(dt.uint8)
