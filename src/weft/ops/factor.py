"""LU, Householder and low-rank factors, what solves with them, `torch`'s own older spellings."""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.op import Op, sample
from weft.core.types import Type, numel
from weft.ops.cast import cast
from weft.ops.compare import depends
from weft.ops.contract import matmul
from weft.ops.creation import eye, zeros
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.eigen import pinv
from weft.ops.gather import take_along_dim
from weft.ops.join import cat
from weft.ops.kinds import by_batch
from weft.ops.lapack_info import Info
from weft.ops.linalg import (
    CholeskyOf,
    Inv,
    Solve,
    _h,
    _Matrix,
    _need,
    _t,
    cholesky,
    inv,
    solve,
    solve_triangular,
    solved,
)
from weft.ops.linalg import qr as _qr
from weft.ops.linalg import svd as _svd
from weft.ops.random import randn
from weft.ops.returns import (
    QR1,
    SVD1,
    CholeskyEx,
    GeQrf,
    InvEx,
    LUFactor,
    LUFactorEx,
    LUParts,
    LUUnpacked,
    SolveEx,
    TriangularSolve,
)  # fmt: skip
from weft.ops.shape import tril, triu
from weft.ops.view import expand, narrow, reshape, squeeze, transpose, unsqueeze

__all__ = [
    "cholesky_ex", "householder_product", "inv_ex", "lu", "lu_factor", "lu_factor_ex", "lu_solve",
    "solve_ex", "tensorinv", "tensorsolve",
]  # fmt: skip


def _eliminate(x: np.ndarray) -> np.ndarray:
    """L below the diagonal and U above, of x = L U, rows in the order they are."""
    y = np.array(x)
    for i in range(min(x.shape[-2:])):
        with np.errstate(all="ignore"):
            factor = y[..., i + 1 :, i] / y[..., None, i, i]
        factor = np.where(y[..., None, i, i] == 0, y[..., i + 1 :, i], factor)
        y[..., i + 1 :, i] = factor
        y[..., i + 1 :, i + 1 :] -= factor[..., :, None] * y[..., i, None, i + 1 :]
    return y


class LUPivots(_Matrix):
    """The row (from 1) that partial pivoting swaps with row i of x, as LAPACK's getrf"""

    def type(self, x: Type) -> Type:
        return Type((*x.shape[:-2], min(x.shape[-2:])), dt.int32)

    def host(self, x: np.ndarray) -> np.ndarray:
        size = min(x.shape[-2:])
        out = np.empty((*x.shape[:-2], size), np.int32)
        for place in np.ndindex(*x.shape[:-2]):
            a = np.array(x[place])
            for i in range(size):
                p = i + int(np.argmax(np.abs(a[i:, i])))
                out[(*place, i)] = p + 1
                a[[i, p]] = a[[p, i]]
                if a[i, i] != 0:
                    a[i + 1 :, i] /= a[i, i]
                    a[i + 1 :, i + 1 :] -= np.outer(a[i + 1 :, i], a[i, i + 1 :])
        return out

    oracle = host
    nondiff = "whole numbers"
    samples = (sample((3, 3)), sample((2, 4, 2)))


