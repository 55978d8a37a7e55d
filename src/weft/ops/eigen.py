"""Eigenvalues and eigenvectors, under the names of torch.linalg; LAPACK through NumPy.

As in linalg.py an op has one result: the eigenvalues lie above the eigenvectors in one array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.op import sample
from weft.core.types import Type
from weft.ops.complex_parts import conj, real
from weft.ops.creation import eye
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.linalg import Solve, _h, _Matrix, _need, _need_finite, _t
from weft.ops.returns import Eig, Eigh
from weft.ops.shape import diag_embed
from weft.ops.shape import diagonal as _diagonal
from weft.ops.view import narrow, select, unsqueeze

__all__ = ["eig", "eigh", "eigvals", "eigvalsh"]


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
        values, vectors = np.linalg.eig(x)
        y = np.concatenate([values[..., None, :], vectors], -2)
        return y.astype(dt.from_np(x.dtype).to_complex().np)

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
