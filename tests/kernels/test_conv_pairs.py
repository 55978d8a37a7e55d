"""Convolutions that multiply pairs of channels in bfloat16: values, order, threads, other hosts."""

import hashlib
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from tests.kernels.test_conv import (
    CASES,
    channels_last,
    out_size,
    ref_conv2d,
    ref_dw,
    ref_dx,
    run,
    sample,
    taps,
)
from weft.kernels.layout import Layout
from weft.kernels.schedule.amx import multiplies_pairs_in_tiles
from weft.kernels.schedule.conv import plan_conv2d, plan_conv2d_dx, plan_conv2d_packed
from weft.kernels.schedule.conv_weight import plan_conv2d_dw
from weft.kernels.schedule.tile import multiplies_pairs
from weft.kernels.schedule.words import PAIRS_FROM
from weft.runtime import native, threads

BF16, F32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)
MORE = [
    (2, 64, 14, 14, 32, 1, 1, (2, 2), (0, 0), (1, 1), 1),
    (2, 32, 9, 9, 24, 3, 3, (2, 2), (1, 1), (1, 1), 2),
    (1, 1000, 5, 5, 80, 1, 1, (1, 1), (0, 0), (1, 1), 1),
    (1, 131, 5, 5, 80, 3, 3, (1, 1), (1, 1), (1, 1), 1),
    (3, 1, 9, 8, 17, 3, 3, (1, 1), (1, 1), (1, 1), 1),
    (1, 34, 12, 13, 18, 3, 5, (1, 1), (2, 4), (2, 2), 1),
    (3, 40, 7, 7, 70, 3, 3, (1, 1), (1, 1), (1, 1), 1),  # rows fill tiles badly: all positions do
    (5, 32, 1, 1, 100, 1, 1, (1, 1), (0, 0), (1, 1), 1),  # a line of images
    (2, 33, 20, 3, 40, 3, 3, (1, 1), (0, 0), (1, 1), 1),  # one column of outputs
    (2, 8, 5, 17, 34, 3, 3, (1, 1), (1, 0), (1, 1), 1),  # taps side by side, chunks of 12
]
rounds = pytest.mark.skipif(not multiplies_pairs(), reason="the host has no products of bfloat16")
kinds = pytest.mark.parametrize("dtype", [BF16, pytest.param(F32, marks=rounds)], ids=str)


