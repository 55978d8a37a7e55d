"""The attention kernels against softmax(q k^T) v in float64."""

import ml_dtypes
import numpy as np
import pytest

from tests.kernels.test_amx import needs, summed
from weft.kernels.layout import Layout
from weft.kernels.schedule import attention
from weft.kernels.schedule import attention_grad as grad
from weft.runtime import native, threads

BF16 = np.dtype(ml_dtypes.bfloat16)
TOLERANCE = {"float64": 1e-13, "float32": 3e-6, "float16": 2e-3, "bfloat16": 2e-2}


def reference(q, k, v, mask, causal, scale):
    """(out, lse, weights) in float64; rows that see nothing give 0."""
    q, k, v = (a.astype(np.float64) for a in (q, k, v))
    s = np.einsum("nhle,nhse->nhls", q, k) * scale
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask.astype(np.float64)
    if causal:
        s = np.where(np.tril(np.ones(s.shape[2:], bool)), s, -np.inf)
    top = s.max(-1, keepdims=True, initial=-np.inf)
    p = np.exp(s - np.where(np.isinf(top), 0, top))
    total = p.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + np.where(np.isinf(top), 0, top))[..., 0]
    w = p / np.where(total == 0, 1, total)
    return np.einsum("nhls,nhse->nhle", w, v), lse, w


