"""Run a planned kernel on NumPy arrays: what the tests of the generators share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from weft.core import dtype as D
from weft.core.scalar import TABLE, Expr
from weft.kernels import eager
from weft.kernels.layout import Layout
from weft.runtime import native, threads

of = Layout.of


def launched(launch: native.Launch, out: np.ndarray, *ins: np.ndarray) -> np.ndarray:
    """`out` after a launch that must succeed."""
    status = native.launch(launch, out, ins)
    assert status == 0, f"status {status}, detail {native.detail()}"
    return out


def elementwise(expr: Expr, *xs: np.ndarray, scalars: tuple = ()) -> np.ndarray:
    out = np.empty(np.broadcast_shapes(*(x.shape for x in xs)), expr.dtype.np)
    return launched(eager.plan_elementwise(expr, [of(x) for x in xs], of(out), scalars), out, *xs)


def values(
    rng: np.random.Generator, d: D.dtype, size: int, name: str = "", k: int = 0
) -> np.ndarray:
    """Operand k of row `name`: random, with every special value of the dtype in front."""
    if d.category == D.FLOAT:
        x = rng.standard_normal(size) * 3
        special = [0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 2, 0.5, -0.5, 1e-4, 0.99, -0.99, 3, -2]
        x[: len(special)] = special[k:] + special[:k]
        return x.astype(d.np)
    if d is D.bool:
        return rng.integers(0, 2, size).astype(bool)
    x = rng.integers(*((-100, 100) if d.is_signed else (0, 200)), size)
    if k == 1 and name in ("shl", "shr"):
        x = abs(x) % 80
    if k == 1 and name == "pow":
        x = abs(x) % 9
    if k == 1 and name in ("rem", "fmod", "div", "floordiv"):
        x[x == 0] = 3
    return x.astype(d.np)


def rows() -> list[tuple[str, D.dtype]]:
    """Every (row, dtype) of the scalar table."""
    return [(n, d) for d in D.ALL for n, r in TABLE.items() if "bif"[d.category] in r.kinds]


def close(got: np.ndarray, want: np.ndarray, ulps: float) -> np.ndarray:
    """Where got equals want: same NaNs, exact for ints, within `ulps` for floats."""
    a, b = got.astype(np.float64), want.astype(np.float64)
    eps = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
    with np.errstate(all="ignore"):
        near = abs(a - b) <= abs(b) * ulps * eps.get(want.dtype.name, 0)
    return (a == b) | (np.isnan(a) & np.isnan(b)) | near


@contextmanager
def thread_count(n: int) -> Iterator[None]:
    before = threads.get_num_threads()
    threads.set_num_threads(n)
    try:
        yield
    finally:
        threads.set_num_threads(before)