def paired(case):
    """Whether the forward pass, and the input's gradient, go by pairs."""
    return [case[i] // case[-1] >= PAIRS_FROM for i in (4, 1)]


def conv(x, w, args, bias=None, *, last=False):
    size = [
        out_size(x.shape[2 + i], w.shape[2 + i], args[0][i], args[1][i], args[2][i]) for i in (0, 1)
    ]
    shape = (x.shape[0], w.shape[0], *size)
    out = np.full(shape, np.nan, x.dtype)
    out = channels_last(out) if last else out
    blay = None if bias is None else Layout.of(bias)
    plan = plan_conv2d(Layout.of(x), Layout.of(w), Layout.of(out), *args, bias=blay, fast=True)
    assert native.launch(plan, out, (x, w) if bias is None else (x, w, bias)) == 0
    return out


def conv_dx(g, w, x_shape, args):
    out = Layout.contiguous(x_shape, g.dtype)
    plan = plan_conv2d_dx(Layout.of(g), Layout.of(w), out, *args, fast=True)
    return run(plan, x_shape, g.dtype, (g, w))


def conv_dw(g, x, w_shape, args):
    out = Layout.contiguous(w_shape, g.dtype)
    plan = plan_conv2d_dw(Layout.of(g), Layout.of(x), out, *args, fast=True)
    return run(plan, w_shape, g.dtype, (g, x))


def rounded(*arrays):
    return [a.astype(BF16).astype(np.float64) for a in arrays]


def close(got, want, terms, size):
    eps = 2.0**-8 if got.dtype == BF16 else 2.0**-24
    bound = eps * np.abs(want) + (terms + 2) * 2.0**-24 * size
    assert (np.abs(got.astype(np.float64) - want) <= bound + 2.0**-126).all()


@kinds
@pytest.mark.parametrize("case", [c for c in CASES + MORE if any(paired(c))], ids=str)
def test_forward_and_input_gradient(case, dtype):
    x, w, g, args = sample(case, dtype)
    bias, pair = np.random.default_rng(1).standard_normal(w.shape[0]).astype(dtype), paired(case)
    (xr, wr, gr), wide = rounded(x, w, g), bias.astype(np.float64)[:, None, None]
    for lies in (np.ascontiguousarray, channels_last):
        if pair[0] or dtype == BF16:
            want, size = (ref_conv2d(*ab, *args) for ab in ((xr, wr), (np.abs(xr), np.abs(wr))))
            for last in (False, True):
                got = conv(lies(x), w, args, bias, last=last)
                close(got, want + wide, w[0].size, size + np.abs(wide))
        if pair[1] or dtype == BF16:
            want = ref_dx(gr, wr, x.shape, *args)
            size = ref_dx(np.abs(gr), np.abs(wr), x.shape, *args)
            close(conv_dx(lies(g), w, x.shape, args), want, w.size, size)


@kinds
@pytest.mark.parametrize("case", [c for c in CASES + MORE if paired(c)[0]], ids=str)
def test_weight_gradient(case, dtype):
    x, w, g, args = sample(case, dtype)
    xr, gr = rounded(x, g)
    want = ref_dw(gr, xr, w.shape, *args)
    size = ref_dw(np.abs(gr), np.abs(xr), w.shape, *args)
    results = set()
    for lies in (np.ascontiguousarray, channels_last):
        for other in (np.ascontiguousarray, channels_last):
            got = conv_dw(lies(g), other(x), w.shape, args)
            close(got, want, g[:, 0].size, size)
            results.add(got.tobytes())
    assert len(results) == 1
    apart = np.zeros((*g.shape[:3], 2 * g.shape[3]), dtype)[..., ::2]
    apart[...] = g
    assert conv_dw(apart, x, w.shape, args).tobytes() in results


@kinds
def test_what_a_last_odd_pixel_does_not_see(dtype):
    """A tap's sum has no product with the image's column behind its last pixel."""
    x, w, g, args = sample((2, 20, 6, 9, 24, 3, 3, (1, 1), (0, 0), (1, 1), 1), dtype)
    assert g.shape[3] == 7
    x[..., 7], x[..., 8] = np.inf, np.nan  # the second and third taps' alone
    dw = conv_dw(g, x, w.shape, args).astype(F32)
    assert np.isfinite(dw[..., 0]).all() and not np.isfinite(dw[..., 1:]).any()


def by_pairs(a, b):
    """The definition, of (channels, taps): the second channel of a pair first, blocks of words."""
    c, taps = a.shape
    return by_words(
        a, b, [[(i, t) for i in (p + 1, p) if i < c] for p in range(0, c, 2) for t in range(taps)]
    )


def by_words(a, b, words):
    total = None
    for start in range(0, len(words), 384):
        acc = np.float32(0)
        for place in (place for word in words[start : start + 384] for place in word):
            acc = np.float32(np.longdouble(a[place]) * np.longdouble(b[place]) + np.longdouble(acc))
        total = acc if total is None else np.float32(total + acc)
    return total


def by_tiles(a, b):
    """The definition in tile registers, of (channels, rows, columns of the kernel): runs of words
    in equal chunks of 16 at most, what comes first in a word and second apart (`amx`).
    """
    channels, height, width = a.shape
    pairs = range(0, channels, 2)
    beside = -(-width * len(pairs) // 16)
    beside = len(pairs) < 16 and width * len(pairs) % beside == 0
    rows, every = [(p, range(width)) for p in range(height)], np.ndindex(height, width)
    places = rows if beside else [(p, [q]) for p, q in every]
    total = np.float32(0)
    for p, along in places:
        words = [(c, q) for q in along for c in pairs]
        cells = -(-len(words) // -(-len(words) // 16))
        for first in range(0, len(words), cells):
            sums = [np.float32(0)] * 2
            for c, q in words[first : first + cells]:
                for i in range(min(2, channels - c)):
                    left, right = (np.longdouble(x[c + i, p, q]) for x in (a, b))
                    sums[i] = np.float32(left * right + np.longdouble(sums[i]))
            total = np.float32(total + np.float32(sums[0] + sums[1]))
    return total


def by_host(a, b):
    if multiplies_pairs_in_tiles():
        return by_tiles(a, b)
    return by_pairs(*(x.reshape(len(x), -1) for x in (a, b)))


@kinds
@pytest.mark.parametrize("channels", [101, 3, 20, 14, 64])
def test_strict_order(dtype, channels):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, channels, 12, 13)).astype(dtype)
    w = rng.standard_normal((19, channels, 3, 3)).astype(dtype)
    y = conv(x, w, ((2, 1), (1, 1), (1, 1), 1))
    xp, wr = (a.astype(BF16).astype(F32) for a in (np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), w))
    for n, co, oy, ox in ((0, 0, 0, 0), (2, 18, 5, 12), (1, 3, 2, 7)):
        piece = xp[n, :, 2 * oy : 2 * oy + 3, ox : ox + 3]
        assert y[n, co, oy, ox] == by_host(wr[co], piece).astype(dtype)
    g, w = x, w.swapaxes(0, 1)  # the input's gradient of a convolution that made `channels`
    dx = conv_dx(g, w, (3, 19, 12, 13), ((1, 1), (1, 1), (1, 1), 1))
    for n, ci, oy, ox in ((0, 0, 0, 0), (2, 18, 11, 12), (1, 3, 2, 7)):
        piece = xp[n, :, oy : oy + 3, ox : ox + 3][:, ::-1, ::-1]
        tap_by_tap = by_host(*(np.ascontiguousarray(a) for a in (wr[ci], piece)))
        if multiplies_pairs_in_tiles() and channels < 31:  # taps fall: none lie side by side
            tap_by_tap = by_tiles(*(a.reshape(channels, 9, 1) for a in (wr[ci], piece)))
        assert dx[n, ci, oy, ox] == tap_by_tap.astype(dtype)