def forward(q, k, v, mask=None, causal=False, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    shape = (*q.shape[:3], v.shape[3])
    layouts = Layout.of(q), Layout.of(k)
    masks = None if mask is None else Layout.of(mask)
    ins = (q, k, v) if mask is None else (q, k, v, mask)
    out = np.full(shape, 7, q.dtype)
    plan = attention.plan_attention(
        *layouts, Layout.of(v), Layout.of(out), masks, causal=causal, scale=scale
    )
    assert native.launch(plan, out, ins) == 0
    n, h, length, width = shape
    both = np.full(attention.run_size(n * h * length, width, q.dtype), 7, q.dtype)
    plan = attention.plan_attention(
        *layouts, Layout.of(v), Layout.of(both), masks, causal=causal, scale=scale, with_lse=True
    )
    assert native.launch(plan, both, ins) == 0
    rows = both[: out.size].reshape(n, length, h, width).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(rows, out)
    wide = attention.sums_dtype(layouts[0]).np
    start = both.size - n * h * length * wide.itemsize // q.itemsize
    lse = both[start:].view(wide).reshape(n, h, length)
    return out, lse


def sample(n, h, length, s, e, ev, dtype, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (n, h, length, e), (n, h, s, e), (n, h, s, ev), (n, h, length, ev)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def close(got, want, dtype=None):
    t = TOLERANCE[(dtype or got.dtype).name]
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=t, atol=t)


SHAPES = [
    (2, 3, 10, 10, 8, 8),
    (1, 1, 1, 1, 1, 1),
    (1, 2, 1, 200, 64, 64),
    (2, 1, 65, 64, 17, 70),
    (1, 2, 130, 129, 64, 33),
    (1, 1, 48, 300, 5, 3),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BF16], ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values(shape, causal, dtype):
    q, k, v, _ = sample(*shape, dtype)
    out, lse = forward(q, k, v, causal=causal)
    want, sums, _ = reference(q, k, v, None, causal, shape[4] ** -0.5)
    close(out, want)
    close(lse, sums)


@pytest.mark.parametrize("causal", [False, True])
def test_masks(causal):
    shape = (2, 3, 50, 71, 16, 20)
    q, k, v, _ = sample(*shape, np.float32)
    rng = np.random.default_rng(1)
    full = (2, 3, 50, 71)
    hidden = rng.random((2, 1, 50, 71)) < 0.6
    hidden[1, :, 7] = False
    added = rng.standard_normal((3, 50, 71)).astype(np.float32)
    added[1, 4, 10:] = -np.inf
    keys = rng.random((2, 1, 1, 71)) < 0.5
    for mask in (hidden, added, keys):
        mask = np.broadcast_to(mask, full)
        out, lse = forward(q, k, v, mask, causal, scale=0.3)
        want, sums, _ = reference(q, k, v, mask, causal, 0.3)
        close(out, want)
        close(lse, sums)


def test_large_scores_and_nan():
    q, k, v, _ = sample(1, 1, 4, 100, 8, 8, np.float32)
    out, lse = forward(q * 100, k * 100, v)
    want, sums, _ = reference(q * 100, k * 100, v, None, False, 8**-0.5)
    np.testing.assert_allclose(out, want, rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(lse, sums, rtol=1e-5)
    k[0, 0, 70, 3] = np.nan
    assert np.isnan(forward(q, k, v)[0]).all()


def test_weights_are_rounded_for_the_product_and_not_for_their_sum():
    """Two keys of weights 1 and w: -round(w) + w 1 is zero where w was rounded."""
    for t in (0.3, 0.77, 1.9, 3.3):
        w = np.float32(np.exp(np.float32(-t * 8).astype(BF16).astype(np.float32) / 8))
        q, k, v = (np.zeros((1, 1, 50, 8), BF16) for _ in range(3))
        q[..., 0], k[0, 0, 1, 0] = 1, -t * 8
        k[0, 0, 2:] = np.float32(-1000)
        q[..., 1], k[0, 0, 2:, 1] = 1, -1000
        v[0, 0, 0], v[0, 0, 1] = -w.astype(BF16), 1
        out, lse = forward(q, k, v, scale=1 / 8)
        np.testing.assert_array_equal(out, 0)
        np.testing.assert_allclose(lse, np.log(1 + np.float64(w)), rtol=1e-6)
        assert (forward(*(a.astype(np.float32) for a in (q, k, v)), scale=1 / 8)[0] != 0).all()


@pytest.mark.parametrize("causal", [False, True])
def test_pairs_round_weights_and_results_alone(causal):
    q, k, v, _ = sample(2, 3, 67, 67, 33, 35, BF16)
    out, lse = forward(q, k, v, causal=causal)
    want, sums, p = reference(q, k, v, None, causal, 33**-0.5)
    size = np.einsum("nhls,nhse->nhle", p, np.abs(v.astype(float)))
    assert (np.abs(out.astype(float) - want) <= 2.0**-8 * 1.02 * (np.abs(want) + size)).all()
    np.testing.assert_allclose(lse, sums, 1e-5, 1e-5)


ROW_SHAPES = [
    (2, 3, 9, 200, 64, 64),
    (1, 2, 7, 65, 17, 70),
    (2, 1, 6, 5, 5, 3),
    (1, 1, 5, 128, 16, 1),
]


@pytest.mark.parametrize("masks", ["none", "bool", "float"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BF16], ids=str)
@pytest.mark.parametrize("shape", ROW_SHAPES, ids=str)
def test_few_queries_have_the_bits_they_have_among_others(shape, dtype, masks):
    q, k, v, _ = sample(*shape, dtype)
    rng = np.random.default_rng(3)
    full = (*shape[:3], shape[3])
    mask = {
        "none": None,
        "bool": rng.random(full) < 0.7,
        "float": rng.standard_normal(full).astype(dtype),
    }[masks]
    if masks == "bool":
        mask[..., 2, :] = False
    for causal in (False, True):
        out, lse = forward(q, k, v, mask, causal)
        for few in range(1, attention.FEW_QUERIES + 1):
            cut = None if mask is None else np.ascontiguousarray(mask[:, :, :few])
            one, sums = forward(q[:, :, :few], k, v, cut, causal)
            np.testing.assert_array_equal(one.view(np.uint8), out[:, :, :few].copy().view(np.uint8))
            np.testing.assert_array_equal(sums, lse[:, :, :few])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, BF16], ids=str)
