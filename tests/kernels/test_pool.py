"""Pooling kernels against plain loops in NumPy."""

import ml_dtypes
import numpy as np
import pytest

from weft.kernels.layout import Layout
from weft.kernels.schedule import pool
from weft.kernels.schedule.pool import Window
from weft.runtime import native, threads

BF16 = np.dtype(ml_dtypes.bfloat16)


def run(plan, shape, dtype, *ins):
    out = np.full(shape, 77, dtype)
    assert native.launch(plan, out, ins) == 0
    return out


def same(got, want):
    np.testing.assert_array_equal(got.astype(np.float64), want.astype(np.float64))


def windows(size, count, i, w):
    """The rows (or columns) of window i inside the image, and its size with padding."""
    kernel, stride, padding, dilation = w
    start = i * stride - padding
    inside = [start + p * dilation for p in range(kernel) if 0 <= start + p * dilation < size]
    return inside, min(start + kernel, size + padding) - start


def per_dim(window):
    w = (window.kernel, window.stride, window.padding, window.dilation)
    return [tuple(v[i] for v in w) for i in (0, 1)]


def adaptive(size, count, i):
    return list(range(i * size // count, -(-(i + 1) * size // count)))


def ref_max(x, grid, rows_of, columns_of):
    """Values and flat indices: the first greatest, or the last NaN."""
    n, c, _, width = x.shape
    values, indices = np.empty((n, c, *grid), x.dtype), np.empty((n, c, *grid), np.int64)
    for at in np.ndindex(n, c, *grid):
        rows, columns = rows_of(at[2]), columns_of(at[3])
        best, where = -np.inf, rows[0] * width + columns[0]
        for y in rows:
            for xx in columns:
                v = x[at[0], at[1], y, xx]
                if v > best or np.isnan(v):
                    best, where = v, y * width + xx
        values[at], indices[at] = best, where
    return values, indices


def ref_avg(x, grid, window, include, override):
    n, c, h, w = x.shape
    out = np.empty((n, c, *grid))
    share = np.zeros((*grid, h, w))  # how much of each element an output takes
    for oy, ox in np.ndindex(*grid):
        rows, full_h = windows(h, grid[0], oy, per_dim(window)[0])
        columns, full_w = windows(w, grid[1], ox, per_dim(window)[1])
        count = full_h * full_w if include else len(rows) * len(columns)
        share[oy, ox][np.ix_(rows, columns)] = 1 / (override or count)
        out[:, :, oy, ox] = (x.astype(np.float64) * share[oy, ox]).sum((2, 3))
    return out, share


def grid_of(shape, window, ceil=False):
    out = []
    for size, (k, s, p, d) in zip(shape, per_dim(window), strict=True):
        full = size + 2 * p - d * (k - 1) - 1
        o = (-(-full // s) if ceil else full // s) + 1
        if ceil and (o - 1) * s >= size + p:
            o -= 1
        out.append(o)
    return tuple(out)


WINDOWS = [
    ((2, 3, 8, 10), Window((2, 2), (2, 2)), False),
    ((1, 1, 1, 1), Window((1, 1), (1, 1)), False),
    ((2, 3, 5, 71), Window((2, 2), (2, 2)), False),
    ((2, 2, 7, 37), Window((2, 2), (2, 2)), True),
    ((1, 3, 4, 64), Window((2, 2), (2, 2)), False),
    ((2, 2, 9, 37), Window((3, 3), (2, 2), (1, 1)), False),
    ((2, 2, 9, 37), Window((3, 3), (2, 2), (1, 1)), True),
    ((1, 2, 8, 64), Window((3, 3), (2, 2), (1, 1)), False),
    ((2, 1, 4, 99), Window((3, 3), (2, 2), (1, 1)), False),
    ((1, 2, 2, 1), Window((3, 3), (2, 2), (1, 1)), False),
    ((1, 2, 11, 40), Window((3, 2), (1, 1), (1, 0)), False),
    ((1, 2, 11, 13), Window((2, 3), (3, 4), (1, 1), (2, 3)), False),
    ((3, 1, 1, 50), Window((1, 4), (1, 3), (0, 2)), True),
    ((1, 2, 7, 7), Window((7, 7), (1, 1)), False),
    ((0, 2, 7, 7), Window((2, 2), (2, 2)), False),
]


def sample(shape, dtype, seed=0):
    x = np.random.default_rng(seed).integers(-9, 9, shape).astype(np.float32) / 4  # ties on purpose
    flat = x.reshape(-1)
    flat[::11] = -np.inf
    flat[5::37] = np.nan
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BF16], ids=str)
@pytest.mark.parametrize("shape, window, ceil", WINDOWS, ids=str)
def test_max(shape, window, ceil, dtype):
    x = sample(shape, dtype)
    grid = grid_of(shape[2:], window, ceil)
    values, indices = ref_max(
        x, grid,
        lambda i: windows(shape[2], grid[0], i, per_dim(window)[0])[0],
        lambda i: windows(shape[3], grid[1], i, per_dim(window)[1])[0],
    )  # fmt: skip
    full = (*shape[:2], *grid)
    plan = pool.plan_max_pool2d(Layout.of(x), Layout.contiguous(full, x.dtype), window)
    same(run(plan, full, dtype, x), values)
    out = Layout.contiguous(full, np.dtype(np.int64))
    plan = pool.plan_max_pool2d_indices(Layout.of(x), out, window)
    np.testing.assert_array_equal(run(plan, full, np.int64, x), indices)

    g = np.random.default_rng(1).integers(-8, 8, full).astype(dtype)
    want = np.zeros(shape)
    for at in np.ndindex(*full):
        want[at[0], at[1]].reshape(-1)[indices[at]] += float(g[at])
    out = Layout.contiguous(shape, x.dtype)
    plan = pool.plan_max_pool2d_dx(Layout.of(g), Layout.of(indices), out)
    same(run(plan, shape, dtype, g, indices), want.astype(dtype))
    taps, maxima = taps_of(x, full, window)
    same(maxima, values)
    np.testing.assert_array_equal(taps, numbers(indices, shape[3], window))
    plan = pool.plan_max_pool2d_back(Layout.of(g), Layout.of(taps), out, window)
    same(run(plan, shape, dtype, g, taps), want.astype(dtype))
    none = window.kernel[0] * window.kernel[1]  # is no tap: it adds nothing
    strange = np.where(np.arange(taps.size).reshape(full) % 3, taps, none).astype(np.uint8)
    some = np.where(strange == none, 0, g).astype(dtype)
    want = run(plan, shape, dtype, some, taps)
    same(run(plan, shape, dtype, g, strange), want)


def taps_of(x, full, window, like=np.empty_like):
    """The numbers of the windows' taps, and the maxima, by one launch."""
    y, taps = like(np.empty(full, x.dtype)), like(np.empty(full, np.uint8))
    of = Layout.of
    assert native.launch(pool.plan_max_pool2d(of(x), of(y), window, of(taps)), y, (taps, x)) == 0
    return taps, y


def numbers(indices, width, window):
    """Flat indices in a plane as numbers of taps."""
    out = 0
    for dim, at in enumerate((indices // width, indices % width)):
        kernel, stride, padding, dilation = per_dim(window)[dim]
        start = np.arange(indices.shape[2 + dim]) * stride - padding
        tap = (at - (start[:, None] if dim == 0 else start)) // dilation
        out = out * kernel + tap
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=str)
@pytest.mark.parametrize("fill", [None, -np.inf, np.nan])
@pytest.mark.parametrize("size", [(7, 70), (6, 64)], ids=str)
def test_gradients_of_overlapping_windows_are_added_in_order(size, fill, dtype):
    window = Window((3, 3), (2, 2), (1, 1))
    rng = np.random.default_rng(6)
    shape, full = (2, 2, *size), (2, 2, *grid_of(size, window))
    # peaks at odd places, each of which four windows share
    x = rng.standard_normal(shape).astype(dtype)
    x[..., 1::4, 1::2] += 9
    if fill is not None:
        x[1] = fill
    out = Layout.contiguous(full, np.dtype(np.int64))
    plan = pool.plan_max_pool2d_indices(Layout.of(x), out, window)
    indices = run(plan, full, np.int64, x)
    g = rng.standard_normal(full).astype(dtype)
    g[0, 0, 0] = -0.0
    want = np.zeros(shape, dtype)
    for at in np.ndindex(*full):  # float32 sums, one after the other
        want[at[0], at[1]].reshape(-1)[indices[at]] += g[at]
    taps, _ = taps_of(x, full, window)
    plan = pool.plan_max_pool2d_back(Layout.of(g), Layout.of(taps), Layout.of(x), window)
    assert run(plan, shape, dtype, g, taps).tobytes() == want.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BF16], ids=str)
@pytest.mark.parametrize("include, override", [(True, None), (False, None), (True, 3)])
@pytest.mark.parametrize("shape, window, ceil", WINDOWS, ids=str)
def test_avg(shape, window, ceil, include, override, dtype):
    if window.dilation != (1, 1):
        return
    rng = np.random.default_rng(2)
    x = rng.standard_normal(shape).astype(dtype)
    grid = grid_of(shape[2:], window, ceil)
    full = (*shape[:2], *grid)
    want, share = ref_avg(x, grid, window, include, override)
    tolerance = {"float64": 1e-14, "float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}[x.dtype.name]
    options = {"count_include_pad": include, "divisor_override": override}
    plan = pool.plan_avg_pool2d(Layout.of(x), Layout.contiguous(full, x.dtype), window, **options)
    got = run(plan, full, dtype, x)
    np.testing.assert_allclose(got.astype(float), want, rtol=tolerance, atol=tolerance)
    g = rng.standard_normal(full).astype(dtype)
    want = np.einsum("ncyx,yxhw->nchw", g.astype(float), share)
    out = Layout.contiguous(shape, x.dtype)
    plan = pool.plan_avg_pool2d_dx(Layout.of(g), out, window, **options)
    got = run(plan, shape, dtype, g)
    np.testing.assert_allclose(got.astype(float), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (7, 4), (10, 12)], ids=str)
def test_adaptive(grid):
    shape = (3, 7, 7, 9)  # more planes than go together, and a rest
    rng = np.random.default_rng(3)
    x = sample(shape, np.float32)
    full = (*shape[:2], *grid)
    layouts = Layout.of(x), Layout.contiguous(full, x.dtype)
    values, indices = ref_max(
        x, grid, lambda i: adaptive(7, grid[0], i), lambda i: adaptive(9, grid[1], i)
    )
    got = run(pool.plan_adaptive_max_pool2d(*layouts), full, np.float32, x)
    np.testing.assert_array_equal(got, values)
    out = Layout.contiguous(full, np.dtype(np.int64))
    got = run(pool.plan_adaptive_max_pool2d_indices(layouts[0], out), full, np.int64, x)
    np.testing.assert_array_equal(got, indices)

    x, g = (rng.standard_normal(s).astype(np.float32) for s in (shape, full))
    want, dx = np.empty(full), np.zeros(shape)
    for oy, ox in np.ndindex(*grid):
        at = np.ix_(range(3), range(7), adaptive(7, grid[0], oy), adaptive(9, grid[1], ox))
        want[:, :, oy, ox] = x[at].astype(float).mean((2, 3))
        dx[at] += g[:, :, oy, ox, None, None].astype(float) / x[at][0, 0].size
    got = run(pool.plan_adaptive_avg_pool2d(*layouts), full, np.float32, x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    plan = pool.plan_adaptive_avg_pool2d_dx(Layout.of(g), Layout.contiguous(shape, g.dtype))
    np.testing.assert_allclose(run(plan, shape, np.float32, g), dx, rtol=1e-5, atol=1e-6)


def test_an_index_outside_the_plane_is_reported():
    g, out = np.ones((1, 2, 2, 2), np.float32), np.zeros((1, 2, 3, 3), np.float32)
    for bad in (9, -1):
        indices = np.zeros(g.shape, np.int64)
        indices[0, 1, 0, 1] = bad
        plan = pool.plan_max_pool2d_dx(Layout.of(g), Layout.of(indices), Layout.of(out))
        assert native.launch(plan, out, (g, indices)) == 1
        assert native.detail() == bad


def test_strides_threads_and_batches_do_not_change_bits():
    rng = np.random.default_rng(4)
    base = rng.standard_normal((4, 60, 90, 17)).astype(np.float32)
    x = base.transpose(0, 3, 1, 2)[:, ::-1, ::2]
    window = Window((3, 3), (2, 2), (1, 1))
    grid = grid_of(x.shape[2:], window)
    full = (*x.shape[:2], *grid)
    out = Layout.contiguous(full, x.dtype)
    before = threads.get_num_threads()
    for plan in (pool.plan_max_pool2d, pool.plan_avg_pool2d):
        c = np.ascontiguousarray(x)
        want = run(plan(Layout.of(c), out, window), full, np.float32, c)
        for count in (1, 2, 5):
            threads.set_num_threads(count)
            got = run(plan(Layout.of(x), out, window), full, np.float32, x)
            np.testing.assert_array_equal(got, want)
        threads.set_num_threads(before)
        one = (1, *full[1:])
        alone = run(
            plan(Layout.of(x[2:3]), Layout.contiguous(one, x.dtype), window), one, "f4", x[2:3]
        )
        np.testing.assert_array_equal(alone[0], want[2])


def test_layouts_are_checked():
    x = Layout.contiguous((1, 2, 4, 4), np.dtype(np.float32))
    with pytest.raises(ValueError, match="max_pool2d"):
        pool.plan_max_pool2d(x, Layout.contiguous((1, 3, 2, 2), x.dtype), Window((2, 2), (2, 2)))
    with pytest.raises(ValueError, match="max_pool2d"):
        pool.plan_max_pool2d(x, Layout((1, 2, 2, 2), (8, 4, 1, 2), x.dtype), Window((2, 2), (2, 2)))
    with pytest.raises(ValueError, match="indices"):
        pool.plan_max_pool2d_dx(x, x, x)


def channels_last(a):
    """The same numbers, the channels of a pixel adjacent."""
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BF16], ids=str)
@pytest.mark.parametrize(
    "window",
    [
        Window((2, 2), (2, 2)),
        Window((3, 2), (2, 3), (1, 1)),
        Window((3, 3), (1, 2), (1, 0), (2, 3)),
        Window((2, 3), (1, 1)),
    ],
    ids=str,
)
def test_channels_last_gives_the_same_bits(window, dtype):
    rng = np.random.default_rng(3)
    for channels in (2, 21, 70):
        x = rng.integers(-9, 9, (3, channels, 11, 23)).astype(dtype)
        x[0, 1, 2:4, 3:5], x[1, 0] = np.nan, -np.inf
        grid = tuple(
            (s + 2 * p - d * (k - 1) - 1) // t + 1
            for s, k, t, p, d in zip(
                x.shape[2:], window.kernel, window.stride, window.padding, window.dilation
            )
        )
        out = np.empty((3, channels, *grid), dtype)
        places = np.empty(out.shape, np.int64)
        g = rng.integers(-9, 9, out.shape).astype(dtype)
        dx = np.empty_like(x)
        taps, _ = taps_of(x, out.shape, window)
        for like in (channels_last, np.copy):  # and the maxima to planes, the taps not
            found, y = taps_of(channels_last(x), out.shape, window, like)
            np.testing.assert_array_equal(found, taps)
        for plan, y, ins in (
            (lambda a, b: pool.plan_max_pool2d(*b, a, window), out, (x,)),
            (lambda a, b: pool.plan_max_pool2d_indices(*b, a, window), places, (x,)),
            (lambda a, b: pool.plan_max_pool2d_dx(*b, a), dx, (g, places)),
            (lambda a, b: pool.plan_max_pool2d_back(*b, a, window), dx, (g, taps)),
        ):
            alone = ins[-1] is taps and window.apart
            if y is dx and x.itemsize == 2 and not alone:  # summed in float32, plane by plane
                continue
            of = Layout.of
            assert native.launch(plan(of(y), [of(a) for a in ins]), y, ins) == 0
            wide = channels_last(np.full_like(y, 77))
            wide_ins = tuple(channels_last(a) for a in ins)
            assert native.launch(plan(of(wide), [of(a) for a in wide_ins]), wide, wide_ins) == 0
            same(y, wide)
            if y is out:  # and to planes
                planes = np.full_like(y, 77)
                assert native.launch(plan(of(y), [of(wide_ins[0])]), planes, wide_ins) == 0
                same(y, planes)
            if y is dx and ins[1] is taps:  # operands that do not lie so
                wide[:] = 77
                assert native.launch(plan(of(wide), [of(a) for a in ins]), wide, ins) == 0
                same(y, wide)
        ways = ({}, {"count_include_pad": False}, {"divisor_override": 5})
        for way in ways if window.dilation == (1, 1) else ():
            averages = [np.full_like(out, 77) for _ in range(3)]
            averages[1] = channels_last(averages[1])
            for y, image in zip(averages, (x, channels_last(x), channels_last(x))):
                plan = pool.plan_avg_pool2d(Layout.of(image), Layout.of(y), window, **way)
                assert native.launch(plan, y, (image,)) == 0
            same(*averages[:2])
            same(*averages[::2])
        for grid in ((1, 1), (4, 5)):
            averages = [np.full((3, channels, *grid), 77, dtype) for _ in range(2)]
            averages[1] = channels_last(averages[1])
            for y, image in zip(averages, (x, channels_last(x))):
                plan = pool.plan_adaptive_avg_pool2d(Layout.of(image), Layout.of(y))
                assert native.launch(plan, y, (image,)) == 0
            same(*averages)
    if x.itemsize > 2:
        bad = channels_last(places)
        bad[0, 0, 0, 0] = 11 * 23
        wide = channels_last(dx)
        plan = pool.plan_max_pool2d_dx(Layout.of(g), Layout.of(bad), Layout.of(wide))
        assert native.launch(plan, wide, (g, bad)) == 1
        assert native.detail() == 11 * 23
