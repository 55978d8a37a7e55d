"""What LAPACK says of a matrix it cannot factor: LinAlgError, or the info of the *_ex functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from weft.core import dtype as dt
from weft.core.op import Op, sample
from weft.core.types import Type
from weft.ops.kinds import by_batch

__all__ = ["LinAlgError"]


class LinAlgError(RuntimeError):
    """A factorisation that the matrix does not have."""


def each(
    fn: Callable, arrays: tuple[np.ndarray, ...], out: tuple, *, lenient: bool, said: Callable
) -> np.ndarray:
    """fn of every matrix of a batch, results of shape `out`.

    Where LAPACK gives up: NaN when `lenient`, else LinAlgError in the words of `said(*matrices)`.
    """
    try:
        return np.ascontiguousarray(fn(*arrays))
    except np.linalg.LinAlgError:
        lead = arrays[0].shape[:-2]
        y = np.full((*lead, *out), np.nan, arrays[-1].dtype)
        for place, i in enumerate(np.ndindex(*lead)):
            try:
                y[i] = fn(*(a[i] for a in arrays))
            except np.linalg.LinAlgError:
                if not lenient:
                    op, why = said(*(a[i] for a in arrays))
                    where = f"(Batch element {place}): " if lead else ""
                    raise LinAlgError(f"{op}: {where}{why}") from None
        return y


def no_inverse(x: np.ndarray) -> tuple[str, str]:
    return "linalg.inv", (
        f"The diagonal element {zero_pivot(x) or len(x)} is zero, the inversion could not be "
        "completed because the input matrix is singular."
    )


def no_solution(a: np.ndarray, b: np.ndarray) -> tuple[str, str]:
    return "torch.linalg.solve", "The solver failed because the input matrix is singular."


def no_factor(x: np.ndarray) -> tuple[str, str]:
    return "linalg.cholesky", (
        "The factorization could not be completed because the input is not positive-definite (the "
        f"leading minor of order {bad_minor(x)} is not positive-definite)."
    )


def zero_pivot(x: np.ndarray) -> int:
    """The first row, from 1, whose pivot is 0 in the LU factorisation of a square x; else 0."""
    u = x.astype(np.result_type(x, np.float64))
    for k in range(len(u)):
        row = k + int(np.argmax(np.abs(u[k:, k])))
        if u[row, k] == 0:
            return k + 1
        u[[k, row]] = u[[row, k]]
        u[k + 1 :] -= np.outer(u[k + 1 :, k] / u[k, k], u[k])
    return 0


def bad_minor(x: np.ndarray) -> int:
    """The order of the first leading minor of x that is not positive-definite; else 0."""
    for k in range(1, len(x) + 1):
        try:
            np.linalg.cholesky(x[:k, :k])
        except np.linalg.LinAlgError:
            return k
    return 0


class Info(Op):
    """y = what LAPACK reports of each matrix: 0 where all is well, else the first pivot that is 0
    or (symmetric) the order of the first leading minor that is not positive-definite"""

    symmetric: bool = False
    nondiff = "an integer"

    def type(self, x: Type) -> Type:
        return Type(x.shape[:-2], dt.int32)

    def host(self, x: np.ndarray) -> np.ndarray:
        y = np.zeros(x.shape[:-2], np.int32)
        fails = np.linalg.cholesky if self.symmetric else np.linalg.inv
        find = bad_minor if self.symmetric else zero_pivot
        try:
            fails(x)
        except np.linalg.LinAlgError:
            for i in np.ndindex(*y.shape):
                try:
                    fails(x[i])
                except np.linalg.LinAlgError:
                    y[i] = find(x[i]) or x.shape[-1]
        return y

    def oracle(self, x: np.ndarray) -> np.ndarray:
        y = np.zeros(x.shape[:-2], np.int32)
        for i in np.ndindex(*y.shape):
            minors = [np.linalg.eigvalsh(x[i][:k, :k])[0] for k in range(1, x.shape[-1] + 1)]
            bad = [k + 1 for k, least in enumerate(minors) if not least > 0]
            y[i] = bad[0] if self.symmetric and bad else 0
        return y

    vmap = by_batch

    samples = (sample((3, 3)), sample((2, 1, 1), symmetric=True), sample((0, 0)))
