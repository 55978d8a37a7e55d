"""Matrix products against NumPy's float64, and the law that a result's bits depend on nothing but
its row and column.
"""

import itertools
import re
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from weft.core import dtype as D
from weft.core import scalar as S
from weft.kernels.eager import plan_elementwise
from weft.kernels.layout import Layout
from weft.kernels.schedule import gemm, gemv
from weft.kernels.schedule.epilogue import Epilogue
from weft.kernels.schedule.gemm import plan_matmul, plan_matmul_packed
from weft.kernels.schedule.tile import tile_for
from weft.runtime import native, threads

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
EDGES = [
    (1, 1, 1), (0, 4, 3), (3, 4, 0), (5, 0, 3), (7, 5, 3), (6, 384, 64), (13, 400, 70),
    (1, 769, 130), (30, 17, 16), (40, 800, 48), (64, 64, 65), (100, 3, 1), (2, 385, 257),
    (20, 400, 100), (3, 70, 169), (12, 100, 130),
]  # fmt: skip


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = np.full((*a.shape[:-1], b.shape[-1]), 77, a.dtype)
    plan = plan_matmul(Layout.of(a), Layout.of(b), Layout.of(out))
    assert native.launch(plan, out, (a, b)) == 0
    return out


def strided(rng, rows: int, columns: int, order: str, dtype) -> np.ndarray:
    if order == "C":
        return rng.standard_normal((rows, columns)).astype(dtype)
    if order == "F":
        return rng.standard_normal((columns, rows)).astype(dtype).T
    return rng.standard_normal((rows, 3 * columns, 2)).astype(dtype)[:, ::-3, 1]


def bound(a: np.ndarray, b: np.ndarray, eps: float) -> np.ndarray:
    """The classic error bound of an inner product: k * eps * |a| @ |b|."""
    return (a.shape[-1] + 2) * eps * (np.abs(a) @ np.abs(b)) + 1e-300


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("m,k,n", EDGES)
def test_any_shape_and_strides(rng, dtype, m, k, n):
    for order_a, order_b in itertools.product("CFS", repeat=2):
        a, b = strided(rng, m, k, order_a, dtype), strided(rng, k, n, order_b, dtype)
        wide_a, wide_b = a.astype(np.longdouble), b.astype(np.longdouble)
        error = np.abs(matmul(a, b) - wide_a @ wide_b)
        assert (error <= bound(wide_a, wide_b, np.finfo(dtype).eps)).all(), (order_a, order_b)


