"""Byte products, convolutions and pools against NumPy's int64, on every kind of host."""

import numpy as np
import pytest

from weft.kernels.layout import Layout
from weft.kernels.schedule.conv_int8 import (
    COLUMNS,
    LONGEST,
    Ending,
    pack_int8,
    plan_conv_int8,
)
from weft.kernels.schedule.image_int8 import (
    plan_depthwise_int8,
    plan_max_pool_bytes,
    plan_to_bytes,
)
from weft.runtime import native, threads

PRODUCTS = [
    (1, 1, 1), (1, 64, 4), (5, 63, 3), (6, 65, 8), (7, 128, 31), (13, 200, 100), (49, 17, 260),
    (100, 130, 64), (0, 5, 4), (3, 7, 0), (1, 65, 128), (16, 32, 512), (17, 33, 512), (33, 96, 200),
    (65, 64, 2048), (127, 257, 64),
]  # fmt: skip
# images, height, width, channels, columns, kernel, stride, padding, dilation, groups, border
CONVS = {
    "3x3": (2, 5, 7, 8, 10, (3, 3), (1, 1), (0, 0), (1, 1), 1, 0),
    "zero point around": (2, 9, 7, 8, 66, (3, 3), (1, 1), (1, 1), (1, 1), 1, 201),
    "7x7 stride 2": (1, 29, 31, 4, 65, (7, 7), (2, 2), (3, 3), (1, 1), 1, 255),
    "steps and gaps differ": (3, 15, 17, 8, 5, (3, 2), (2, 1), (2, 1), (1, 3), 1, 9),
    "groups": (2, 8, 9, 24, 70, (3, 3), (1, 1), (1, 1), (1, 1), 2, 30),
    "1x1": (1, 29, 1, 64, 33, (1, 1), (1, 1), (0, 0), (1, 1), 1, 0),
    "1x1 stride 2": (3, 11, 14, 20, 40, (1, 1), (2, 2), (0, 0), (1, 1), 1, 0),
    "1x1 with a border": (1, 4, 4, 4, 3, (1, 1), (1, 1), (1, 1), (1, 1), 1, 77),
    "slabs of some rows": (1, 90, 64, 132, 64, (3, 3), (1, 1), (1, 1), (1, 1), 1, 13),
    "many small images": (9, 4, 4, 68, 20, (3, 3), (1, 1), (1, 1), (1, 1), 1, 5),
    "zeros around": (2, 9, 7, 8, 66, (3, 3), (1, 1), (1, 1), (1, 1), 1, 0),
    "rows of zeros only": (3, 4, 5, 8, 3, (3, 2), (2, 1), (4, 1), (3, 1), 1, 0),
    "bands with zeros around": (1, 90, 64, 132, 64, (5, 3), (2, 1), (2, 1), (1, 1), 1, 0),
    "7x7 maps": (5, 7, 7, 64, 130, (3, 3), (1, 1), (1, 1), (1, 1), 1, 30),
    "narrow maps in a slab": (2, 40, 3, 32, 70, (3, 3), (1, 1), (1, 1), (1, 1), 1, 0),
    "positions between outputs": (2, 9, 9, 96, 33, (3, 3), (1, 1), (0, 0), (2, 1), 1, 0),
    "rows of 19 outputs": (1, 5, 37, 20, 64, (1, 3), (1, 2), (0, 1), (1, 1), 1, 8),
    "36 channels, gaps": (2, 13, 11, 36, 40, (3, 3), (2, 2), (2, 2), (1, 2), 1, 128),
    "groups of 48": (1, 8, 9, 96, 144, (3, 3), (1, 1), (1, 1), (1, 1), 2, 3),
    "one column of outputs": (3, 50, 3, 64, 20, (1, 3), (1, 1), (0, 0), (1, 1), 1, 0),
    "one pixel": (1, 1, 1, 256, 100, (1, 1), (1, 1), (0, 0), (1, 1), 1, 0),
    "wide rows of a kernel": (1, 32, 48, 4, 70, (16, 16), (16, 16), (0, 0), (1, 1), 1, 0),
    "no image": (0, 4, 4, 4, 3, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    "no channels": (2, 3, 3, 0, 3, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
}


def sums(x, w, stride, padding, dilation, groups, border):
    """The convolution in int64: x (N, H, W, C), w (O, KH, KW, C / groups)."""
    x = np.pad(
        x.astype(np.int64), [(0, 0), *((p, p) for p in padding), (0, 0)], constant_values=border
    )
    (o, kh, kw, depth), (sh, sw), (dh, dw) = w.shape, stride, dilation
    h, v = (x.shape[1] - (kh - 1) * dh - 1) // sh + 1, (x.shape[2] - (kw - 1) * dw - 1) // sw + 1
    y = np.zeros((x.shape[0], h, v, o), np.int64)
    for group in range(groups):
        mine = slice(group * o // groups, (group + 1) * o // groups)
        for p in range(kh):
            for q in range(kw):
                rows = x[:, p * dh :: sh, q * dw :: sw, group * depth : (group + 1) * depth]
                y[..., mine] += rows[:, :h, :v] @ w[mine, p, q].astype(np.int64).T
    return y


def convolve(x, w, stride, padding, dilation, groups, border, to, more=(), **limits):
    kernel = w.shape[1:3]
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(x.shape[1:3], padding, dilation, kernel, stride, strict=True)
    ]
    out = np.full((x.shape[0], *size, w.shape[0]), 77, to)
    ins = [x, pack_int8(w, groups), *more]
    layouts = [Layout.of(a) for a in ins]
    launch = plan_conv_int8(
        layouts, Layout.of(out), kernel, stride, padding, dilation, groups, Ending(border, **limits)
    )
    assert native.launch(launch, out, ins) == 0
    return out


def multiply_add(a, b, c):
    """a * b + c of float32, rounded once where the host does so (float64 holds the product)."""
    exact = np.float64 if native.host().has_fma else np.float32
    return (a.astype(np.float32).astype(exact) * b + c).astype(np.float32)


def in_panels(values, groups):
    rows = values.reshape(groups, -1)
    return np.pad(rows, [(0, 0), (0, -rows.shape[1] % COLUMNS)]).astype(np.float32).ravel()


def operands(rng, case):
    n, h, w, c, columns, kernel, *window, groups, border = CONVS[case]
    x = rng.integers(0, 256, (n, h, w, c)).astype(np.uint8)
    weight = rng.integers(-128, 128, (columns, *kernel, c // groups)).astype(np.int8)
    return x, weight, (*window, groups, border)


@pytest.mark.parametrize("case", CONVS)
def test_sums_are_exact(rng, case):
    x, w, window = operands(rng, case)
    np.testing.assert_array_equal(convolve(x, w, *window, "int32"), sums(x, w, *window))


@pytest.mark.parametrize("to", ["float32", "uint8"])
@pytest.mark.parametrize("with_other", [False, True])
@pytest.mark.parametrize(
    "case",
    ["zero point around", "groups", "zeros around", "no image", "7x7 maps", "rows of 19 outputs"],
)
def test_endings_round_each_product_with_its_sum(rng, case, with_other, to):
    x, w, window = operands(rng, case)
    want = sums(x, w, *window)
    spread = max(want.std(), 1.0) if want.size else 1.0
    scale = (rng.uniform(20, 60, w.shape[0]) / spread).astype(np.float32)
    shift = (rng.normal(size=w.shape[0]) * 40 + 100).astype(np.float32)
    more = [in_panels(v, window[-2]) for v in (scale, shift)]
    z = multiply_add(want, scale, shift)
    limits = {"low": 3.0, "high": 201.0}
    if with_other:
        more.append(rng.integers(0, 256, want.shape).astype(np.uint8))
        limits["other_scale"] = float(np.float32(0.37))
        z = multiply_add(more[2], np.float32(0.37), z)
    z = np.clip(z, np.float32(3), np.float32(201))
    got = convolve(x, w, *window, to, more, **limits)
    np.testing.assert_array_equal(got, np.rint(z).astype(np.uint8) if to == "uint8" else z)
    if want.size:
        assert 3 < np.median(got) < 201


def test_halves_go_to_the_even_byte():
    x = np.arange(4, dtype=np.uint8).reshape(1, 4, 1, 1).repeat(4, 3)
    w = np.array([[[[1, 0, 0, 0]]]], np.int8)
    more = [np.full(COLUMNS, 0.5, np.float32), np.full(COLUMNS, 1.0, np.float32)]
    got = convolve(x, w, (1, 1), (0, 0), (1, 1), 1, 0, "uint8", more)
    np.testing.assert_array_equal(got.ravel(), [1, 2, 2, 2])  # 1, 1.5, 2, 2.5


@pytest.mark.parametrize("with_other", [False, True])
@pytest.mark.parametrize("size", [1e-3, 0.1, 1e3, 1e6])  # results beyond a byte, int16, int32
@pytest.mark.parametrize("low,high", [(0.0, 255.0), (2.5, 200.5), (3.5, 199.5)])
def test_whole_panels_are_clamped(rng, size, with_other, low, high):
    x = rng.integers(0, 256, (1, 5, 7, 16)).astype(np.uint8)
    w = rng.integers(-128, 128, (128, 3, 3, 16)).astype(np.int8)
    window = ((1, 1), (1, 1), (1, 1), 1, 9)
    scale = (rng.uniform(0.5, 1, 128) * size).astype(np.float32)
    shift = rng.normal(100, 40, 128).astype(np.float32)
    more, z = [scale, shift], multiply_add(sums(x, w, *window), scale, shift)
    if with_other:
        more.append(rng.integers(0, 256, z.shape).astype(np.uint8))
        z = multiply_add(more[2], np.float32(0.37), z)
    limits = {"low": low, "high": high, "other_scale": float(np.float32(0.37))}
    got = convolve(x, w, *window, "uint8", more, **limits)
    np.testing.assert_array_equal(got, np.rint(np.clip(z, low, high)).astype(np.uint8))
    assert len(np.unique(got)) > 5 or size > 1


@pytest.mark.parametrize("columns", [3, 64])
def test_what_no_byte_can_be(rng, columns):
    x = np.full((1, 7, 1, 4), 255, np.uint8)
    w = np.full((columns, 1, 1, 4), 127, np.int8)
    scale, shift = np.ones((2, columns), np.float32)
    scale[:3], shift[2] = (3e38, -3e38, 1.0), np.nan
    more = [in_panels(v, 1) for v in (scale, shift)]
    got = convolve(x, w, (1, 1), (0, 0), (1, 1), 1, 0, "uint8", more, low=9.0, high=200.0)
    np.testing.assert_array_equal(got[0, :, 0, :3], [[200, 9, 9]] * 7)
    assert (got[..., 3:] == 200).all()
    floats = convolve(x, w, (1, 1), (0, 0), (1, 1), 1, 0, "float32", more, low=9.0, high=200.0)
    np.testing.assert_array_equal(floats[0, :, 0, :3], np.float32([[200, 9, np.nan]] * 7))


@pytest.mark.parametrize("m,n,k", PRODUCTS)
def test_products_are_exact(rng, m, n, k):
    a = rng.integers(0, 256, (m, k)).astype(np.uint8)
    w = rng.integers(-128, 128, (n, k)).astype(np.int8)
    whole = np.ascontiguousarray(np.pad(a, ((0, 0), (0, -k % 4)), constant_values=255))
    out = np.full((1, m, 1, n), 77, np.int32)
    panels = pack_int8(w)
    ins = [whole.reshape(1, m, 1, whole.shape[1]), panels]
    one = (1, 1)
    launch = plan_conv_int8(
        [Layout.of(v) for v in ins], Layout.of(out), one, one, (0, 0), one, 1, Ending()
    )
    assert native.launch(launch, out, ins) == 0
    np.testing.assert_array_equal(out.reshape(m, n), a.astype(np.int64) @ w.T.astype(np.int64))


@pytest.mark.parametrize("shape", [(64, 7, 7, 4), (3, 1, 1, 8), (256, 3, 3, 64), (5, 0)])
def test_panels_begin_where_a_line_does(shape):
    panels = [pack_int8(np.ones(shape, np.int8)) for _ in range(4)]
    assert all(p.ctypes.data % 64 == 0 and p.flags.c_contiguous for p in panels)


def test_the_largest_sums_fit():
    x = np.full((1, 2, 1, LONGEST - 3), 255, np.uint8)
    w = np.full((3, 1, 1, LONGEST - 3), -128, np.int8)
    got = convolve(x, w, (1, 1), (0, 0), (1, 1), 1, 0, "int32")
    np.testing.assert_array_equal(got, np.full((1, 2, 1, 3), -255 * 128 * (LONGEST - 3)))


@pytest.mark.parametrize("case", ["slabs of some rows", "many small images", "7x7 stride 2"])
def test_threads_change_nothing(rng, case):
    x, w, window = operands(rng, case)
    more = [in_panels(rng.normal(size=w.shape[0]) * s, window[-2]) for s in (0.001, 100)]
    before = threads.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            threads.set_num_threads(count)
            results.append(convolve(x, w, *window, "uint8", more))
    finally:
        threads.set_num_threads(before)
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 9, 3, 40), (2, 4, 1, 16), (0, 4, 2, 2)])
def test_floats_to_bytes(rng, shape, across):
    x = (rng.normal(size=shape) * 3).astype(np.float32)
    x.reshape(-1)[:3] = np.array([np.nan, np.inf, -np.inf], np.float32)[: x.size]
    x = np.asfortranarray(x) if across else x
    out = np.full((shape[0], *shape[2:], -(-shape[1] // 4) * 4), 77, np.uint8)
    launch = plan_to_bytes(Layout.of(x), Layout.of(out), float(np.float32(0.03)), 101)
    assert native.launch(launch, out, (x,)) == 0
    z = np.nan_to_num(np.rint(x / np.float32(0.03)) + 101, nan=0, posinf=999, neginf=-999)
    want = np.clip(z, 0, 255).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(out[..., : shape[1]], want)


@pytest.mark.parametrize("channels", [1, 3, 64, 130])
@pytest.mark.parametrize("kernel,stride,padding", [(3, 2, 1), (2, 2, 0), (5, 3, 2)])
def test_pools_of_bytes(rng, channels, kernel, stride, padding):
    x = rng.integers(0, 256, (2, 11, 12, channels)).astype(np.uint8)
    wide = np.pad(x, [(0, 0), *[(padding, padding)] * 2, (0, 0)])
    h, w = ((n + 2 * padding - kernel) // stride + 1 for n in (11, 12))
    taps = [wide[:, p::stride, q::stride][:, :h, :w] for p in range(kernel) for q in range(kernel)]
    out = np.full((2, h, w, channels), 77, np.uint8)
    pairs = [(v, v) for v in (kernel, stride, padding, 1)]
    launch = plan_max_pool_bytes(Layout.of(x), Layout.of(out), *pairs)
    assert native.launch(launch, out, (x,)) == 0
    np.testing.assert_array_equal(out, np.max(taps, 0))


@pytest.mark.parametrize("to", ["float32", "uint8"])
@pytest.mark.parametrize("with_other", [False, True])
@pytest.mark.parametrize("shape,window", [
    ((2, 7, 9, 24), ((3, 3), (1, 1), (1, 1), (1, 1))),
    ((1, 8, 5, 3), ((3, 2), (2, 1), (1, 0), (1, 2))),
    ((2, 6, 6, 100), ((5, 5), (2, 2), (2, 2), (1, 1))),
    ((0, 4, 4, 4), ((3, 3), (1, 1), (1, 1), (1, 1))),
])  # fmt: skip
def test_depthwise(rng, shape, window, with_other, to):
    kernel, stride, padding, dilation = window
    area, channels = kernel[0] * kernel[1], shape[3]
    x = rng.integers(0, 256, shape).astype(np.uint8)
    w = rng.integers(-127, 128, (channels, *kernel, 1))
    want = sums(x, w, stride, padding, dilation, channels, 90) - 90 * w.sum((1, 2, 3))
    scale = rng.uniform(1e-3, 2e-3, channels).astype(np.float32)
    shift = rng.normal(100, 30, channels).astype(np.float32)
    rows = np.ascontiguousarray(w.reshape(channels, area).T.astype(np.float32))
    ins, z = [x, rows, scale, shift], multiply_add(want, scale, shift)
    if with_other:
        ins.append(rng.integers(0, 256, want.shape).astype(np.uint8))
        z = multiply_add(ins[4], np.float32(0.3), z)
    z = np.clip(z, np.float32(5), np.float32(240))
    out = np.full(want.shape, 77, to)
    ending = Ending(90, 5.0, 240.0, float(np.float32(0.3)))
    launch = plan_depthwise_int8([Layout.of(a) for a in ins], Layout.of(out), *window, ending)
    assert native.launch(launch, out, ins) == 0
    np.testing.assert_array_equal(out, np.rint(z).astype(np.uint8) if to == "uint8" else z)
    with pytest.raises(ValueError, match="depthwise_int8"):
        plan_depthwise_int8([Layout.of(a) for a in ins[:3]], Layout.of(out), *window, ending)


def test_what_does_not_fit_is_refused(rng):
    x, w, window = operands(rng, "3x3")
    panels, out = pack_int8(w), np.empty((2, 3, 5, 10), np.int32)
    factors = np.zeros(COLUMNS, np.float32)
    kernel, groups, border = (3, 3), *window[3:]
    of = Layout.of
    for ins, y in (
        ((x[..., :4], panels), out),
        ((x, panels[:, :3]), out),
        ((x, panels), np.empty((2, 4, 5, 10), np.int32)),
        ((x, panels), np.empty((1, 3, 5, 10), np.int32)),
        ((x.astype(np.int8), panels), out),
        ((x, panels), out.astype(np.int64)),
        ((x, panels), out.astype(np.uint8)),
        ((x, panels, factors), out.astype(np.uint8)),
        ((x, panels, factors, factors[:10]), out.astype(np.uint8)),
        ((x, panels, factors, factors, np.zeros((2, 3, 5, 9), np.uint8)), out.astype(np.uint8)),
        ((np.asfortranarray(x), panels), out),
    ):
        with pytest.raises(ValueError, match="conv_int8"):
            plan_conv_int8([of(a) for a in ins], of(y), kernel, *window[:3], groups, Ending(border))
    for plan, args in (
        (plan_to_bytes, (of(out), of(x), 1.0, 0)),
        (plan_max_pool_bytes, (of(x), of(out), (1, 1), (1, 1), (0, 0), (1, 1))),
    ):
        with pytest.raises(ValueError, match="bytes"):
            plan(*args)
