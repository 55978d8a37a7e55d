"""Convolution: one bilinear form and its three faces, each the others' gradient.

    Conv2d        y[n, o, i, j] = sum over c, p, q of w[o, c, p, q] x[n, c, i s - top + p d, j s - left + q d]
    Conv2dInput   dx from (dy, w); also the transposed convolution
    Conv2dWeight  dw from (dy, x)

1-d convolutions are 2-d ones of height 1; in 3-d ones the depth taps are channels.  Weights (out,
in/groups, kh, kw); sums in the order of kernels/schedule/conv.py.

Long because the three are each other's gradient, and torch's functions are those of one geometry.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core.handle import state
from weft.core.op import Onnx, Op, sample
from weft.core.types import Type, need_windows, numel, whole
from weft.kernels.layout import Layout
from weft.ops.cast import cast, lowered
from weft.ops.contract import FastMath
from weft.ops.dispatch import apply, dtype_of, need_memory, shape_of
from weft.ops.join import stack
from weft.ops.kinds import Summing, by_loop
from weft.ops.pad import pad
from weft.ops.reduce import sum
from weft.ops.view import narrow, permute, reshape, unsqueeze
from weft.runtime.native import Launch

__all__ = ["conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d"]

Pair = tuple[int, int]


class ConvOp(Op, abstract=True):
    """What the three share: the geometry.

    `fast`, each one's last attribute: operands may be rounded first (`set_fast_math`).
    """

    stride: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    dilation: Pair = (1, 1)
    groups: int = 1

    def __str__(self) -> str:
        return super().__str__().replace(", fast=False", "")  # files without it stay as they are

    __repr__ = __str__

    @property
    def geometry(self) -> tuple:
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def planned(self) -> tuple:
        return self.stride, self.padding[:2], self.dilation, self.groups

    def out_size(self, size: tuple, kernel: tuple) -> tuple[int, int]:
        """Windows that fit: (size + padding - reach) // stride + 1."""
        need_windows(self, self.stride, self.padding, self.dilation)
        pads = (self.padding[0] + self.padding[2], self.padding[1] + self.padding[3])
        return tuple(
            (n + p - d * (k - 1) - 1) // s + 1
            for n, k, p, d, s in zip(size, kernel, pads, self.dilation, self.stride, strict=True)
        )

    def fits(self, x: Type, w: Type, out: tuple | None = None) -> None:
        """Raise RuntimeError unless w's windows lie in x (and give `out` images)."""
        if x.ndim != 4 or w.ndim != 4 or x.dtype is not w.dtype:
            raise RuntimeError(f"{self}: input {x} and weight {w}: wanted 4 dims, one dtype")
        size = self.out_size(x.shape[2:], w.shape[2:])
        if w.shape[1] * self.groups != x.shape[1] or min(w.shape[1:]) < 1 or min(size) < 1:
            raise RuntimeError(f"{self}: input {x.shape} and weight {w.shape} do not fit")
        if out is not None and (
            len(out) != 4
            or (out[0], out[1]) != (x.shape[0], w.shape[0])
            or out[2] > size[0]
            or out[3] > size[1]
        ):
            raise RuntimeError(f"{self}: weight {w.shape} on {x.shape} does not give {out}")

    def takes_channels_last(self, *types: Type) -> bool:
        return self.makes_channels_last(*types)


def _taps_flops(positions: Type, weight: tuple) -> float:
    """A multiply-add for each output position, image, and number of the weight."""
    return 2.0 * positions.shape[0] * numel(positions.shape[2:]) * numel(weight)


def _check_bias(bias: tuple[Type, ...], channels: int, dtype: Any) -> None:
    """The kernel reads `channels` numbers of it."""
    if len(bias) > 1:
        raise TypeError(f"conv: 2 or 3 operands, got {2 + len(bias)}")
    if bias and bias[0] != Type((channels,), dtype):
        raise RuntimeError(f"conv: bias must be {Type((channels,), dtype)}, got {bias[0]}")


