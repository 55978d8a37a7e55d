"""Eigenvalues and eigenvectors, and what is read off singular values: pseudo-inverse, least
squares, rank.  Under the names of torch.linalg; LAPACK through NumPy.

As in linalg.py an op has one result: the eigenvalues lie above the eigenvectors in one array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.op import Op, sample
from weft.core.types import Type
from weft.ops.complex_parts import conj, real
from weft.ops.creation import eye, full, zeros
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.kinds import by_batch
from weft.ops.linalg import Solve, _h, _Matrix, _need, _need_finite, _t, svdvals
from weft.ops.returns import Eig, Eigh, LstSq
from weft.ops.shape import diag_embed
from weft.ops.shape import diagonal as _diagonal
from weft.ops.view import expand, narrow, reshape, select, squeeze, unsqueeze

__all__ = ["eig", "eigh", "eigvals", "eigvalsh", "lstsq", "matrix_rank", "pinv"]


class EighParts(_Matrix):
    """The ascending eigenvalues (one row) above the eigenvectors (columns) of a Hermitian x"""

    conjugates = True
    lower: bool = True

    def type(self, x: Type) -> Type:
        n = x.shape[-1]
        return Type((*x.shape[:-2], n + 1, n), x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        _need_finite(x, "linalg.eigh")
        values, vectors = np.linalg.eigh(x, "L" if self.lower else "U")
        return np.concatenate([values[..., None, :], vectors], -2)

    oracle = host

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        # dx = V (diag gL + skew(V^H gV) / (l_j - l_i)) V^H
        n = x.shape[-1]
        values, v = narrow(y, -2, 0, 1), narrow(y, -2, 1, n)
        gl, gv = select(g, -2, 0), narrow(g, -2, 1, n)
        gaps = values - _t(values) + eye(n, dtype=x.dtype)
        turn = _h(v) @ gv  # orthogonal vectors can only turn: the skew part counts
        inner = (turn - _h(turn)) * 0.5 / gaps
        inner = inner - diag_embed(_diagonal(inner, 0, -2, -1)) + diag_embed(gl)
        return (v @ inner @ _h(v),)

    samples = (sample((1, 1)),)


class EigParts(_Matrix):
    """The eigenvalues (one row) above the eigenvectors (columns, of length 1) of x: complex"""

    conjugates = True

    def type(self, x: Type) -> Type:
        n = x.shape[-1]
        return Type((*x.shape[:-2], n + 1, n), x.dtype.to_complex())

    def host(self, x: np.ndarray) -> np.ndarray:
        _need_finite(x, "linalg.eig")
        return self.oracle(x).astype(dt.from_np(x.dtype).to_complex().np)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eig(x)
        return np.concatenate([values[..., None, :], vectors], -2).astype(np.complex128)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        # V^-H (diag gL + (V^H gV - V^H V diag Re(V^H gV)) / conj(l_j - l_i)) V^H
        n = x.shape[-1]
        values, v = narrow(y, -2, 0, 1), narrow(y, -2, 1, n)
        gl, gv = select(g, -2, 0), narrow(g, -2, 1, n)
        inner = _h(v) @ gv
        inner = inner - (_h(v) @ v) * unsqueeze(real(_diagonal(inner, 0, -2, -1)), -2)
        inner = inner / conj(values - _t(values) + eye(n, dtype=dtype_of(y)))
        inner = inner - diag_embed(_diagonal(inner, 0, -2, -1)) + diag_embed(gl)
        return (apply(Solve(), _h(v), inner @ _h(v)),)

    samples = (sample((1, 1)), sample((1, 1), of="complex64"))


# ------------------------------------------------------------------------------- functions


def eigh(A: Any, UPLO: str = "L") -> Any:
    """(eigenvalues, eigenvectors) of symmetric A, ascending; only one triangle is looked at."""
    _need("eigh", A, square=True)
    y = apply(EighParts(UPLO.upper() == "L"), A)
    return Eigh(real(select(y, -2, 0)), narrow(y, -2, 1, shape_of(A)[-1]))


def eig(A: Any, *, out: Any = None) -> Any:
    """(eigenvalues, eigenvectors) of any square A, complex, in no order; A V = V diag(L).

    The gradient of eigenvectors is that of what does not depend on their phases.
    """
    _need("eig", A, square=True)
    y = apply(EigParts(), A)
    y = Eig(select(y, -2, 0), narrow(y, -2, 1, shape_of(A)[-1]))
    return y if out is None else Eig(*(o.copy_result(t) for o, t in zip(out, y, strict=True)))


def eigvals(A: Any, *, out: Any = None) -> Any:
    """The eigenvalues of any square A, complex, in no order."""
    y = eig(A).eigenvalues
    return y if out is None else out.copy_result(y)


def eigvalsh(A: Any, UPLO: str = "L", *, out: Any = None) -> Any:
    """The eigenvalues of symmetric A, ascending."""
    y = eigh(A, UPLO).eigenvalues
    return y if out is None else out.copy_result(y)


class Pinv(Op):
    """y = x^+, the singular values of x up to `least` (one a matrix) taken for 0"""

    hermitian: bool = False
    conjugates = True

    def type(self, x: Type, least: Type) -> Type:
        return Type((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)

    def host(self, x: np.ndarray, least: np.ndarray) -> np.ndarray:
        if self.hermitian:
            s, v = np.linalg.eigh(x)
            u, vh, size = v, np.conj(np.swapaxes(v, -1, -2)), np.abs(s)
        else:
            u, s, vh = np.linalg.svd(x, full_matrices=False)
            size = s
        kept = size > least.reshape(x.shape[:-2])[..., None]  # 0-dim may come as (1,)
        inverse = np.where(kept, 1 / np.where(kept, s, 1), 0).astype(x.dtype)
        v, uh = (np.conj(np.swapaxes(z, -1, -2)) for z in (vh, u))
        y = v @ (inverse[..., :, None] * uh)
        return np.ascontiguousarray(y)

    def oracle(self, x: np.ndarray, least: np.ndarray) -> np.ndarray:
        out = np.zeros(self.type(Type(x.shape, dt.float64), Type((), dt.float64)).shape, x.dtype)
        for i in np.ndindex(*x.shape[:-2]):
            m = x[i]
            if self.hermitian:
                m = np.tril(m) + np.tril(m, -1).T
            top = np.linalg.norm(m, 2) if m.size else 1.0
            out[i] = np.linalg.pinv(m, rcond=float(least.reshape(x.shape[:-2])[i]) / (top or 1.0))
        return out

    def vjp(self, g: Any, y: Any, x: Any, least: Any) -> tuple:
        # Golub and Pereyra, 1973: the derivative where the rank does not change
        m, n = x.shape[-2:]
        h = _h(g)
        if m <= n:
            k = h @ y
            right = k @ _h(y)
            return -_h(y @ k) + right - (x @ y) @ right + (_h(y) @ y) @ (h - k @ x), None
        k = y @ h
        left = _h(y) @ k
        return -_h(k @ y) + (h - x @ k) @ y @ _h(y) + left - (left @ y) @ x, None

    vmap = by_batch

    samples = (
        sample((3, 2), (), high=-0.1),
        sample((2, 2, 3), (2,), high=-0.1),
        sample((3, 2), (), of=("complex64", "float32"), high=-0.1),
    )


def _sizes(A: Any, hermitian: bool) -> Any:
    """The singular values, without a graph, in no order that counts."""
    return eigh(A.detach()).eigenvalues.abs() if hermitian else svdvals(A.detach())


def _least(A: Any, s: Any, atol: Any, rtol: Any) -> Any:
    """The size up to which singular values count as 0: max(atol, rtol * the largest)."""
    m, n = shape_of(A)[-2:]
    kind = dtype_of(s)
    as_tensor = lambda c: (
        full((), float(c), dtype=kind) if isinstance(c, int | float) else c.detach()
    )
    top = s.sum(-1) if 0 in (m, n) else s.amax(-1)
    none = full((), 0.0, dtype=kind)
    absolute = none if atol is None else as_tensor(atol).to(kind)
    if rtol is None:  # an atol > 0 alone switches the usual rtol off
        usual = full((), max(m, n) * float(np.finfo(kind.np).eps), dtype=kind)
        rtol = none.where(absolute > 0, usual)
    return (top * as_tensor(rtol).to(kind)).maximum(absolute)


def pinv(
    A: Any, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None,
    out: Any = None,
) -> Any:  # fmt: skip
    """The pseudo-inverse; singular values <= max(atol, rtol * the largest) count as 0."""
    _need("pinv", A)
    rtol = rcond if rtol is None else rtol
    least = _least(A, _sizes(A, hermitian), atol, rtol)
    y = apply(Pinv(bool(hermitian)), A, expand(least.detach(), shape_of(A)[:-2]))
    return y if out is None else out.copy_result(y)


def matrix_rank(
    A: Any, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None,
    out: Any = None,
) -> Any:  # fmt: skip
    """How many singular values exceed max(atol, rtol * the largest)."""
    _need("matrix_rank", A)
    s = _sizes(A, hermitian)
    atol, rtol = (tol, 0.0) if tol is not None else (atol, rtol)
    y = (s > unsqueeze(_least(A, s, atol, rtol), -1)).sum(-1)
    return y if out is None else out.copy_result(y)


def lstsq(A: Any, B: Any, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """(solution, residuals, rank, singular_values): the X of least norm with least |A X - B|.

    As torch's, the last three are empty where the driver does not compute them.
    """
    if len(shape_of(A)) < 2:
        raise RuntimeError("torch.linalg.lstsq: input must have at least 2 dimensions.")
    if len(shape_of(B)) < 1:
        raise RuntimeError("torch.linalg.lstsq: other must have at least 1 dimension.")
    driver = driver or "gelsy"
    if driver not in ("gels", "gelsy", "gelsd", "gelss"):
        raise RuntimeError(
            "torch.linalg.lstsq: parameter `driver` should be one of (gels, gelsy, gelsd, gelss)"
        )
    m, n = shape_of(A)[-2:]
    vector = len(shape_of(B)) == 1 or (
        len(shape_of(B)) == len(shape_of(A)) - 1 and shape_of(B) == shape_of(A)[:-1]
    )
    b = unsqueeze(B, -1) if vector else B
    x = pinv(A, rtol=rcond) @ b
    kind, batch = dtype_of(A), shape_of(x)[:-2]
    residuals = reshape(x, (-1,))[:0]
    if m > n and driver != "gelsy":
        residuals = (A @ x - b).abs().square().sum(-2)
        residuals = squeeze(residuals, -1) if vector else residuals
    rank, s = zeros((0,), dtype=dt.int64), zeros((0,), dtype=kind)
    if driver != "gels":
        rank = expand(matrix_rank(A.detach(), rtol=rcond), batch)
    if driver in ("gelsd", "gelss"):
        s = svdvals(A.detach())
    return LstSq(squeeze(x, -1) if vector else x, residuals, rank, s)
