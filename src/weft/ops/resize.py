"""Images of another size: interpolation along one dim at a time, and channels made into pixels.

    y[i] = sum over taps t of weight_t(s) x[clamp(floor(s) + t)],   s = the source coordinate of i

align_corners: s = i (n - 1) / (m - 1); else s = (i + 1/2) scale - 1/2 (nearest: i scale).
Coordinates are computed in float32 for float32 and halves, as torch's are.
"""

from __future__ import annotations

import math
from functools import lru_cache, reduce
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core import scalar as S
from weft.core.handle import state
from weft.core.op import Onnx, Op, sample
from weft.core.types import Type, need_floats
from weft.ops.cast import cast
from weft.ops.creation import zeros
from weft.ops.dispatch import apply, chained, dtype_of, need_memory, shape_of
from weft.ops.index import index_add, index_select
from weft.ops.kinds import Create, Elementwise
from weft.ops.pool import adaptive_avg_pool1d, adaptive_avg_pool2d
from weft.ops.pool_more import adaptive_avg_pool3d
from weft.ops.view import permute, reshape

__all__ = ["channel_shuffle", "pixel_shuffle", "pixel_unshuffle"]

_CUBIC = -0.75  # Keys 1981; torch's choice of the free parameter


@lru_cache(maxsize=256)
def taps(
    n: int, m: int, mode: str, align_corners: bool, scale: float | None, double: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(places, weights), each (taps, m): which elements of n each of m results mixes."""
    real = np.float64 if double else np.float32
    i = np.arange(m, dtype=real)
    if mode in ("nearest", "nearest-exact"):
        step = np.float32(1.0 / scale) if scale else np.float32(n) / np.float32(max(m, 1))
        shift = np.float32(0.5 if mode == "nearest-exact" else 0.0)
        at = np.floor((np.arange(m, dtype=np.float32) + shift) * step).astype(np.int64)
        return np.minimum(at, n - 1)[None], np.ones((1, m), real)
    if align_corners:
        s = i * (real(n - 1) / real(m - 1) if m > 1 else real(0))
    else:
        step = real(1.0 / scale) if scale else real(n) / real(max(m, 1))
        s = step * (i + real(0.5)) - real(0.5)
        if mode == "linear":
            s = np.maximum(s, real(0))
    low = np.floor(s).astype(np.int64)
    if mode == "linear":
        low = np.minimum(low, n - 1)
    t = (s - low).astype(real)
    if mode == "linear":
        high = low + (low < n - 1)
        return np.stack([low, high]), np.stack([real(1) - t, t])
    places = np.clip(np.stack([low - 1, low, low + 1, low + 2]), 0, n - 1)
    return places, np.stack(
        [far(t + real(1)), near(t), near(real(1) - t), far(real(2) - t)]
    ).astype(real)


def near(x: Any) -> Any:
    """The cubic kernel at distances 0 to 1."""
    return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1


def far(x: Any) -> Any:
    """The cubic kernel at distances 1 to 2."""
    return ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC


class ResizeTap(Create):
    """y = the places (int64) or the weights (a float dtype) of tap `tap` for n places made m"""

    n: int = 1
    m: int = 1
    mode: str = "linear"
    align_corners: bool = False
    scale: float | None = None
    double: bool = False
    tap: int = 0
    dtype: dt.dtype = dt.int64

    def type(self) -> Type:
        return Type((self.m,), self.dtype)

    def host(self) -> np.ndarray:
        made = taps(self.n, self.m, self.mode, self.align_corners, self.scale, self.double)
        return made[self.dtype is not dt.int64][self.tap].astype(self.dtype.np)

    oracle = host
    samples = (
        sample(n=4, m=7, tap=1),
        sample(n=4, m=7, mode="cubic", tap=2, dtype=dt.float32),
    )


class Mix(Elementwise):
    """y = a v + b w + ..., from left to right: taps and their weights"""

    nondiff = "Resize has the gradient"

    def scalar(self, *xs: S.Expr) -> S.Expr:
        products = [S.mul(x, w) for x, w in zip(xs[::2], xs[1::2], strict=True)]
        return reduce(S.add, products)

    samples = (sample((2, 3), (3,), (2, 3), (3,)),)


class Resize(Op):
    """y = x with dim `dim` interpolated to `size` places"""

    dim: int = 0
    size: int = 1
    mode: str = "linear"  # nearest, nearest-exact, linear, cubic
    align_corners: bool = False
    scale: float | None = None

    def type(self, x: Type) -> Type:
        if x.shape[self.dim] == 0:
            raise RuntimeError(f"{self}: nothing to interpolate in {x.shape}")
        return Type((*x.shape[: self.dim], self.size, *x.shape[self.dim + 1 :]), x.dtype)

    def taps(self, n: int, d: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        return taps(n, self.size, self.mode, self.align_corners, self.scale, d == np.float64)

    def body(self, x: Any) -> Any:
        d = dtype_of(x)
        if d in (dt.float16, dt.bfloat16) and self.mode in ("linear", "cubic"):
            return cast(self.body(cast(x, dt.float32)), d)
        operands: list = []
        for at, w in self.parts(shape_of(x)[self.dim], d, len(shape_of(x))):
            part = index_select(x, self.dim, at)
            if w is None:
                return part
            operands += part, w
        return apply(Mix(), *operands)

    def parts(self, n: int, d: dt.dtype, ndim: int) -> Any:
        """The places and weights of each tap, as tensors; weights None where all are 1."""
        count = {"linear": 2, "cubic": 4}.get(self.mode, 1)
        fields = (n, *self.fields()[1:], d is dt.float64)
        for tap in range(count):  # attributes, not tensors of its own: a body must be a formula
            at = apply(ResizeTap(*fields, tap, dt.int64))
            w = None if count == 1 else apply(ResizeTap(*fields, tap, d))
            yield at, w if w is None else reshape(w, (-1, *(1,) * (ndim - 1 - self.dim)))

    def oracle(self, x: np.ndarray) -> np.ndarray:
        places, weights = self.taps(x.shape[self.dim], x.dtype)
        dense = np.zeros((self.size, x.shape[self.dim]))
        for at, w in zip(places, weights, strict=True):
            np.add.at(dense, (np.arange(self.size), at), w)
        return np.moveaxis(np.tensordot(dense, x, (1, self.dim)), 0, self.dim)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(ResizeInput(*self.fields(), x.shape[self.dim]), g),)

    def fields(self) -> tuple:
        return self.dim, self.size, self.mode, self.align_corners, self.scale

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        moved = x.movedim(dims[0], 0)
        fields = (self.dim + 1, *self.fields()[1:])
        extra = (self.full,) if isinstance(self, ResizeInput) else ()
        return apply(type(self)(*fields, *extra), moved), 0

    onnx = Onnx("MatMul", 13, build=onnx_rules.resize)
    samples = (
        sample((2, 5, 3), dim=1, size=7),
        sample((4, 3), dim=0, size=7, align_corners=True),
        sample((4, 3), dim=0, size=2, mode="nearest"),
        sample((2, 5), dim=1, size=8, mode="cubic"),
    )


class ResizeInput(Resize):
    """y = the adjoint of Resize: x's places added back to the `full` ones they were mixed from"""

    full: int = 1

    def type(self, g: Type) -> Type:
        if g.shape[self.dim] != self.size:
            raise RuntimeError(f"{self}: dim {self.dim} of {g.shape} is not {self.size}")
        return Type((*g.shape[: self.dim], self.full, *g.shape[self.dim + 1 :]), g.dtype)

    def body(self, g: Any) -> Any:
        d = dtype_of(g)
        if d in (dt.float16, dt.bfloat16):
            return cast(self.body(cast(g, dt.float32)), d)
        shape = shape_of(g)
        y = zeros(*shape[: self.dim], self.full, *shape[self.dim + 1 :], dtype=d)
        for at, w in self.parts(self.full, d, len(shape)):
            y = index_add(y, self.dim, at, g if w is None else g * w)
        return y

    def oracle(self, g: np.ndarray) -> np.ndarray:
        places, weights = self.taps(self.full, g.dtype)
        dense = np.zeros((self.full, self.size))
        for at, w in zip(places, weights, strict=True):
            np.add.at(dense, (at, np.arange(self.size)), w)
        return np.moveaxis(np.tensordot(dense, g, (1, self.dim)), 0, self.dim)

    def vjp(self, gx: Any, y: Any, g: Any) -> tuple:
        return (apply(Resize(*self.fields()), gx),)

    onnx = None
    samples = (
        sample((2, 7, 3), dim=1, size=7, full=5),
        sample((2, 3), dim=0, size=2, mode="nearest", full=4),
        sample((2, 8), dim=1, size=8, mode="cubic", full=5),
    )


# ------------------------------------------------------------------------------- functions

_BY_RANK = {"linear": 3, "bilinear": 4, "bicubic": 4, "trilinear": 5}
_ALL = "nearest | linear | bilinear | bicubic | trilinear | lanczos | area | nearest-exact"


def interpolate(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """The spatial dims of (N, C, L), (N, C, H, W) or (N, C, D, H, W) at another size.

    Either size (an int, or one a dim) or scale_factor (new size: floor of the product).  modes:
    nearest, nearest-exact, area (averages), linear, bilinear, bicubic, trilinear.
    """
    shape = shape_of(input)
    key = None
    if state.recorder is None and size.__class__ in _PLAIN and scale_factor.__class__ in _PLAIN:
        key = (
            shape, dtype_of(input), size, scale_factor, mode, align_corners,
            recompute_scale_factor, antialias,
        )  # fmt: skip
        if (ops := _steps.get(key)) is not None:
            for op in ops:
                input = apply(op, input)
            return input
    n = len(shape) - 2
    if mode in ("nearest", "area", "nearest-exact") and align_corners is not None:
        raise ValueError(
            "align_corners option can only be set with the interpolating modes: linear | bilinear "
            "| bicubic | trilinear"
        )
    if antialias:
        if mode not in ("bilinear", "bicubic", "lanczos") or len(shape) != 4:
            raise ValueError(
                "Anti-alias option is restricted to bilinear, bicubic, and lanczos modes and "
                "requires a 4-D tensor as input"
            )
        raise NotImplementedError("interpolate: antialias=True is not supported")
    wanted, scales = _sizes(shape, n, size, scale_factor, recompute_scale_factor, mode == "area")
    rank = _BY_RANK.get(mode)
    if n not in (1, 2, 3) or (rank is None and mode not in ("nearest", "area", "nearest-exact")):
        raise NotImplementedError(
            f"Input Error: Only 3D, 4D and 5D input Tensors supported (got {len(shape)}D) for the "
            f"modes: {_ALL} (got {mode})"
        )
    if rank is not None and rank != len(shape):
        raise NotImplementedError(f"Got {len(shape)}D input, but {mode} mode needs {rank}D input")
    if min(wanted) < 1 or 0 in shape[2:]:
        raise RuntimeError(
            f"Input and output sizes should be greater than 0, but got input {list(shape[2:])} "
            f"output {list(wanted)}"
        )
    if mode != "nearest" and (mode != "nearest-exact" or dtype_of(input) is not dt.uint8):
        need_floats("interpolate", input)
    if mode == "area":
        pools = (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)
        return pools[n - 1](input, wanted)
    need_memory((*shape[:2], *wanted), dtype_of(input))
    kind = mode if rank is None else "cubic" if mode == "bicubic" else "linear"
    corners = bool(align_corners)
    d = dtype_of(input)
    half = d in (dt.float16, dt.bfloat16) and rank is not None
    y = cast(input, dt.float32) if half else input
    steps: list[Resize] = []
    for k in reversed(range(n)):  # columns first, then rows, as torch nests them
        if wanted[k] != shape[2 + k] or (scales[k] is not None and scales[k] != 1.0):
            steps.append(Resize(2 + k, wanted[k], kind, corners, scales[k]))
            y = apply(steps[-1], y)
    if key is not None and steps and not half:
        if len(_steps) > _STEPS_CAP:
            _steps.clear()
        _steps[key] = tuple(steps)
    return cast(y, d) if half else y


_steps: dict[tuple, tuple[Resize, ...]] = {}  # what checks of shapes found, by what was asked
_STEPS_CAP = 1000
_PLAIN = (int, float, type(None))


def _sizes(
    shape: tuple, n: int, size: Any, scale_factor: Any, recompute: bool | None, area: bool
) -> tuple[tuple[int, ...], list]:
    """The new sizes, and a dim the scale that coordinates use (None: the sizes' quotient)."""
    if size is not None and scale_factor is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    if size is not None:
        if recompute:
            raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
        if isinstance(size, (tuple, list)):
            if len(size) != n:
                raise ValueError(
                    "Input and output must have the same number of spatial dimensions, but got "
                    f"input with spatial dimensions of {list(shape[2:])} and output size of {size}."
                    " Please provide input tensor in (N, C, d1, d2, ...,dK) format and output size "
                    "in (o1, o2, ...,oK) format."
                )
            return tuple(int(s) for s in size), [None] * n
        return (int(size),) * n, [None] * n
    if scale_factor is None:
        raise ValueError("either size or scale_factor should be defined")
    if isinstance(scale_factor, (tuple, list)):
        if len(scale_factor) != n:
            raise ValueError(
                "Input and scale_factor must have the same number of spatial dimensions, but got "
                f"input with spatial dimensions of {list(shape[2:])} and scale_factor of shape "
                f"{scale_factor}. Please provide input tensor in (N, C, d1, d2, ...,dK) format and "
                "scale_factor in (s1, s2, ...,sK) format."
            )
        factors = [float(s) for s in scale_factor]
    else:
        factors = [float(scale_factor)] * n
    if not all(map(math.isfinite, factors)):
        raise RuntimeError(f"interpolate: scale_factor {scale_factor} is not finite")
    sizes = tuple(math.floor(m * f) for m, f in zip(shape[2:], factors, strict=True))
    return sizes, [None] * n if recompute or area else list(factors)


def upsample(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Any:  # fmt: skip
    """interpolate, under its old name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Any, size: Any = None, scale_factor: Any = None) -> Any:
    """interpolate by nearest elements."""
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input: Any, size: Any = None, scale_factor: Any = None) -> Any:
    """interpolate bilinearly, corners aligned."""
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


@chained
def pixel_shuffle(input: Any, upscale_factor: int) -> Any:
    """(..., C r r, H, W) to (..., C, H r, W r).   Source: Shi et al. 2016."""
    shape, r = shape_of(input), int(upscale_factor)
    if len(shape) < 3:
        raise RuntimeError(
            f"pixel_shuffle expects input to have at least 3 dimensions, but got input with "
            f"{len(shape)} dimension(s)"
        )
    if r <= 0:
        raise RuntimeError(
            f"pixel_shuffle expects a positive upscale_factor, but got {upscale_factor}"
        )
    *lead, c, h, w = shape
    if c % (r * r):
        raise RuntimeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square "
            f"of upscale_factor, but input.size(-3)={c} is not divisible by {r * r}"
        )
    k = len(lead)
    x = reshape(input, (*lead, c // (r * r), r, r, h, w))
    x = permute(x, (*range(k), k, k + 3, k + 1, k + 4, k + 2))
    y = reshape(x, (*lead, c // (r * r), h * r, w * r))
    return y.clone() if r == 1 else y


@chained
def pixel_unshuffle(input: Any, downscale_factor: int) -> Any:
    """(..., C, H r, W r) to (..., C r r, H, W): the inverse of pixel_shuffle."""
    shape, r = shape_of(input), int(downscale_factor)
    if len(shape) < 3:
        raise RuntimeError(
            f"pixel_unshuffle expects input to have at least 3 dimensions, but got input with "
            f"{len(shape)} dimension(s)"
        )
    if r <= 0:
        raise RuntimeError(
            f"pixel_unshuffle expects a positive downscale_factor, but got {downscale_factor}"
        )
    *lead, c, h, w = shape
    for name, at, n in (("height", -2, h), ("width", -1, w)):
        if n % r:
            raise RuntimeError(
                f"pixel_unshuffle expects {name} to be divisible by downscale_factor, but "
                f"input.size({at})={n} is not divisible by {r}"
            )
    k = len(lead)
    x = reshape(input, (*lead, c, h // r, r, w // r, r))
    x = permute(x, (*range(k), k, k + 2, k + 4, k + 1, k + 3))
    y = reshape(x, (*lead, c * r * r, h // r, w // r))
    return y.clone() if r == 1 else y


@chained
def channel_shuffle(input: Any, groups: int) -> Any:
    """Channel g n + i becomes channel i groups + g.   Source: Zhang et al. 2017."""
    shape = shape_of(input)
    if len(shape) < 3:
        raise RuntimeError(f"channel_shuffle expects input with > 2 dims, but got {list(shape)}")
    if groups <= 0 or shape[1] % groups:
        raise RuntimeError(
            f"Number of channels must be divisible by groups. Got {shape[1]} channels and {groups} "
            "groups."
        )
    x = reshape(input, (shape[0], groups, shape[1] // groups, *shape[2:]))
    order = (0, 2, 1, *range(3, len(shape) + 1))
    return reshape(permute(x, order), shape)