class LUOf(_Matrix):
    """L - 1 + U of x = L U, L with a unit diagonal: no rows are swapped"""

    def host(self, x: np.ndarray) -> np.ndarray:
        return _eliminate(x)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        out = np.array(x)
        k = min(x.shape[-2:])
        for i in np.ndindex(*x.shape[:-2]):
            for n in range(1, k + 1):  # rows and columns of the factors, one after the other
                low = np.tril(out[i][: n - 1, : n - 1], -1) + np.eye(n - 1)
                up = np.triu(out[i][: n - 1, : n - 1])
                out[i][: n - 1, n - 1] = np.linalg.solve(low, x[i][: n - 1, n - 1])
                out[i][n - 1, : n - 1] = np.linalg.solve(up.T, x[i][n - 1, : n - 1])
                out[i][n - 1, n - 1] -= out[i][n - 1, : n - 1] @ out[i][: n - 1, n - 1]
            low, up = np.tril(out[i][:k, :k], -1) + np.eye(k), np.triu(out[i][:k, :k])
            out[i][:k, k:] = np.linalg.solve(low, x[i][:k, k:])
            out[i][k:, :k] = np.linalg.solve(up.T, x[i][k:, :k].T).T
        return out

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        m, n = x.shape[-2:]
        k = min(m, n)
        square, gs = (narrow(narrow(t, -2, 0, k), -1, 0, k) for t in (y, g))
        low = tril(square, -1) + eye(k, dtype=x.dtype)
        up, gl, gu = triu(square), tril(gs, -1), triu(gs)
        rest = None
        if n > k:  # b = L v
            gb = solve_triangular(_t(low), narrow(g, -1, k, n - k), upper=True)
            gl, rest = gl - tril(gb @ _t(narrow(y, -1, k, n - k)), -1), gb
        if m > k:  # c = w U
            gc = solve_triangular(_t(up), narrow(g, -2, k, m - k), upper=False, left=False)
            gu, rest = gu - triu(_t(narrow(y, -2, k, m - k)) @ gc), gc
        inner = tril(_t(low) @ gl, -1) + triu(gu @ _t(up))
        z = solve_triangular(_t(low), inner, upper=True)
        z = solve_triangular(_t(up), z, upper=False, left=False)
        return (z if rest is None else cat((z, rest), -1 if n > k else -2),)

    samples = (
        sample((1, 1), low=0.5),
        sample((1, 3), low=0.5),
        sample((2, 3, 1), low=0.5),
        sample((2, 3), of="complex64", low=0.5),
    )


class RowsOfPivots(Op):
    """Which row stands at place i after all swaps, from 0: rows of them"""

    rows: int = 0

    def type(self, pivots: Type) -> Type:
        return Type((*pivots.shape[:-1], self.rows), dt.int64)

    def host(self, pivots: np.ndarray) -> np.ndarray:
        out = np.empty((*pivots.shape[:-1], self.rows), np.int64)
        for place in np.ndindex(*pivots.shape[:-1]):
            order = np.arange(self.rows)
            for i, p in enumerate(pivots[place] - 1):
                order[[i, p]] = order[[p, i]]
            out[place] = order
        return out

    oracle = host
    nondiff = "whole numbers"

    vmap = by_batch

    samples = (sample((3,), of="int32", low=1, high=4, rows=4),)


