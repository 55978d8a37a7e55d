"""The one table of tolerances: how far an op's value may be from its oracle in float64.

(relative, absolute); the absolute one covers sums that cancel, at values of order 1.
"""

import numpy as np

from weft.core import dtype as dt

VALUE = {
    dt.float64: (1e-11, 1e-12),
    dt.float32: (4e-6, 2e-6),
    dt.float16: (4e-3, 4e-3),
    dt.bfloat16: (3e-2, 3e-2),
}
# Finite differences in float64 with a central step of 1e-6 have errors near 1e-10.
DIFFERENCE = (3e-6, 3e-8)


def close(got: np.ndarray, want: np.ndarray, d: dt.dtype) -> str | None:
    """None when `got` is `want` within dtype d's tolerance (exact for integers and bools)."""
    if got.shape != want.shape:
        return f"shape {got.shape}, wanted {want.shape}"
    if d.category < dt.FLOAT:
        if np.array_equal(got, want):
            return None
        return f"{int(np.sum(got != want))} of {got.size} elements differ: {worst(got, want)}"
    rtol, atol = VALUE[d.to_real()]
    kind = np.result_type(np.float64, got, want)
    got, want = got.astype(kind), want.astype(kind)
    if np.allclose(got, want, rtol, atol, equal_nan=True):
        return None
    return f"beyond rtol {rtol} atol {atol}: {worst(got, want)}"


def worst(got: np.ndarray, want: np.ndarray) -> str:
    """The place where two arrays differ most."""
    kind = np.result_type(np.float64, got, want)
    g, w = np.asarray(got, kind), np.asarray(want, kind)
    with np.errstate(all="ignore"):
        gap = np.nan_to_num(np.abs(g - w), nan=np.inf)
    gap[(g == w) | (np.isnan(g) & np.isnan(w))] = 0
    at = np.unravel_index(int(np.argmax(gap)), g.shape) if g.ndim else ()
    return f"at {tuple(map(int, at))} got {g[at]!r}, wanted {w[at]!r}"
