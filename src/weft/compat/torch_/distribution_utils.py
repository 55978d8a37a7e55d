"""torch.distributions.utils: what classes of distributions outside torch are written with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import weft
from weft import Tensor
from weft.distributions.discrete import clamp_probs, logits_to_probs, probs_to_logits
from weft.distributions.distribution import broadcast_all, sum_rightmost

__all__ = [
    "broadcast_all", "clamp_probs", "lazy_property", "logits_to_probs", "probs_to_logits",
    "tril_matrix_to_vec", "vec_to_tril_matrix",
]  # fmt: skip

_sum_rightmost = sum_rightmost


def _standard_normal(shape: Any, dtype: Any, device: Any) -> Tensor:
    """Draws of a normal distribution with mean 0 and standard deviation 1."""
    return weft.normal(
        weft.zeros(shape, dtype=dtype, device=device), weft.ones(shape, dtype=dtype, device=device)
    )


class lazy_property:
    """A method whose value is computed when it is first asked, with gradients, and kept.

    Asked of the class it is the method as a property, so that documentation and `expand` see it.
    """

    def __init__(self, wrapped: Callable) -> None:
        self.wrapped = wrapped
        self.__doc__ = wrapped.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return property(self.wrapped)
        with weft.enable_grad():
            value = self.wrapped(instance)
        setattr(instance, self.wrapped.__name__, value)
        return value


def tril_matrix_to_vec(mat: Tensor, diag: int = 0) -> Tensor:
    """The entries on and below the `diag`-th diagonal, row by row."""
    n = mat.shape[-1]
    if not -n <= diag < n:
        raise ValueError(f"diag ({diag}) provided is outside [{-n}, {n - 1}].")
    row, col = weft.tril_indices(n, n, diag)
    return mat[..., row, col]


def vec_to_tril_matrix(vec: Tensor, diag: int = 0) -> Tensor:
    """The matrix whose `tril_matrix_to_vec` is `vec`, zeros above the diagonal."""
    entries = vec.shape[-1]
    n = (
        -(1 + 2 * diag) + ((1 + 2 * diag) ** 2 + 8 * entries + 4 * abs(diag) * (diag + 1)) ** 0.5
    ) / 2
    if not round(n, 5).is_integer():
        raise ValueError(
            f"The size of last dimension is {entries} which cannot be expressed as the lower "
            "triangular part of a square D x D matrix."
        )
    side = round(n)
    made = vec.new_zeros((*vec.shape[:-1], side, side))
    row, col = weft.tril_indices(side, side, diag)
    made[..., row, col] = vec
    return made
