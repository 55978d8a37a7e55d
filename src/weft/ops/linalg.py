"""Linear algebra on batches of matrices, under the names of torch.linalg; LAPACK through NumPy.

A factorisation has several results, an op has one: Qr, Eigh and Svd give their parts stacked in
one array, of which the functions hand out views.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.op import Op, sample
from weft.core.types import Type, array_type, wrap_dim
from weft.ops.compare import depends, where
from weft.ops.complex_parts import complex, conj, imag, real
from weft.ops.contract import matmul
from weft.ops.creation import eye, full
from weft.ops.dispatch import apply, dtype_of, read, shape_of, wrap
from weft.ops.einsum import cross as _cross
from weft.ops.einsum import multi_dot
from weft.ops.join import cat
from weft.ops.kinds import by_batch
from weft.ops.lapack_info import each, no_factor, no_inverse, no_solution
from weft.ops.returns import QR, SVD, SlogDet
from weft.ops.scan import cumprod
from weft.ops.shape import diag_embed, tril, triu
from weft.ops.shape import diagonal as _diagonal
from weft.ops.stat import vector_norm
from weft.ops.view import expand, narrow, reshape, select, squeeze, unsqueeze

__all__ = [
    "cholesky", "cond", "cross", "det", "diagonal", "inv",
    "matmul", "matrix_exp", "matrix_norm", "matrix_power", "multi_dot", "norm", "qr", "slogdet",
    "solve", "solve_triangular", "svd", "svdvals", "vander", "vecdot", "vector_norm",
]  # fmt: skip


def _t(x: Any) -> Any:
    return x.transpose(-2, -1)


def _h(x: Any) -> Any:
    return conj(x.transpose(-2, -1))


class _Matrix(Op, abstract=True):
    """An op on the last two dims: the dims before are a batch."""

    vmap = by_batch


class Inv(_Matrix):
    """y = x^-1; NaN for a singular x when `lenient`"""

    lenient: bool = False

    def host(self, x: np.ndarray) -> np.ndarray:
        return each(np.linalg.inv, (x,), x.shape[-2:], lenient=self.lenient, said=no_inverse)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.linalg.solve(x, np.broadcast_to(np.eye(x.shape[-1]), x.shape))

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (-(_t(y) @ g @ _t(y)),)

    samples = (
        sample((3, 3)),
        sample((2, 2, 2)),
        sample((0, 0)),
        sample((3, 3), of="complex64"),
    )


class Det(_Matrix):
    """y = det x"""

    def type(self, x: Type) -> Type:
        return Type(x.shape[:-2], x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.det(x))

    oracle = host

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(Cofactor(), x) * g[..., None, None],)

    samples = (
        sample((3, 3)),
        sample((2, 2, 2)),
        sample((3, 3), of="complex64"),
    )


class Cofactor(_Matrix):
    """y = det(x) x^-T, also where x is singular: U cof(S) V^T times det U det V"""

    def host(self, x: np.ndarray) -> np.ndarray:
        sound = np.isfinite(x).all((-2, -1), keepdims=True)  # else LAPACK may never converge
        u, s, vh = np.linalg.svd(np.where(sound, x, 0))
        n = x.shape[-1]
        others = np.empty_like(s)
        for i in range(n):
            others[..., i] = np.prod(np.delete(s, i, -1), -1)
        sign = np.linalg.det(u) * np.linalg.det(vh)
        product = (np.conj(u) * others[..., None, :]) @ np.conj(vh)
        return np.ascontiguousarray(np.where(sound, product * sign[..., None, None], np.nan))

    def oracle(self, x: np.ndarray) -> np.ndarray:
        y = np.empty_like(x)
        for i, j in np.ndindex(*x.shape[-2:]):
            minor = np.delete(np.delete(x, i, -2), j, -1)
            y[..., i, j] = (-1) ** (i + j) * np.linalg.det(minor)
        return y

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        # c = d A, A = x^-T:  dx = <g, A> c - A g^T c, for x that has an inverse
        a = _t(apply(Inv(), x))
        return ((g * a).sum((-2, -1), keepdim=True) * y - a @ _t(g) @ y,)

    samples = (
        sample((3, 3)),
        sample((2, 2, 2)),
        sample((3, 3), of="complex64"),
    )


class SlogDetPair(_Matrix):
    """y = (det x / |det x|, log |det x|)"""

    conjugates = True

    def type(self, x: Type) -> Type:
        return Type((*x.shape[:-2], 2), x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        return np.stack(np.linalg.slogdet(x), -1).astype(x.dtype)

    oracle = host

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        scale = g[..., 1:, None]
        if x.dtype.is_complex:  # log |det| + i angle is log det, which is holomorphic
            turn = imag(conj(g[..., :1, None]) * y[..., :1, None])
            scale = complex(real(scale), -turn)
        return (_h(apply(Inv(), x)) * scale,)

    samples = (
        sample((3, 3)),
        sample((2, 2, 2)),
        sample((3, 3), of="complex64"),
    )


class Solve(Op):
    """y with a y = b, for batches of square a and columns b; NaN for a singular a if `lenient`"""

    lenient: bool = False

    def type(self, a: Type, b: Type) -> Type:
        if a.shape != (*b.shape[:-1], *b.shape[-2:-1]) or a.dtype is not b.dtype:
            raise RuntimeError(f"{self}: {a} and {b} do not fit")
        return b

    def host(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self.type(array_type(a), array_type(b))  # NumPy takes more
        return each(np.linalg.solve, (a, b), b.shape[-2:], lenient=self.lenient, said=no_solution)

    def oracle(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.linalg.inv(a) @ b

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        z = apply(self, _t(a), g)  # db;  da = -db y^T
        return lambda: -(z @ _t(y)), z

    vmap = by_batch

    samples = (
        sample((3, 3), (3, 2)),
        sample((2, 2, 2), (2, 2, 1)),
        sample((3, 3), (3, 2), of="complex64"),
    )


class CholeskyOf(_Matrix):
    """y lower triangular with y y^H = x; reads the lower triangle, its gradient is Hermitian.

    NaN where x is not positive-definite when `lenient`.
    """

    conjugates = True
    lenient: bool = False

    def host(self, x: np.ndarray) -> np.ndarray:
        return each(np.linalg.cholesky, (x,), x.shape[-2:], lenient=self.lenient, said=no_factor)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.linalg.cholesky(x)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        # S = y^-H phi(y^H g) y^-1, phi = lower triangle with half the diagonal; dx = (S + S^H) / 2
        inverse = apply(Inv(), y)
        z = tril(_h(y) @ g)
        z = z - diag_embed(_diagonal(z, 0, -2, -1)) * 0.5
        s = _h(inverse) @ z @ inverse
        return ((s + _h(s)) * 0.5,)

    samples = (sample((1, 1), low=0.5),)


class QrParts(_Matrix):
    """Q above R^T, (m + n, k): x = Q R, Q^H Q = 1, R upper triangular; k = min(m, n), or m"""

    conjugates = True
    complete: bool = False

    def type(self, x: Type) -> Type:
        m, n = x.shape[-2:]
        return Type((*x.shape[:-2], m + n, m if self.complete else min(m, n)), x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        q, r = np.linalg.qr(x, "complete" if self.complete else "reduced")
        return np.concatenate([q, np.swapaxes(r, -1, -2)], -2)

    oracle = host

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        m, n = x.shape[-2:]
        if self.complete and m > n:
            raise RuntimeError(
                "The QR decomposition is not differentiable when mode='complete' and nrows > ncols"
            )
        q, r = narrow(y, -2, 0, m), _t(narrow(y, -2, m, n))
        gq, gr = narrow(g, -2, 0, m), _t(narrow(g, -2, m, n))
        if m >= n:
            return (_qr_vjp(gq, triu(gr), q, r),)
        # x = (a b), R = (u v), a = Q u, v = Q^H b:  db = Q gv, and gQ gains b gv^H
        v, gv = narrow(r, -1, m, n - m), narrow(gr, -1, m, n - m)
        ga = _qr_vjp(gq + q @ v @ _h(gv), triu(narrow(gr, -1, 0, m)), q, narrow(r, -1, 0, m))
        return (cat((ga, q @ gv), -1),)

    samples = (
        sample((3, 3), low=0.5),
        sample((4, 2)),
        sample((2, 3, 2)),
        sample((2, 4)),
        sample((4, 2), of="complex64"),
        sample((2, 4), of="complex64"),
    )


def _qr_vjp(gq: Any, gr: Any, q: Any, r: Any) -> Any:
    """dx = (gQ + Q copy_lower(M)) R^-H, M = R gR^H - gQ^H Q, of its diagonal the real part"""
    z = tril(r @ _h(gr) - _h(gq) @ q)
    z = z + _h(z)
    z = z - diag_embed(_diagonal(z, 0, -2, -1)) * 0.5
    return _h(apply(Solve(lenient=True), r, _h(gq + q @ z)))


def _need_finite(x: np.ndarray, op: str) -> None:
    """LAPACK may iterate for ever on NaN and infinity."""
    if not np.isfinite(x).all():
        raise RuntimeError(
            f"{op}: The algorithm failed to converge because the input matrix contained non-finite "
            "values."
        )


def _over(x: Any, row: Any) -> Any:
    """x / row, where 0 / 0 is 0."""
    return x / row.where((row != 0) | (x != 0), 1.0)


class SvdParts(_Matrix):
    """U above the singular values (one row) above V, (m + 1 + n, k): x = U diag(S) V^H"""

    conjugates = True

    def type(self, x: Type) -> Type:
        m, n = x.shape[-2:]
        return Type((*x.shape[:-2], m + 1 + n, min(m, n)), x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        _need_finite(x, "linalg.svd")
        u, s, vh = np.linalg.svd(x, full_matrices=False)
        return np.concatenate([u, s[..., None, :], np.conj(np.swapaxes(vh, -1, -2))], -2)

    oracle = host

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        m, n = x.shape[-2:]
        k = min(m, n)
        u, s, v = _svd_parts(y, m, n)
        gu, gs, gv = _svd_parts(g, m, n)
        row, column = unsqueeze(s, -2), unsqueeze(s, -1)
        gaps = row * row - column * column + eye(k, dtype=x.dtype)
        skew_u, skew_v = _h(u) @ gu, _h(v) @ gv
        skew_u, skew_v = skew_u - _h(skew_u), skew_v - _h(skew_v)
        # of equal values only vectors have no gradient: 0 / 0 counts as 0
        gap_u, gap_v = (gaps.where((gaps != 0) | (k != 0), 1.0) for k in (skew_u, skew_v))
        inner = (skew_u / gap_u) * row + column * (skew_v / gap_v) + diag_embed(gs)
        if x.dtype.is_complex:  # a phase common to columns of U and V changes nothing
            inner = inner + diag_embed(_diagonal(skew_u, 0, -2, -1) / (s * 2.0))
        y = u @ inner @ _h(v)
        if m > k:  # what gU has outside the columns of U
            outside = _over(gu - u @ (_h(u) @ gu), row)
            y = y + outside @ _h(v)
        if n > k:
            outside = _over(gv - v @ (_h(v) @ gv), row)
            y = y + u @ _h(outside)
        return (y,)

    samples = (sample((1, 1), low=0.5), sample((3, 1)), sample((2, 1, 3)))


def _svd_parts(y: Any, m: int, n: int) -> tuple[Any, Any, Any]:
    return narrow(y, -2, 0, m), select(y, -2, m), narrow(y, -2, m + 1, n)


# ------------------------------------------------------------------------------- functions


def _need(op: str, x: Any, *, square: bool = False) -> None:
    shape, d = shape_of(x), dtype_of(x)
    if len(shape) < 2:
        raise RuntimeError(f"linalg.{op}: The input tensor A must have at least 2 dimensions.")
    if square and shape[-1] != shape[-2]:
        raise RuntimeError(
            f"linalg.{op}: A must be batches of square matrices, but they are {shape[-2]} by "
            f"{shape[-1]} matrices"
        )
    if d.to_real() not in (dt.float32, dt.float64):
        raise RuntimeError(
            f"linalg.{op}: Expected a float32, float64 or complex tensor. Got {d.name}"
        )


def inv(A: Any, *, out: Any = None) -> Any:
    """A^-1; LinAlgError for a singular matrix."""
    _need("inv", A, square=True)
    y = apply(Inv(), A)
    return y if out is None else out.copy_result(y)


def det(A: Any, *, out: Any = None) -> Any:
    """The determinant."""
    _need("det", A, square=True)
    y = apply(Det(), A)
    return y if out is None else out.copy_result(y)


def slogdet(A: Any) -> Any:
    """(sign, logabsdet): the determinant is sign * exp(logabsdet)."""
    _need("slogdet", A, square=True)
    y = apply(SlogDetPair(), A)
    return SlogDet(select(y, -1, 0), real(select(y, -1, 1)))


def logdet(input: Any) -> Any:
    """log det input; NaN where the determinant is negative."""
    sign, value = slogdet(input)
    if dtype_of(sign).is_complex:
        return value + sign.log()
    return value.where(sign >= 0, full((), math.nan, dtype=dtype_of(value)))


def solve(A: Any, B: Any, *, left: bool = True, out: Any = None) -> Any:
    """X with A X = B (X A = B without `left`); B a vector, or columns; LinAlgError if singular."""
    y = solved(Solve(), A, B, left=left)
    return y if out is None else out.copy_result(y)


def solved(op: Solve, A: Any, B: Any, *, left: bool) -> Any:
    """`solve` by an op of one's choice, lenient or not."""
    _need("solve", A, square=True)
    a, b = shape_of(A), shape_of(B)
    vector = len(b) == 1 or (len(b) == len(a) - 1 and b == a[:-1])
    if not left:
        return _t(solved(op, _t(A), _t(B), left=True))
    x = unsqueeze(B, -1) if vector else B
    if shape_of(x)[-2] != a[-1]:
        raise RuntimeError(
            f"linalg.solve: Incompatible shapes of A and B for the equation AX = B ({a[-2]}x{a[-1]}"
            f" and {shape_of(x)[-2]}x{shape_of(x)[-1]})"
        )
    lead = np.broadcast_shapes(a[:-2], shape_of(x)[:-2])
    y = apply(op, expand(A, (*lead, *a[-2:])), expand(x, (*lead, *shape_of(x)[-2:])))
    return squeeze(y, -1) if vector else y


