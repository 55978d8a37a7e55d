"""Names about complex numbers, for the real tensors that Weft has."""

from __future__ import annotations

import math
from typing import Any

from weft.core import dtype as dt
from weft.ops.cast import cast
from weft.ops.compare import where
from weft.ops.creation import zeros_like
from weft.ops.dispatch import dtype_of, shape_of
from weft.ops.view import transpose


def real(input: Any) -> Any:
    """A real tensor is its own real part."""
    return input


def imag(input: Any) -> Any:
    """RuntimeError: a real tensor has no imaginary part to view."""
    raise RuntimeError("imag is not implemented for tensors with non-complex dtypes.")


def conj(input: Any) -> Any:
    """A real tensor is its own conjugate."""
    return input


resolve_conj = resolve_neg = conj_physical = conj


def angle(input: Any) -> Any:
    """0 for numbers >= 0, pi for those below, NaN for NaN."""
    d = dtype_of(input)
    x = input if d.category == dt.FLOAT else cast(input, dt.get_default_dtype())
    flat = zeros_like(x)
    return where(x != x, x, where(x < 0, flat + math.pi, flat))


def is_conj(input: Any) -> bool:
    """Whether the conjugation is still to be done: never."""
    return False


def hermitian(input: Any) -> Any:
    """The transpose of a matrix (of a real one, its conjugate transpose too)."""
    n = len(shape_of(input))
    if n not in (0, 2):
        raise RuntimeError(
            f"tensor.H is only supported on matrices (2-D tensors). Got {n}-D tensor."
        )
    return transpose(input, 0, 1) if n else input