class Reflectors(_Matrix):
    """R above the diagonal, the Householder vectors below it, their factors as the last row"""

    def type(self, x: Type) -> Type:
        return Type((*x.shape[:-2], x.shape[-2] + 1, x.shape[-1]), x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        out = np.zeros(self.type(Type(x.shape, dt.float64)).shape, x.dtype)
        for i in np.ndindex(*x.shape[:-2]):
            if x[i].size:
                h, tau = np.linalg.qr(x[i], "raw")
                out[i][:-1], out[i][-1, : len(tau)] = h.T, tau
        return out

    oracle = host
    nondiff = "torch has no gradient for it either"
    samples = (sample((3, 3)), sample((2, 4, 2)))


# -------------------------------------------------------------------------------- LU


def _square_or(op: str, A: Any) -> None:
    if len(shape_of(A)) < 2:
        raise RuntimeError(f"{op}: Expected tensor with 2 or more dimensions.")
    _need(op.removeprefix("linalg."), A)


def lu_factor(A: Any, *, pivot: bool = True, out: Any = None) -> Any:
    """(LU, pivots): the factors of A in one matrix, and the row swapped with each row, from 1.

    RuntimeError: a pivot is 0.
    """
    factors, pivots, info = lu_factor_ex(A, pivot=pivot)
    _need_pivots("lu_factor", info)
    y = LUFactor(factors, pivots)
    return y if out is None else _into(out, y)


def lu_factor_ex(A: Any, *, pivot: bool = True, check_errors: bool = False, out: Any = None) -> Any:
    """lu_factor with info: the first row whose pivot is 0, from 1, or 0; an error if asked for."""
    _square_or("linalg.lu_factor", A)
    m = shape_of(A)[-2]
    k = min(shape_of(A)[-2:])
    x = A
    if pivot:
        pivots = apply(LUPivots(), A.detach())
        rows = apply(RowsOfPivots(m), pivots)
        x = take_along_dim(A, expand(unsqueeze(rows, -1), shape_of(A)), -2)
    else:
        first = eye(k, dtype=dt.int32).cumsum(0).sum(0).flip(0).to(dt.int32)
        pivots = expand(first, (*shape_of(A)[:-2], k)).clone()
    factors = apply(LUOf(), x)
    zero = factors.detach().diagonal(0, -2, -1) == 0
    places = eye(k, dtype=dt.int64).cumsum(0).sum(0).flip(0)
    info = (places * zero).masked_fill(~zero, k + 1).amin(-1) if k else zero.sum(-1)
    info = info.masked_fill(info == k + 1, 0).to(dt.int32)
    if check_errors:
        _need_pivots("lu_factor_ex", info)
    y = LUFactorEx(factors, pivots, info)
    return y if out is None else _into(out, y)


def _need_pivots(op: str, info: Any) -> None:
    """RuntimeError in torch's words at the first matrix with a pivot of 0."""
    for i, row in enumerate(info.flatten().tolist()):
        if row:
            where = f"(Batch element {i}): " if shape_of(info) else ""
            raise RuntimeError(
                f"torch.linalg.{op}: {where}U[{row},{row}] is zero and using it on lu_solve would "
                "result in a division by zero. If you still want to perform the factorization, "
                "consider calling linalg.lu(A, pivot) or linalg.lu_factor_ex(A, pivot)"
            )


def _into(out: Any, y: Any) -> Any:
    return type(y)(*(o.copy_result(t) for o, t in zip(out, y, strict=True)))


def _permutation(pivots: Any, m: int, kind: Any) -> Any:
    """P with P L U = A."""
    rows = apply(RowsOfPivots(m), pivots)
    places = eye(m, dtype=dt.int64).cumsum(0).sum(0).flip(0) - 1
    return cast(unsqueeze(rows, -2) == unsqueeze(places, -1), kind)


def lu_unpack(
    LU_data: Any, LU_pivots: Any, unpack_data: bool = True, unpack_pivots: bool = True, *,
    out: Any = None,
) -> Any:  # fmt: skip
    """(P, L, U) of what lu_factor gives; empty where not asked for."""
    if unpack_pivots and dtype_of(LU_pivots) is not dt.int32:
        raise RuntimeError(
            "torch.lu_unpack: LU_pivots is expected to be a contiguous tensor of torch.int32 dtype."
        )
    m, n = shape_of(LU_data)[-2:]
    k, kind = min(m, n), dtype_of(LU_data)
    if unpack_pivots and shape_of(LU_pivots) != (*shape_of(LU_data)[:-2], k):
        raise RuntimeError(
            f"torch.lu_unpack: expected LU_pivots of shape {[*shape_of(LU_data)[:-2], k]}, got "
            f"{list(shape_of(LU_pivots))}"
        )
    p = low = up = zeros((0,), dtype=kind)
    if unpack_data:
        low = tril(narrow(LU_data, -1, 0, k), -1) + eye(m, k, dtype=kind)
        up = triu(narrow(LU_data, -2, 0, k))
    if unpack_pivots:
        p = _permutation(LU_pivots, m, kind)
    y = LUUnpacked(p, low, up)
    return y if out is None else _into(out, y)


def lu(A: Any, *, pivot: bool = True, out: Any = None) -> Any:
    """(P, L, U): A = P L U; P is empty without `pivot`."""
    factors, pivots, _ = lu_factor_ex(A, pivot=pivot)
    y = LUParts(*lu_unpack(factors, pivots, True, pivot))
    return y if out is None else _into(out, y)


def lu_solve(
    LU: Any, pivots: Any, B: Any, *, left: bool = True, adjoint: bool = False, out: Any = None
) -> Any:
    """X with A X = B (X A = B without `left`; A^T with `adjoint`), from A's lu_factor."""
    _need("lu_solve", LU, square=True)
    if not left:
        y = _h(lu_solve(LU, pivots, _h(B), adjoint=not adjoint))
        return y if out is None else out.copy_result(y)
    p, low, up = lu_unpack(LU, pivots)
    if adjoint:
        x = solve_triangular(_h(up), B, upper=False)
        y = p @ solve_triangular(_h(low), x, upper=True, unitriangular=True)
    else:
        x = solve_triangular(low, _t(p) @ B, upper=False, unitriangular=True)
        y = solve_triangular(up, x, upper=True)
    return y if out is None else out.copy_result(y)


# ------------------------------------------------------------------------ with info


def inv_ex(A: Any, *, check_errors: bool = False, out: Any = None) -> Any:
    """(inverse, info): info the first pivot that is 0, from 1, or 0; NaN for a singular matrix.

    LinAlgError for one with `check_errors`.
    """
    if check_errors:
        inv(A.detach())
    _need("inv_ex", A, square=True)
    y = InvEx(apply(Inv(lenient=True), A), apply(Info(), A.detach()))
    return y if out is None else _into(out, y)


def solve_ex(
    A: Any, B: Any, *, left: bool = True, check_errors: bool = False, out: Any = None
) -> Any:
    """(result, info), as inv_ex: NaN for a singular matrix; LinAlgError with `check_errors`."""
    if check_errors:
        solve(A.detach(), B.detach(), left=left)
    y = SolveEx(solved(Solve(lenient=True), A, B, left=left), apply(Info(), A.detach()))
    return y if out is None else _into(out, y)


def cholesky_ex(A: Any, *, upper: bool = False, check_errors: bool = False, out: Any = None) -> Any:
    """(L, info): info the order of the first leading minor that is not positive-definite, or 0.

    L is NaN where info is not 0; LinAlgError with `check_errors`.
    """
    if check_errors:
        cholesky(A.detach())
    _need("cholesky_ex", A, square=True)
    low = apply(CholeskyOf(lenient=True), A)
    info = apply(Info(symmetric=True), A.detach())
    y = CholeskyEx(_t(low) if upper else low, info)
    return y if out is None else _into(out, y)


# ------------------------------------------------------------------------ reflectors


def geqrf(input: Any, *, out: Any = None) -> Any:
    """(a, tau): R above a's diagonal, Householder vectors below it, their factors in tau."""
    _need("geqrf", input)
    m, n = shape_of(input)[-2:]
    y = apply(Reflectors(), input)
    parts = narrow(y, -2, 0, m), squeeze(narrow(narrow(y, -2, m, 1), -1, 0, min(m, n)), -2)
    y = GeQrf(*parts)
    return y if out is None else _into(out, y)


def _product(a: Any, tau: Any, columns: int) -> Any:
    """H_1 H_2 ... H_k times the first columns of 1, H_i = 1 - tau_i v_i v_i^H"""
    m, k = shape_of(a)[-2], shape_of(tau)[-1]
    v = tril(a, -1) + eye(m, shape_of(a)[-1], dtype=dtype_of(a))
    q = expand(eye(m, columns, dtype=dtype_of(a)), (*shape_of(a)[:-2], m, columns))
    for i in reversed(range(k)):
        column = narrow(v, -1, i, 1)
        q = q - (column * unsqueeze(narrow(tau, -1, i, 1), -1)) @ (_h(column) @ q)
    return q


def householder_product(A: Any, tau: Any, *, out: Any = None) -> Any:
    """The first n columns of H_1 H_2 ... H_k, from geqrf's vectors and factors."""
    m, n = shape_of(A)[-2:] if len(shape_of(A)) > 1 else (0, 0)
    if len(shape_of(A)) < 2:
        raise RuntimeError(
            "torch.linalg.householder_product: input must have at least 2 dimensions."
        )
    if m < n or n < shape_of(tau)[-1]:
        raise RuntimeError(
            "torch.linalg.householder_product: input.shape[-2] must be greater than or equal to "
            "input.shape[-1], and input.shape[-1] to tau.shape[-1]"
        )
    if len(shape_of(A)) - len(shape_of(tau)) != 1:
        raise RuntimeError(
            "torch.linalg.householder_product: Expected tau to have one dimension less than input"
        )
    y = _product(A, tau, n)
    y = y if shape_of(tau)[-1] else depends(y, A)
    return y if out is None else out.copy_result(y)


orgqr = householder_product


def ormqr(
    input: Any, tau: Any, other: Any, left: bool = True, transpose: bool = False, *,
    out: Any = None,
) -> Any:  # fmt: skip
    """Q other (other Q without `left`, Q^T with `transpose`), Q all of H_1 H_2 ... H_k."""
    if len(shape_of(input)) < 2:
        raise RuntimeError("torch.ormqr: input must have at least 2 dimensions.")
    if not shape_of(tau) or shape_of(tau)[-1] > shape_of(input)[-1]:
        raise RuntimeError(
            "torch.ormqr: tau.shape[-1] must be equal to min(other.shape[-2], input.shape[-1])"
        )
    q = _product(input, tau, shape_of(input)[-2])
    q = _h(q) if transpose else q
    y = q @ other if left else other @ q
    return y if out is None else out.copy_result(y)


# -------------------------------------------------------------------- tensors as matrices


def tensorinv(A: Any, ind: int = 2, *, out: Any = None) -> Any:
    """The inverse of the map that A's first `ind` dims have against the others."""
    shape = shape_of(A)
    if ind <= 0:
        raise RuntimeError("Expected a strictly positive integer for 'ind'")
    first, last = shape[:ind], shape[ind:]
    if numel(first) != numel(last):
        raise RuntimeError(
            "Expected self to satisfy the requirement prod(self.shape[ind:]) == "
            f"prod(self.shape[:ind]), but got {numel(last)} != {numel(first)}"
        )
    y = reshape(inv(reshape(A, (numel(first), numel(last)))), (*last, *first))
    return y if out is None else out.copy_result(y)


def tensorsolve(A: Any, B: Any, dims: Any = None, *, out: Any = None) -> Any:
    """X with tensordot(A, X, X.ndim) = B; `dims` of A are first moved to its end."""
    x = A if dims is None else A.movedim(tuple(dims), tuple(range(-len(dims), 0)))
    shape = shape_of(x)[len(shape_of(B)) :]
    if numel(shape) != numel(shape_of(B)):
        raise RuntimeError(
            "Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == "
            f"prod(self.shape[:other.ndim]), but got {numel(shape)} != {numel(shape_of(B))}"
        )
    n = numel(shape)
    y = reshape(solve(reshape(x, (n, n)), reshape(B, (n,))), shape)
    return y if out is None else out.copy_result(y)


# ------------------------------------------------------- torch's older spellings of the same


def svd(input: Any, some: bool = True, compute_uv: bool = True, *, out: Any = None) -> Any:
    """(U, S, V): input = U diag(S) V^H; all of U and V without `some`, zeros without compute_uv."""
    m, n = shape_of(input)[-2:] if len(shape_of(input)) > 1 else (0, 0)
    if len(shape_of(input)) < 2:
        raise RuntimeError("linalg.svd: input should have at least 2 dimensions")
    if not compute_uv:
        s = _svd(input, False).S
        batch = shape_of(input)[:-2]
        make = lambda k: zeros((*batch, k, k), dtype=dtype_of(input))
        y = SVD1(make(m), s, make(n))
    else:
        u, s, vh = _svd(input, not some)
        y = SVD1(u, s, _h(vh))
    return y if out is None else _into(out, y)


def qr(input: Any, some: bool = True, *, out: Any = None) -> Any:
    """(Q, R): linalg.qr, complete without `some`."""
    y = QR1(*_qr(input, "reduced" if some else "complete"))
    return y if out is None else _into(out, y)


def pinverse(input: Any, rcond: float = 1e-15) -> Any:
    """linalg.pinv."""
    return pinv(input, rtol=rcond)


def triangular_solve(
    input: Any, A: Any, upper: bool = True, transpose: bool = False, unitriangular: bool = False,
    *, out: Any = None,
) -> Any:  # fmt: skip
    """(X, a copy of A): A X = input, A^T with `transpose`."""
    if len(shape_of(A)) < 2 or len(shape_of(input)) < 2:
        raise RuntimeError("torch.triangular_solve: Expected b and A to have at least 2 dimensions")
    a, up = (_t(A), not upper) if transpose else (A, upper)
    x = solve_triangular(a, input, upper=up, unitriangular=unitriangular)
    y = TriangularSolve(x, A.clone())
    return y if out is None else _into(out, y)


def torch_lu(A: Any, pivot: bool = True, get_infos: Any = False, out: Any = None) -> Any:
    """(LU, pivots), and info with get_infos: linalg.lu_factor's older spelling."""
    factors, pivots, info = lu_factor_ex(A, pivot=pivot)
    y = (factors, pivots, info) if get_infos else (factors, pivots)
    return y if out is None else tuple(o.copy_result(t) for o, t in zip(out, y, strict=True))


def torch_lu_solve(b: Any, LU_data: Any, LU_pivots: Any, *, out: Any = None) -> Any:
    """X with A X = b, from A's LU factors."""
    return lu_solve(LU_data, LU_pivots, b, out=out)


def _basis(a: Any, q: int, niter: int) -> Any:
    """Q with q orthonormal columns, such that Q Q^T A is near A."""
    start = randn(shape_of(a)[-1], q, dtype=dtype_of(a))
    basis = _qr(matmul(a, start))[0]
    for _ in range(niter):
        basis = _qr(matmul(transpose(a, -2, -1), basis))[0]
        basis = _qr(matmul(a, basis))[0]
    return basis


def _matrix(op: str, a: Any) -> tuple[int, ...]:
    if len(shape_of(a)) < 2:
        raise ValueError(f"{op}: expected a matrix or a batch of them, got {list(shape_of(a))}")
    return shape_of(a)[-2:]


def svd_lowrank(A: Any, q: int = 6, niter: int = 2, M: Any = None) -> tuple:
    """(U, S, V) with A - M near U diag(S) V^T, of rank q, by random projection.

    Source: Halko, Martinsson, Tropp, arXiv:0909.4061, algorithms 4.4 and 5.1.
    """
    m, n = _matrix("svd_lowrank", A)
    a = A if M is None else A - M
    wide = m < n
    a = transpose(a, -2, -1) if wide else a
    basis = _basis(a, q, niter)
    u, s, vh = _svd(matmul(transpose(basis, -2, -1), a), full_matrices=False)
    u, v = matmul(basis, u), transpose(vh, -2, -1)
    return (v, s, u) if wide else (u, s, v)


def pca_lowrank(A: Any, q: int | None = None, center: Any = True, niter: int = 2) -> tuple:
    """svd_lowrank of A, each column less its mean."""
    m, n = _matrix("pca_lowrank", A)
    q = min(6, m, n) if q is None else q
    if not 0 <= q <= min(m, n):
        most = min(m, n)
        raise ValueError(
            f"q(={q}) must be non-negative integer and not greater than min(m, n)={most}"
        )
    return svd_lowrank(A - A.mean(dim=-2, keepdim=True) if center else A, q, niter)