@kinds
@pytest.mark.skipif(multiplies_pairs_in_tiles(), reason="test_conv_weight_tiles has the order")
def test_strict_order_of_weights_gradients(dtype):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, 101, 12, 13)).astype(dtype)
    xp = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).astype(BF16).astype(F32)
    x, g = xp[:, :50], rng.standard_normal((6, 19, 12, 13)).astype(dtype)
    x = np.concatenate([x, x + 1]).astype(BF16).astype(F32)
    dw = conv_dw(g, x.astype(dtype), (19, 50, 3, 3), ((1, 1), (0, 0), (1, 1), 1))
    words = [
        [(n, y, i) for i in (p + 1, p) if i < 13]
        for n in range(6)
        for y in range(12)
        for p in range(0, 13, 2)
    ]
    for co, ci, p, q in ((0, 0, 0, 0), (18, 49, 2, 1), (3, 20, 1, 2)):
        piece = taps(x, p, q, 12, 13, (1, 1), (1, 1))[:, ci]
        one = g[:, co].astype(BF16).astype(F32)
        assert dw[co, ci, p, q] == by_words(one, piece, words).astype(dtype)


@kinds
def test_threads_batch_layout_and_packing_do_not_change_bits(dtype):
    before = threads.get_num_threads()
    for case in (MORE[0], MORE[1], MORE[3], CASES[2]):
        x, w, g, args = sample(case, dtype)
        x, g = np.concatenate([x] * 2 + [x + 1]), np.concatenate([g] * 2 + [g + 1])
        found = set()
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            for lies in (np.ascontiguousarray, channels_last):
                y, dx = conv(lies(x), w, args), conv_dx(lies(g), w, x.shape, args)
                dw = conv_dw(lies(g), lies(x), w.shape, args)
                alone = conv(lies(x[-1:]), w, args)
                found.add((y.tobytes(), dx.tobytes(), dw.tobytes(), alone.tobytes()))
                assert alone.tobytes() == y[-1:].tobytes()
                layouts = (Layout.of(lies(x)), Layout.of(w), Layout.of(y))
                packed = plan_conv2d_packed(*layouts, *args, fast=True)
                assert packed is not None
                whole = np.zeros(packed.size + 64, np.uint8)
                memory = whole[-whole.ctypes.data % 64 :][: packed.size]
                assert native.launch(packed.pack, memory, (w,)) == 0
                again = run(packed.launch, y.shape, dtype, (lies(x), memory))
                assert again.tobytes() == y.tobytes()
        threads.set_num_threads(before)
        assert len(found) == 1


