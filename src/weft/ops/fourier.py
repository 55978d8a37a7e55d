"""Discrete Fourier transforms, under the names of torch.fft; computed by NumPy's pocketfft.

    y[k] = s * sum over j of x[j] exp(-2 pi i j k / n)        (inverse: the sign turned)

`norm` says where the 1/n is: "backward" (the default) on the inverse, "forward" on the other,
"ortho" 1/sqrt(n) on both.  float32 stays float32; whole numbers become the default float dtype.
NumPy transforms line after line, so a line's bits do not depend on the batch it is in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.op import Op, sample
from weft.core.types import Type, array_type, some_dim, wholes, wrap_dim
from weft.ops.cast import cast
from weft.ops.complex_parts import conj
from weft.ops.creation import arange, finish, zeros
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.join import cat
from weft.ops.kinds import by_batch
from weft.ops.view import narrow

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "hfft2", "hfftn", "ifft", "ifft2",
    "ifftn", "ifftshift", "ihfft", "ihfft2", "ihfftn", "irfft", "irfft2", "irfftn", "rfft", "rfft2",
    "rfftfreq", "rfftn",
]  # fmt: skip


def _scaled(y: np.ndarray, scale: float) -> np.ndarray:
    """y times a real number, part by part."""
    if scale != 1.0:
        parts = y.view(dt.from_np(y.dtype).to_real().np) if y.dtype.kind == "c" else y
        parts *= scale
    return y


def _lines(fn: Any, x: np.ndarray, *rest: Any, dim: int, scale: float) -> np.ndarray:
    """fn on each line of x along dim, times scale."""
    norm = "forward" if fn in (np.fft.ifft, np.fft.irfft) else "backward"  # NumPy's 1/n is not ours
    y = np.ascontiguousarray(fn(x, *rest, axis=dim, norm=norm))
    return _scaled(y, scale)


class _Fourier(Op, abstract=True):
    conjugates = True  # linear, and its own rule is the conjugate transpose
    dim: int = 0

    vmap = by_batch

    def check(self, x: np.ndarray) -> None:
        self.type(array_type(x))


def _direct(x: np.ndarray, dim: int, sign: int) -> np.ndarray:
    """The sum as it is written, over complex x: the oracles'."""
    n = x.shape[dim]
    jk = np.outer(np.arange(n), np.arange(n)) % max(n, 1)
    turns = np.exp(sign * 2j * np.pi * jk / max(n, 1))
    return np.moveaxis(np.tensordot(x, turns, (dim, 0)), -1, dim)


class Dft(_Fourier):
    """y[k] = scale * sum_j x[j] exp(-+ 2 pi i j k / n) along dim, of complex x"""

    inverse: bool = False
    scale: float = 1.0

    def type(self, x: Type) -> Type:
        _need_points(x.shape[self.dim])
        return x

    def host(self, x: np.ndarray) -> np.ndarray:
        self.check(x)
        fn = np.fft.ifft if self.inverse else np.fft.fft
        return _lines(fn, x, dim=self.dim, scale=self.scale)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return _direct(x, self.dim, 1 if self.inverse else -1) * self.scale

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(Dft(self.dim, not self.inverse, self.scale), g),)

    samples = (
        sample((3, 4), of="complex64", dim=1),
        sample((5, 2), of="complex64", inverse=True, scale=0.2),
        sample((7,), of="complex128"),
    )