@pytest.mark.parametrize("first", [0, 1, 63, 64, 70, 99, 100])
def test_keys_in_two_pieces(first, dtype):
    q, k, v, _ = sample(2, 3, 2, 100, 24, 20, dtype)
    mask = np.random.default_rng(4).random((2, 3, 2, 100)) < 0.5
    want, _ = forward(q, k, v, mask)
    cache = np.empty((2, 3, 128, 24), dtype)  # longer than what is used of it
    cache[:, :, :first] = k[:, :, :first]
    ins = (q, cache[:, :, :first], np.ascontiguousarray(k[:, :, first:]), v[:, :, :first])
    ins = (*ins, np.asfortranarray(v[:, :, first:].swapaxes(0, 3)).swapaxes(0, 3), mask)
    out = np.full(want.shape, 7, dtype)
    q_, k1, k2, v1, v2, m = map(Layout.of, ins)
    plan = attention.plan_attention(
        q_, k1, v1, Layout.of(out), m, causal=False, scale=24**-0.5, later=(k2, v2)
    )
    assert native.launch(plan, out, ins) == 0
    np.testing.assert_array_equal(out.view(np.uint8), want.view(np.uint8))


def test_pieces_that_do_not_fit_are_refused():
    q, k, v, _ = map(Layout.of, sample(1, 2, 2, 8, 4, 4, np.float32))
    out = Layout.contiguous((1, 2, 2, 4), np.dtype(np.float32))
    other = Layout.contiguous((1, 2, 3, 5), np.dtype(np.float32))
    wide = Layout.of(np.zeros((1, 2, 3, 8), np.float32)[..., ::2])
    for later in ((other, v), (v, other), (wide, v)):
        with pytest.raises(ValueError, match="attention"):
            attention.plan_attention(q, k, v, out, None, causal=False, scale=1.0, later=later)
    many = sample(1, 2, 5, 8, 4, 4, np.float32)
    q, k, v, out = map(Layout.of, many)
    with pytest.raises(ValueError, match="more than 2"):
        attention.plan_attention(q, k, v, out, None, causal=False, scale=1.0, later=(k, v))


@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=str)
def test_strides_threads_and_batches_do_not_change_bits(dtype):
    rng = np.random.default_rng(3)
    qkv = rng.standard_normal((4, 100, 3, 2, 24)).astype(dtype)  # as a fused projection gives
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    c = np.ascontiguousarray
    want = forward(c(q), c(k), c(v), causal=True)[0]
    before = threads.get_num_threads()
    for count in (1, 2, 5):
        threads.set_num_threads(count)
        np.testing.assert_array_equal(forward(q, k, v, causal=True)[0], want)
    threads.set_num_threads(before)
    alone = forward(q[2:3, :1], k[2:3, :1], v[2:3, :1], causal=True)[0]
    np.testing.assert_array_equal(alone[0, 0], want[2, 0])
    shared = np.broadcast_to(k[:, :1], k.shape)  # one head of keys for all
    np.testing.assert_array_equal(forward(q, shared, v)[0], forward(q, c(shared), v)[0])


def test_empty_sizes():
    q, k, v, _ = sample(2, 2, 5, 0, 4, 3, np.float32)
    out, lse = forward(q, k, v)
    np.testing.assert_array_equal(out, 0)
    np.testing.assert_array_equal(lse, -np.inf)
    q, k, v, _ = sample(2, 2, 5, 4, 0, 3, np.float32)
    close(forward(q, k, v, scale=1.0)[0], np.broadcast_to(v.mean(2, keepdims=True), (2, 2, 5, 3)))
    q, k, v, _ = sample(0, 2, 5, 4, 3, 3, np.float32)
    assert forward(q, k, v)[0].size == 0