def reference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The definition of the numbers: fma in increasing k inside blocks of 384, blocks added in
    order (float32).

    A float32 product is exact in float64; its sum with a float32 is rounded twice here, which can
    differ from fma in the last bit only when float64's rounding lands on a tie, so inputs are small
    integers over 64.
    """
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for start in range(0, a.shape[1], 384):
        total = np.zeros_like(out)
        for k in range(start, min(start + 384, a.shape[1])):
            exact = np.outer(a[:, k].astype(np.float64), b[k].astype(np.float64))
            total = (total.astype(np.float64) + exact).astype(np.float32)
        out = total if start == 0 else out + total
    return out


def test_a_module_has_the_tiles_of_its_panels_widths_alone():
    tile = tile_for("float")
    for n in range(1, 3 * tile.columns):
        panels = [min(n - at, tile.columns) for at in range(0, n, tile.columns)]
        needed = {min(v for v in tile.widths if v * tile.lanes >= p) for p in panels}
        assert tile.widths_of(n) == tuple(sorted(needed, reverse=True))
    for n in (5, tile.columns, tile.columns + 1):
        widths = tile.widths_of(n)
        text = gemm._gemm_ir(replace(tile, only=widths), "rows", "")
        assert {int(v) for v in re.findall(r"@tile_\d+x(\d+)\(", text)} == set(widths)


def test_so_many_rows_more_or_less_change_no_bit(rng):
    """Tiles are as even as may be, and few rows are asked for otherwise than many."""
    a, b = strided(rng, 400, 401, "C", np.float32), strided(rng, 401, 133, "C", np.float32)
    whole = matmul(a, b)
    np.testing.assert_allclose(whole, a.astype(np.float64) @ b, rtol=1e-4, atol=1e-4)
    for rows in range(1, 40):
        assert (matmul(a[400 - rows :], b) == whole[400 - rows :]).all(), rows


@pytest.mark.skipif(not native.host().has_fma, reason="the definition needs fma")
def test_the_order_of_sums_is_the_defined_one(rng):
    a = (rng.integers(-9999, 9999, (5, 900)) / 64).astype(np.float32)
    b = (rng.integers(-9999, 9999, (900, 37)) / 64).astype(np.float32)
    assert matmul(a, b).tobytes() == reference(a, b).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_do_not_depend_on_neighbours(rng, dtype):
    a, b = strided(rng, 37, 901, "C", dtype), strided(rng, 901, 150, "C", dtype)
    whole = matmul(a, b)
    for rows in (slice(0, 1), slice(5, 6), slice(3, 10), slice(20, 37)):
        assert (matmul(a[rows], b) == whole[rows]).all()
    for columns in (slice(0, 1), slice(149, 150), slice(60, 77), slice(10, 138)):
        assert (matmul(a, b[:, columns]) == whole[:, columns]).all()
        assert (matmul(a[7:8], b[:, columns]) == whole[7:8, columns]).all()
    assert (matmul(np.asfortranarray(a), b) == whole).all()
    assert (matmul(a, np.asfortranarray(b)) == whole).all()
    assert (matmul(a, np.repeat(b, 2, axis=1)[:, ::2]) == whole).all()


@pytest.mark.parametrize(
    "m,k,n",
    [
        (200, 100, 64),
        (300, 500, 130),
        (1, 900, 3000),
        (3, 200, 2000),
        (900, 700, 1),
        (395, 401, 700),
        (128, 784, 512),
        (2051, 40, 130),  # rows shared out, not panels
    ],
)
def test_bits_do_not_depend_on_threads(rng, m, k, n):
    before = threads.get_num_threads()
    a, b = strided(rng, m, k, "C", "float32"), strided(rng, k, n, "F", "float32")
    try:
        results = []
        for count in (1, 2, 3, 7, 16):
            threads.set_num_threads(count)
            results += [matmul(x, b).tobytes() for x in (a, np.asfortranarray(a))]
    finally:
        threads.set_num_threads(before)
    assert len(set(results)) == 1


@pytest.mark.parametrize("columns", [450, 90, 720])  # few: own rows; many: more lines asked for
@pytest.mark.parametrize("rows", [7, 11, 12, 13, 18, 32, 37, 64, 127, 131, 200])
def test_threads_share_packed_panels_in_parts_of_all_rows(rng, rows, columns):
    """Each part of the last units is done once: no row is left out, whatever the threads."""
    a, b = rng.standard_normal((rows, 400)), rng.standard_normal((400, columns))
    a, b, out = a.astype("float32"), b.astype("float32"), np.empty((rows, columns), "float32")
    expected = matmul(a, b)
    p = plan_matmul_packed(Layout.of(a), Layout.of(b), Layout.of(out))
    room = np.empty(p.size + 64, np.uint8)
    packed = room[-room.ctypes.data % 64 :][: p.size]
    assert native.launch(p.pack, packed, (b,)) == 0
    before = threads.get_num_threads()
    try:
        for count in (1, 2, 3, 8):
            threads.set_num_threads(count)
            out[:] = np.nan
            assert native.launch(p.launch, out, (a, packed)) == 0
            assert out.tobytes() == expected.tobytes()
    finally:
        threads.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "m,k,n",
    [
        (48, 1, 256), (53, 770, 260), (100, 0, 300), (384, 1024, 513), (1537, 401, 256),
        (48, 1, 64), (60, 0, 64), (1601, 800, 64), (700, 385, 130),
    ],
)  # fmt: skip
def test_an_a_that_lies_across_gives_the_bits_of_one_that_does_not(rng, dtype, m, k, n):
    """Many rows by a few panels, or one: where copying A pays, in one chunk of rows or several."""
    whole, b = rng.standard_normal((k, m + 5)).astype(dtype), rng.standard_normal((k, n))
    whole[:, :3], whole[:, m + 3 :], b = np.nan, np.nan, b.astype(dtype)
    across = whole[:, 3 : m + 3].T
    expected = matmul(np.ascontiguousarray(across), b)
    assert np.isfinite(expected).all()
    for other in (b, np.asfortranarray(b)):
        assert matmul(across, other).tobytes() == expected.tobytes()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "m,k,n", [(1537, 401, 650), (200, 1601, 513), (463, 384, 200), (48, 1, 1100), (60, 0, 90)]
)
def test_groups_of_tiles_that_meet_several_panels_give_the_same_bits(
    rng, monkeypatch, count, m, k, n
):
    """An A that lies across, sliced a group at a time, whole units and parts of a few panels."""
    whole, b = strided(rng, k, m + 5, "C", "float32"), strided(rng, k, n, "C", "float32")
    whole[:, :3], whole[:, m + 3 :] = np.nan, np.nan
    across, bias = whole[:, 3 : m + 3].T, strided(rng, 1, n, "C", "float32")[0]
    expected = matmul(np.ascontiguousarray(across), b)
    assert np.isfinite(expected).all()
    monkeypatch.setattr(gemm, "_SLICES_FAR", -1)
    before = threads.get_num_threads()
    try:
        threads.set_num_threads(count)
        for other in (b, np.asfortranarray(b)):
            assert matmul(across, other).tobytes() == expected.tobytes()
        (ended,) = _ended(across, b, (S.Scalar("add", (_arg(0), _arg(1))),), (bias,))
    finally:
        threads.set_num_threads(before)
    assert (ended == expected + bias).all()


def test_batches_and_broadcasts(rng):
    for shape_a, shape_b in [
        ((4, 5, 6), (4, 6, 7)), ((2, 3, 5, 6), (1, 3, 6, 7)), ((4, 1, 6), (1, 6, 7)),
        ((3, 1, 2, 5, 6), (1, 4, 1, 6, 2)),
        ((7, 1, 1), (7, 1, 9)), ((0, 2, 3), (0, 3, 4)), ((2, 2, 33, 70), (2, 2, 70, 40)),
    ]:  # fmt: skip
        a = rng.standard_normal(shape_a).astype(np.float32)
        b = rng.standard_normal(shape_b).astype(np.float32)
        batch = np.broadcast_shapes(shape_a[:-2], shape_b[:-2])
        a = np.broadcast_to(a, (*batch, *a.shape[-2:]))
        b = np.broadcast_to(b, (*batch, *b.shape[-2:]))
        result = matmul(a, b)
        for at in np.ndindex(batch):
            assert (result[at] == matmul(a[at], b[at])).all(), (shape_a, shape_b, at)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("across", [False, True])
def test_batches_of_small_matrices_have_the_bits_of_each_alone(rng, dtype, across):
    for (m, k, n), count in zip(
        itertools.product((1, 3, 4, 5, 9, 13), (1, 7, 384), (1, 3, 8, 9, 16, 19, 32)),
        itertools.cycle((2, 5, 70)),
        strict=False,
    ):
        a = rng.standard_normal((count, k, m) if across else (count, m, k)).astype(dtype)
        a = a.swapaxes(-1, -2) if across else a
        b = rng.standard_normal((count, k + 1, n + 2)).astype(dtype)[:, 1:, 1:-1]
        room = np.full((count, m + 2, n + 9), 5.0, dtype)
        out = room[:, 1:-1, 4:-5]
        plan = plan_matmul(Layout.of(a), Layout.of(b), Layout.of(out))
        assert native.launch(plan, out, (a, b)) == 0
        for i in range(count):
            assert (out[i] == matmul(a[i], b[i])).all(), (m, k, n, i)
        out[...] = 5.0
        assert (room == 5.0).all()


def test_batches_of_sums_of_nothing_are_zeros():
    a, b = np.ones((2, 3, 4), np.float32), np.ones((2, 4, 70), np.float32)
    for nothing in (a[..., :0], a[..., :0, :].swapaxes(-1, -2)):
        assert (matmul(nothing, b[:, :0]) == 0).all()


def test_a_row_times_a_matrix_that_no_cache_holds(rng, monkeypatch):
    a, b = (
        strided(rng, 2, 401, "C", "float32"),
        strided(rng, 401, gemv._WIDEST + 70, "C", "float32"),
    )
    both = matmul(a, b)
    monkeypatch.setattr(gemv, "_FAR_FROM", b.nbytes)
    gemv._kernels.cache_clear()
    assert (matmul(a[:1], b) == both[:1]).all()
    gemv._kernels.cache_clear()


def test_batch_of_heads_is_read_in_place(rng):
    heads = rng.standard_normal((2, 9, 3, 8)).astype(np.float32).transpose(0, 2, 1, 3)
    scores = matmul(heads, heads.swapaxes(-1, -2))
    np.testing.assert_allclose(scores, heads @ heads.swapaxes(-1, -2), rtol=1e-4, atol=1e-5)


def test_neighbours_in_memory_are_not_touched(rng):
    for m, n in [(5, 3), (6, 64), (7, 65), (1, 17), (13, 100)]:
        a, b = strided(rng, m, 20, "C", "float32"), strided(rng, 20, n, "C", "float32")
        room = np.full((m + 2, n + 9), 5.0, np.float32)
        out = room[1:-1, 4:-5]
        assert (
            native.launch(plan_matmul(Layout.of(a), Layout.of(b), Layout.of(out)), out, (a, b)) == 0
        )
        assert (out == matmul(a, b)).all()
        out[...] = 5.0
        assert (room == 5.0).all()


def test_nan_and_infinity_reach_their_rows_only(rng):
    a, b = strided(rng, 9, 30, "C", "float32"), strided(rng, 30, 70, "C", "float32")
    clean = matmul(a, b)
    a[4, 7], a[6, 2] = np.nan, np.inf
    result = matmul(a, b)
    assert np.isnan(result[4]).all()
    assert np.isinf(result[6]).all()
    rest = [0, 1, 2, 3, 5, 7, 8]
    assert (result[rest] == clean[rest]).all()


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16], ids=str)
def test_halves_accumulate_in_float32_and_round_once(rng, dtype):
    for shape_a, shape_b in [
        ((3, 5), (5, 7)),
        ((2, 4, 400), (1, 400, 70)),
        ((2, 0), (0, 3)),
        ((9, 1), (1, 9)),
    ]:
        batch = shape_a[:-2]
        a = rng.standard_normal(shape_a).astype(dtype)
        b = np.broadcast_to(rng.standard_normal(shape_b).astype(dtype), (*batch, *shape_b[-2:]))
        expected = matmul(a.astype(np.float32), b.astype(np.float32)).astype(dtype)
        assert (matmul(a, b) == expected).all()
        turned = np.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2)
        assert (matmul(np.asfortranarray(a), turned) == expected).all()


@pytest.mark.parametrize("k", [1, 2, 7, 64, 801])
def test_bfloat16_products_have_one_answer_however_they_lie(rng, k):
    a, b = (rng.standard_normal(s).astype(BFLOAT16) for s in ((3, 13, k), (3, k, 70)))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    got = matmul(a, b)
    size = abs(a.astype(np.float64)) @ abs(b.astype(np.float64))
    assert (abs(got.astype(np.float64) - exact) <= abs(exact) * 2.0**-8 + size * 2.0**-20).all()

    def across(x):
        return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)

    def apart(x):
        return np.repeat(np.repeat(x, 2, -1), 2, -2)[:, ::2, ::2]

    for x in (a, across(a), apart(a)):
        for y in (b, across(b), apart(b)):
            assert (matmul(x, y) == got).all()
    one = matmul(a[:, 4:5], b)  # nor does a row's neighbours matter
    assert (one == got[:, 4:5]).all()
    shared = np.broadcast_to(b[:1], b.shape)
    assert (matmul(a, shared)[2] == matmul(a[2:], b[:1])[0]).all()


def test_bfloat16_nan_and_infinity_reach_their_rows_only(rng):
    a, b = (rng.standard_normal(s).astype(BFLOAT16) for s in ((9, 31), (31, 70)))
    clean = matmul(a, b)
    a[4, 30], a[6, 2] = np.nan, np.inf
    got = matmul(a, b).astype(np.float32)
    assert np.isnan(got[4]).all() and np.isinf(got[6]).all()
    rest = [0, 1, 2, 3, 5, 7, 8]
    assert (got[rest] == clean[rest].astype(np.float32)).all()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_integers_wrap(rng, dtype):
    info = np.iinfo(dtype)
    a = rng.integers(info.min, info.max, (2, 5, 40), dtype, endpoint=True)
    b = rng.integers(info.min, info.max, (2, 40, 9), dtype, endpoint=True)
    assert (matmul(a, b) == np.matmul(a, b)).all()
    assert (
        matmul(a[:, ::2, ::-1], b[:, ::-1, ::3]) == np.matmul(a[:, ::2, ::-1], b[:, ::-1, ::3])
    ).all()


def _arg(i, dtype="float32"):
    return S.Arg(i, D.from_np(np.dtype(dtype)))


def _ended(a, b, exprs, operands, dtypes=("float32",), shape=None):
    """The outputs of a product with an epilogue, over outputs of `shape`."""
    shape = shape or (a.shape[0], b.shape[1])
    outs = [np.full(shape, 7, d) for d in dtypes]
    end = Epilogue(
        tuple(exprs), tuple(Layout.of(x) for x in operands), tuple(Layout.of(o) for o in outs)
    )
    out = outs[0].reshape(a.shape[0], b.shape[1])
    plan = plan_matmul(Layout.of(a), Layout.of(b), Layout.of(out), end)
    assert native.launch(plan, out, (a, b, *outs[1:], *operands)) == 0
    return outs


@pytest.mark.parametrize("m", [1, 5, 12, 100])
@pytest.mark.parametrize("n", [1, 15, 64, 130, 333])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_epilogue_gives_the_bits_of_the_loop_that_would_follow(rng, m, n, order):
    for k in (0, 3, 384, 801):
        a, b = strided(rng, m, k, "C", "float32"), strided(rng, k, n, order, "float32")
        bias, residual = (rng.standard_normal(s).astype(np.float32) for s in ((n,), (m, n)))
        scale = rng.standard_normal((m, 1)).astype(np.float32)
        summed = S.Scalar("add", (_arg(0), _arg(1)))
        value = S.Scalar("mul", (S.Scalar("exp", (summed,)), _arg(3)))
        exprs = (summed, S.Scalar("add", (value, _arg(2))), S.Scalar("lt", (summed, _arg(2))))
        kinds = ("float32", "float32", "bool")
        got = _ended(a, b, exprs, (bias, residual, scale), kinds)
        expected = matmul(a, b) + bias
        assert (got[0] == expected).all()
        assert (got[2] == (expected < residual)).all()
        after = np.empty((m, n), np.float32)
        plan = plan_elementwise(
            exprs[1],
            [Layout.of(x) for x in (matmul(a, b), bias, residual, scale)],
            Layout.of(after),
        )
        assert native.launch(plan, after, (matmul(a, b), bias, residual, scale)) == 0
        assert (got[1] == after).all()


@pytest.mark.parametrize("m", [5, 6, 20])
@pytest.mark.parametrize("n", [63, 64, 145])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_short_epilogue_in_registers_gives_the_bits_of_its_loop(rng, m, n, dtype):
    """Whole tiles end in registers, the others are stored first."""
    for k in (0, 1, 70, 384, 401):
        a, b = (strided(rng, *s, "C", dtype) for s in ((m, k), (k, n)))
        bias, residual = (rng.standard_normal(s).astype(dtype) for s in ((n,), (m, n)))
        scale, half = rng.standard_normal((m, 1)), residual.astype(np.float16)
        x, w, r, c, h = (
            _arg(i, str(t.dtype)) for i, t in enumerate((bias, bias, residual, scale, half))
        )
        scaled = S.mul(S.add(x, w), S.cast(c, x.dtype))
        exprs = (S.max(S.add(scaled, r), 0), S.sub(S.abs(x), S.cast(h, x.dtype)))
        got = _ended(a, b, exprs, (bias, residual, scale, half), (dtype, dtype))
        product = matmul(a, b)
        shifted = (product + bias) * scale.astype(dtype) + residual
        assert (got[0] == np.maximum(shifted, 0)).all()
        assert (got[1] == np.abs(product) - half.astype(dtype)).all()
    product[:], a[:] = np.nan, np.nan
    assert np.isnan(_ended(a, b, (S.max(_arg(0, dtype), 0),), (), (dtype,))[0]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("m,k,n", [(331, 193, 70), (197, 1000, 192), (427, 577, 64)])
def test_many_rows_have_the_bits_of_few(rng, dtype, m, k, n):
    """Tiles of many rows go through a block in pieces of k, groups of tiles one after the other."""
    a, b = strided(rng, m, k, "C", dtype), strided(rng, k, n, "F", dtype)
    residual = rng.standard_normal((m, n)).astype(dtype)
    expected = np.concatenate([matmul(a[i : i + 11], b) for i in range(0, m, 11)])
    x, r = _arg(0, dtype), _arg(1, dtype)
    before = threads.get_num_threads()
    try:
        for count in (1, 2):
            threads.set_num_threads(count)
            assert (matmul(a, b) == expected).all()
            assert (matmul(np.asfortranarray(a), b) == expected).all()
            for end in (S.max(S.add(x, r), 0), S.Scalar("exp", (S.add(x, r),))):
                values = plan_elementwise(end, [Layout.of(expected)] * 2, Layout.of(residual))
                ended = np.empty_like(residual)
                assert native.launch(values, ended, (expected, residual)) == 0
                assert (_ended(a, b, (end,), (residual,), (dtype,))[0] == ended).all()
    finally:
        threads.set_num_threads(before)
    a[40, 3] = np.nan
    assert (np.isnan(matmul(a, b)).any(axis=1) == (np.arange(m) == 40)).all()


def test_rows_of_a_large_result_are_those_of_a_small_one(rng):
    """With a short k, few rows at a time: here 41 times 192 and some more."""
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((8001, 20), (20, 263)))
    residual = rng.standard_normal((8001, 263)).astype(np.float32)
    exprs = (S.Scalar("add", (_arg(0), _arg(1))),)
    (got,) = _ended(a, b, exprs, (residual,), ("float32",))
    for rows in (slice(0, 30), slice(180, 200), slice(4000, 4200), slice(7980, 8001)):
        assert (got[rows] == matmul(a[rows], b) + residual[rows]).all()


def test_an_epilogue_sees_the_rows_of_a_batch(rng):
    a, b = strided(rng, 2 * 3 * 7, 33, "C", "float32"), strided(rng, 33, 20, "C", "float32")
    residual = rng.standard_normal((2, 21, 20)).astype(np.float32)
    add = S.Scalar("add", (_arg(0), _arg(1)))
    (got,) = _ended(a, b, (add,), (residual,), shape=(2, 21, 20))
    assert (got == matmul(a, b).reshape(2, 21, 20) + residual).all()


def test_epilogues_that_do_not_fit_are_refused(rng):
    a, b = strided(rng, 6, 5, "C", "float32"), strided(rng, 5, 8, "C", "float32")
    add = S.Scalar("add", (_arg(0), _arg(1)))
    with pytest.raises(ValueError, match="evenly spaced"):
        _ended(a, b, (add,), (np.ones((3, 8), np.float32),), shape=(2, 3, 8))
    with pytest.raises(ValueError, match="adjacent"):
        _ended(a, b, (add,), (np.ones((6, 16), np.float32)[:, ::2],))
    with pytest.raises(ValueError, match="rows of 8"):
        _ended(a, b, (add,), (np.ones(4, np.float32),), shape=(12, 4))
    ints = S.Scalar("div", (_arg(1, "int32"), _arg(1, "int32")))
    with pytest.raises(ValueError, match="divides"):
        _ended(a, b, (_arg(0), ints), (np.ones(8, np.int32),), ("float32", "int32"))
    half = np.ones((2, 2), np.float16)
    with pytest.raises(ValueError, match="no epilogue on products of float16"):
        _ended(half, half, (_arg(0, "float16"),), (), ("float16",))


def test_mistakes_are_named():
    def layout(*shape, dtype="float32"):
        return Layout.contiguous(shape, np.dtype(dtype))

    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(4, 5\)"):
        plan_matmul(layout(2, 3), layout(4, 5), layout(2, 5))
    with pytest.raises(ValueError, match="dtypes differ"):
        plan_matmul(layout(2, 3), layout(3, 5, dtype="float64"), layout(2, 5))
    for dtype in ("bool", "complex64", "uint32"):
        wrong = layout(2, 2, dtype=dtype)
        with pytest.raises(ValueError, match=f"no product of {dtype}"):
            plan_matmul(wrong, wrong, wrong)
    with pytest.raises(ValueError, match="adjacent"):
        plan_matmul(layout(2, 3), layout(3, 5), Layout((2, 5), (1, 2), np.dtype("float32")))
    with pytest.raises(ValueError, match="matrices"):
        plan_matmul(layout(3), layout(3, 5), layout(5))


def test_a_row_times_short_panels_has_the_bits_of_whole_ones(rng):
    for n, k in ((200, 384 * 2 + 8), (64, 8), (3000, 400)):
        a = rng.standard_normal((1, k)).astype(np.float32)
        usual = rng.standard_normal((k, n)).astype(np.float32) / 50
        usual[:2, n // 2 :] = 0
        rare = usual.copy()
        special = [0.0, -0.0, 1e-44, 1e-30, 3e38, np.inf, np.nan, 7e4, 1e-36]
        rare.reshape(-1)[rng.integers(0, usual.size, 27)] = np.tile(special, 3).astype(np.float32)
        wide = np.exp2(rng.uniform(-15.05, 0, usual.shape)).astype(np.float32)
        assert _short(a, usual) > 0.9
        assert k == 8 or all(0 < _short(a, values) < 1 for values in (rare, wide))
        assert _short(a, usual * np.float32(2.0**-100)) > 0.9
        assert _short(a, np.asfortranarray(usual)) > 0.9
        assert _short(a, usual * np.float32(2.0**100)) == 0
        assert _short(a, usual * np.float32(2.0**-118)) == 0


def _short(a: np.ndarray, b: np.ndarray) -> float:
    """The part of b's groups that are short, where results agree."""
    out = np.full((2, 1, b.shape[1]), 77, np.float32)
    whole = plan_matmul_packed(Layout.of(a), Layout.of(b), Layout.of(out[0]))
    assert whole is not None and whole.shorter is not None
    short = 0.0
    for p, y in zip((whole, whole.shorter()), out, strict=True):
        room = np.zeros(p.size + 64, np.uint8)
        packed = room[-room.ctypes.data % 64 :][: p.size]
        assert native.launch(p.pack, packed, (b,)) == 0
        assert native.launch(p.launch, y, (a, packed)) == 0
        short = float((packed[whole.size :] != 0).mean()) if p.size > whole.size else 0.0
    assert out[0].tobytes() == out[1].tobytes()
    return short