def solve_triangular(
    A: Any, B: Any, *, upper: bool, left: bool = True, unitriangular: bool = False,
    out: Any = None,
) -> Any:  # fmt: skip
    """X with A X = B (X A = B without `left`), only one triangle of A being looked at."""
    _need("solve_triangular", A, square=True)
    a = triu(A) if upper else tril(A)
    if unitriangular:
        a = a - diag_embed(_diagonal(a, 0, -2, -1)) + eye(shape_of(A)[-1], dtype=dtype_of(A))
    return solve(a, B, left=left, out=out)


def cholesky(A: Any, *, upper: bool = False, out: Any = None) -> Any:
    """L lower triangular with L L^H = A; LinAlgError unless A is positive-definite."""
    _need("cholesky", A, square=True)
    y = apply(CholeskyOf(), A)
    y = _h(y) if upper else y
    return y if out is None else out.copy_result(y)


def qr(A: Any, mode: str = "reduced") -> Any:
    """(Q, R): A = Q R, Q's columns orthonormal, R upper triangular; mode reduced, complete or r."""
    _need("qr", A)
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(
            f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', "
            "or 'complete'"
        )
    m, n = shape_of(A)[-2:]
    y = apply(QrParts(mode == "complete"), A)
    q, r = narrow(y, -2, 0, m), _t(narrow(y, -2, m, n))
    return QR(full((0,), 0.0, dtype=dtype_of(A)) if mode == "r" else q, r)