def test_layouts_are_checked():
    q, k, v, out = (Layout.of(a) for a in sample(1, 2, 5, 6, 4, 3, np.float32))
    plan = attention.plan_attention
    with pytest.raises(ValueError, match="do not fit"):
        plan(q, v, v, out, None, causal=False, scale=1.0)
    with pytest.raises(ValueError, match="last stride"):
        plan(q, Layout(k.shape, (48, 24, 1, 6), k.dtype), v, out, None, causal=False, scale=1.0)
    with pytest.raises(ValueError, match="mask"):
        plan(q, k, v, out, Layout.contiguous((1, 2, 5, 5), k.dtype), causal=False, scale=1.0)


def gradients(g, q, k, v, out, lse, mask=None, causal=False, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    ins = (g, q, k, v, out, lse) if mask is None else (g, q, k, v, out, lse, mask)
    layouts = [Layout.of(a) for a in ins[:6]]
    shapes = [q.shape, k.shape, v.shape]
    sizes = [shape[2] * shape[3] for shape in shapes]
    result = np.full((*q.shape[:2], sum(sizes)), 7, q.dtype)
    masks = None if mask is None else Layout.of(mask)
    launch = grad.plan_attention_grad(
        *layouts, Layout.of(result), masks, causal=causal, scale=scale
    )
    assert native.launch(launch, result, ins) == 0
    parts = np.split(result, [sizes[0], sizes[0] + sizes[1]], -1)
    parts = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    if shapes[0] == shapes[1] == shapes[2]:  # side by side, with a gap after each query
        n, h, length, width = q.shape
        room = np.full((n, length, 4, h, width), 7, q.dtype)
        side = room[:, :, :3]
        launch = grad.plan_attention_grad(
            *layouts, Layout.of(side), masks, causal=causal, scale=scale
        )
        assert native.launch(launch, side, ins) == 0
        for i, part in enumerate(parts):
            np.testing.assert_array_equal(side[:, :, i].swapaxes(1, 2), part)
        assert (room[:, :, 3] == 7).all()
    return parts


def ref_gradients(g, q, k, v, mask, causal, scale):
    out, _, w = reference(q, k, v, mask, causal, scale)
    g, q, k, v = (a.astype(np.float64) for a in (g, q, k, v))
    dp = np.einsum("nhle,nhse->nhls", g, v)
    ds = w * (dp - (g * out).sum(-1, keepdims=True)) * scale
    return (
        np.einsum("nhls,nhse->nhle", ds, k),
        np.einsum("nhls,nhle->nhse", ds, q),
        np.einsum("nhls,nhle->nhse", w, g),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, BF16], ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (1, 2, 5, 200, 9, 8), (1, 1, 200, 70, 8, 8)], ids=str)
def test_gradients(shape, causal, dtype):
    q, k, v, g = sample(*shape, dtype)
    out, lse = forward(q, k, v, causal=causal)
    want = ref_gradients(g, q, k, v, None, causal, shape[4] ** -0.5)
    for got, right in zip(gradients(g, q, k, v, out, lse, causal=causal), want, strict=True):
        t = TOLERANCE[got.dtype.name] * 4
        np.testing.assert_allclose(got.astype(float), right, rtol=t, atol=t)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_with_masks(causal):
    q, k, v, g = sample(2, 2, 50, 71, 16, 20, np.float32)
    rng = np.random.default_rng(1)
    hidden = rng.random((2, 1, 50, 71)) < 0.6
    hidden[1, :, 7] = False
    added = rng.standard_normal((2, 50, 71)).astype(np.float32)
    added[1, 4, 10:] = -np.inf
    for mask in (hidden, added, rng.random((2, 1, 1, 71)) < 0.5):
        mask = np.broadcast_to(mask, (2, 2, 50, 71))
        out, lse = forward(q, k, v, mask, causal, scale=0.3)
        want = ref_gradients(g, q, k, v, mask, causal, 0.3)
        for got, right in zip(gradients(g, q, k, v, out, lse, mask, causal, 0.3), want):
            np.testing.assert_allclose(got, right, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=str)
