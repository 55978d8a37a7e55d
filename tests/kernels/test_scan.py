"""Cumulative reductions against NumPy's accumulate, which goes in the same order."""

import numpy as np
import pytest

from tests.kernels.run import launched, of, thread_count
from weft.core import dtype as D
from weft.kernels.eager import plan_cumulative
from weft.kernels.schedule.combine import accumulator

UFUNC = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


@pytest.mark.parametrize("d", [D.float32, D.float64, D.bfloat16, D.int32, D.uint8, D.bool], ids=str)
@pytest.mark.parametrize("kind", UFUNC)
def test_every_dim_and_layout(kind: str, d: D.dtype) -> None:
    rng = np.random.default_rng(0)
    acc = accumulator(kind, d).np
    for shape in ((7,), (5, 33), (3, 4, 21), (1, 1)):
        base = rng.standard_normal(shape) * 3
        base = (base if d.is_signed else abs(base)).astype(d.np)
        for x in (base, base.T, base[..., ::-1]):
            for dim in range(x.ndim):
                dtype = acc if kind in ("sum", "prod") and d.category != D.FLOAT else d.np
                out = np.empty(x.shape, dtype)
                launched(plan_cumulative(kind, dim, of(x), of(out)), out, x)
                want = UFUNC[kind].accumulate(x.astype(acc), axis=dim)
                assert (out == want.astype(dtype)).all()


def test_indices_are_the_latest_of_equals_and_nan_stays() -> None:
    x = np.float32([1, 3, 2, 3, np.nan, 5, np.nan])
    for a, dim in ((x, 0), (np.stack([x] * 20, 1), 0), (np.stack([x] * 3), 1)):
        out, index = np.empty_like(a), np.empty(a.shape, np.int64)
        launched(plan_cumulative("max", dim, of(a), of(out), of(index)), out, index, a)
        line = index if a.ndim == 1 else index[:, 7] if dim == 0 else index[1]
        assert line.tolist() == [0, 1, 1, 3, 4, 4, 6]
        np.testing.assert_array_equal(out, np.maximum.accumulate(a, dim))


def test_threads_scalars_and_nothing() -> None:
    x = np.random.default_rng(1).standard_normal((300, 411)).astype(np.float32)
    for dim in (0, 1):
        got = set()
        for n in (1, 2):
            with thread_count(n):
                out = np.empty_like(x)
                got.add(launched(plan_cumulative("sum", dim, of(x), of(out)), out, x).tobytes())
        assert len(got) == 1
    one = np.asarray(np.float32(3))
    assert launched(plan_cumulative("sum", 0, of(one), of(one)), one, one).item() == 3
    none = np.empty((0, 4), np.float32)
    launched(plan_cumulative("sum", 0, of(none), of(none)), none, none)
    with pytest.raises(ValueError, match="kind must be one of"):
        plan_cumulative("mean", 0, of(x), of(x))