class Conv2d(ConvOp, Summing):
    """y = the windows of x times w, plus bias"""

    fast: bool = False

    def by_sample(self, y: Type, *types: Type) -> tuple[int, ...]:
        return (0,)

    def type(self, x: Type, w: Type, *bias: Type) -> Type:
        self.fits(x, w)
        _check_bias(bias, w.shape[0], x.dtype)
        return Type((x.shape[0], w.shape[0], *self.out_size(x.shape[2:], w.shape[2:])), x.dtype)

    def flops(self, x: Type, w: Type, *rest: Type) -> float:
        return _taps_flops(self.type(x, w), w.shape)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        bias = ins[2] if ins[2:] else None
        return kernels.plan_conv2d(ins[0], ins[1], out, *self.planned, bias=bias, fast=self.fast)

    def beside(self, bias: Layout) -> Layout:
        return Layout((*bias.shape, 1, 1), (*bias.strides, 0, 0), bias.dtype)

    def plan_sums(
        self, ins: list[Layout], out: Layout, epilogue: kernels.Epilogue | None = None
    ) -> Launch:
        return kernels.plan_conv2d(
            ins[0], ins[1], out, *self.planned, epilogue=epilogue, fast=self.fast
        )

    def in_pairs(self, w: Type) -> bool:
        """Whether pairs of channels are multiplied, rounded to bfloat16."""
        return kernels.in_pairs(w.shape[0] // self.groups, w.dtype, fast=self.fast)

    def goes_on(self, x: Type, w: Type, *bias: Type) -> bool:
        # a half's bias is added before the sum is rounded, an epilogue comes after
        return super().goes_on(x) or (self.in_pairs(w) and not bias)

    def sums_apart(self, x: Type, w: Type, *bias: Type) -> bool:
        one_product = numel(w.shape[2:]) == 1 and not self.in_pairs(w)
        return not one_product or kernels.is_one_block(w.shape[1])

    def packed(
        self, ins: list[Layout], out: Layout, epilogue: kernels.Epilogue | None = None
    ) -> kernels.Packed | None:
        (x, w), bias = ins[:2], ins[2] if ins[2:] else None
        return kernels.plan_conv2d_packed(
            x, w, out, *self.planned, bias=bias, epilogue=epilogue, fast=self.fast
        )

    def makes_channels_last(self, x: Type, w: Type, *bias: Type) -> bool:
        return kernels.fills_vectors(w.shape[0] // self.groups, x.dtype)

    def oracle(self, x: np.ndarray, w: np.ndarray, *bias: np.ndarray) -> np.ndarray:
        t, l, b, r = self.padding
        x = np.pad(x, ((0, 0), (0, 0), (t, b), (l, r)))
        groups, (oh, ow) = self.groups, ConvOp.out_size(_bare(self), x.shape[2:], w.shape[2:])
        x = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
        w5 = w.reshape(groups, -1, *w.shape[1:])
        y = np.zeros((x.shape[0], groups, w5.shape[1], oh, ow), x.dtype)
        for p, q, tap in _taps(self, w.shape[2:], (oh, ow)):
            y += np.einsum("goc,ngcyx->ngoyx", w5[..., p, q], x[tap])
        y = y.reshape(x.shape[0], w.shape[0], oh, ow)
        return y + bias[0].reshape(-1, 1, 1) if bias else y

    def vjp(self, g: Any, y: Any, x: Any, w: Any, bias: Any = None) -> tuple:
        return (
            lambda: _input(self, x, g, w),
            lambda: _weight(self, w, g, x),
            lambda: sum(g, (0, 2, 3)),
        )

    def vmap(self, size: int, dims: tuple, x: Any, w: Any, *bias: Any) -> tuple[Any, int]:
        return _fold_batch(self, size, dims, x, w, *bias)

    onnx = Onnx("Conv", 11, build=onnx_rules.conv)
    samples = (
        sample((2, 4, 5, 6), (6, 4, 3, 3), (6,), padding=(1, 1, 1, 1)),
        sample((1, 4, 7, 5), (6, 2, 2, 3), stride=(2, 1), groups=2, padding=(0, 1, 1, 2)),
        sample((2, 3, 7, 7), (3, 1, 3, 2), dilation=(2, 3), groups=3),
    )


class Conv2dInput(ConvOp):
    """y = the adjoint of Conv2d in its input, of `size`, on g (N, O, h, w); plus bias (C,)"""

    size: Pair = (0, 0)
    fast: bool = False

    def type(self, g: Type, w: Type, *bias: Type) -> Type:
        if g.ndim != 4 or w.ndim != 4:
            raise RuntimeError(f"{self}: {g} and {w}: wanted 4 dims")
        x = Type((g.shape[0], w.shape[1] * self.groups, *self.size), g.dtype)
        self.fits(x, w, g.shape)
        _check_bias(bias, x.shape[1], g.dtype)
        return x

    def flops(self, g: Type, w: Type, *rest: Type) -> float:
        return _taps_flops(g, w.shape)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        bias = ins[2] if ins[2:] else None
        return kernels.plan_conv2d_dx(ins[0], ins[1], out, *self.planned, bias=bias, fast=self.fast)

    def makes_channels_last(self, g: Type, w: Type, *bias: Type) -> bool:
        return kernels.fills_vectors(w.shape[1], g.dtype)

    def oracle(self, g: np.ndarray, w: np.ndarray, *bias: np.ndarray) -> np.ndarray:
        t, l, _, _ = self.padding
        kh, kw = w.shape[2:]
        room = [  # windows of a larger output_padding reach past the padded input
            max(n + p, (o - 1) * s + d * (k - 1) + 1)
            for n, p, o, s, d, k in zip(
                self.size, (t, l), g.shape[2:], self.stride, self.dilation, (kh, kw), strict=True
            )
        ]
        groups = self.groups
        g5 = g.reshape(g.shape[0], groups, -1, *g.shape[2:])
        w5 = w.reshape(groups, -1, *w.shape[1:])
        y = np.zeros((g.shape[0], groups, w.shape[1], *room), g.dtype)
        for p, q, tap in _taps(self, (kh, kw), g.shape[2:]):
            y[tap] += np.einsum("goc,ngoyx->ngcyx", w5[..., p, q], g5)
        y = y.reshape(g.shape[0], -1, *room)
        y = y[..., t : t + self.size[0], l : l + self.size[1]]
        return y + bias[0].reshape(-1, 1, 1) if bias else y

    def vjp(self, gx: Any, y: Any, g: Any, w: Any, bias: Any = None) -> tuple:
        return (
            lambda: _fit(_forward(self, gx, w), g.shape),
            lambda: _weight(self, w, g, gx),
            lambda: sum(gx, (0, 2, 3)),
        )

    def vmap(self, size: int, dims: tuple, g: Any, w: Any, *bias: Any) -> tuple[Any, int]:
        return _fold_batch(self, size, dims, g, w, *bias)

    onnx = Onnx("ConvTranspose", 11, build=onnx_rules.conv_transpose)
    samples = (
        sample((2, 6, 5, 6), (6, 4, 3, 3), (4,), padding=(1, 1, 1, 1), size=(5, 6)),
        sample((1, 6, 3, 4), (6, 2, 2, 3), stride=(2, 1), groups=2, size=(7, 6)),
    )


class Conv2dWeight(ConvOp):
    """y = the gradient of Conv2d in its weight, of `kernel` size, from g (N, O, h, w) and x"""

    kernel: Pair = (1, 1)
    fast: bool = False

    def type(self, g: Type, x: Type) -> Type:
        if g.ndim != 4 or x.ndim != 4:
            raise RuntimeError(f"{self}: {g} and {x}: wanted 4 dims")
        w = Type((g.shape[1], x.shape[1] // self.groups, *self.kernel), g.dtype)
        self.fits(x, w, g.shape)
        return w

    def flops(self, g: Type, x: Type, *rest: Type) -> float:
        return _taps_flops(g, self.type(g, x).shape)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_conv2d_dw(ins[0], ins[1], out, *self.planned, fast=self.fast)

    def takes_channels_last(self, g: Type, x: Type) -> bool:
        return kernels.fills_vectors(g.shape[1] // self.groups, g.dtype)

    def oracle(self, g: np.ndarray, x: np.ndarray) -> np.ndarray:
        t, l, b, r = self.padding
        x = np.pad(x, ((0, 0), (0, 0), (t, b), (l, r)))
        x = x.reshape(x.shape[0], self.groups, -1, *x.shape[2:])
        g5 = g.reshape(g.shape[0], self.groups, -1, *g.shape[2:])
        y = np.zeros((self.groups, g5.shape[2], x.shape[2], *self.kernel), g.dtype)
        for p, q, tap in _taps(self, self.kernel, g.shape[2:]):
            y[..., p, q] = np.einsum("ngoyx,ngcyx->goc", g5, x[tap])
        return y.reshape(g.shape[1], -1, *self.kernel)

    def vjp(self, gw: Any, y: Any, g: Any, x: Any) -> tuple:
        return (
            lambda: _fit(_forward(self, x, gw), g.shape),
            lambda: _input(self, x, g, gw),
        )

    vmap = by_loop
    samples = (
        sample((2, 6, 5, 6), (2, 4, 5, 6), padding=(1, 1, 1, 1), kernel=(3, 3)),
        sample((1, 6, 3, 4), (1, 4, 7, 6), stride=(2, 1), groups=2, kernel=(2, 3)),
    )


def _forward(op: ConvOp, x: Any, w: Any) -> Any:
    return apply(Conv2d(*op.geometry, FastMath.on), x, w.contiguous())


def _input(op: ConvOp, x: Any, g: Any, w: Any) -> Any:
    return _adjoint(Conv2dInput(*op.geometry, tuple(x.shape[2:]), FastMath.on), g, w)


_FAR = 32  # a step: its square is the number of parts of an adjoint's plan


def _adjoint(op: Conv2dInput, g: Any, w: Any, *bias: Any) -> Any:
    """The op; windows far apart are computed side by side, and zeros put between them."""
    reach = [d * (k - 1) + 1 for d, k in zip(op.dilation, shape_of(w)[2:], strict=True)]
    if all(s <= max(r, _FAR) for s, r in zip(op.stride, reach, strict=True)):
        return apply(op, g, w, *bias)
    near, grid = tuple(map(min, op.stride, reach)), shape_of(g)[2:]
    size = tuple((m - 1) * s + r for m, s, r in zip(grid, near, reach, strict=True))
    y = apply(Conv2dInput(near, (0, 0, 0, 0), op.dilation, op.groups, size, op.fast), g, w)
    for d, (m, s, r) in enumerate(zip(grid, op.stride, reach, strict=True), 2):
        if s > r:
            lead, rest = shape_of(y)[:d], shape_of(y)[d + 1 :]
            y = pad(reshape(y, (*lead, m, r, *rest)), ((0, 0) * (3 - d) + (0, s - r)))
            y = reshape(y, (*lead, m * s, *rest))
    (top, left), (height, width), (h, b) = op.padding[:2], op.size, shape_of(y)[2:]
    y = pad(y, (-left, width + left - b, -top, height + top - h))
    return y + reshape(bias[0], (-1, 1, 1)) if bias else y


def _weight(op: ConvOp, w: Any, g: Any, x: Any) -> Any:
    return apply(Conv2dWeight(*op.geometry, tuple(w.shape[2:]), FastMath.on), g, x)


def _bare(op: ConvOp) -> ConvOp:
    """The geometry without padding, for an input already padded."""
    return Conv2d(op.stride, (0, 0, 0, 0), op.dilation, op.groups)


def _taps(op: ConvOp, kernel: tuple, out: tuple) -> Any:
    """For each kernel position: (p, q, the index of what it meets in a padded x)."""
    for p in range(kernel[0]):
        for q in range(kernel[1]):
            rows, columns = (
                slice(at, at + (n - 1) * s + 1 if n else at, s)
                for at, n, s in (
                    (p * op.dilation[0], out[0], op.stride[0]),
                    (q * op.dilation[1], out[1], op.stride[1]),
                )
            )
            yield p, q, (..., rows, columns)


def _fit(y: Any, shape: tuple) -> Any:
    """y cut to `shape`: a large output_padding leaves room for windows that did not exist."""
    for d in (2, 3):
        if y.shape[d] != shape[d]:
            y = narrow(y, d, 0, shape[d])
    return y


def _fold_batch(op: Op, size: int, dims: tuple, x: Any, *rest: Any) -> tuple[Any, int]:
    """A batch of inputs under one weight is one larger batch."""
    if any(d is not None for d in dims[1:]):
        return by_loop(op, size, dims, x, *rest)
    moved = x.movedim(dims[0], 0)
    y = apply(op, reshape(moved, (size * moved.shape[1], *moved.shape[2:])), *rest)
    return reshape(y, (size, moved.shape[1], *y.shape[1:])), 0


# ------------------------------------------------------------------------------- functions


def sizes(name: str, value: Any, n: int, op: str = "convolution") -> tuple[int, ...]:
    """An int or a sequence of n ints (or one) as n ints of 32 bits: kernels add their products."""
    if value.__class__ is int and value < 1 << 31:
        return (value,) * n
    given = value if isinstance(value, (tuple, list)) else (value,)
    out = tuple([v if v.__class__ is int else whole(v, op, name) for v in given])
    if name != "stride" and max(out, default=0) >= 1 << 31:  # see steps_within
        raise RuntimeError(f"{op}: {name}: value cannot be converted to type int without overflow")
    if len(out) == 1:
        return out * n
    if len(out) != n:
        raise RuntimeError(
            f"expected {name} to be a single integer value or a list of {n} values to match the "
            f"{op} dimensions, but got {name}={list(out)}"
        )
    return out


def steps_within(steps: tuple, extents: Iterable[int]) -> tuple[int, ...]:
    """Steps of windows over padded extents: past an end there is nothing to step to."""
    return tuple(max(1, min(s, n)) for s, n in zip(steps, extents, strict=True))


def _paddings(
    padding: Any, n: int, kernel: tuple, stride: tuple, dilation: tuple
) -> list[tuple[int, int]]:
    """(before, after) a spatial dim."""
    if isinstance(padding, str):
        if padding == "valid":
            return [(0, 0)] * n
        if padding != "same":
            raise RuntimeError(f"Invalid padding string: '{padding}'")
        if any(s != 1 for s in stride):
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(p, p) for p in sizes("padding", padding, n)]


def _spell(x: Any) -> str:
    return x.type() if hasattr(x, "type") else str(dtype_of(x))


def _check(
    n: int, x: Any, w: Any, bias: Any, stride: tuple, dilation: tuple, groups: int,
    transposed: bool = False,
) -> None:  # fmt: skip
    """torch's complaints about operands that do not fit."""
    name = f"conv{'_transpose' if transposed else ''}{n}d"
    xs, ws = shape_of(x), shape_of(w)
    if len(xs) not in (n + 1, n + 2):
        raise RuntimeError(
            f"Expected {n + 1}D (unbatched) or {n + 2}D (batched) input to {name}, but got input "
            f"of size: {list(xs)}"
        )
    if len(ws) != n + 2:
        raise RuntimeError(
            f"weight should have at least {n + 2} dimensions for {name}, but got {list(ws)}"
        )
    for what, values in (("stride", stride), ("dilation", dilation), ("groups", (groups,))):
        if min(values) <= 0:
            raise RuntimeError(f"non-positive {what} is not supported")
    if dtype_of(x) is not dtype_of(w):
        raise RuntimeError(
            f"Input type ({_spell(x)}) and weight type ({_spell(w)}) should be the same or input "
            "should be a MKLDNN tensor and weight is a dense tensor"
        )
    if bias is not None and dtype_of(bias) is not dtype_of(x):
        raise RuntimeError(
            f"Input type ({_spell(x)}) and bias type ({_spell(bias)}) should be the same"
        )
    if ws[0] % groups or ws[0] < groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size [{list(ws)}] instead"
        )
    channels = xs[-n - 1]
    want = ws[0] if transposed else ws[1] * groups
    given = "transposed=1" if transposed else f"groups={groups}"
    if channels != want:
        raise RuntimeError(
            f"Given {given}, weight of size {list(ws)}, expected input{list(xs)} to have {want} "
            f"channels, but got {channels} channels instead"
        )
    out = ws[1] * groups if transposed else ws[0]
    if bias is not None and shape_of(bias) != (out,):
        raise RuntimeError(
            f"Given {'transposed=1, ' if transposed else ''}weight of size {list(ws)}, expected "
            f"bias to be 1-dimensional with {out} elements, but got bias of size "
            f"{list(shape_of(bias))} instead"
        )


def _fitting(
    stride: tuple, xs: tuple, kernel: tuple, pads: list, dilation: tuple
) -> tuple[int, ...]:
    """The steps of a kernel that fits into the padded input; RuntimeError else."""
    n = len(kernel)
    if any(p < 0 for pair in pads for p in pair):
        raise RuntimeError("negative padding is not supported")
    padded = [s + a + b for s, (a, b) in zip(xs[-n:], pads, strict=True)]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if any(r > p for r, p in zip(reach, padded, strict=True)):
        raise RuntimeError(
            f"Calculated padded input size per channel: ({' x '.join(map(str, padded))}). Kernel "
            f"size: ({' x '.join(map(str, reach))}). Kernel size can't be greater than actual "
            "input size"
        )
    return steps_within(stride, padded)


def _wide(columns: int, *xs: Any) -> tuple[tuple, Any]:
    """The operands in a dtype that the kernels compute in, and the dtype to come back to; a group
    has so many output channels.
    """
    d = dtype_of(xs[0])
    if d in (dt.float32, dt.float64) or kernels.in_pairs(columns, d):
        return xs, None
    wide = dt.float32 if d.category == dt.FLOAT else dt.float64
    return tuple(None if x is None else cast(x, wide) for x in xs), d


def _run(op: Conv2d | Conv2dInput, x: Any, w: Any, bias: Any) -> Any:
    shape = shape_of(w)
    columns = shape[0] // op.groups if isinstance(op, Conv2d) else shape[1]
    (x, w, bias), back = _wide(columns, x, w, bias)
    w = w.contiguous()
    bias = () if bias is None else (bias.contiguous(),)
    y = _adjoint(op, x, w, *bias) if isinstance(op, Conv2dInput) else apply(op, x, w, *bias)
    return y if back is None else cast(y, back)


def conv_tbc(input: Any, weight: Any, bias: Any, pad: int = 0) -> Any:
    """conv1d of (time, batch, channels) by weight (k, channels, out)."""
    y = conv1d(permute(input, (1, 2, 0)), permute(weight, (2, 1, 0)), bias, padding=pad)
    return permute(y, (2, 0, 1))


def conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """y[n, o, i] = bias[o] + sum over c, p of w[o, c, p] x[n, c, i stride - padding + p dilation].

    input (N, C, L) or (C, L), weight (O, C/groups, k).  padding: an int, "valid" or "same".
    """
    if state.autocast is not None:
        input, weight, bias = lowered(input, weight, bias)
    stride, dilation = sizes("stride", stride, 1), sizes("dilation", dilation, 1)
    _check(1, input, weight, bias, stride, dilation, groups)
    ((left, right),) = pads = _paddings(padding, 1, shape_of(weight)[2:], stride, dilation)
    stride = _fitting(stride, shape_of(input), shape_of(weight)[2:], pads, dilation)
    op = Conv2d((1, *stride), (0, left, 0, right), (1, *dilation), groups, FastMath.on)
    x = unsqueeze(input, -2)
    single = len(shape_of(x)) == 3
    y = _run(op, unsqueeze(x, 0) if single else x, unsqueeze(weight, 2), bias)
    return reshape(y, (*shape_of(y)[single:2], shape_of(y)[3]))


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """y[n, o, i, j] = bias[o] + sum over c, p, q of w[o, c, p, q] x[n, c, i s - P + p d, j s - P + q d].

    input (N, C, H, W) or (C, H, W), weight (O, C/groups, kh, kw).  padding: ints, "valid", "same".
    RuntimeError: channels, bias or dtypes do not fit; the kernel is larger than the padded input.
    """  # noqa: E501
    given = (stride, padding, dilation, groups)
    key = (*map(id, given), FastMath.on)
    if groups != 1 and state.recorder is None:
        input = _in_planes(input, weight)
    if state.autocast is not None:
        input, weight, bias = lowered(input, weight, bias)
    elif (known := _KNOWN.get(key)) is not None:
        quick = known[0].quick
        y = quick(input, weight) if bias is None else quick(input, weight, bias)
        if y is not None:
            return y
    step, dilation = sizes("stride", stride, 2), sizes("dilation", dilation, 2)
    _check(2, input, weight, bias, step, dilation, groups)
    kernel = shape_of(weight)[2:]
    (top, bottom), (left, right) = pads = _paddings(padding, 2, kernel, step, dilation)
    stride = _fitting(step, shape_of(input), kernel, pads, dilation)
    op = Conv2d(stride, (top, left, bottom, right), dilation, groups, FastMath.on)
    if stride == step and all(map(_is_plain, given)):
        if len(_KNOWN) > _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[key] = op, given
    if len(shape_of(input)) == 4:
        return _run(op, input, weight, bias)
    y = _run(op, unsqueeze(input, 0), weight, bias)
    return reshape(y, shape_of(y)[1:])


def known_conv2d(*given: Any) -> Conv2d | None:
    """The op of an earlier `conv2d` with these very stride, padding, dilation and groups."""
    known = _KNOWN.get((*map(id, given), FastMath.on))
    return None if known is None else known[0]


def _in_planes(x: Any, w: Any) -> Any:
    """Images channels last as planes, for depthwise kernels: they would pick each element."""
    shape, channels = shape_of(x), shape_of(w)[1:2]
    if len(shape) != 4 or channels != (1,) or x._ghost is not None or x._a.flags.c_contiguous:
        return x
    return x.contiguous() if x._a.strides[1] == x._a.itemsize else x


# by what conv2d was given, the very objects: the op, whatever the images' size; and the objects
_KNOWN: dict[tuple, tuple[Conv2d, tuple]] = {}
_MOST_KNOWN = 10_000


def _is_plain(given: Any) -> bool:
    """Whether it is an int, or a tuple of ints: what does not change."""
    values = given if given.__class__ is tuple else (given,)
    return all(v.__class__ is int for v in values)


def conv3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """conv2d with a depth: input (N, C, D, H, W) or (C, D, H, W), weight (O, C/groups, kd, kh, kw).

    Computed as a conv2d of images whose channels are those of all the depth taps.
    """
    if state.autocast is not None:
        input, weight, bias = lowered(input, weight, bias)
    stride, dilation = sizes("stride", stride, 3), sizes("dilation", dilation, 3)
    _check(3, input, weight, bias, stride, dilation, groups)
    kernel = shape_of(weight)[2:]
    pads = _paddings(padding, 3, kernel, stride, dilation)
    stride = _fitting(stride, shape_of(input), kernel, pads, dilation)
    x = unsqueeze(input, 0) if len(shape_of(input)) == 4 else input
    n, c, *size = shape_of(x)
    out = [
        (m + a + b - d * (k - 1) - 1) // s + 1
        for m, (a, b), k, s, d in zip(size, pads, kernel, stride, dilation, strict=True)
    ]
    need_memory((n, shape_of(weight)[0], *out), dtype_of(x))
    depth, taps, channels, single = out[0], kernel[0], shape_of(weight)[0], x is not input
    (before, after), (top, bottom), (left, right) = pads
    if (*kernel[1:], *stride[1:], top, bottom, left, right) == (1,) * 4 + (0,) * 4:  # as it lies
        op = Conv2d((stride[0], 1), (before, 0, after, 0), (dilation[0], 1), groups, FastMath.on)
        flat = reshape(x, (n, c, size[0], -1)), reshape(weight, (channels, -1, taps, 1))
        y = reshape(_run(op, *flat, bias), (n, channels, *out))
        return reshape(y, shape_of(y)[1:]) if single else y
    x = pad(x, (0, 0, 0, 0, before, after)) if before or after else x
    op = Conv2d(stride[1:], (top, left, bottom, right), dilation[1:], groups, FastMath.on)
    ends = [p * dilation[0] + (depth - 1) * stride[0] + 1 for p in range(taps)]
    each = 1 if (groups, groups) == (c, channels) else taps  # depthwise kernels are faster
    y: Any = None
    for p in range(0, taps, each):
        met = [x[:, :, e - ends[0] : e : stride[0]].permute(0, 2, 1, 3, 4) for e in ends[p:][:each]]
        frames = reshape(met[0] if each == 1 else stack(met, 3), (n * depth, c * each, *size[1:]))
        w = reshape(weight[:, :, p : p + each], (channels, -1, *kernel[1:]))
        part = _run(op, frames, w, None if p else bias)
        y = y + part if p else part
    y = reshape(y, (n, depth, *shape_of(y)[1:])).permute(0, 2, 1, 3, 4).contiguous()
    return reshape(y, shape_of(y)[1:]) if single else y


def _transposed(
    n: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any,
    groups: int, dilation: Any,
) -> Any:  # fmt: skip
    """conv_transpose of n = 1, 2 or 3 dims."""
    stride, dilation = sizes("stride", stride, n), sizes("dilation", dilation, n)
    pads, extra = sizes("padding", padding, n), sizes("output_padding", output_padding, n)
    _check(n, input, weight, bias, stride, dilation, groups, transposed=True)
    if min(pads) < 0:
        raise RuntimeError("negative padding is not supported")
    if min(extra) < 0:
        raise RuntimeError("negative output_padding is not supported")
    if any(e >= s and e >= d for e, s, d in zip(extra, stride, dilation, strict=True)):
        names = ("depth", "height", "width")[-max(n, 2) :]
        said = {"output_padding": extra, "stride": stride, "dilation": dilation}
        raise RuntimeError(
            "output padding must be smaller than either stride or dilation, but got "
            + " ".join(
                f"{what}_{name}: {v}"
                for what, given in said.items()
                for name, v in zip(names, given if n > 1 else (1, *given), strict=True)
            )
        )
    xs, kernel = shape_of(input), shape_of(weight)[2:]
    size = tuple(
        (m - 1) * s - 2 * p + d * (k - 1) + e + 1
        for m, s, p, d, k, e in zip(xs[-n:], stride, pads, dilation, kernel, extra, strict=True)
    )
    if min(size) < 1:
        had, made = (" x ".join(map(str, (1, *v) if n == 1 else v)) for v in (xs[-n:], size))
        raise RuntimeError(
            f"Given input size per channel: ({had}). Calculated output size per channel: ({made}). "
            "Output size is too small"
        )
    # from one place there is no step, of however many phases
    stride = tuple(e + 1 if m == 1 else s for m, s, e in zip(xs[-n:], stride, extra, strict=True))
    x = unsqueeze(input, 0) if len(xs) == n + 1 else input
    if n == 3:
        y = _deep(x, weight, bias, stride, pads, dilation, groups, size)
        return y if len(xs) == 5 else reshape(y, shape_of(y)[1:])
    if n == 1:
        x, weight = unsqueeze(x, 2), unsqueeze(weight, 2)
        stride, dilation, pads, size = (1, *stride), (1, *dilation), (0, *pads), (1, *size)
    op = Conv2dInput(stride, (*pads, *pads), dilation, groups, size, FastMath.on)
    y = _run(op, x, weight, bias)
    shape = shape_of(y) if n == 2 else (*shape_of(y)[:2], shape_of(y)[3])
    return reshape(y, shape if len(xs) == n + 2 else shape[1:])


def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """The adjoint of conv1d: input (N, O, L), weight (O, C/groups, k), result (N, C, L').

    L' = (L - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1
    """
    if state.autocast is not None:
        input, weight, bias = lowered(input, weight, bias)
    return _transposed(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """The adjoint of conv2d: input (N, O, h, w), weight (O, C/groups, kh, kw), result (N, C, H, W).

    H = (h - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1, W likewise.
    """
    if state.autocast is not None:
        input, weight, bias = lowered(input, weight, bias)
    return _transposed(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def _deep(
    x: Any, weight: Any, bias: Any, stride: tuple, pads: tuple, dilation: tuple, groups: int,
    size: tuple,
) -> Any:  # fmt: skip
    """conv_transpose3d, its depth taps as channels of results, which are added where they belong;
    as many side by side as a step has places.
    """
    n, c, depth, *grid = shape_of(x)
    o, channels, taps, *kernel = shape_of(weight)
    op = Conv2dInput(stride[1:], pads[1:] * 2, dilation[1:], groups, size[1:], FastMath.on)
    frames = reshape(x.permute(0, 2, 1, 3, 4), (n * depth, c, *grid))
    met = _run(op, frames, reshape(weight, (o, channels * taps, *kernel)), None)
    met = reshape(met, (n, depth, channels * groups, taps, *size[1:])).permute(0, 2, 1, 3, 4, 5)
    step = stride[0]
    each = step if dilation[0] == 1 else 1
    y: Any = None
    for p in range(0, taps, each):
        beside = met[:, :, :, p : p + each]
        beside = pad(beside, (0, 0, 0, 0, 0, step - shape_of(beside)[3]))
        at = p * dilation[0] - pads[0]
        part = reshape(beside, (n, channels * groups, depth * step, *size[1:]))
        part = pad(part, (0, 0, 0, 0, at, size[0] - at - depth * step))
        y = y + part if p else part
    return y if bias is None else y + reshape(bias, (-1, 1, 1, 1))


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
    """The adjoint of conv3d: input (N, O, d, h, w), weight (O, C/groups, kd, kh, kw), result
    (N, C, D, H, W).

    D = (d - 1) stride - 2 padding + dilation (kd - 1) + output_padding + 1, H and W likewise.
    RuntimeError: shapes that do not fit, an output_padding not below stride or dilation.
    """
    if state.autocast is not None:
        input, weight, bias = lowered(input, weight, bias)
    return _transposed(3, input, weight, bias, stride, padding, output_padding, groups, dilation)