@kinds
def test_neighbours_that_are_not_read(dtype):
    """A channel beside an odd last one, columns beside the image: NaN there stays there."""
    rng = np.random.default_rng(4)
    whole = np.full((2, 8, 9, 40), np.nan, dtype)
    whole[:, 1:, 2:, :33] = rng.standard_normal((2, 7, 7, 33))
    w = rng.standard_normal((12, 33, 3, 3)).astype(dtype)
    args = ((1, 1), (1, 1), (1, 1), 1)
    for view in (
        whole[:, 1:, 2:, :33].transpose(0, 3, 1, 2),
        whole.transpose(0, 3, 1, 2)[:, :33, 1:, 2:],
    ):
        y = conv(view, w, args)
        assert y.tobytes() == conv(np.ascontiguousarray(view), w, args).tobytes()
        assert np.isfinite(y.astype(F32)).all()
    one = w[:, :, :1, :1].copy()
    y = conv(view, one, ((1, 1), (0, 0), (1, 1), 1))
    assert np.isfinite(y.astype(F32)).all()


@kinds
def test_values_that_are_no_numbers_and_ties(dtype):
    rng = np.random.default_rng(5)
    x, w, _, args = sample(CASES[2], dtype)
    x[0, 3, 4, 5], x[0, 60, 9, 9], w[7, 2, 1, 1] = np.nan, np.inf, -np.inf
    y = conv(x, w, args).astype(np.float64)
    with np.errstate(invalid="ignore"):
        want = ref_conv2d(*rounded(x, w), *args)
    assert (np.isnan(y) == np.isnan(want)).all() and (np.isinf(y) == np.isinf(want)).all()
    assert np.isnan(y[0, :, 3:6, 4:7]).all() and (y[0, 7] != y[0, 8]).any()
    ties = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-8 + 2.0**-20, -1 - 2.0**-8], F32)
    image = np.zeros((1, 16, 2, 2), dtype)
    image[0, 0] = ties.reshape(2, 2)
    one = np.ones((16, 16, 1, 1), dtype)
    got = conv(image, one, ((1, 1), (0, 0), (1, 1), 1))[0, rng.integers(16)]
    assert (got.astype(F32).ravel() == ties.astype(BF16).astype(F32)).all()


@kinds
def test_empty_sizes(dtype):
    args = ((1, 1), (1, 1), (1, 1), 1)
    assert conv(np.zeros((0, 3, 5, 5), dtype), np.zeros((20, 3, 3, 3), dtype), args).size == 0
    y = conv(np.zeros((2, 0, 5, 5), dtype), np.zeros((20, 0, 3, 3), dtype), args)
    assert y.shape == (2, 20, 5, 5) and not y.any()
    dx = conv_dx(np.zeros((2, 4, 0, 3), dtype), np.ones((4, 30, 3, 3), dtype), (2, 30, 1, 3), args)
    assert dx.shape == (2, 30, 1, 3) and not dx.any()
    for size in ((0, 20, 5, 5), (2, 20, 0, 5)):
        image = np.ones((size[0], 3, max(size[2] - 1, 1), 5), dtype)
        assert not conv_dw(np.zeros(size, dtype), image, (20, 3, 3, 3), args).any()


def digest():
    h = hashlib.sha256()
    for case in (MORE[0], MORE[1], MORE[3], MORE[4], CASES[2], CASES[15]):
        x, w, g, args = sample(case, BF16)
        h.update(conv(x, w, args).tobytes() + conv(channels_last(x), w, args).tobytes())
        h.update(conv_dx(g, w, x.shape, args).tobytes())
        h.update(conv_dw(g, x, w.shape, args).tobytes())
    return h.hexdigest()


def test_other_hosts_have_the_same_bits():
    """With the instruction or without, and whatever the width of vectors."""
    if native.host().arch not in ("x86_64", "amd64"):
        pytest.skip("this machine has one target")
    code = "import weft; from tests.kernels.test_conv_pairs import digest; print(digest())"
    # tile registers have another order: such a host is asked without them
    found = set() if multiplies_pairs_in_tiles() else {digest()}
    for target in ("avx512", "avx2", "sse") if multiplies_pairs_in_tiles() else ("avx2", "sse"):
        env = dict(os.environ, WEFT_TARGET=target, PYTHONPATH=os.pathsep.join(sys.path))
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout.strip())
    assert len(found) == 1