def svd(A: Any, full_matrices: bool = True, *, driver: str | None = None, out: Any = None) -> Any:
    """(U, S, Vh): A = U diag(S) Vh, S descending; completed columns carry no gradient.

    `driver` names routines of cuSOLVER and is accepted without effect.
    """
    _need("svd", A)
    m, n = shape_of(A)[-2:]
    k = min(m, n)
    y = apply(SvdParts(), A)
    u, s, v = _svd_parts(y, m, n)
    if full_matrices and m != n:
        full_u, _, full_vh = np.linalg.svd(A.detach()._a)
        rest_v = np.conj(np.swapaxes(full_vh, -1, -2))[..., k:]
        u = cat((u, u.new_tensor(full_u[..., k:])), -1) if m > k else u
        v = cat((v, v.new_tensor(rest_v)), -1) if n > k else v
    y = SVD(u, real(s), _h(v))
    return y if out is None else SVD(*(o.copy_result(t) for o, t in zip(out, y, strict=True)))


def svdvals(A: Any, *, driver: str | None = None, out: Any = None) -> Any:
    """The singular values, descending."""
    y = svd(A, False).S
    return y if out is None else out.copy_result(y)


def cond(A: Any, p: Any = None) -> Any:
    """The condition number: the norm of A times that of its inverse (p None: 2)."""
    if p is None or p == 2:
        s = svdvals(A)
        return select(s, -1, 0) / select(s, -1, shape_of(s)[-1] - 1)
    return matrix_norm(A, p) * matrix_norm(inv(A), p)


