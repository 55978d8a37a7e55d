"""Complex numbers and their parts: views of them, what is made from them, conjugates, angles.

Kernels have no complex numbers.  Elementwise ops compute them by NumPy from their scalar
expression, sums and products from real parts by the same kernels as real tensors
(`complex_host` of each op).  Gradients follow torch: that of a real loss by z = x + iy is
dL/dx + i dL/dy; rules written for reals are conjugated where a result is complex
(dispatch.Conjugated), the rules here are written so themselves.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core import scalar as S
from weft.core.handle import Handle
from weft.core.op import Op, sample
from weft.core.types import Type, array_type, broadcast_shapes
from weft.ops.arithmetic import atan2
from weft.ops.cast import cast
from weft.ops.compare import where
from weft.ops.creation import zeros_like
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.kinds import Elementwise, View
from weft.ops.unary import sign
from weft.ops.view import transpose

__all__ = [
    "adjoint", "angle", "complex", "conj", "conj_physical", "imag", "polar", "real", "resolve_conj",
    "resolve_neg", "sgn", "view_as_complex", "view_as_real",
]  # fmt: skip


class _Part(View, abstract=True):
    conjugates = True

    def type(self, x: Type) -> Type:
        _need_complex(self.name.lower(), x.dtype)
        return Type(x.shape, x.dtype.to_real())

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        return apply(self, x), dims[0]


class Real(_Part):
    """y = the real part of x"""

    def host(self, x: np.ndarray) -> np.ndarray:
        return np.real(x)

    oracle = host

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (cast(g, x.dtype),)

    samples = (sample((3, 4), of="complex64"), sample((2, 0), of="complex128"))


class Imag(_Part):
    """y = the imaginary part of x"""

    def host(self, x: np.ndarray) -> np.ndarray:
        return np.imag(x)

    oracle = host

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(_COMPLEX, zeros_like(g), g),)

    samples = (sample((3, 4), of="complex64"), sample((2, 0), of="complex128"))


class AsReal(View):
    """y[..., 0] + i y[..., 1] = x"""

    conjugates = True

    def type(self, x: Type) -> Type:
        _need_complex("view_as_real", x.dtype)
        return Type((*x.shape, 2), x.dtype.to_real())

    def host(self, x: np.ndarray) -> np.ndarray:
        return x[..., None].view(dt.from_np(x.dtype).to_real().np)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.stack((np.real(x), np.imag(x)), -1)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(_COMPLEX, g.select(-1, 0), g.select(-1, 1)),)

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        return apply(self, x), dims[0]

    samples = (sample((3, 4), of="complex64"), sample((2, 0), of="complex128"))


class AsComplex(View):
    """y = x[..., 0] + i x[..., 1]"""

    conjugates = True

    def type(self, x: Type) -> Type:
        if x.dtype not in (dt.float32, dt.float64):
            raise RuntimeError(
                "view_as_complex is only supported for half, float and double tensors, but got a "
                f"tensor of scalar type: {x.dtype.spelled}"
            )
        if not x.shape:
            raise RuntimeError("Input tensor must have one or more dimensions")
        if x.shape[-1] != 2:
            raise RuntimeError("Tensor must have a last dimension of size 2")
        return Type(x.shape[:-1], x.dtype.to_complex())

    def host(self, x: np.ndarray) -> np.ndarray:
        t = self.type(array_type(x))
        if not x.size:
            return np.empty(t.shape, t.dtype.np)
        if x.strides[-1] != x.itemsize:
            raise RuntimeError("Tensor must have a last dimension with stride 1")
        if any(n > 1 and s % (2 * x.itemsize) for n, s in [*zip(x.shape, x.strides)][:-1]):
            raise RuntimeError(
                "Tensor must have a stride divisible by 2 for all but last dimension"
            )
        return x.view(t.dtype.np)[..., 0]

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return x[..., 0] + 1j * x[..., 1]

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(AsReal(), g),)

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        return apply(self, x.movedim(dims[0], 0).contiguous()), 0

    samples = (sample((3, 2)), sample((2, 0, 2)))


class Complex(Op):
    """y = a + i b, broadcast"""

    broadcasts = True
    conjugates = True

    def type(self, a: Type, b: Type) -> Type:
        return Type(broadcast_shapes(a.shape, b.shape, op="complex"), a.dtype.to_complex())

    def host(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        kind = dt.from_np(a.dtype).to_complex().np
        y = np.empty(np.broadcast_shapes(a.shape, b.shape), kind)
        y.real, y.imag = a, b
        return y

    def oracle(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + 1j * b

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return lambda: apply(_REAL, g), lambda: apply(_IMAG, g)

    def vmap(self, size: int, dims: tuple, a: Any, b: Any) -> tuple[Any, int]:
        return Elementwise.vmap(self, size, dims, a, b)  # type: ignore[arg-type]  broadcasts alike

    samples = (sample((3, 4), (3, 4)), sample((2, 3), (3,)), sample((0,), ()))


class Conj(Elementwise):
    """y = the complex conjugate of x"""

    scalar = staticmethod(S.conj)
    conjugates = True

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(self, g),)

    samples = (sample((3, 4), of="complex64"), sample((2, 0), of="complex128"))


class Sgn(Op):
    """y = x / |x|, 0 at 0"""

    conjugates = True

    def type(self, x: Type) -> Type:
        return x

    def host(self, x: np.ndarray) -> np.ndarray:
        parts = np.real(x), np.imag(x)
        size = np.hypot(*parts)
        y = np.empty(x.shape, x.dtype)
        y.real, y.imag = (np.where(size == 0, 0, part / size) for part in parts)
        return y

    oracle = host

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        size = x.abs()
        along = apply(_REAL, g * apply(_CONJ, y))
        return (where(size == 0, zeros_like(g), (g - y * along) / size),)

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        return apply(self, x), dims[0]

    samples = (sample((3, 4), of="complex64"), sample((2, 0), of="complex128"))


_REAL, _IMAG, _COMPLEX, _CONJ = Real(), Imag(), Complex(), Conj()
_SGN = Sgn()


def _is_complex(x: Any) -> bool:
    return dtype_of(x).category == dt.COMPLEX


def _need_complex(name: str, d: dt.dtype) -> None:
    if d.category != dt.COMPLEX:
        raise RuntimeError(
            "view_as_real is only supported for complex tensors"
            if name == "view_as_real"
            else f"{name} is not implemented for tensors with non-complex dtypes."
        )


def real(input: Any) -> Any:
    """The real part, a view; a real tensor is its own."""
    return apply(_REAL, input) if _is_complex(input) else input


def imag(input: Any) -> Any:
    """The imaginary part, a view; RuntimeError for a real tensor, which has none."""
    _need_complex("imag", dtype_of(input))
    return apply(_IMAG, input)


def view_as_real(input: Any) -> Any:
    """The same memory as pairs: shape (..., 2); RuntimeError for a real tensor."""
    _need_complex("view_as_real", dtype_of(input))
    return apply(AsReal(), input)


def view_as_complex(input: Any) -> Any:
    """The same memory, pairs of reals (..., 2) as complex numbers (...)."""
    return apply(AsComplex(), input)


def complex(real: Any, imag: Any, *, out: Any = None) -> Any:
    """y = real + i imag, of two float32 or two float64 tensors, broadcast."""
    a, b = dtype_of(real), dtype_of(imag)
    if a not in (dt.float32, dt.float64) or b not in (dt.float32, dt.float64):
        raise RuntimeError(
            "Expected both inputs to be Half, Float or Double tensors but got "
            f"{a.spelled} and {b.spelled}"
        )
    if a is not b:
        raise RuntimeError(
            f"Expected object of scalar type {a.spelled} but got scalar type {b.spelled} for "
            "second argument"
        )
    y = apply(_COMPLEX, real, imag)
    if out is not None and dtype_of(out) is not dtype_of(y):
        raise RuntimeError(
            f"Expected object of scalar type {dtype_of(y).spelled} but got scalar type "
            f"{dtype_of(out).spelled} for argument 'out'"
        )
    return y if out is None else out.copy_result(y)


def polar(abs: Any, angle: Any, *, out: Any = None) -> Any:
    """y = abs (cos angle + i sin angle), of two float32 or two float64 tensors, broadcast."""
    for name, x in (("abs", abs), ("angle", angle)):
        if not isinstance(x, Handle):
            raise TypeError(f"polar(): argument '{name}' must be Tensor, not {type(x).__name__}")
    return complex(abs * angle.cos(), abs * angle.sin(), out=out)


def conj(input: Any) -> Any:
    """The complex conjugate (computed at once); a real tensor is its own."""
    return apply(_CONJ, input) if _is_complex(input) else input


def conj_physical(input: Any, *, out: Any = None) -> Any:
    """The complex conjugate."""
    y = conj(input)
    return y if out is None else out.copy_result(y)


def resolve_conj(input: Any) -> Any:
    """The tensor itself: conjugates are not lazy here."""
    return input


resolve_neg = resolve_conj


def sgn(input: Any, *, out: Any = None) -> Any:
    """x / |x|, 0 at 0; of reals the sign."""
    if not _is_complex(input):
        return sign(input, out=out)
    y = apply(_SGN, input)
    return y if out is None else out.copy_result(y)


def angle(input: Any, *, out: Any = None) -> Any:
    """The angle of x in the plane; of reals 0 for x >= 0, pi below, NaN for NaN."""
    d = dtype_of(input)
    if d.category == dt.COMPLEX:
        y = atan2(apply(_IMAG, input), apply(_REAL, input))
    else:
        x = input if d.category == dt.FLOAT else cast(input, dt.get_default_dtype())
        flat = zeros_like(x)
        y = where(x != x, x, where(x < 0, flat + math.pi, flat))
    return y if out is None else out.copy_result(y)


def is_conj(input: Any) -> bool:
    """Whether the conjugation is still to be done: never."""
    return False


def hermitian(input: Any) -> Any:
    """The conjugate transpose of a matrix."""
    n = len(shape_of(input))
    if n not in (0, 2):
        raise RuntimeError(
            f"tensor.H is only supported on matrices (2-D tensors). Got {n}-D tensor."
        )
    return conj(transpose(input, 0, 1) if n else input)


def adjoint(input: Any) -> Any:
    """The conjugate transpose of the last two dims."""
    if len(shape_of(input)) == 1:
        raise RuntimeError(
            "tensor.adjoint() is only supported on matrices or batches of matrices. Got 1-D tensor."
        )
    return conj(transpose(input, -2, -1) if shape_of(input) else input)
