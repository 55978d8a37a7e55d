"""Pooling: the maximum or the average of each window of an image, fixed or adaptive.

    max:      y[n, c, i, j] = max over p, q of x[n, c, i s - P + p d, j s - P + q d]
    average:  the sum over the window / its size
    adaptive: window i of OH is [i H // OH, -(-(i + 1) H // OH))

1-d pools are 2-d ones of height 1.  A maximum's gradient goes to the first of equal elements: where
one is wanted the forward keeps the number of each window's largest tap, a byte.
Long because each of fifteen ops brings its rules, its oracle, and torch's checks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core.handle import state
from weft.core.op import Onnx, Op, sample
from weft.core.types import Type, need_floats, need_windows, numel, one_type
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.ops.conv import sizes, steps_within
from weft.ops.dispatch import apply, apply_both, dtype_of, shape_of
from weft.ops.kinds import by_folding
from weft.ops.view import reshape
from weft.runtime import memory, native
from weft.runtime.native import Launch

__all__ = ["adaptive_avg_pool1d", "adaptive_max_pool1d", "avg_pool1d", "max_pool1d", "max_pool2d"]

Pair = tuple[int, int]


def is_wide(self: Op, *types: Type) -> bool:
    """Whether there are kernels for images of this dtype that lie channels last."""
    return types[0].dtype.category == dt.FLOAT


def sums_wide(self: Op, *types: Type) -> bool:
    """The same of kernels that add in place, which halves would have to be rounded for."""
    return types[0].dtype in (dt.float32, dt.float64)


class PoolOp(Op, abstract=True):
    """Windows over the planes of x (N, C, H, W)."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    @property
    def window(self) -> kernels.Window:
        return kernels.Window(self.kernel, self.stride, self.padding, self.dilation)

    @property
    def geometry(self) -> tuple:
        return self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode

    def out_size(self, size: tuple) -> Pair:
        need_windows(self, self.stride, self.padding, self.dilation, self.kernel)
        return tuple(
            windows(n, k, s, p, d, self.ceil_mode)
            for n, k, s, p, d in zip(
                size, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )  # type: ignore[return-value]

    def type(self, x: Type) -> Type:
        out = self.out_size(x.shape[2:]) if x.ndim == 4 else (0,)
        if min(out) < 1:
            raise RuntimeError(f"{self}: no window fits an image of {x.shape[2:]}")
        return Type((*x.shape[:2], *out), x.dtype)

    def by_sample(self, y: Type, *types: Type) -> tuple[int, ...]:
        return tuple(range(len(types)))

    vmap = by_folding


def windows(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    """How many windows fit; with ceil_mode one more that begins inside."""
    room = n + 2 * p - d * (k - 1) - 1
    if not ceil_mode:
        return room // s + 1
    count = -(-room // s) + 1
    return count - 1 if (count - 1) * s >= n + p else count


class MaxPool2d(PoolOp):
    """y = the largest of each window; NaN wins"""

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_max_pool2d(ins[0], out, self.window)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return _reference(self, x, lambda w, at: np.max(w))

    takes_channels_last = keeps_channels_last = turns_channels_last = is_wide

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        places = apply(MaxPool2dPlaces(*self.geometry), x)
        return (apply(PlanePut(tuple(x.shape[2:])), g, places),)

    onnx = Onnx("MaxPool", 12, build=onnx_rules.max_pool)
    samples = (
        sample((2, 3, 6, 7), kernel=(2, 2), stride=(2, 2)),
        sample((1, 2, 7, 5), kernel=(3, 2), stride=(2, 1), padding=(1, 1), ceil_mode=True),
        sample((1, 1, 7, 7), kernel=(3, 2), stride=(1, 2), dilation=(2, 2)),
    )


class MaxPool2dPlaces(PoolOp):
    """y = where in its plane each window's maximum lies, counted row by row"""

    nondiff = "its result is an index"

    def type(self, x: Type) -> Type:
        return Type(PoolOp.type(self, x).shape, dt.int64)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_max_pool2d_indices(ins[0], out, self.window)

    takes_channels_last = keeps_channels_last = is_wide

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return _reference(self, x, lambda w, at: at.flat[np.argmax(w)]).astype(np.int64)

    onnx = Onnx("MaxPool", 12, build=onnx_rules.max_pool_places)
    samples = MaxPool2d.samples


class MaxPool2dTaps(PoolOp):
    """y = which of its window's taps each maximum is, counted row by row: a byte"""

    nondiff = "its result is an index"

    def type(self, x: Type) -> Type:
        if not kernels.fits_byte(self.kernel):
            raise RuntimeError(f"{self}: windows of more than 256 taps")
        return Type(PoolOp.type(self, x).shape, dt.uint8)

    takes_channels_last = keeps_channels_last = is_wide

    def host(self, x: np.ndarray) -> np.ndarray:
        return MaxPool2dTake(*self.geometry).both(x)[1]

    def oracle(self, x: np.ndarray) -> np.ndarray:
        out = self.out_size(x.shape[2:])
        best = np.full((*x.shape[:2], *out), -np.inf, x.dtype)
        y = np.full(best.shape, 255, np.uint8)
        for number, inside, v in _taps(self, x, out):
            y[(y == 255) & inside] = number  # the first, where all are -inf
            better = inside & ((v > best) | np.isnan(v))
            y[better], best[better] = number, v[better]
        return y

    samples = MaxPool2d.samples


class MaxPool2dTake(PoolOp):
    """y = the tap of each window that `taps` numbers; of MaxPool2dTaps(x): the maximum"""

    @property
    def first(self) -> Op:
        return MaxPool2dTaps(*self.geometry)

    def plan_both(self, x: Layout, y: Layout, taps: Layout) -> Launch:
        return kernels.plan_max_pool2d(x, y, self.window, taps)

    def both(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The maxima of x's windows and their taps, by the kernel."""
        shape = (*x.shape[:2], *self.out_size(x.shape[2:]))
        if min(shape[2:]) < 1:
            raise ValueError("no window")  # which type() says in the op's own words
        y, taps = np.empty(shape, x.dtype), np.empty(shape, np.uint8)
        native.launch(self.plan_both(*map(Layout.of, (x, y, taps))), y, [taps, x])
        return y, taps

    def plan_alone(self, x: Layout, y: Layout) -> Launch:
        return kernels.plan_max_pool2d(x, y, self.window)

    def type(self, x: Type, taps: Type) -> Type:
        if self.first.type(x) != taps:
            raise RuntimeError(f"{self}: taps {taps} do not fit {x}")
        return Type(taps.shape, x.dtype)

    takes_channels_last = keeps_channels_last = turns_channels_last = is_wide

    def host(self, x: np.ndarray, taps: np.ndarray) -> np.ndarray:
        y, found = self.both(x)
        if taps.shape != found.shape:
            raise ValueError("taps of another image")
        return y if np.array_equal(found, taps) else self.oracle(x, taps)

    def oracle(self, x: np.ndarray, taps: np.ndarray) -> np.ndarray:
        y = np.zeros(taps.shape, x.dtype)
        for number, inside, v in _taps(self, x, taps.shape[2:]):
            np.copyto(y, v, where=inside & (taps == number))
        return y

    def vjp(self, g: Any, y: Any, x: Any, taps: Any) -> tuple:
        return (apply(MaxPool2dInput(*self.geometry, tuple(x.shape[2:])), g, taps), None)

    samples = (
        sample((2, 3, 6, 7), (2, 3, 3, 3), of=("float32", "uint8"), low=0, high=4,
               kernel=(2, 2), stride=(2, 2)),
        sample((1, 2, 7, 5), (1, 2, 4, 6), of=("float32", "uint8"), low=0, high=7,
               kernel=(3, 2), stride=(2, 1), padding=(1, 1), ceil_mode=True),
    )  # fmt: skip


class MaxPool2dInput(PoolOp):
    """y = zeros of `size` with each window's g added at the tap that `taps` numbers"""

    size: Pair = (0, 0)

    def type(self, g: Type, taps: Type) -> Type:
        x = Type((*g.shape[:2], *self.size), g.dtype)
        if MaxPool2dTaps(*self.geometry).type(x) != taps or taps.shape != g.shape:
            raise RuntimeError(f"{self}: cotangent {g} and taps {taps} do not fit {x}")
        return x

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_max_pool2d_back(ins[0], ins[1], out, self.window)

    def takes_channels_last(self, *types: Type) -> bool:
        return sums_wide(self, *types) or (self.window.apart and is_wide(self, *types))

    keeps_channels_last = takes_channels_last

    def oracle(self, g: np.ndarray, taps: np.ndarray) -> np.ndarray:
        y = np.zeros((*g.shape[:2], *self.size), g.dtype)
        at = np.arange(y[0, 0].size if len(y) and y.shape[1] else 0).reshape(y.shape[2:])
        at = np.broadcast_to(at.astype(np.float64), y.shape)
        places = {n: (i, v) for n, i, v in _taps(self, at, g.shape[2:])}
        for n, c, i, j in np.ndindex(g.shape):
            inside, place = places.get(int(taps[n, c, i, j]), (at == -1, at))
            if inside[..., i, j].all():
                y[n, c].flat[int(place[n, c, i, j])] += g[n, c, i, j]
        return y

    def vjp(self, gy: Any, y: Any, g: Any, taps: Any) -> tuple:
        return (apply(MaxPool2dTake(*self.geometry), gy, taps), None)

    samples = (
        sample((2, 3, 3, 3), (2, 3, 3, 3), of=("float32", "uint8"), low=0, high=5,
               kernel=(2, 2), stride=(2, 2), size=(6, 7)),
        sample((1, 2, 4, 6), (1, 2, 4, 6), of=("float32", "uint8"), low=0, high=6,
               kernel=(3, 2), stride=(2, 1), padding=(1, 1), ceil_mode=True, size=(7, 5)),
    )  # fmt: skip


class PlanePut(Op):
    """y[n, c] = zeros of `size` with g added at its flat places, in order"""

    size: Pair = (0, 0)

    def type(self, g: Type, places: Type) -> Type:
        return Type((*g.shape[:2], *self.size), g.dtype)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_max_pool2d_dx(ins[0], ins[1], out)

    takes_channels_last = keeps_channels_last = sums_wide

    def fail(self, status: int, arrays: list[np.ndarray]) -> Exception:
        limit = self.size[0] * self.size[1]
        bad = arrays[1][(arrays[1] < 0) | (arrays[1] >= limit)]
        return RuntimeError(
            f"Found an invalid max index: {bad.flat[0] if bad.size else '?'} (output volumes are "
            f"of size {self.size[0]}x{self.size[1]}"
        )

    def oracle(self, g: np.ndarray, places: np.ndarray) -> np.ndarray:
        y = np.zeros((*g.shape[:2], self.size[0] * self.size[1]), g.dtype)
        flat, at = g.reshape(*g.shape[:2], -1), places.reshape(*g.shape[:2], -1)
        for n, c, k in np.ndindex(flat.shape):
            y[n, c, at[n, c, k]] += flat[n, c, k]
        return y.reshape(*g.shape[:2], *self.size)

    def vjp(self, gy: Any, y: Any, g: Any, places: Any) -> tuple:
        return (apply(PlaneTake(), gy, places), None)

    vmap = by_folding

    samples = (
        sample((2, 2, 2, 3), (2, 2, 2, 3), of=("float32", "int64"), low=0, high=20, size=(4, 5)),
    )


class PlaneTake(Op):
    """y[n, c, i, j] = x[n, c] at flat place places[n, c, i, j]"""

    def type(self, x: Type, places: Type) -> Type:
        if x.shape[:2] != places.shape[:2] or (0 in x.shape[2:] and 0 not in places.shape):
            raise RuntimeError(f"{self}: places {places.shape} for planes {x.shape}")
        return Type(places.shape, x.dtype)

    def host(self, x: np.ndarray, places: np.ndarray) -> np.ndarray:
        if places.size == 0:
            return np.empty(places.shape, x.dtype)
        lead = places.shape[:2]
        flat = np.take_along_axis(x.reshape(*lead, -1), places.reshape(*lead, -1), 2)
        return flat.reshape(places.shape)

    oracle = host

    def vjp(self, g: Any, y: Any, x: Any, places: Any) -> tuple:
        return (apply(PlanePut(tuple(x.shape[2:])), g, places), None)

    vmap = by_folding

    samples = (sample((2, 2, 4, 5), (2, 2, 2, 3), of=("float32", "int64"), low=0, high=20),)


class AvgPool2d(PoolOp):
    """y = the sum of each window / its size (padding counted or not), or / divisor"""

    count_include_pad: bool = True
    divisor: int | None = None

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_avg_pool2d(
            ins[0], out, self.window,
            count_include_pad=self.count_include_pad, divisor_override=self.divisor,
        )  # fmt: skip

    takes_channels_last = keeps_channels_last = turns_channels_last = is_wide

    def oracle(self, x: np.ndarray) -> np.ndarray:
        y = _reference(self, x, lambda w, at: np.sum(w))
        for i, j in np.ndindex(y.shape[2:]):
            y[:, :, i, j] /= self.divisor or self._count(x.shape[2:], i, j)
        return y

    def _count(self, size: tuple, i: int, j: int) -> int:
        n = 1
        for o, m, k, s, p in zip((i, j), size, self.kernel, self.stride, self.padding, strict=True):
            low, high = o * s - p, min(o * s - p + k, m + p)
            if not self.count_include_pad:
                low, high = max(low, 0), min(high, m)
            n *= high - low
        return n

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        back = AvgPool2dInput(
            *self.geometry, self.count_include_pad, self.divisor, tuple(x.shape[2:])
        )
        return (apply(back, g),)

    onnx = Onnx("AveragePool", 11, build=onnx_rules.avg_pool)
    samples = (
        sample((2, 3, 6, 7), kernel=(2, 2), stride=(2, 2)),
        sample((1, 2, 7, 5), kernel=(3, 2), stride=(2, 1), padding=(1, 1), count_include_pad=False),
        sample((1, 2, 6, 5), kernel=(3, 3), stride=(2, 2), ceil_mode=True, divisor=4),
    )


class AvgPool2dInput(PoolOp):
    """y = the adjoint of AvgPool2d: each window's value spread over its elements, of `size`"""

    count_include_pad: bool = True
    divisor: int | None = None
    size: Pair = (0, 0)

    def type(self, g: Type) -> Type:
        x = Type((*g.shape[:2], *self.size), g.dtype)
        one_type(self, g, PoolOp.type(self, x))
        return x

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_avg_pool2d_dx(
            ins[0], out, self.window,
            count_include_pad=self.count_include_pad, divisor_override=self.divisor,
        )  # fmt: skip

    def oracle(self, g: np.ndarray) -> np.ndarray:
        forward = AvgPool2d(*self.geometry, self.count_include_pad, self.divisor)
        y = np.zeros((*g.shape[:2], *self.size), g.dtype)
        for i, j in np.ndindex(g.shape[2:]):
            rows, columns = _inside(self, self.size, i, j)
            n = self.divisor or forward._count(self.size, i, j)
            y[:, :, rows[:, None], columns] += g[:, :, i, j, None, None] / n
        return y

    def vjp(self, gy: Any, y: Any, g: Any) -> tuple:
        return (apply(AvgPool2d(*self.geometry, self.count_include_pad, self.divisor), gy),)

    samples = (
        sample((2, 3, 3, 3), kernel=(2, 2), stride=(2, 2), size=(6, 7)),
        sample((1, 2, 4, 5), kernel=(3, 2), stride=(2, 1), padding=(1, 0),
               count_include_pad=False, size=(7, 6)),
    )  # fmt: skip


class AdaptivePool(Op, abstract=True):
    """Windows that divide the plane into `size` parts, overlapping where it does not divide."""

    size: Pair = (1, 1)

    def type(self, x: Type) -> Type:
        if x.ndim != 4 or 0 in x.shape[2:]:
            raise RuntimeError(f"{self}: an image of {x.shape[2:]} has no parts")
        return Type((*x.shape[:2], *self.size), x.dtype)

    vmap = by_folding

    samples = (sample((2, 3, 6, 7), size=(2, 3)), sample((1, 2, 3, 4), size=(1, 1)),
               sample((1, 1, 2, 3), size=(3, 5)))  # fmt: skip


def _parts(x: np.ndarray, size: Pair) -> Any:
    h, w = x.shape[2:]
    at = np.arange(h * w).reshape(h, w)
    for i, j in np.ndindex(size):
        part = (
            slice(i * h // size[0], -(-(i + 1) * h // size[0])),
            slice(j * w // size[1], -(-(j + 1) * w // size[1])),
        )
        yield i, j, x[(..., *part)].reshape(*x.shape[:2], -1), at[part].reshape(-1)


class AdaptiveAvgPool2d(AdaptivePool):
    """y = the average of each part"""

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_adaptive_avg_pool2d(ins[0], out)

    takes_channels_last = keeps_channels_last = is_wide

    def oracle(self, x: np.ndarray) -> np.ndarray:
        y = np.empty((*x.shape[:2], *self.size), x.dtype)
        for i, j, part, _ in _parts(x, self.size):
            y[..., i, j] = part.mean(-1)
        return y

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(AdaptiveAvgPool2dInput(self.size, tuple(x.shape[2:])), g),)

    onnx = Onnx("AveragePool", 12, build=onnx_rules.adaptive_avg_pool)


class AdaptiveAvgPool2dInput(AdaptivePool):
    """y = the adjoint of AdaptiveAvgPool2d, of `full` size"""

    full: Pair = (1, 1)

    def type(self, g: Type) -> Type:
        x = Type((*g.shape[:2], *self.full), g.dtype)
        one_type(self, g, AdaptivePool.type(self, x))
        return x

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_adaptive_avg_pool2d_dx(ins[0], out)

    def oracle(self, g: np.ndarray) -> np.ndarray:
        y = np.zeros((*g.shape[:2], *self.full), g.dtype)
        flat = y.reshape(*g.shape[:2], -1)
        for i, j, _, at in _parts(y, self.size):
            flat[..., at] += g[..., i, j, None] / at.size
        return y

    def vjp(self, gy: Any, y: Any, g: Any) -> tuple:
        return (apply(AdaptiveAvgPool2d(self.size), gy),)

    samples = (sample((2, 3, 2, 3), size=(2, 3), full=(5, 7)),)


class AdaptiveMaxPool2d(AdaptivePool):
    """y = the largest of each part; NaN wins"""

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_adaptive_max_pool2d(ins[0], out)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        y = np.empty((*x.shape[:2], *self.size), x.dtype)
        for i, j, part, _ in _parts(x, self.size):
            y[..., i, j] = part.max(-1)
        return y

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        places = apply(AdaptiveMaxPool2dPlaces(self.size), x)
        return (apply(PlanePut(tuple(x.shape[2:])), g, places),)

    onnx = Onnx("MaxPool", 12, build=onnx_rules.adaptive_max_pool)


class AdaptiveMaxPool2dPlaces(AdaptivePool):
    """y = where in its plane the largest of each part lies"""

    nondiff = "its result is an index"

    def type(self, x: Type) -> Type:
        return Type(AdaptivePool.type(self, x).shape, dt.int64)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_adaptive_max_pool2d_indices(ins[0], out)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        y = np.empty((*x.shape[:2], *self.size), np.int64)
        for i, j, part, at in _parts(x, self.size):
            y[..., i, j] = at[part.argmax(-1)]
        return y


def _inside(op: PoolOp, size: tuple, i: int, j: int) -> list[np.ndarray]:
    """The rows and columns of window (i, j) that lie in the image."""
    out = []
    for o, n, k, s, p, d in zip(
        (i, j), size, op.kernel, op.stride, op.padding, op.dilation, strict=True
    ):
        at = o * s - p + d * np.arange(k)
        out.append(at[(at >= 0) & (at < n)])
    return out


def _reference(op: PoolOp, x: np.ndarray, fn: Any) -> np.ndarray:
    """fn(values, flat places) of every window, one by one."""
    n, c, h, w = x.shape
    y = np.empty((n, c, *op.out_size((h, w))), x.dtype)
    at = np.arange(h * w).reshape(h, w)
    for i, j in np.ndindex(y.shape[2:]):
        rows, columns = _inside(op, (h, w), i, j)
        part = x[:, :, rows[:, None], columns]
        for a, b in np.ndindex(n, c):
            y[a, b, i, j] = fn(part[a, b], at[rows[:, None], columns])
    return y


def _taps(op: PoolOp, x: np.ndarray, out: tuple) -> Any:
    """(number, which windows have it in the image, its values) of each tap of `out` windows."""
    size = x.shape[2:]
    if 0 in size:  # no tap is in the image, yet there are windows
        x = np.zeros((*x.shape[:2], 1, 1), x.dtype)
    for number, tap in enumerate(np.ndindex(op.kernel)):
        at, inside = [], []
        for t, o, n, s, p, d, m in zip(
            tap, out, size, op.stride, op.padding, op.dilation, x.shape[2:], strict=True
        ):
            place = np.arange(o) * s - p + t * d
            inside.append((place >= 0) & (place < n))
            at.append(np.clip(place, 0, m - 1))
        yield number, inside[0][:, None] & inside[1], x[:, :, at[0][:, None], at[1]]


# ------------------------------------------------------------------------------- functions


_MAX, _AVG, _ADAPTIVE = (dispatch.wish() for _ in range(3))


def largest(pool: MaxPool2d, x: Any) -> Any:
    """`pool` of x; with each window's tap kept where a gradient is wanted."""
    if not (state.grad and x._rg and kernels.fits_byte(pool.kernel)):
        return apply(pool, x)
    return apply_both(MaxPool2dTake(*pool.geometry), x)


def _images(name: str, n: int, x: Any) -> tuple[Any, bool]:
    """x as (N, C, H, W), and whether it had no batch."""
    shape = shape_of(x)
    if len(shape) not in (n + 1, n + 2):
        if n == 1:
            raise RuntimeError(
                f"{name}: Expected 2D or 3D (batch mode) tensor with optional 0 dim batch size for "
                f"input, but got:{list(shape)}"
            )
        if name.startswith("avg"):  # torch reads the size of a dim that is not there
            raise IndexError(
                f"{name}: Dimension out of range: input is {list(shape)}, not 3D or 4D"
            )
        raise RuntimeError(
            f"{name}: got {list(shape)}: non-empty 3D or 4D (batch mode) tensor expected for input"
        )
    single = len(shape) == n + 1
    lead = ((1,) if single else ()) + shape[:-n]
    return reshape(x, (*lead, *(1,) * (2 - n), *shape[-n:])), single


def _shaped(y: Any, n: int, single: bool) -> Any:
    """The inverse of `_images` on a result."""
    shape = shape_of(y)
    return reshape(y, (*shape[1 if single else 0 : 2], *shape[4 - n :]))


def windows_of(
    name: str, n: int, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: bool,
) -> tuple:  # fmt: skip
    """Kernel, step, padding, gap in n dims; RuntimeError in torch's words where none fits x."""
    kernel = sizes("kernel_size", kernel_size, n, name)
    step = kernel if stride is None or stride in ([], ()) else sizes("stride", stride, n, name)
    pad, gap = sizes("padding", padding, n, name), sizes("dilation", dilation, n, name)
    if 0 in step:
        raise RuntimeError("stride should not be zero")
    if min(kernel) < 1 or min(step) < 1 or min(gap) < 1:
        raise RuntimeError(
            f"{name}: kernel size, stride and dilation should be greater than zero, but got "
            f"kernel_size={kernel}, stride={step}, dilation={gap}"
        )
    for k, p, d in zip(kernel, pad, gap, strict=True):
        if p < 0:
            raise RuntimeError(f"pad must be non-negative, but got pad: {p}")
        if p > (d * (k - 1) + 1) // 2:
            raise RuntimeError(
                "pad should be at most half of effective kernel size, but got "
                f"pad={p}, kernel_size={k} and dilation={d}"
            )
    c, *size = shape_of(x)[1:]
    size = size[-n:]
    if numel(kernel) > max(1 << 24, 8 * numel(size)):  # taps, most of which lie outside
        raise memory.OutOfMemory(numel(kernel), f"{name}: ")
    reach = (
        max(m + 2 * p, d * (k - 1) + 1) for m, k, p, d in zip(size, kernel, pad, gap, strict=True)
    )
    step = steps_within(step, reach)  # a step past x and the kernel is one past both
    out = [windows(m, k, s, p, d, ceil_mode)
           for m, k, s, p, d in zip(size, kernel, step, pad, gap, strict=True)]  # fmt: skip
    if min(out) < 1:
        raise RuntimeError(
            f"Given input size: ({c}x{'x'.join(map(str, size))}). Calculated output size: "
            f"({c}x{'x'.join(str(max(o, 0)) for o in out)}). Output size is too small"
        )
    return kernel, step, pad, gap


def _geometry(name: str, n: int, x: Any, *given: Any) -> tuple:
    """`windows_of` x in 1 or 2 dims, as a PoolOp's fields."""
    found = windows_of(name, n, x, *given)
    if n == 1:
        found = [(flat, *v) for flat, v in zip((1, 1, 0, 1), found, strict=True)]
    return (*found, bool(given[-1]))


def _max_pool(
    n: int, input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: bool, return_indices: bool,
) -> Any:  # fmt: skip
    name, untaped = f"max_pool{n}d", not (state.grad and getattr(input, "_rg", True))
    wish = _MAX, kernel_size, stride, padding, dilation, ceil_mode
    simple = n == 2 and untaped and not return_indices
    if simple and (y := dispatch.known(input, *wish)) is not None:
        return y
    x, single = _images(name, n, input)
    if 0 in shape_of(x)[1:]:
        raise RuntimeError(
            f"{name}: Expected {n + 1}D or {n + 2}D (batch mode) tensor with optional 0 dim batch "
            f"size for input, but got:{list(shape_of(input))}"
        )
    back = None
    if dtype_of(x).category != dt.FLOAT:  # whole numbers up to 2^53 are exact in float64
        back, x = dtype_of(x), x.to(dt.float64)
    geometry = _geometry(name, n, x, kernel_size, stride, padding, dilation, ceil_mode)
    y = largest(op := MaxPool2d(*geometry), x)
    if simple and len(shape_of(input)) == 4:  # one op
        dispatch.tell(op, input, *wish)
    y = _shaped(y if back is None else y.to(back), n, single)
    if not return_indices:
        return y
    return y, _shaped(apply(MaxPool2dPlaces(*geometry), x), n, single)


def max_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest of each window of (N, C, L) or (C, L); with return_indices also its place."""
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest of each window of (N, C, H, W) or (C, H, W); also its place row W + column.

    stride: kernel_size when None.  RuntimeError: padding over half the window, no window fits.
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _avg_pool(
    n: int, input: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
    count_include_pad: bool, divisor: int | None,
) -> Any:  # fmt: skip
    name = f"avg_pool{n}d"
    wish = _AVG, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor
    if n == 2 and (y := dispatch.known(input, *wish)) is not None:
        return y
    if divisor == 0:
        raise RuntimeError("divisor must be not zero")
    if divisor is not None and divisor < 0:
        return -_avg_pool(
            n, input, kernel_size, stride, padding, ceil_mode, count_include_pad, -divisor
        )
    x, single = _images(name, n, input)
    if dtype_of(x) is dt.int64:
        x = x.to(dt.float64)
    need_floats(f"{name}_out", x)
    geometry = _geometry(name, n, x, kernel_size, stride, padding, 1, ceil_mode)
    y = apply(op := AvgPool2d(*geometry, bool(count_include_pad), divisor), x)
    if n == 2 and not single:
        dispatch.tell(op, input, *wish)
    return _shaped(y.to(dtype_of(input)), n, single)


def avg_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The average of each window of (N, C, L) or (C, L)."""
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """The average of each window of (N, C, H, W) or (C, H, W).

    count_include_pad: padding counts as zeros; divisor_override: divide by this instead.
    """
    return _avg_pool(
        2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _adaptive(name: str, n: int, op: Any, input: Any, output_size: Any) -> Any:
    shape = shape_of(input)
    given = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * n
    if n == 2 and len(shape) < 3:
        if isinstance(output_size, (tuple, list)):
            raise ValueError("Input dimension should be at least 3")
        raise RuntimeError(f"{name}(): Expected 3D or 4D tensor, but got {list(shape)}")
    x, single = _images(name, n, input)
    if len(given) != n:
        raise RuntimeError(f"{name}: output_size must be {n}")
    wanted = tuple(m if o is None else int(o) for o, m in zip(given, shape[-n:], strict=True))
    if min(wanted) < 0:
        raise RuntimeError(f"{name}: elements of output_size must be greater than or equal to 0")
    if 0 in shape[-n:]:
        raise RuntimeError(
            f"{name}(): Expected input to have non-zero size for non-batch dimensions, but input "
            f"has sizes {list(shape)} with dimension {shape.index(0)} being empty"
        )
    size = (1, *wanted) if n == 1 else wanted
    return [_shaped(apply(kind(size), x), n, single) for kind in op]


def adaptive_avg_pool1d(input: Any, output_size: Any) -> Any:
    """The averages of output_size parts of (N, C, L) or (C, L)."""
    return _adaptive("adaptive_avg_pool1d", 1, (AdaptiveAvgPool2d,), input, output_size)[0]


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Any:
    """The averages of (OH, OW) parts of (N, C, H, W) or (C, H, W); None keeps a size."""
    if (y := dispatch.known(input, _ADAPTIVE, output_size)) is not None:
        return y
    y = _adaptive("adaptive_avg_pool2d", 2, (AdaptiveAvgPool2d,), input, output_size)[0]
    if len(shape_of(input)) == 4:
        dispatch.tell(AdaptiveAvgPool2d(shape_of(y)[2:]), input, _ADAPTIVE, output_size)
    return y


def adaptive_max_pool1d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of output_size parts of (N, C, L) or (C, L); with return_indices their places."""
    kinds = (AdaptiveMaxPool2d, AdaptiveMaxPool2dPlaces)[: 1 + bool(return_indices)]
    found = _adaptive("adaptive_max_pool1d", 1, kinds, input, output_size)
    return tuple(found) if return_indices else found[0]


def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of (OH, OW) parts of (N, C, H, W) or (C, H, W); on demand with their places."""
    kinds = (AdaptiveMaxPool2d, AdaptiveMaxPool2dPlaces)[: 1 + bool(return_indices)]
    found = _adaptive("adaptive_max_pool2d", 2, kinds, input, output_size)
    return tuple(found) if return_indices else found[0]
