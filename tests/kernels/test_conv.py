"""Convolution kernels against float64 NumPy: values, strict order, threads, batches, targets."""

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from tests.kernels.run import thread_count
from weft.core import dtype as D
from weft.core import scalar as S
from weft.kernels.layout import Layout
from weft.kernels.schedule import conv_weight, conv_wide
from weft.kernels.schedule.conv import plan_conv2d, plan_conv2d_dx, plan_conv2d_packed
from weft.kernels.schedule.conv_micro import spans_of, way_along
from weft.kernels.schedule.conv_weight import plan_conv2d_dw
from weft.kernels.schedule.epilogue import Epilogue
from weft.runtime import native, threads

BF16 = np.dtype(ml_dtypes.bfloat16)


def out_size(size, kernel, stride, padding, dilation):
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def taps(x, p, q, oh, ow, stride, dilation):
    """x[..., oy*s + p*d, ox*s + q*d] of a padded image."""
    y0, x0 = p * dilation[0], q * dilation[1]
    return x[
        ...,
        y0 : y0 + (oh - 1) * stride[0] + 1 : stride[0],
        x0 : x0 + (ow - 1) * stride[1] + 1 : stride[1],
    ]


def ref_conv2d(x, w, stride, padding, dilation, groups):
    n, ci, h, wd = x.shape
    co, cig, kh, kw = w.shape
    oh = out_size(h, kh, stride[0], padding[0], dilation[0])
    ow = out_size(wd, kw, stride[1], padding[1], dilation[1])
    pads = ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2)
    xp = np.pad(x.astype(np.float64), pads).reshape(n, groups, cig, h + 2 * padding[0], -1)
    w64 = w.astype(np.float64).reshape(groups, co // groups, cig, kh, kw)
    out = np.zeros((n, groups, co // groups, oh, ow))
    for p in range(kh):
        for q in range(kw):
            piece = taps(xp, p, q, oh, ow, stride, dilation)
            out += np.einsum("goc,ngcyx->ngoyx", w64[:, :, :, p, q], piece)
    return out.reshape(n, co, oh, ow)


def ref_dx(g, w, x_shape, stride, padding, dilation, groups):
    n, ci, h, wd = x_shape
    co, cig, kh, kw = w.shape
    oh, ow = g.shape[2:]
    g64 = g.astype(np.float64).reshape(n, groups, co // groups, oh, ow)
    w64 = w.astype(np.float64).reshape(groups, co // groups, cig, kh, kw)
    # room for outputs whose windows reach past the padded input (output_padding of a transpose)
    room = (h + 2 * padding[0] + dilation[0] * kh, wd + 2 * padding[1] + dilation[1] * kw)
    dxp = np.zeros((n, groups, cig, *room))
    for p in range(kh):
        for q in range(kw):
            taps(dxp, p, q, oh, ow, stride, dilation)[...] += np.einsum(
                "goc,ngoyx->ngcyx", w64[:, :, :, p, q], g64
            )
    dx = dxp[..., padding[0] : padding[0] + h, padding[1] : padding[1] + wd]
    return dx.reshape(n, ci, h, wd)


def ref_dw(g, x, w_shape, stride, padding, dilation, groups):
    n, ci, h, wd = x.shape
    co, cig, kh, kw = w_shape
    oh, ow = g.shape[2:]
    pads = ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2)
    xp = np.pad(x.astype(np.float64), pads).reshape(n, groups, cig, h + 2 * padding[0], -1)
    g64 = g.astype(np.float64).reshape(n, groups, co // groups, oh, ow)
    dw = np.zeros((groups, co // groups, cig, kh, kw))
    for p in range(kh):
        for q in range(kw):
            piece = taps(xp, p, q, oh, ow, stride, dilation)
            dw[:, :, :, p, q] = np.einsum("ngoyx,ngcyx->goc", g64, piece)
    return dw.reshape(co, cig, kh, kw)


def run(plan, shape, dtype, ins):
    out = np.full(shape, np.nan, dtype)
    assert native.launch(plan, out, ins) == 0
    return out


def conv(x, w, args, bias=None):
    stride, padding, dilation, groups = args
    oh = out_size(x.shape[2], w.shape[2], stride[0], padding[0], dilation[0])
    ow = out_size(x.shape[3], w.shape[3], stride[1], padding[1], dilation[1])
    shape = (x.shape[0], w.shape[0], oh, ow)
    out = Layout.contiguous(shape, x.dtype)
    blay = None if bias is None else Layout.of(bias)
    plan = plan_conv2d(
        Layout.of(x), Layout.of(w), out, stride, padding, dilation, groups, bias=blay
    )
    return run(plan, shape, x.dtype, (x, w) if bias is None else (x, w, bias))


def conv_dx(g, w, x_shape, args):
    plan = plan_conv2d_dx(Layout.of(g), Layout.of(w), Layout.contiguous(x_shape, g.dtype), *args)
    return run(plan, x_shape, g.dtype, (g, w))


def conv_dw(g, x, w_shape, args):
    plan = plan_conv2d_dw(Layout.of(g), Layout.of(x), Layout.contiguous(w_shape, g.dtype), *args)
    return run(plan, w_shape, g.dtype, (g, x))


def close(got, want, terms):
    eps = {"float16": 2**-10, "bfloat16": 2**-7}.get(got.dtype.name) or np.finfo(got.dtype).eps
    got = got.astype(np.float64)
    np.testing.assert_allclose(got, want, rtol=4 * eps, atol=4 * eps * (8 + terms))


# n, ci, h, w, co, kh, kw, stride, padding, dilation, groups
CASES = [
    (2, 3, 9, 11, 5, 3, 3, (1, 1), (1, 1), (1, 1), 1),
    (1, 1, 1, 1, 1, 1, 1, (1, 1), (0, 0), (1, 1), 1),
    (1, 64, 14, 14, 64, 3, 3, (1, 1), (1, 1), (1, 1), 1),
    (3, 45, 7, 7, 13, 3, 3, (1, 1), (1, 1), (1, 1), 1),
    (2, 4, 17, 19, 6, 3, 2, (2, 3), (1, 0), (1, 1), 2),
    (2, 4, 17, 19, 6, 3, 3, (2, 2), (2, 2), (2, 3), 1),
    (2, 6, 8, 70, 12, 1, 1, (1, 1), (0, 0), (1, 1), 3),
    (2, 8, 9, 9, 7, 1, 1, (2, 2), (0, 0), (1, 1), 1),
    (5, 8, 6, 5, 8, 3, 3, (1, 1), (1, 1), (1, 1), 8),
    (2, 8, 33, 40, 16, 5, 3, (2, 1), (2, 1), (1, 1), 8),
    (9, 3, 4, 4, 10, 4, 4, (1, 1), (0, 0), (1, 1), 1),
    (2, 3, 1, 130, 4, 1, 5, (1, 2), (0, 2), (1, 2), 1),
    (1, 3, 20, 21, 9, 7, 7, (2, 2), (3, 3), (1, 1), 1),
    (2, 3, 7, 8, 4, 2, 2, (3, 3), (0, 0), (1, 1), 1),
    (1, 2, 5, 5, 3, 3, 3, (1, 1), (4, 3), (1, 1), 1),
    (33, 5, 3, 2, 70, 3, 2, (1, 1), (1, 1), (1, 1), 1),
    (2, 1, 6, 37, 20, 3, 3, (1, 2), (1, 1), (1, 1), 1),
    (3, 20, 5, 19, 4, 3, 3, (1, 1), (1, 0), (1, 1), 1),
]


def sample(case, dtype, seed=0):
    n, ci, h, w, co, kh, kw, stride, padding, dilation, groups = case
    rng = np.random.default_rng(seed)
    oh = out_size(h, kh, stride[0], padding[0], dilation[0])
    ow = out_size(w, kw, stride[1], padding[1], dilation[1])
    x = rng.standard_normal((n, ci, h, w)).astype(dtype)
    k = rng.standard_normal((co, ci // groups, kh, kw)).astype(dtype)
    g = rng.standard_normal((n, co, oh, ow)).astype(dtype)
    return x, k, g, (stride, padding, dilation, groups)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BF16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_gradients(case, dtype):
    x, w, g, args = sample(case, dtype)
    close(conv(x, w, args), ref_conv2d(x, w, *args), w[0].size)
    close(conv_dx(g, w, x.shape, args), ref_dx(g, w, x.shape, *args), w.size)
    close(conv_dw(g, x, w.shape, args), ref_dw(g, x, w.shape, *args), g[:, 0].size)


def test_random_geometry():
    rng = np.random.default_rng(7)
    for _ in range(60):
        groups = int(rng.integers(1, 4))
        kh, kw, sh, sw, dh, dw = (int(v) for v in rng.integers(1, 4, 6))
        padding = (int(rng.integers(0, 4)), int(rng.integers(0, 4)))
        h = int(rng.integers(max(1, dh * (kh - 1) + 1 - 2 * padding[0]), 24))
        w = int(rng.integers(max(1, dw * (kw - 1) + 1 - 2 * padding[1]), 40))
        cig, cog, n = (int(v) for v in rng.integers(1, 9, 3))
        case = (n, groups * cig, h, w, groups * cog, kh, kw, (sh, sw), padding, (dh, dw), groups)
        x, k, g, args = sample(case, np.float32, seed=int(rng.integers(1 << 30)))
        close(conv(x, k, args), ref_conv2d(x, k, *args), k[0].size)
        close(conv_dx(g, k, x.shape, args), ref_dx(g, k, x.shape, *args), k.size)
        close(conv_dw(g, x, k.shape, args), ref_dw(g, x, k.shape, *args), g[:, 0].size)


def test_transpose_with_output_padding():
    rng = np.random.default_rng(1)
    g = rng.standard_normal((2, 4, 5, 6)).astype(np.float32)
    w = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    args = ((3, 3), (1, 1), (1, 1), 1)
    shape = (2, 3, 4 * 3 - 2 + 3 + 2, 5 * 3 - 2 + 3 + 1)  # output_padding (2, 1)
    close(conv_dx(g, w, shape, args), ref_dx(g, w, shape, *args), w.size)


def strict_dot(a, b):
    """The definition: fma in increasing k inside blocks of 384, blocks added in order."""
    total = None
    for start in range(0, len(a), 384):
        acc = np.float32(0)
        for u, v in zip(a[start : start + 384], b[start : start + 384], strict=True):
            acc = np.float32(np.longdouble(u) * np.longdouble(v) + np.longdouble(acc))
        total = acc if total is None else np.float32(total + acc)
    return total


def test_strict_order():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, 50, 12, 13)).astype(np.float32)
    w = rng.standard_normal((7, 50, 3, 3)).astype(np.float32)
    args = ((2, 1), (1, 1), (1, 1), 1)
    y = conv(x, w, args)
    xp = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for n, co, oy, ox in ((0, 0, 0, 0), (2, 6, 5, 12), (1, 3, 2, 7)):
        want = strict_dot(w[co].ravel(), xp[n, :, 2 * oy : 2 * oy + 3, ox : ox + 3].ravel())
        assert y[n, co, oy, ox] == want
    g = rng.standard_normal(y.shape).astype(np.float32)
    gw = conv_dw(g, x, w.shape, args)
    for co, ci, p, q in ((0, 0, 0, 0), (6, 49, 2, 1), (3, 20, 1, 2)):
        piece = taps(xp, p, q, *y.shape[2:], (2, 1), (1, 1))[:, ci]
        assert gw[co, ci, p, q] == strict_dot(g[:, co].ravel(), piece.ravel())


@pytest.mark.parametrize(
    ("size", "stride"), [((7, 7), 1), ((14, 15), 2), ((3, 4), 1), ((21, 11), 1)], ids=str
)
def test_strict_order_in_pieces(size, stride):
    """Tiles of all heights, pieces that meet a block of k together or each on a thread."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((1, 48, *size)).astype(np.float32)
    w = rng.standard_normal((70, 48, 3, 3)).astype(np.float32)
    args = ((stride, stride), (1, 1), (1, 1), 1)
    xp = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = conv(x, w, args)
    seen = [taps(xp, p, q, *y.shape[2:], *args[::2])[0] for p in range(3) for q in range(3)]
    seen = np.stack(seen, 1).reshape(-1, *y.shape[2:]).astype(np.longdouble)  # [k][row][column]
    want = np.float32(0)
    for start in range(0, len(seen), 384):
        acc = np.zeros(y.shape[1:], np.float32)
        for k in range(start, min(start + 384, len(seen))):
            factor = w.reshape(70, -1)[:, k, None, None]
            acc = (factor * seen[k] + acc).astype(np.float32)
        want = want + acc
    before = threads.get_num_threads()
    for count in (1, 2, 9):
        threads.set_num_threads(count)
        for lies in (np.ascontiguousarray, channels_last):
            np.testing.assert_array_equal(conv(lies(x), w, args)[0], want)
    threads.set_num_threads(before)


def test_strict_order_of_the_input_gradient():
    rng = np.random.default_rng(4)
    g = rng.standard_normal((2, 60, 6, 7)).astype(np.float32)
    w = rng.standard_normal((60, 5, 3, 3)).astype(np.float32)
    dx = conv_dx(g, w, (2, 5, 6, 7), ((1, 1), (1, 1), (1, 1), 1))
    gp = np.pad(g, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for n, ci, y, x in ((0, 0, 0, 0), (1, 4, 5, 6), (1, 2, 3, 1)):
        window = gp[n, :, y : y + 3, x : x + 3][:, ::-1, ::-1]
        assert dx[n, ci, y, x] == strict_dot(w[:, ci].ravel(), window.ravel())


@pytest.mark.parametrize("dtype", [np.float16, BF16], ids=str)
def test_halves_are_the_float32_result_rounded_once(dtype):
    x, w, g, args = sample(CASES[4], dtype)
    x32, w32, g32 = (a.astype(np.float32) for a in (x, w, g))
    same = np.testing.assert_array_equal
    same(conv(x, w, args), conv(x32, w32, args).astype(dtype))
    same(conv_dx(g, w, x.shape, args), conv_dx(g32, w32, x.shape, args).astype(dtype))
    same(conv_dw(g, x, w.shape, args), conv_dw(g32, x32, w.shape, args).astype(dtype))


def test_few_rows_give_the_bits_of_many():
    """Up to four output channels are computed without packing: the numbers must not show it."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal((2, 50, 9, 30)).astype(np.float32)
    w = rng.standard_normal((7, 50, 3, 3)).astype(np.float32)
    args = ((1, 1), (1, 1), (1, 1), 1)
    every = conv(x, w, args)
    for count in (1, 2, 3, 4, 5):
        np.testing.assert_array_equal(conv(x, w[:count].copy(), args), every[:, :count])


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(
    ("size", "kernel", "padding"),
    [((3, 7), (3, 3), 1), ((4, 20), (1, 3), 0), ((12, 12), (3, 3), 1), ((5, 23), (3, 6), 2),
     ((17, 19), (3, 3), 1), ((2, 26), (5, 3), 2), ((3, 35), (3, 3), 0), ((2, 24), (3, 4), 1),
     ((6, 6), (3, 3), 1), ((9, 7), (3, 3), 0)],
    ids=str,
)  # fmt: skip
def test_spans_of_a_row_have_the_bits_of_few_channels(size, kernel, padding, dtype):
    """Rows of all lengths, sums of several blocks, taps from either side, missing columns: up to
    four channels are computed otherwise.
    """
    rng = np.random.default_rng(sum(size))
    x = rng.standard_normal((2, 50, *size)).astype(dtype)
    w = rng.standard_normal((70, 50, *kernel)).astype(dtype)
    x[1, 7, size[0] // 2] = np.inf
    args = ((1, 1), (padding, padding), (1, 1), 1)
    wt = np.ascontiguousarray(w.swapaxes(0, 1))  # an image of 70 channels, a cotangent of 50
    back = rng.standard_normal((2, 50, *conv(x, w, args).shape[2:])).astype(dtype)
    for lies in (np.ascontiguousarray, channels_last):
        y = conv(lies(x), w, args)
        dx = conv_dx(lies(back), wt, (2, 70, *size), args)
        for at in (0, 33, 66):
            few = slice(at, at + 4)
            np.testing.assert_array_equal(y[:, few], conv(x, w[few].copy(), args))
            want = conv_dx(back, wt[:, few].copy(), (2, 4, *size), args)
            np.testing.assert_array_equal(dx[:, few], want)
    close(dx, ref_dx(back, wt, (2, 70, *size), *args), w.size // 70)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(
    ("shape", "columns", "padding"),
    [
        ((3, 45, 7, 14), 100, (1, 1)),  # a channel and columns are left over; ends of rows, too
        ((2, 1, 5, 13), 33, (1, 1)),
        ((1, 3, 6, 61), 64, (1, 1)),  # borders take part
        ((5, 18, 3, 15), 129, (0, 0)),
        ((2, 6, 4, 16), 65, (2, 0)),
        ((2, 5, 4, 12), 70, (0, 2)),  # two columns of a tap are border
        ((7, 20, 1, 12), 40, (1, 1)),
        ((2, 7, 30, 12), 48, (1, 1)),
        ((7, 10, 8, 8), 64, (1, 1)),
        ((9, 3, 7, 7), 34, (1, 1)),
        ((3, 4, 90, 6), 40, (1, 1)),
    ],
    ids=str,
)
def test_runs_of_a_row_have_the_bits_of_other_tiles(shape, columns, padding, dtype):
    # a kernel of three taps is part of one of four; rows of 6 pixels or more go by runs
    rng = np.random.default_rng(12)
    (n, channels, h, w), (top, left) = shape, padding
    x = rng.standard_normal(shape).astype(dtype)
    g = rng.standard_normal((n, columns, h + 2 * top - 2, w + 2 * left - 2)).astype(dtype)
    form = (columns, channels, 3)
    args = ((1, 1), (top, left), (1, 1), 1)
    wide = np.pad(x, ((0, 0), (0, 0), (0, 0), (left, left + 1)))
    want = conv_dw(g, wide, (*form, 4), ((1, 1), (top, 0), (1, 1), 1))[..., :3]
    for lies in (lambda a: a, channels_last):
        np.testing.assert_array_equal(conv_dw(lies(g), lies(x), (*form, 3), args), want)
    close(want, ref_dw(g, x, (*form, 3), *args), g[:, 0].size)
    if w == 14:  # there no tap that sees a border multiplies this
        g[0, 0, 0, 0] = np.inf
        taps = conv_dw(g, x, (*form, 3), args)[0]
        assert np.isfinite(taps[:, :, 0]).all()
        assert not np.isfinite(taps[:, -1, 1:]).any()


def test_which_taps_are_met_by_spans():
    assert [spans_of(n) for n in (0, 4, 5, 12, 13, 14, 24, 25, 64)] == [0, 0, 1, 1, 2, 2, 2, 3, 6]
    three = [0, 1, 2, 30, 31, 32, 60, 61, 62]
    whole = range(9)
    assert way_along(three, whole, 9, 1) == 1
    assert way_along(three[::-1], whole, 9, 1) == -1
    assert way_along(three[3:], range(3, 9), 9, 1) == 1  # without a row of taps
    assert way_along([1, 2, 31, 32, 61, 62], (1, 2, 4, 5, 7, 8), 9, 1) == 0  # without a column
    assert way_along(three, whole, 9, 2) == 0  # outputs lie farther apart
    assert way_along([2 * t for t in three], whole, 9, 1) == 0  # taps do
    assert way_along([1, 2, 3], (1, 2, 3), 4, 1) == 0  # a block of k would end in them
    assert way_along([0, 1, 2], (0, 1, 2), 4, 1) == 0
    assert way_along([], (), 0, 1) == 0


def test_an_input_gradient_of_few_channels_has_the_bits_of_many():
    """A step of two: results go to every second place, those of the other residues beside them."""
    rng = np.random.default_rng(10)
    w = rng.standard_normal((20, 9, 7, 5)).astype(np.float32)
    g = rng.standard_normal((2, 20, 6, 37)).astype(np.float32)
    args = ((2, 2), (3, 2), (1, 1), 1)
    every = conv_dx(g, w, (2, 9, 12, 74), args)
    np.testing.assert_allclose(every, ref_dx(g, w, (2, 9, 12, 74), *args), rtol=1e-4, atol=1e-4)
    for count in (1, 3, 4, 5):
        few = conv_dx(g, w[:, :count].copy(), (2, count, 12, 74), args)
        np.testing.assert_array_equal(few, every[:, :count])


@pytest.mark.parametrize(
    ("stride", "dilation", "size"),
    [
        ((1, 1), 1, (17, 37)),
        ((2, 3), 1, (17, 37)),
        ((1, 1), 2, (5, 119)),
        ((1, 1), 1, (1, 15)),
        ((2, 2), 1, (17, 37)),
        ((2, 2), 1, (4, 150)),
        ((2, 2), 2, (9, 21)),
    ],
    ids=str,
)
def test_depthwise_gives_the_bits_of_a_sparse_dense_one(stride, dilation, size):
    """Products with zero weights change no sum, so both orders of k are one."""
    rng = np.random.default_rng(9)
    x = rng.standard_normal((3, 21, *size)).astype(np.float32)
    w = rng.standard_normal((21, 1, 3, 4)).astype(np.float32)
    dense = np.zeros((21, 21, 3, 4), np.float32)
    dense[range(21), range(21)] = w[:, 0]
    geometry = (stride, (1, 2), (1, dilation))
    bias = rng.standard_normal(21).astype(np.float32)
    y = conv(x, w, (*geometry, 21), bias)
    np.testing.assert_array_equal(y, conv(x, dense, (*geometry, 1), bias))
    g = rng.standard_normal(y.shape).astype(np.float32)
    np.testing.assert_array_equal(
        conv_dx(g, w, x.shape, (*geometry, 21)), conv_dx(g, dense, x.shape, (*geometry, 1))
    )
    every = conv_dw(g, x, dense.shape, (*geometry, 1))
    np.testing.assert_array_equal(
        conv_dw(g, x, w.shape, (*geometry, 21))[:, 0], every[range(21), range(21)]
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=str)
@pytest.mark.parametrize(("width", "channels", "stride"), [(2, 36, 1), (4, 20, 2), (4, 128, 1)])
def test_narrow_groups_give_the_bits_of_a_dense_weights_gradient(width, channels, stride, dtype):
    rng = np.random.default_rng(11)
    x = rng.standard_normal((3, channels, 9, 21)).astype(dtype)
    geometry = ((stride, stride), (1, 2), (1, 1))
    shape = (channels, width, 3, 5)
    y = conv(x, np.zeros(shape, dtype), (*geometry, channels // width))
    g = rng.standard_normal(y.shape).astype(dtype)
    every = conv_dw(g, x, (channels, channels, 3, 5), (*geometry, 1))
    own = [every[c, c // width * width :][:width] for c in range(channels)]
    np.testing.assert_array_equal(conv_dw(g, x, shape, (*geometry, channels // width)), own)


def test_bias_is_one_add_after_the_sum():
    x, w, _, args = sample(CASES[3], np.float32)
    bias = np.random.default_rng(2).standard_normal(w.shape[0]).astype(np.float32)
    np.testing.assert_array_equal(conv(x, w, args, bias), conv(x, w, args) + bias[:, None, None])


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 5)])
def test_one_tap_has_the_bits_of_a_step_of_two(size):
    """A 1x1 kernel is a product, of planes or of pixels; with a stride it is not."""
    rng = np.random.default_rng(8)
    args = ((1, 1), (0, 0), (1, 1), 1)
    for n in (1, 3):
        x = rng.standard_normal((n, 500, *size)).astype(np.float32)
        w = rng.standard_normal((21, 500, 1, 1)).astype(np.float32)
        bias = rng.standard_normal(21).astype(np.float32)
        g = rng.standard_normal((n, 21, *size)).astype(np.float32)
        for image, gradient in ((x, g), (channels_last(x), channels_last(g))):
            y = conv(image, w, args, bias)
            np.testing.assert_array_equal(y, conv(image, w, args) + bias[:, None, None])
            apart = np.zeros((n, 500, *(2 * k for k in size)), np.float32)
            apart[:, :, ::2, ::2] = x
            np.testing.assert_array_equal(y, conv(apart, w, ((2, 2), (0, 0), (1, 1), 1), bias))
            dx = conv_dx(gradient, w, x.shape, args)
            want = np.einsum("ncyx,co->noyx", g.astype(np.float64), w[..., 0, 0].astype(np.float64))
            np.testing.assert_allclose(dx, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(
    "shape",
    [(3, 70, 130, 1, 9, 11), (2, 64, 200, 2, 1, 300), (1, 130, 70, 1, 30, 17), (33, 7, 5, 1, 5, 3)],
    ids=str,
)
def test_one_tap_reads_images_where_they_lie(shape, dtype):
    """The weight's gradient, of more and fewer channels, beside a step of two, which copies."""
    n, channels, columns, groups, height, width = shape
    rng = np.random.default_rng(12)
    wide = rng.standard_normal((n, groups * channels + 2, height, width + 3)).astype(dtype)
    x = wide[:, 1:-1, :, 1:-2]
    g = rng.standard_normal((n, groups * columns, height, width)).astype(dtype)
    apart = np.zeros((*x.shape[:2], 2 * height, 2 * width), dtype)
    apart[..., ::2, ::2] = x
    form = (groups * columns, channels, 1, 1)
    want = conv_dw(g, apart, form, ((2, 2), (0, 0), (1, 1), groups))
    args = ((1, 1), (0, 0), (1, 1), groups)
    close(want, ref_dw(g, x, form, *args), g[:, 0].size)
    dense = np.ascontiguousarray(x)
    before = threads.get_num_threads()
    for count in (1, 2):
        threads.set_num_threads(count)
        try:
            for image in (dense, x, channels_last(dense)):
                for gradient in (g, channels_last(g)):
                    np.testing.assert_array_equal(conv_dw(gradient, image, form, args), want)
        finally:
            threads.set_num_threads(before)


@pytest.mark.parametrize("case", [CASES[2], CASES[3], CASES[5], CASES[8]], ids=str)
def test_threads_and_batch_do_not_change_bits(case):
    x, w, g, args = sample(case, np.float32)
    x, g = np.concatenate([x] * 3 + [x + 1]), np.concatenate([g] * 3 + [g + 1])
    results = []
    before = threads.get_num_threads()
    for count in (1, 2, 5):
        threads.set_num_threads(count)
        results.append(
            (conv(x, w, args), conv_dx(g, w, x.shape, args), conv_dw(g, x, w.shape, args))
        )
    threads.set_num_threads(before)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)
    y, dx, _ = results[0]
    for i in (0, len(x) - 1):
        np.testing.assert_array_equal(conv(x[i : i + 1], w, args), y[i : i + 1])
        np.testing.assert_array_equal(
            conv_dx(g[i : i + 1], w, (1, *x.shape[1:]), args), dx[i : i + 1]
        )


def test_taps_that_see_the_border_only_are_left_out():
    """An infinite weight does not reach outputs whose tap lies outside, however many threads."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((5, 40, 8, 9)).astype(np.float32)
    w = rng.standard_normal((33, 40, 3, 3)).astype(np.float32)
    without = w.copy()
    w[:, :, 0, :], without[:, :, 0, :] = np.inf, 0
    args = ((1, 1), (1, 1), (1, 1), 1)
    before = threads.get_num_threads()
    for count in (1, 2, 5):
        threads.set_num_threads(count)
        for images in (x, x[:1]):
            for lies in (np.ascontiguousarray, channels_last):
                y = conv(lies(images), w, args)
                np.testing.assert_array_equal(y[:, :, 0], conv(images, without, args)[:, :, 0])
                assert not np.isfinite(y[:, :, 1:]).any()
                g = lies(rng.standard_normal(y.shape).astype(np.float32))
                g[:, :, 0] = 0
                want = conv_dw(g, lies(images), w.shape, args)
                g[:, :, 0] = np.inf
                dw = conv_dw(g, lies(images), w.shape, args)
                np.testing.assert_array_equal(dw[:, :, 0], want[:, :, 0])
                assert not np.isfinite(dw[:, :, 1:]).any()
    threads.set_num_threads(before)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1)])
def test_threads_share_the_blocks_of_a_small_weight(channels, padding):
    rng = np.random.default_rng(9)
    x = rng.standard_normal((16, channels, 31, 28)).astype(np.float32)
    args = ((1, 1), padding, (1, 1), 1)
    shape = (16, 20, 29 + 2 * padding[0], 26 + 2 * padding[1])
    g = rng.standard_normal(shape).astype(np.float32)
    close(conv_dw(g, x, (20, channels, 3, 3), args), ref_dw(g, x, (20, channels, 3, 3), *args),
          g[:, 0].size)  # fmt: skip
    found, before, stages = [], threads.get_num_threads(), []
    for count in (1, 2, 3, 7):
        threads.set_num_threads(count)
        for lies in (np.ascontiguousarray, channels_last):
            found.append(conv_dw(lies(g), lies(x), (20, channels, 3, 3), args))
            out = Layout.contiguous((20, channels, 3, 3), g.dtype)
            plan = plan_conv2d_dw(Layout.of(lies(g)), Layout.of(lies(x)), out, *args)
            stages.append(len(plan.stages))
    threads.set_num_threads(before)
    assert stages[:2] == [1, 1] and stages[-2:] == [2, 2]
    for other in found:
        assert other.tobytes() == found[0].tobytes()


@pytest.mark.parametrize(
    "shape", [(1, 64, 30, 29), (2, 40, 7, 7), (1, 72, 14, 14), (1, 48, 64, 61)], ids=str
)
def test_pieces_of_rows_and_bands_have_the_same_bits(shape):
    """Rows of outputs apart, in bands shared by threads, each panel with all of them."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal(shape).astype(np.float32)
    w = rng.standard_normal((50, shape[1], 3, 3)).astype(np.float32)
    infinite = w.copy()
    infinite[:, :, 0, :] = np.inf
    args = ((1, 1), (1, 1), (1, 1), 1)
    before, found = threads.get_num_threads(), []
    for count in (1, 2, 3):
        threads.set_num_threads(count)
        for lies in (np.ascontiguousarray, channels_last):
            found.append(conv(lies(x), w, args))
            y = conv(lies(x), infinite, args)
            np.testing.assert_array_equal(y[:, :, 0], found[0][:, :, 0])
            assert not np.isfinite(y[:, :, 1:]).any()
    threads.set_num_threads(before)
    for y in found[1:]:
        np.testing.assert_array_equal(y, found[0])
    alone = conv(x[:1], w, args)
    np.testing.assert_array_equal(alone, found[0][:1])


def test_weights_that_no_second_cache_holds_meet_one_band(monkeypatch):
    """Each band reads all of them; its slab has room for more rows then, and the same bits."""
    rng = np.random.default_rng(9)
    x = channels_last(rng.standard_normal((1, 512, 14, 14)).astype(np.float32))
    w = rng.standard_normal((128, 512, 3, 3)).astype(np.float32)
    args = ((2, 2), (1, 1), (1, 1), 1)
    out = Layout.contiguous((1, 128, 7, 7), x.dtype)

    def bands() -> int:
        ints = plan_conv2d(Layout.of(x), Layout.of(w), out, *args).ints
        return ints[conv_wide.HEAD.index("bands")]

    with thread_count(1):
        assert bands() == 1
        y = conv(x, w, args)
        monkeypatch.setattr(conv_wide, "_DEAR", 1 << 30)
        assert bands() == 2
        assert conv(x, w, args).tobytes() == y.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=str)
@pytest.mark.parametrize(
    "case",
    [
        (2, 32, 26, 26, 64, 3, 3, (1, 1), (0, 0), (1, 1), 1),
        (3, 40, 13, 18, 70, 5, 5, (1, 2), (0, 0), (1, 1), 1),
        (1, 96, 24, 40, 40, 3, 3, (1, 1), (0, 0), (2, 1), 2),
        (1, 16, 70, 60, 33, 3, 3, (1, 1), (1, 1), (1, 1), 1),
        (5, 32, 12, 10, 48, 3, 3, (1, 1), (1, 1), (1, 1), 1),
        (9, 20, 9, 6, 112, 6, 3, (1, 1), (0, 1), (1, 1), 1),
        (1, 80, 61, 40, 96, 3, 3, (1, 1), (2, 1), (1, 2), 2),
    ],
    ids=str,
)
def test_leaving_out_the_zeros_of_a_gradient_changes_no_bit(case, dtype, monkeypatch):
    x, w, g, args = sample(case, dtype)
    g *= np.random.default_rng(3).integers(0, 5, g.shape) == 0
    close(conv_dw(g, x, w.shape, args), ref_dw(g, x, w.shape, *args), g[:, 0].size)
    close(conv_dx(g, w, x.shape, args), ref_dx(g, w, x.shape, *args), w.size)
    # sums that underflow to -0.0; zeros times what is not finite; columns that are dense
    wild, odd, mixed = x.copy(), w.copy(), g.copy()
    wild[0, 1, 2, 3], wild[-1, -1, -1, -1] = np.inf, np.nan
    odd[0, 1, 2, 0], odd[-1, -1, -1, -1] = np.inf, np.nan
    mixed[:, 32:], mixed[0, 0, 0, 0] = 1, np.inf
    tiny = np.asarray(1e-30, dtype)
    few = 0 - abs(g) * tiny
    found = {}
    for worth in (True, False):
        if not worth:
            monkeypatch.setattr(conv_weight, "zeros_worth", lambda *_: 0)
            monkeypatch.setattr(conv_wide, "strips", lambda *_: (0, 1, 0))
        weights = (g, x), (few, abs(x) * tiny), (g, wild), (mixed, x)
        inputs = (g, w), (few, abs(w) * tiny), (g, odd), (mixed, w)
        turns = (channels_last, np.ascontiguousarray)
        found[worth] = [
            *(conv_dw(t(a), t(b), w.shape, args).tobytes() for a, b in weights for t in turns),
            *(conv_dx(t(a), b, x.shape, args).tobytes() for a, b in inputs for t in turns),
        ]
    assert found[True] == found[False]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(
    "case",
    [
        (3, 20, 9, 11, 64, 3, 3, (1, 1), (1, 1), (1, 1), 1),
        (2, 40, 17, 14, 128, 3, 3, (2, 2), (1, 1), (1, 1), 2),
        (5, 33, 8, 8, 64, 1, 1, (2, 2), (0, 0), (1, 1), 1),
        (2, 3, 30, 30, 64, 3, 3, (1, 1), (1, 1), (1, 1), 1),
    ],
    ids=str,
)
def test_cotangents_are_read_where_they_lie(case, zeros, dtype):
    """Channels last, with others around them, of any address; a number for all pixels."""
    x, w, g, args = sample(case, dtype)
    if zeros:
        g *= np.random.default_rng(1).integers(0, 5, g.shape) == 0
    want = conv_dw(g, x, w.shape, args)
    close(want, ref_dw(g, x, w.shape, *args), g[:, 0].size)
    wide = np.full((g.shape[0], *g.shape[2:], g.shape[1] + 7), np.nan, dtype)
    wide[..., 3:-4] = g.transpose(0, 2, 3, 1)
    apart = wide.transpose(0, 3, 1, 2)[:, 3:-4]
    for form in (channels_last(g), apart):
        np.testing.assert_array_equal(conv_dw(form, channels_last(x), w.shape, args), want)
    same = np.broadcast_to(g[:1, :, :1, :1], g.shape)
    whole = np.ascontiguousarray(same)
    np.testing.assert_array_equal(
        conv_dw(np.broadcast_to(channels_last(whole)[:1, :, :1, :1], g.shape), x, w.shape, args),
        conv_dw(whole, x, w.shape, args),
    )


def test_empty_sizes():
    args = ((1, 1), (1, 1), (1, 1), 1)
    z = np.zeros
    assert conv(z((0, 3, 5, 5), "f4"), z((4, 3, 3, 3), "f4"), args).shape == (0, 4, 5, 5)
    np.testing.assert_array_equal(conv(z((2, 0, 5, 5), "f4"), z((4, 0, 3, 3), "f4"), args), 0)
    g = z((0, 4, 5, 5), "f4")
    np.testing.assert_array_equal(conv_dw(g, z((0, 3, 5, 5), "f4"), (4, 3, 3, 3), args), 0)
    assert conv_dx(g, z((4, 3, 3, 3), "f4"), (0, 3, 5, 5), args).size == 0
    narrow = z((2, 4, 0, 3), "f4")  # no output row at all
    np.testing.assert_array_equal(conv_dw(narrow, z((2, 3, 1, 3), "f4"), (4, 3, 3, 3), args), 0)
    np.testing.assert_array_equal(conv_dx(narrow, z((4, 3, 3, 3), "f4"), (2, 3, 1, 3), args), 0)
    one = ((1, 1), (1, 1), (1, 1), 4)
    np.testing.assert_array_equal(conv_dw(narrow, z((2, 4, 1, 3), "f4"), (4, 1, 3, 3), one), 0)


def test_strided_inputs_are_read_in_place():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 9, 11, 6)).astype(np.float32).transpose(0, 3, 1, 2)
    w = rng.standard_normal((5, 6, 3, 3)).astype(np.float32)
    g = rng.standard_normal((2, 18, 11, 5)).astype(np.float32).transpose(0, 3, 1, 2)[:, :, ::2]
    args = ((1, 1), (1, 1), (1, 1), 1)
    c = np.ascontiguousarray
    np.testing.assert_array_equal(conv(x, w, args), conv(c(x), w, args))
    np.testing.assert_array_equal(conv_dx(g, w, x.shape, args), conv_dx(c(g), w, x.shape, args))
    np.testing.assert_array_equal(conv_dw(g, x, w.shape, args), conv_dw(c(g), c(x), w.shape, args))
    flipped = w[::-1, :, ::-1]
    np.testing.assert_array_equal(conv(x, flipped, args), conv(x, c(flipped), args))
    one = ((1, 1), (0, 0), (1, 1), 1)
    np.testing.assert_array_equal(conv(x[..., ::2], w, one), conv(c(x[..., ::2]), w, one))


def test_layouts_are_checked():
    x, w, _, args = sample(CASES[0], np.float32)
    out = Layout.contiguous((2, 5, 9, 11), np.dtype(np.float32))
    with pytest.raises(ValueError, match="conv2d"):
        plan_conv2d(Layout.of(x), Layout.of(w.astype(np.float64)), out, *args)
    with pytest.raises(ValueError, match="conv2d"):
        plan_conv2d(Layout.of(x), Layout.of(w[:, :2]), out, *args)
    with pytest.raises(ValueError, match="conv2d"):
        plan_conv2d(
            Layout.of(x),
            Layout.of(w),
            Layout.contiguous((2, 5, 12, 11), np.dtype(np.float32)),
            *args,
        )


_DIGEST = """
import hashlib, sys
import numpy as np
sys.path.insert(0, {folder!r})
from test_conv import CASES, conv, conv_dw, conv_dx, sample
h = hashlib.sha256()
for case in (*CASES[3:9], CASES[12]):
  for dtype in (np.float32, np.float64):
    x, w, g, args = sample(case, dtype)
    for r in (conv(x, w, args), conv_dx(g, w, x.shape, args), conv_dw(g, x, w.shape, args)):
        h.update(r.tobytes())
print(h.hexdigest())
"""


def test_targets_give_the_same_bits():
    """fma in one order has one answer, whatever the vector width."""
    code = _DIGEST.format(folder=os.path.dirname(__file__))

    def digest(target):
        env = os.environ | {"WEFT_TARGET": target}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    kinds = [""]
    if native.host().arch == "x86_64":
        kinds = ["sse", "avx2", "avx512"][: native.host().vector_bits.bit_length() - 7]
    assert len({digest(kind) for kind in kinds}) == 1


def channels_last(a):
    """The same numbers, the channels of a pixel adjacent."""
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_channels_last_gives_the_same_bits(case):
    x, w, g, args = sample(case, np.float32)
    of = Layout.of
    for plan, ins, like in (
        (plan_conv2d, (x, w), g),
        (plan_conv2d_dx, (g, w), x),
        (plan_conv2d_dw, (g, x), w),
    ):
        want = run(plan(*map(of, ins), of(like), *args), like.shape, np.float32, ins)
        wide = tuple(channels_last(a) if a is not w else a for a in ins)
        out = channels_last(np.full_like(like, np.nan)) if like is not w else np.empty_like(w)
        assert native.launch(plan(*map(of, wide), of(out), *args), out, wide) == 0
        np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "dilation"),
    [(40, (14, 15), 3, 7), (70, (33, 9), 3, 12), (300, (21, 90), 3, 6), (20, (19, 18), 14, 1)],
)
def test_taps_far_apart_have_the_bits_of_few_channels(channels, size, kernel, dilation):
    """A slab of whole images, whose pieces leave out most taps; bands of one that is too large."""
    rng = np.random.default_rng(15)
    padding = dilation * (kernel // 2)
    x = rng.standard_normal((2, channels, *size)).astype(np.float32)
    w = rng.standard_normal((36, channels, kernel, kernel)).astype(np.float32)
    args = ((1, 1), (padding, padding), (dilation, dilation), 1)
    for count in (1, 2):
        with thread_count(count):
            y = conv(x, w, args)
            np.testing.assert_array_equal(conv(channels_last(x), w, args), y)
            dx = conv_dx(y, w[:, :20].copy(), (2, 20, *size), args)
        few = slice(9, 13)
        np.testing.assert_array_equal(y[:, few], conv(x, w[few].copy(), args))
        want = conv_dx(y, w[:, few].copy(), (2, 4, *size), args)
        np.testing.assert_array_equal(dx[:, few], want)
    close(y, ref_conv2d(x, w, *args), w[0].size)


@pytest.mark.parametrize(
    ("size", "form", "stride"),
    [
        ((8, 9), (10, 3, 3, 3), 1),
        ((17, 33), (40, 1, 5, 3), 1),
        ((21, 20), (12, 3, 4, 4), 3),
        ((8, 8), (9, 70, 1, 3), 1),
        ((12, 13), (1, 16, 3, 3), 2),
    ],
    ids=str,
)
def test_short_sums_meet_the_border_wherever_images_lie(size, form, stride):
    """Planes go by pixels across the vector, pixels by channels, and neither leaves out zeros."""
    rng = np.random.default_rng(14)
    x = rng.standard_normal((2, form[1], *size)).astype(np.float32)
    w = rng.standard_normal(form).astype(np.float32)
    bias = rng.standard_normal(form[0]).astype(np.float32)
    args = ((stride, stride), (1, 1), (1, 1), 1)
    infinite = w.copy()
    infinite[..., 0, 0] = np.inf
    for weight in (w, infinite):
        y, seen = conv(x, weight, args, bias), []
        np.testing.assert_array_equal(conv(channels_last(x), weight, args, bias), y)
        g = rng.standard_normal(y.shape).astype(np.float32)
        for back in (g, channels_last(g)):
            out = np.empty(x.shape, np.float32) if back is g else channels_last(x.copy())
            launch = plan_conv2d_dx(*map(Layout.of, (back, weight, out)), *args)
            assert native.launch(launch, out, (back, weight)) == 0
            seen.append(out)
        np.testing.assert_array_equal(*seen)
        if weight is w:
            close(y - bias[:, None, None], ref_conv2d(x, w, *args), w[0].size)
            close(seen[0], ref_dx(g, w, x.shape, *args), w[:, 0].size)
    assert np.isnan(y[:, :, 0]).all()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("images", "size", "kernel", "stride"),
    [
        (7, (9, 11), (3, 3), (2, 2)),  # images in a unit, and rows and columns of one residue more
        (1, (40, 37), (4, 4), (2, 2)),  # bands
        (2, (70, 35), (3, 3), (1, 1)),  # bands of one part, in pieces
        (2, (13, 14), (2, 3), (3, 2)),  # residues without taps
        (1, (64, 6), (3, 1), (2, 3)),
    ],
)
def test_planes_of_all_parts_go_out_together(images, size, kernel, stride, count):
    """With the bits of those that go out part by part, and of pixels."""
    rng = np.random.default_rng(9)
    padding, channels, columns = (kernel[0] // 2, kernel[1] // 2), 24, 70
    grid = tuple(out_size(*a, 1) for a in zip(size, kernel, stride, padding, strict=True))
    g = rng.standard_normal((images, channels, *grid), np.float32)
    w = rng.standard_normal((channels, columns, *kernel), np.float32)
    x = rng.standard_normal((images, channels, *size), np.float32)
    wt = np.ascontiguousarray(w.swapaxes(0, 1))
    of = Layout.of
    for plan, ins, shape in (
        (plan_conv2d_dx, (g, w), (images, columns, *size)),
        (plan_conv2d, (x, wt), (images, columns, *grid)),
    ):
        n, c, height, width = shape
        found = []
        for room in (0, 3, None):
            last = (height, width, c) if room is None else (c, height, width + room)
            whole = np.full((n, *last), -7, np.float32)
            out = whole.transpose(0, 3, 1, 2) if room is None else whole[..., :width]
            with thread_count(count):
                launch = plan(of(ins[0]), of(ins[1]), of(out), stride, padding, (1, 1), 1)
                assert native.launch(launch, out, ins) == 0
            assert (whole == -7).sum() == whole.size - out.size
            found.append(out)
        np.testing.assert_array_equal(found[0], found[2])
        np.testing.assert_array_equal(found[1], found[2])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_packed_weights_give_the_same_bits(case):
    x, w, g, args = sample(case, np.float32)
    bias = np.random.default_rng(5).standard_normal(len(w)).astype(np.float32)
    for image, like in ((x, g), (channels_last(x), channels_last(g))):
        for ins in ((image, w), (image, w, bias)):
            of = [Layout.of(a) for a in (*ins[:2], like)]
            shift = Layout.of(bias) if len(ins) > 2 else None
            p = plan_conv2d_packed(*of, *args, bias=shift)
            if 2 * (len(w) // args[3]) <= native.host().lanes(4) or p is None:
                assert p is None
                continue
            room = np.full(p.size + 64, 0xAA, np.uint8)
            packed = room[-room.ctypes.data % 64 :][: p.size]
            assert native.launch(p.pack, packed, (w,)) == 0
            want, got = np.full_like(like, np.nan), np.full_like(like, np.nan)
            assert native.launch(plan_conv2d(*of, *args, bias=shift), want, ins) == 0
            assert native.launch(p.launch, got, (image, packed, *ins[2:])) == 0
            np.testing.assert_array_equal(got, want)


def test_launches_of_one_form_read_one_packed_weight():
    """Few and many pixels, whose panels may differ in width; an image's results do not."""
    rng = np.random.default_rng(8)
    w = rng.standard_normal((70, 40, 3, 3)).astype(np.float32)
    x = channels_last(rng.standard_normal((4, 40, 7, 7)).astype(np.float32))
    packed, first = {}, None
    for n in (1, 2, 3, 4):
        out = channels_last(np.full((n, 70, 7, 7), np.nan, np.float32))
        of = [Layout.of(a) for a in (x[:n], w, out)]
        p = plan_conv2d_packed(*of, (1, 1), (1, 1), (1, 1), 1)
        room = np.zeros(p.size + 64, np.uint8)
        own = room[-room.ctypes.data % 64 :][: p.size]
        assert native.launch(p.pack, own, (w,)) == 0
        own = packed.setdefault(p.form, own)
        assert native.launch(p.launch, out, (x[:n], own)) == 0
        first = out[0] if first is None else first
        np.testing.assert_array_equal(out[0], first)


def test_an_epilogue_gives_the_bits_of_a_loop_that_follows():
    """relu(y s + bias + residual), and where it is positive: several panels, bands and images."""
    rng = np.random.default_rng(6)
    f32 = D.float32
    sizes = ((3, 40, 13, 70, 3), (2, 500, 7, 33, 1), (1, 3, 40, 32, 5), (1, 64, 29, 40, 3))
    for n, ci, size, co, k in sizes:
        x = channels_last(rng.standard_normal((n, ci, size, size)).astype(np.float32))
        w = rng.standard_normal((co, ci, k, k)).astype(np.float32)
        scale, bias = rng.standard_normal((2, co)).astype(np.float32)
        scale, bias = scale.reshape(1, co, 1, 1), bias.reshape(co, 1, 1)
        plain = conv(x, w, ((1, 1), (k // 2,) * 2, (1, 1), 1))
        residual = channels_last(rng.standard_normal(plain.shape).astype(np.float32))
        y, s, b, r = (S.Arg(i, f32) for i in range(4))
        total = S.add(S.add(S.mul(y, s), b), r)
        exprs = (S.max(total, S.const(0.0, f32)), S.gt(total, S.const(0.0, f32)))
        out, positive = channels_last(plain), channels_last(plain > 0)
        ins = (scale, bias, residual)
        end = Epilogue(exprs, tuple(map(Layout.of, ins)), (Layout.of(out), Layout.of(positive)))
        plan = plan_conv2d(
            Layout.of(x), Layout.of(w), Layout.of(out), (1, 1), (k // 2,) * 2, (1, 1), 1,
            epilogue=end,
        )  # fmt: skip
        assert native.launch(plan, out, (x, w, positive, *ins)) == 0
        want = plain * scale + bias + residual
        np.testing.assert_array_equal(out, np.maximum(want, 0))
        np.testing.assert_array_equal(positive, want > 0)
    dense = Epilogue(exprs[:1], (), (Layout.contiguous(plain.shape, plain.dtype),))
    with pytest.raises(ValueError, match="channels last"):
        plan_conv2d(
            Layout.of(x), Layout.of(w), dense.outs[0], (1, 1), (2, 2), (1, 1), 1, epilogue=dense
        )