class RealDft(_Fourier):
    """The first n // 2 + 1 of scale * sum_j x[j] exp(-2 pi i j k / n) along dim, of real x"""

    scale: float = 1.0

    def type(self, x: Type) -> Type:
        d = self.dim
        _need_points(x.shape[d])
        return Type((*x.shape[:d], x.shape[d] // 2 + 1, *x.shape[d + 1 :]), x.dtype.to_complex())

    def host(self, x: np.ndarray) -> np.ndarray:
        self.check(x)
        return _lines(np.fft.rfft, x, dim=self.dim, scale=self.scale)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        y = _direct(x.astype(np.complex128), self.dim, -1) * self.scale
        return y.take(np.arange(x.shape[self.dim] // 2 + 1), self.dim)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        n = x.shape[self.dim]
        back = apply(Inner(self.dim, n, 0.5), g)
        return (apply(RealDftInverse(self.dim, self.scale, n), back),)

    samples = (sample((3, 4), dim=1), sample((5, 2), scale=0.5), sample((1,)))


class RealDftInverse(_Fourier):
    """y[j] = scale * sum over all k < n of x[k] exp(2 pi i j k / n), x[n - k] = conj x[k]: real"""

    scale: float = 1.0
    n: int = 1

    def type(self, x: Type) -> Type:
        d = self.dim
        if x.shape[d] != self.n // 2 + 1:
            raise RuntimeError(f"irfft: {self.n // 2 + 1} numbers wanted, got {x.shape[d]}")
        return Type((*x.shape[:d], self.n, *x.shape[d + 1 :]), x.dtype.to_real())

    def host(self, x: np.ndarray) -> np.ndarray:
        self.check(x)
        return _lines(np.fft.irfft, x, self.n, dim=self.dim, scale=self.scale)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        rows = np.moveaxis(x, self.dim, 0)
        turns = np.outer(np.arange(self.n), np.arange(len(rows)))
        y = np.tensordot(np.exp(2j * np.pi * turns / self.n), _inner(rows, 0, self.n, 2.0), 1)
        return np.moveaxis(np.real(y) * self.scale, 0, self.dim)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(Inner(self.dim, self.n, 2.0), apply(RealDft(self.dim, self.scale), g)),)

    samples = (
        sample((3, 3), of="complex64", dim=1, n=4),
        sample((3, 2), of="complex64", n=5, scale=0.2),
        sample((1,), of="complex128", n=1),
    )


def _inner(x: np.ndarray, dim: int, n: int, factor: float) -> np.ndarray:
    y = np.array(x, order="C")
    last = (n + 1) // 2  # from n / 2 on (where n is even) a number stands alone
    pairs = y[..., None].view(dt.from_np(y.dtype).to_real().np)
    np.moveaxis(pairs, dim, 0)[1:last] *= factor
    return y


class Inner(_Fourier):
    """Half spectra of n numbers, those that stand for two (x[k] and x[n - k]) times `factor`"""

    n: int = 1
    factor: float = 1.0

    def host(self, x: np.ndarray) -> np.ndarray:
        return _inner(x, self.dim, self.n, self.factor)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        k = np.arange(x.shape[self.dim])
        weights = np.where((k == 0) | (2 * k == self.n), 1.0, self.factor)
        return np.moveaxis(np.moveaxis(x, self.dim, -1) * weights, -1, self.dim)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(self, g),)

    samples = (
        sample((3, 3), of="complex64", dim=1, n=4, factor=2.0),
        sample((3, 2), of="complex64", n=5, factor=0.5),
    )


# ------------------------------------------------------------------------------- arguments


def _scale(norm: str | None, n: int, *, inverse: bool) -> float:
    if norm not in (None, "backward", "forward", "ortho"):
        raise RuntimeError(f'Invalid normalization mode: "{norm}"')
    if norm == "ortho":
        return 1 / math.sqrt(n)
    return 1 / n if inverse == (norm != "forward") else 1.0


def _floating(x: Any) -> Any:
    """The tensor in a dtype that is transformed: whole numbers as the default float."""
    d = dtype_of(x)
    if d in (dt.float16, dt.bfloat16):
        raise RuntimeError(f"Unsupported dtype {d.spelled}")
    return cast(x, dt.get_default_dtype()) if d.category < dt.FLOAT else x


def _as_complex(x: Any) -> Any:
    x = _floating(x)
    return cast(x, dtype_of(x).to_complex())


def _as_real(op: str, x: Any, kind: str = "real") -> Any:
    if dtype_of(x).is_complex:
        raise RuntimeError(f"{op} expects a {kind} input tensor, but got {dtype_of(x).spelled}")
    return _floating(x)


def _dim_of(x: Any, dim: int, op: str) -> int:
    if not shape_of(x):
        raise IndexError(f"{op}: Dimension specified as {dim} but tensor has no dimensions")
    return wrap_dim(dim, len(shape_of(x)), op)


def _need_points(n: int) -> int:
    if n < 1:
        raise RuntimeError(f"Invalid number of data points ({n}) specified")
    return n


def _resized(x: Any, n: int, dim: int) -> Any:
    """x with n entries along dim: cut, or zeros behind it."""
    shape = shape_of(x)
    if n <= shape[dim]:
        return x if n == shape[dim] else narrow(x, dim, 0, n)
    more = zeros((*shape[:dim], n - shape[dim], *shape[dim + 1 :]), dtype=dtype_of(x))
    return cat((x, more), dim)


def _given(y: Any, out: Any, op: str) -> Any:
    if out is None:
        return y
    if dtype_of(y).is_complex != dtype_of(out).is_complex:
        kind = "complex" if dtype_of(y).is_complex else "floating point"
        raise RuntimeError(f"{op} expects a {kind} output tensor, but got {dtype_of(out).spelled}")
    return out.copy_result(y)


def _lengths(
    x: Any, s: Sequence[int] | int | None, dim: Sequence[int] | int | None, op: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(dims, sizes) of a transform over several dims; a size of -1 leaves a dim as it is."""
    shape = shape_of(x)
    rank = len(shape)
    s = (s,) if isinstance(s, int) else s if s is None else wholes(s, op, "s")
    dim = (dim,) if isinstance(dim, int) else dim if dim is None else wholes(dim, op, "dim")
    if dim is not None:
        dims = tuple(wrap_dim(d, rank, op) for d in dim)
        if len(set(dims)) != len(dims):
            raise RuntimeError("FFT dims must be unique")
        if s is not None and len(s) != len(dims):
            raise RuntimeError("When given, dim and shape arguments must have the same length")
    elif s is not None:
        if len(s) > rank:
            raise RuntimeError(
                f"Got shape with {len(s)} values but input tensor only has {rank} dimensions."
            )
        dims = tuple(range(rank - len(s), rank))
    else:
        dims = tuple(range(rank))
    sizes = [shape[d] for d in dims] if s is None else list(s)
    sizes = [shape[d] if n == -1 else n for n, d in zip(sizes, dims, strict=True)]
    return dims, tuple(map(_need_points, sizes))


def _over(
    x: Any, dims: Sequence[int], sizes: Sequence[int], norm: str | None, *, inverse: bool
) -> Any:
    """The complex transform over dims, the last one first."""
    for d, n in zip(reversed(dims), reversed(sizes), strict=True):
        x = apply(Dft(d, inverse, _scale(norm, n, inverse=inverse)), _resized(x, n, d))
    return x


# ------------------------------------------------------------------------------- one dim


def fft(
    input: Any, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Any = None
) -> Any:
    """y[k] = sum_j x[j] exp(-2 pi i j k / n) along dim, x cut or padded with zeros to n."""
    return _given(_line(input, n, dim, norm, "fft", inverse=False), out, "fft")


def ifft(
    input: Any, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Any = None
) -> Any:
    """y[j] = 1/n sum_k x[k] exp(2 pi i j k / n) along dim."""
    return _given(_line(input, n, dim, norm, "ifft", inverse=True), out, "ifft")


def _line(x: Any, n: int | None, dim: int, norm: str | None, op: str, *, inverse: bool) -> Any:
    d = _dim_of(x, dim, op)
    n = _need_points(shape_of(x)[d] if n is None else n)
    return _over(_as_complex(x), (d,), (n,), norm, inverse=inverse)


def _half(x: Any, n: int | None, dim: int, norm: str | None, op: str, *, inverse: bool) -> Any:
    """The half spectrum of real x."""
    x = _as_real(op, x)
    d = _dim_of(x, dim, op)
    n = _need_points(shape_of(x)[d] if n is None else n)
    return apply(RealDft(d, _scale(norm, n, inverse=inverse)), _resized(x, n, d))


def _whole(x: Any, n: int | None, dim: int, norm: str | None, op: str, *, inverse: bool) -> Any:
    """Real numbers from a half spectrum."""
    x = _as_complex(x)
    d = _dim_of(x, dim, op)
    n = _need_points(2 * (shape_of(x)[d] - 1) if n is None else n)
    return apply(RealDftInverse(d, _scale(norm, n, inverse=inverse), n), _resized(x, n // 2 + 1, d))


def rfft(
    input: Any, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Any = None
) -> Any:
    """fft of real numbers: the first n // 2 + 1, the others are their conjugates."""
    return _given(_half(input, n, dim, norm, "rfft", inverse=False), out, "rfft")


def irfft(
    input: Any, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Any = None
) -> Any:
    """The n real numbers (2 (m - 1) unless given) whose rfft the m along dim are."""
    return _given(_whole(input, n, dim, norm, "irfft", inverse=True), out, "irfft")


def hfft(
    input: Any, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Any = None
) -> Any:
    """fft of a Hermitian signal given by its first half: n real numbers."""
    y = _whole(conj(_as_complex(input)), n, dim, norm, "hfft", inverse=False)
    return _given(y, out, "hfft")


def ihfft(
    input: Any, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Any = None
) -> Any:
    """ifft of real numbers: the first n // 2 + 1."""
    return _given(conj(_half(input, n, dim, norm, "ihfft", inverse=True)), out, "ihfft")


# ------------------------------------------------------------------------------- several dims


def fftn(
    input: Any, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None
) -> Any:
    """fft over each of dim (all), cut or padded to the sizes s."""
    dims, sizes = _lengths(input, s, dim, "fftn")
    return _given(_over(_as_complex(input), dims, sizes, norm, inverse=False), out, "fftn")


def ifftn(
    input: Any, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None
) -> Any:
    """ifft over each of dim (all), cut or padded to the sizes s."""
    dims, sizes = _lengths(input, s, dim, "ifftn")
    return _given(_over(_as_complex(input), dims, sizes, norm, inverse=True), out, "ifftn")


def _need_dims(dims: tuple, op: str) -> None:
    if not dims:
        raise RuntimeError(f"{op} must transform at least one axis")


def rfftn(
    input: Any, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None
) -> Any:
    """fftn of real numbers: half of it along the last of dim."""
    x = _as_real("rfftn", input, "real-valued")
    dims, sizes = _lengths(x, s, dim, "rfftn")
    _need_dims(dims, "rfftn")
    y = _half(x, sizes[-1], dims[-1], norm, "rfftn", inverse=False)
    return _given(_over(y, dims[:-1], sizes[:-1], norm, inverse=False), out, "rfftn")


def _last_size(x: Any, s: Any, dims: tuple, sizes: tuple) -> tuple:
    """Sizes whose last is that of the real result."""
    if not dims or (s is not None and (s if isinstance(s, int) else s[-1]) != -1):
        return sizes
    return (*sizes[:-1], _need_points(2 * (shape_of(x)[dims[-1]] - 1)))


def irfftn(
    input: Any, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None
) -> Any:
    """The real numbers whose rfftn the input is."""
    x = _as_complex(input)
    dims, sizes = _lengths(x, s, dim, "irfftn")
    _need_dims(dims, "irfftn")
    sizes = _last_size(x, s, dims, sizes)
    y = _over(x, dims[:-1], sizes[:-1], norm, inverse=True)
    return _given(_whole(y, sizes[-1], dims[-1], norm, "irfftn", inverse=True), out, "irfftn")


def hfftn(
    input: Any, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None
) -> Any:
    """fftn of a Hermitian signal given by half of it along the last of dim: real numbers."""
    x = _as_complex(input)
    dims, sizes = _lengths(x, s, dim, "hfftn")
    _need_dims(dims, "hfftn")
    sizes = _last_size(x, s, dims, sizes)
    y = _over(x, dims[:-1], sizes[:-1], norm, inverse=False)
    y = _whole(conj(y), sizes[-1], dims[-1], norm, "hfftn", inverse=False)
    return _given(y, out, "hfftn")


def ihfftn(
    input: Any, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Any = None
) -> Any:
    """ifftn of real numbers: half of it along the last of dim."""
    x = _as_real("ihfftn", input, "real-valued")
    dims, sizes = _lengths(x, s, dim, "ihfftn")
    _need_dims(dims, "ihfftn")
    y = conj(_half(x, sizes[-1], dims[-1], norm, "ihfftn", inverse=True))
    return _given(_over(y, dims[:-1], sizes[:-1], norm, inverse=True), out, "ihfftn")


_LAST_TWO = (-2, -1)


def fft2(
    input: Any, s: Any = None, dim: Any = _LAST_TWO, norm: str | None = None, *, out: Any = None
) -> Any:
    """fftn over two dims."""
    return fftn(input, s, dim, norm, out=out)


def ifft2(
    input: Any, s: Any = None, dim: Any = _LAST_TWO, norm: str | None = None, *, out: Any = None
) -> Any:
    """ifftn over two dims."""
    return ifftn(input, s, dim, norm, out=out)


def rfft2(
    input: Any, s: Any = None, dim: Any = _LAST_TWO, norm: str | None = None, *, out: Any = None
) -> Any:
    """rfftn over two dims."""
    return rfftn(input, s, dim, norm, out=out)


def irfft2(
    input: Any, s: Any = None, dim: Any = _LAST_TWO, norm: str | None = None, *, out: Any = None
) -> Any:
    """irfftn over two dims."""
    return irfftn(input, s, dim, norm, out=out)


def hfft2(
    input: Any, s: Any = None, dim: Any = _LAST_TWO, norm: str | None = None, *, out: Any = None
) -> Any:
    """hfftn over two dims."""
    return hfftn(input, s, dim, norm, out=out)


def ihfft2(
    input: Any, s: Any = None, dim: Any = _LAST_TWO, norm: str | None = None, *, out: Any = None
) -> Any:
    """ihfftn over two dims."""
    return ihfftn(input, s, dim, norm, out=out)


# ------------------------------------------------------------------------------- frequencies


def _frequencies(
    op: str, k: Any, n: int, d: float, out: Any, dtype: Any, device: Any, grad: bool
) -> Any:
    kind = dtype or dt.get_default_dtype()
    if kind.category < dt.FLOAT:
        raise RuntimeError(f"{op} requires a floating point or complex dtype")
    y = cast(k, kind) * (1.0 / (n * d) if n else 1.0)
    return finish(y, grad, device, op) if out is None else out.copy_result(y)


def fftfreq(
    n: int, d: float = 1.0, *, out: Any = None, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False,
) -> Any:  # fmt: skip
    """(0, 1, ..., then -n/2, ..., -1) / (n d): the frequencies of fft's results, d between x's."""
    k = cat((arange((n + 1) // 2), arange(-(n // 2), 0)))
    return _frequencies("fftfreq", k, n, d, out, dtype, device, requires_grad)


def rfftfreq(
    n: int, d: float = 1.0, *, out: Any = None, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False,
) -> Any:  # fmt: skip
    """(0, 1, ..., n // 2) / (n d): the frequencies of rfft's results."""
    return _frequencies("rfftfreq", arange(n // 2 + 1), n, d, out, dtype, device, requires_grad)


def _rolled(x: Any, dim: Any, shift: Any) -> Any:
    shape = shape_of(x)
    dims = range(len(shape)) if dim is None else (dim,) if isinstance(dim, int) else dim
    dims = tuple(some_dim(d, shape, "fftshift") for d in dims)
    return x.roll(tuple(shift(shape[d]) for d in dims), dims) if dims else x.clone()


def fftshift(input: Any, dim: Any = None) -> Any:
    """The halves of each dim exchanged: zero frequency to the middle."""
    return _rolled(input, dim, lambda n: n // 2)


def ifftshift(input: Any, dim: Any = None) -> Any:
    """The inverse of fftshift."""
    return _rolled(input, dim, lambda n: (n + 1) // 2)
