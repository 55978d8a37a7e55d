"""Gather and scatter against NumPy: layouts, order, threads, indices out of range."""

import numpy as np
import pytest

from tests.kernels.run import launched, of, thread_count
from weft.kernels.eager import plan_gather, plan_index, plan_index_put, plan_scatter
from weft.runtime import native

DTYPES = ["float32", "float64", "int64", "bool", "int16"]
AT = {"add": np.add, "max": np.maximum, "min": np.minimum, "mul": np.multiply}


def views(dtype: str) -> list[np.ndarray]:
    x = (np.random.default_rng(0).standard_normal((5, 6, 20)) * 5).astype(dtype)
    return [x, x[:, ::-1], x.transpose(2, 0, 1), x[..., ::3]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_index_select_and_gather(dtype: str) -> None:
    rng = np.random.default_rng(1)
    for x in views(dtype):
        for dim in range(3):
            n = x.shape[dim]
            index = rng.integers(-n, n, 7)
            want = np.take(x, index, dim)
            out = np.empty(want.shape, dtype)
            launched(plan_index(of(x), (dim,), dim, (of(index),), of(out)), out, x, index)
            assert (out == want).all()
            index = rng.integers(-n, n, [4 if d == dim else s for d, s in enumerate(x.shape)])
            out = np.empty(index.shape, dtype)
            launched(plan_gather(of(x), dim, of(index), of(out)), out, x, index)
            assert (out == np.take_along_axis(x, index, dim)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_scatter(dtype: str) -> None:
    rng = np.random.default_rng(2)
    for x in views(dtype):
        for dim in range(3):
            shape = tuple(4 if d == dim else s - (d == 0) for d, s in enumerate(x.shape))
            index = rng.integers(-x.shape[dim], x.shape[dim], shape)
            src = (rng.standard_normal((shape[0], shape[1] + 2, shape[2])) * 3).astype(dtype)
            cells = list(np.ogrid[tuple(slice(s) for s in shape)])
            cells[dim] = index
            part = src[:, : shape[1]]
            for mode in ("set", "add", "max", "min", "mul"):
                want = x.copy()
                if mode == "set":  # the last write stays
                    for p in np.ndindex(*shape):
                        want[(*p[:dim], index[p], *p[dim + 1 :])] = part[p]
                else:
                    AT[mode].at(want, tuple(cells), part)
                out = np.empty(x.shape, dtype)
                launch = plan_scatter(mode, dim, of(x), of(index), of(src), of(out))
                launched(launch, out, x, src, index)
                assert (out == want).all(), (mode, dim)


def test_index_put() -> None:
    rng = np.random.default_rng(3)
    for x in views("float32"):
        for dim in range(3):
            index = rng.integers(0, x.shape[dim], 9)
            src = rng.standard_normal([9 if d == dim else s for d, s in enumerate(x.shape)])
            src = src.astype(np.float32)
            for old in (x, None):
                want = np.zeros(x.shape, np.float32) if old is None else x.copy()
                np.add.at(want, (slice(None),) * dim + (index,), src)
                out = np.empty(x.shape, np.float32)
                launch = plan_index_put(
                    "add", (dim,), dim, old if old is None else of(x), (of(index),), of(src),
                    of(out),
                )  # fmt: skip
                launched(launch, out, *(() if old is None else (x,)), src, index)
                assert (out == want).all()


def test_several_index_tensors_broadcast() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((6, 7, 8, 3)).astype(np.float32)
    i, j = rng.integers(0, 6, (4, 1)), rng.integers(-8, 8, 5).astype(np.int32)
    out = np.empty((4, 5, 7, 3), np.float32)
    launched(plan_index(of(x), (0, 2), 0, (of(i), of(j)), of(out)), out, x, i, j)
    assert (out == x[i, :, j]).all()
    src = rng.standard_normal((4, 5, 1, 3)).astype(np.float32)
    put = np.empty_like(x)
    launch = plan_index_put("add", (0, 2), 0, of(x), (of(i), of(j)), of(src), of(put))
    launched(launch, put, x, src, i, j)
    want = x.copy()
    np.add.at(want, (i, slice(None), j), src)
    assert (put == want).all()


def test_order_of_sums_whatever_the_threads() -> None:
    """Rows that meet in one place are added in their order: float32 bits of a plain loop."""
    rng = np.random.default_rng(5)
    src = rng.standard_normal((3000, 129)).astype(np.float32)
    index = rng.integers(0, 20, 3000)
    want = np.zeros((50, 129), np.float32)
    for t, i in enumerate(index):
        want[i] += src[t]
    for n in (1, 2, 3):
        with thread_count(n):
            out = np.empty_like(want)
            launch = plan_index_put("add", (0,), 0, None, (of(index),), of(src), of(out))
            launched(launch, out, src, index)
            assert out.tobytes() == want.tobytes()


@pytest.mark.parametrize("bad", [20, -21, 2**62])
def test_out_of_range_is_a_status(bad: int) -> None:
    room = np.full((3, 20, 4), 7, np.float32)
    x = room[1]
    index = np.array([0, 3, bad, 1])
    out = np.zeros((4, 4), np.float32)
    launch = plan_index(of(x), (0,), 0, (of(index),), of(out))
    assert native.launch(launch, out, (x, index)) != 0
    assert native.detail() == bad
    src = np.ones((4, 4), np.float32)
    launch = plan_index_put("add", (0,), 0, of(x), (of(index),), of(src), of(x))
    assert native.launch(launch, x, (x, src, index)) != 0
    assert native.detail() == bad
    assert (room[[0, 2]] == 7).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("kind", ["int64", "int32"])
def test_eight_indices_at_a_time(dtype: str, kind: str) -> None:
    rng = np.random.default_rng(2)
    for count in (1, 7, 8, 9, 16, 37):
        for x in (np.arange(60).reshape(3, 20).astype(dtype), np.ones((3, 60), dtype)[:, ::3]):
            index = rng.integers(-20, 20, count).astype(kind)
            out = np.empty((3, count), dtype)
            launched(plan_index(of(x), (1,), 1, (of(index),), of(out)), out, x, index)
            assert (out == x[:, index]).all()
            rows = rng.integers(-20, 20, (3, count)).astype(kind)
            launched(plan_gather(of(x), 1, of(rows), of(out)), out, x, rows)
            assert (out == np.take_along_axis(x, rows.astype(np.int64), 1)).all()
            for at in {0, count // 2, count - 1}:  # the others are read, that one is not written
                bad = index.copy()
                bad[at] = 20
                out[:] = 99
                launch = plan_index(of(x), (1,), 1, (of(bad),), of(out))
                assert native.launch(launch, out, (x, bad)) != 0
                assert native.detail() == 20
                assert (out[:, at] == 99).all()


def test_nothing_to_do() -> None:
    x, index = np.empty((0, 3), np.float32), np.empty(0, np.int64)
    out = np.empty((0, 3), np.float32)
    launched(plan_index(of(x), (0,), 0, (of(index),), of(out)), out, x, index)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    out = np.empty_like(x)
    src = np.empty((0, 3), np.float32)
    launched(
        plan_index_put("add", (0,), 0, of(x), (of(index),), of(src), of(out)), out, x, src, index
    )
    assert (out == x).all()
    one = np.zeros(1, np.int64)
    empty = np.empty((0, 3), np.float32)
    out = np.empty((1, 3), np.float32)
    launch = plan_index(of(empty), (0,), 0, (of(one),), of(out))
    assert native.launch(launch, out, (empty, one)) != 0


def test_arguments_are_checked() -> None:
    x, index = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int64)
    with pytest.raises(ValueError, match="mode must be one of"):
        plan_scatter("sum", 0, of(x), of(index), of(x), of(x))
    with pytest.raises(TypeError, match="source is float64"):
        plan_scatter("add", 0, of(x), of(index), of(x.astype(np.float64)), of(x))
