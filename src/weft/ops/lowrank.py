"""Low-rank factors by random projection, as torch.svd_lowrank and torch.pca_lowrank.

Source: Halko, Martinsson, Tropp, Finding structure with randomness, arXiv:0909.4061, algorithms 4.4
and 5.1.
"""

from __future__ import annotations

from typing import Any

from weft.ops.contract import matmul
from weft.ops.dispatch import dtype_of, shape_of
from weft.ops.linalg import qr, svd
from weft.ops.random import randn
from weft.ops.view import transpose


def _basis(a: Any, q: int, niter: int) -> Any:
    """Q with q orthonormal columns, such that Q Q^T A is near A."""
    start = randn(shape_of(a)[-1], q, dtype=dtype_of(a))
    basis = qr(matmul(a, start))[0]
    for _ in range(niter):
        basis = qr(matmul(transpose(a, -2, -1), basis))[0]
        basis = qr(matmul(a, basis))[0]
    return basis


def svd_lowrank(A: Any, q: int = 6, niter: int = 2, M: Any = None) -> tuple:
    """(U, S, V) with A - M near U diag(S) V^T, of rank q."""
    m, n = shape_of(A)[-2:]
    a = A if M is None else A - M
    wide = m < n
    a = transpose(a, -2, -1) if wide else a
    basis = _basis(a, q, niter)
    u, s, vh = svd(matmul(transpose(basis, -2, -1), a), full_matrices=False)
    u, v = matmul(basis, u), transpose(vh, -2, -1)
    return (v, s, u) if wide else (u, s, v)


def pca_lowrank(A: Any, q: int | None = None, center: bool = True, niter: int = 2) -> tuple:
    """svd_lowrank of A, each column less its mean."""
    m, n = shape_of(A)[-2:]
    q = min(6, m, n) if q is None else q
    if not 0 <= q <= min(m, n):
        most = min(m, n)
        raise ValueError(
            f"q(={q}) must be non-negative integer and not greater than min(m, n)={most}"
        )
    return svd_lowrank(A - A.mean(dim=-2, keepdim=True) if center else A, q, niter)
