"""One tap and a step, both ways: values, other kernels' bits, nothing else written."""

import itertools

import numpy as np
import pytest

from tests.kernels.run import thread_count
from weft.kernels.layout import Layout
from weft.kernels.schedule import conv, conv_spread
from weft.kernels.schedule.conv import plan_conv2d, plan_conv2d_dx, plan_conv2d_packed
from weft.runtime import native
from weft.runtime.native import Launch

# images, channels of out and of g, height, width, grid, step; planes go the usual way where pixels
# are few or columns more than two apart
CASES = [
    (1, 32, 40, 16, 16, (8, 8), (2, 2)),
    (2, 48, 17, 7, 39, (4, 20), (2, 2)),  # odd sizes, more than a vector of columns
    (3, 33, 400, 24, 8, (8, 8), (3, 1)),  # two blocks of k; rows apart only
    (2, 20, 5, 7, 37, (7, 18), (1, 2)),  # a last column of zeros
    (1, 130, 12, 12, 66, (4, 17), (2, 2)),  # rows and columns behind the last sums
    (2, 24, 9, 25, 26, (8, 8), (3, 3)),
    (1, 16, 3, 1, 1, (1, 1), (2, 2)),
    (2, 70, 64, 28, 28, (14, 14), (2, 2)),
]


def lies(shape: tuple[int, ...], dtype: type, form: str, room: int) -> tuple[np.ndarray, ...]:
    """An array of -7 in a form, in which each pixel or row has room for more; and all of it."""
    n, c, h, w = shape
    if form == "pixels":
        whole = np.full((n, h, w, c + room), -7, dtype)
        return whole[..., :c].transpose(0, 3, 1, 2), whole
    whole = np.full((n, c, h, w + room), -7, dtype)
    return whole[..., :w], whole


def planned(g: np.ndarray, w: np.ndarray, out: np.ndarray, step: tuple[int, int]) -> Launch:
    of = Layout.of
    return plan_conv2d_dx(of(g), of(w), of(out), step, (0, 0), (1, 1), 1)


@pytest.mark.parametrize("room", [0, 5])
@pytest.mark.parametrize("form", ["pixels", "planes"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_sums_lie_apart_and_zeros_between(case, dtype, form, room, monkeypatch):
    n, ci, co, height, width, grid, step = case
    rng = np.random.default_rng(3)
    g = lies((n, co, *grid), dtype, form, 0)[0]
    g[...] = rng.standard_normal(g.shape)
    g[0, 0, 0, 0], g[-1, 1, -1, -1] = np.inf, np.nan
    w = rng.standard_normal((co, ci, 1, 1)).astype(dtype)
    want = np.zeros((n, ci, height, width))
    high, wide = ((k - 1) * s + 1 for k, s in zip(grid, step, strict=True))
    with np.errstate(invalid="ignore"):
        sums = np.einsum("noyx,oc->ncyx", g.astype(np.float64), w[..., 0, 0].astype(np.float64))
    want[:, :, : high : step[0], : wide : step[1]] = sums
    used = []
    plan = conv_spread.plan_spread
    found: dict[tuple[str, int], np.ndarray] = {}
    serves = {"spread": lambda *a: used.append(plan(*a)) or used[-1], "parts": lambda *a: None}
    for way, count in itertools.product(serves, (1, 3)):
        monkeypatch.setattr(conv, "plan_spread", serves[way])
        out, whole = lies(want.shape, dtype, form, room)
        with thread_count(count):
            assert native.launch(planned(g, w, out, step), out, (g, w)) == 0
        assert (whole == -7).sum() == whole.size - out.size
        found[way, count] = out.copy()
    if native.host().has_fma and grid != (1, 1):
        assert [p is None for p in used] == [form == "planes" and step[1] > 2] * 2
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(found["spread", 1], want, tolerance, tolerance * 20)
    for other in found.values():
        np.testing.assert_array_equal(other, found["spread", 1])
        assert not np.signbit(other[want == 0]).any()


def test_weights_that_lie_across_and_uneven_images(monkeypatch):
    rng = np.random.default_rng(4)
    g = rng.standard_normal((2, 36, 8, 12), np.float32)
    w = rng.standard_normal((40, 36, 1, 1), np.float32).transpose(1, 0, 2, 3)
    wider = np.zeros((2, 36, 8, 15), np.float32)
    wider[..., :12] = g
    found = []
    for image in (g, wider[..., :12], np.ascontiguousarray(g[:, ::-1])[:, ::-1]):
        for serves in (conv_spread.plan_spread, lambda *a: None):
            monkeypatch.setattr(conv, "plan_spread", serves)
            out = np.full((2, 40, 16, 24), np.nan, np.float32)
            assert native.launch(planned(image, w, out, (2, 2)), out, (image, w)) == 0
            found.append(out)
    for out in found[1:]:
        np.testing.assert_array_equal(out, found[0])


# images, channels of x and of out, height, width, step; the usual way goes what has few pixels, or
# columns more than two apart
FORWARD = [
    (1, 40, 32, 16, 16, (2, 2)),
    (3, 17, 48, 23, 37, (2, 2)),  # a vector of a row in two panels; a last one not full
    (2, 400, 33, 24, 8, (3, 1)),  # two blocks of k; rows apart only
    (2, 5, 20, 9, 71, (1, 2)),
    (1, 70, 200, 33, 32, (2, 2)),  # many tiles of rows
    (2, 9, 24, 25, 26, (3, 3)),
    (2, 12, 20, 8, 14, (2, 2)),
    (1, 1, 32, 40, 40, (2, 2)),
]


@pytest.mark.parametrize("room", [0, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", FORWARD, ids=str)
def test_pixels_that_count_are_gathered(case, dtype, room, monkeypatch):
    n, ci, co, height, width, step = case
    rng = np.random.default_rng(5)
    x = lies((n, ci, height, width), dtype, "planes", room)[0]
    x[...] = rng.standard_normal(x.shape)
    x[0, 0, 0, 0], x[-1, -1, step[0], step[1]] = np.inf, np.nan
    w = rng.standard_normal((co, ci, 1, 1)).astype(dtype)
    few = x[:, :, :: step[0], :: step[1]].astype(np.float64)
    with np.errstate(invalid="ignore"):
        want = np.einsum("ncyx,oc->noyx", few, w[..., 0, 0].astype(np.float64))
    used = []
    plan = conv_spread.plan_gathered
    found: dict[tuple[str, int], np.ndarray] = {}
    serves = {"gathered": lambda *a: used.append(plan(*a)) or used[-1], "slab": lambda *a: None}
    of = Layout.of
    for way, count in itertools.product(serves, (1, 3)):
        monkeypatch.setattr(conv, "plan_gathered", serves[way])
        whole = np.full((n, co + 1, *want.shape[2:]), -7, dtype)
        out = whole[:, :co]
        with thread_count(count):
            sizes = (of(x), of(w), of(out), step, (0, 0), (1, 1), 1)
            assert native.launch(plan_conv2d(*sizes), out, (x, w)) == 0
            packed = plan_conv2d_packed(*sizes)
        gathers = way == "gathered" and used and used[-1] is not None
        assert packed is None or not gathers
        assert (whole[:, co:] == -7).all()
        found[way, count] = out.copy()
    if native.host().has_fma and native.host().vector_bits == 512 and dtype == np.float32:
        many = want.shape[2] * want.shape[3] >= 64
        assert (used[0] is not None) == (many and step[1] < 3 and ci > 1)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(found["gathered", 1], want, tolerance, tolerance * 20)
    for other in found.values():
        np.testing.assert_array_equal(other, found["gathered", 1])