def test_gradients_strides_threads_and_batches(dtype):
    rng = np.random.default_rng(5)
    qkv = rng.standard_normal((3, 100, 3, 2, 24)).astype(dtype)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    g = rng.standard_normal((3, 100, 2, 24)).astype(dtype).transpose(0, 2, 1, 3)
    both = np.empty(attention.run_size(3 * 2 * 100, 24, q.dtype), dtype)
    plan = attention.plan_attention(
        *(Layout.of(a) for a in (q, k, v, both)), None, causal=True, scale=0.2, with_lse=True
    )
    native.launch(plan, both, (q, k, v))
    out = both[: g.size].reshape(3, 100, 2, 24).transpose(0, 2, 1, 3)
    lse = both[g.size :].view(np.float32).reshape(3, 2, 100)
    c = np.ascontiguousarray
    want = gradients(c(g), c(q), c(k), c(v), c(out), c(lse), causal=True, scale=0.2)
    before = threads.get_num_threads()
    for count in (1, 2, 5):
        threads.set_num_threads(count)
        for a, b in zip(gradients(g, q, k, v, out, lse, causal=True, scale=0.2), want):
            np.testing.assert_array_equal(a, b)
    threads.set_num_threads(before)
    alone = (a[1:2, 1:] for a in (g, q, k, v, out, lse))
    for a, b in zip(gradients(*alone, causal=True, scale=0.2), want):
        np.testing.assert_array_equal(a[0, 0], b[1, 1])


def uneven(rng, *shape):
    """Numbers whose sums depend on their order."""
    numbers = rng.standard_normal(shape) * 4.0 ** rng.integers(-4, 5, shape)
    return numbers.astype(BF16)


@needs["pairs"]
@pytest.mark.parametrize("queries", [1, 2, 5, 50])
@pytest.mark.parametrize("width", [1, 33, 64, 70])
def test_scores_in_tiles_are_summed_as_defined(queries, width):
    rng = np.random.default_rng(width)
    q, k, v = (uneven(rng, 1, 1, rows, width) for rows in (queries, 1, 1))
    _, lse = forward(q, k, v, scale=0.125)
    np.testing.assert_array_equal(lse[0, 0], summed(q[0, 0], k[0, 0].T)[:, 0] * 0.125)


@needs["pairs"]
@pytest.mark.parametrize("queries", [1, 5, 49])
@pytest.mark.parametrize(("keys", "width"), [(1, 3), (33, 70), (129, 64), (100, 17)])
def test_values_in_tiles_are_summed_as_defined(queries, keys, width):
    rng = np.random.default_rng(keys)
    q, k = (np.zeros((1, 1, rows, 8), BF16) for rows in (queries, keys))
    v = uneven(rng, 1, 1, keys, width)
    out, _ = forward(q, k, v)  # all weights are 1
    want = summed(np.ones((1, keys), BF16), v[0, 0]) * (np.float32(1) / np.float32(keys))
    np.testing.assert_array_equal(out[0, 0], np.broadcast_to(want.astype(BF16), out.shape[2:]))


@needs["pairs"]
@pytest.mark.parametrize(("queries", "causal"), [(5, False), (100, False), (70, True)])
def test_gradients_in_tiles_are_summed_as_defined(queries, causal):
    rng = np.random.default_rng(queries)
    q, k, v = (uneven(rng, 1, 1, rows, 8) for rows in (queries, 1, 1))
    out, lse = forward(q, k, v, causal=causal)
    g = uneven(rng, 1, 1, queries, 8)
    *_, dv = gradients(g, q, k, v, out, lse, causal=causal)  # all weights are 1
    total, block = None, 32 if causal else 48
    for first in range(0, queries, block):
        rows = g[0, 0, first : first + block]
        total = summed(rows.T, np.ones((len(rows), 1), BF16), total)
    np.testing.assert_array_equal(dv[0, 0, 0], total[:, 0].astype(BF16))