def matrix_power(A: Any, n: int, *, out: Any = None) -> Any:
    """A @ A @ ... @ A, n times; the identity for 0, of the inverse for negative n."""
    shape = shape_of(A)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise RuntimeError(
            "linalg.matrix_power: A must be batches of square matrices, but they are of shape "
            f"{list(shape)}"
        )
    y = None
    square, k = (inv(A), -n) if n < 0 else (A, n)
    while k:
        if k & 1:
            y = square if y is None else y @ square
        k >>= 1
        square = square @ square if k else square
    if y is None:
        y = depends(expand(eye(shape[-1], dtype=dtype_of(A)), shape).clone(), A)
    y = y.clone() if y is A else y
    return y if out is None else out.copy_result(y)


def _extreme(x: Any, dim: int, ord: float, keepdim: bool = False) -> Any:
    """The largest for ord > 0 (0 of nothing), else the smallest, which nothing has."""
    if ord > 0 and shape_of(x)[dim] == 0:
        return x.sum(dim, keepdim)
    return x.amax(dim, keepdim) if ord > 0 else x.amin(dim, keepdim)


def matrix_norm(
    A: Any, ord: Any = "fro", dim: tuple[int, int] = (-2, -1), keepdim: bool = False, *,
    dtype: Any = None, out: Any = None,
) -> Any:  # fmt: skip
    """fro: of all elements; nuc: sum of singular values; 2, -2: largest, smallest of them;
    1, -1: largest, smallest column sum of |A|; inf, -inf: of the rows."""
    A = A if dtype is None else A.to(dtype)
    if (rank := len(shape_of(A))) < 2:
        raise RuntimeError(f"linalg.matrix_norm: A must have at least 2 dimensions, got {rank}")
    rows, cols = (wrap_dim(d, rank, "linalg.matrix_norm") for d in dim)
    if rows == cols:
        raise RuntimeError(f"linalg.matrix_norm: dims must be different, got {dim}")
    if ord == "fro":
        y = vector_norm(A, 2, (rows, cols), keepdim)
    elif ord in ("nuc", 2, -2):
        s = svdvals(A.movedim((rows, cols), (-2, -1)))
        y = s.sum(-1) if ord == "nuc" else _extreme(s, -1, ord)
        if keepdim:
            for d in sorted((rows, cols)):
                y = unsqueeze(y, d)
    elif ord in (1, -1, math.inf, -math.inf):
        summed, other = (rows, cols) if abs(ord) == 1 else (cols, rows)
        sums = A.abs().sum(summed, keepdim=True)
        y = _extreme(sums, other, ord, True)
        y = y if keepdim else squeeze(y, (rows, cols))
    else:
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
    return y if out is None else out.copy_result(y)


def norm(
    A: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, out: Any = None,
    dtype: Any = None,
) -> Any:  # fmt: skip
    """vector_norm, or matrix_norm where `ord` is given and `dim` names two dims (or A has two)."""
    rank = len(shape_of(A))
    pair = dim is not None and not isinstance(dim, int) and len(dim) == 2
    if ord is not None and (pair or (dim is None and rank == 2)):
        return matrix_norm(A, ord, tuple(dim) if pair else (-2, -1), keepdim, dtype=dtype, out=out)  # pyright: ignore[reportArgumentType]
    if isinstance(ord, str):
        raise RuntimeError(f"linalg.norm: order {ord} is for matrices only")
    return vector_norm(A, 2 if ord is None else ord, dim, keepdim, dtype=dtype, out=out)


def cross(input: Any, other: Any, *, dim: int = -1, out: Any = None) -> Any:
    """The vector product along dim."""
    return _cross(input, other, dim, out=out)


def diagonal(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """The diagonal of the last two dims, as a view."""
    return _diagonal(A, offset, dim1, dim2)


def vecdot(x: Any, y: Any, *, dim: int = -1, out: Any = None) -> Any:
    """The sum of conj(x) * y along dim."""
    z = (conj(x) * y).sum(dim)
    return z if out is None else out.copy_result(z)


def vander(x: Any, N: int | None = None) -> Any:
    """y[..., i, j] = x[..., i] ** j, j < N"""
    x = x if shape_of(x) else reshape(x, (1,))
    n = shape_of(x)[-1] if N is None else N
    if n < 2:
        raise RuntimeError("N must be greater than 1.")
    powers = cumprod(expand(unsqueeze(x, -1), (*shape_of(x), n - 1)), -1)
    return cat([full((*shape_of(x), 1), 1, dtype=dtype_of(powers)), powers], -1)


def _factor(L: Any, upper: bool) -> Any:
    """The lower factor by value; as torch's, its gradient is not cut to the triangle."""
    low = _t(L) if upper else L
    return low - (low - tril(low)).detach()


def cholesky_solve(B: Any, L: Any, upper: bool = False, *, out: Any = None) -> Any:
    """X with A X = B, given A's Cholesky factor."""
    _need("cholesky_solve", L, square=True)
    low = _factor(L, upper)
    y = solve(_h(low), solve(low, B))
    return y if out is None else out.copy_result(y)


def cholesky_inverse(L: Any, upper: bool = False, *, out: Any = None) -> Any:
    """A^-1, given A's Cholesky factor."""
    _need("cholesky_inverse", L, square=True)
    low = _factor(L, upper)
    y = inv(low @ _h(low))
    return y if out is None else out.copy_result(y)


def matrix_exp(A: Any) -> Any:
    """sum of A^k / k!, by scaling, a Taylor polynomial of degree 18, and squaring."""
    _need("matrix_exp", A, square=True)
    d, batch = dtype_of(A), shape_of(A)[:-2]
    if 0 in shape_of(A):
        return A.clone()
    # each matrix by powers of its own: what it gives does not depend on its batch
    most = 1.0 if d.to_real() is dt.float64 else 3.0  # up to there the polynomial is exact enough
    with np.errstate(all="ignore"):
        times = np.ceil(np.log2(np.float64(read(matrix_norm(A.detach(), 1))) / most))
    times = np.where(np.isfinite(times), np.maximum(times, 0.0), 0.0).reshape(*batch, 1, 1)
    x = A * wrap(np.exp2(-times).astype(d.to_real().np))
    one = expand(eye(shape_of(A)[-1], dtype=d), shape_of(A))
    y = one
    for k in range(18, 0, -1):
        y = one + x @ y / float(k)
    for i in range(int(times.max())):
        y = where(wrap(times > i), y @ y, y)
    return y
