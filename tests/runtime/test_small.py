"""The builtins for small float32 operands: NumPy's bits where they answer, None elsewhere."""

import sys

import numpy as np
import pytest

from weft.runtime import native

UFUNCS = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide}
SPECIAL = np.array([0.0, -0.0, 1.5, -2.25, np.inf, -np.inf, np.nan, 1e-42, 3e38], np.float32)


@pytest.fixture(scope="module")
def small():
    made = native.small_operations()
    if not made:
        pytest.skip("this interpreter or NumPy is not one whose structs are known")
    return made


@pytest.mark.parametrize("name", UFUNCS)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (10,), (3, 4), (2, 0, 3), (256,), (2, 2, 2, 2)])
def test_equal_to_numpy(small, name, shape):
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    a, b = np.asarray(a), np.asarray(b)
    got = small[name](a, b)
    assert type(got) is np.ndarray and got.shape == shape and got.dtype == np.float32
    assert got.flags.c_contiguous and got.flags.owndata
    np.testing.assert_array_equal(got, UFUNCS[name](a, b))


@pytest.mark.parametrize("name", UFUNCS)
def test_special_values_and_a_scalar(small, name):
    a, b = (np.ascontiguousarray(m.ravel()) for m in np.meshgrid(SPECIAL, SPECIAL))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(small[name](a, b), UFUNCS[name](a, b))
        two = np.array(-2.5, np.float32)
        np.testing.assert_array_equal(small[name](SPECIAL, two), UFUNCS[name](SPECIAL, two))


def test_none_for_all_else(small):
    x = np.ones((4, 6), np.float32)
    others = [
        x.T, x[:, ::2], x[:3], x.astype(np.float64), np.ones((4, 6), np.int32), np.ma.array(x),
        x.astype(">f4"), 1.0, None, [1.0], np.float32(1),
    ]  # fmt: skip
    for other in others:
        assert small["add"](x, other) is None
    assert small["add"](np.array(1, np.float32), x) is None  # only the second may have no dims
    large = np.ones(257, np.float32)
    assert small["add"](large, large) is None
    assert small["add"]() is None and small["add"](x, x, x) is None
    unaligned = np.frombuffer(bytes(17), np.uint8)[1:].view(np.float32)
    assert small["add"](unaligned, unaligned) is None


def test_no_reference_is_lost_or_kept(small):
    a, d, nothing = np.ones(10, np.float32), np.dtype(np.float32), None
    before = sys.getrefcount(a), sys.getrefcount(d), sys.getrefcount(nothing)
    for _ in range(1000):
        small["add"](a, a)
        small["add"](a, 1.0)
    after = sys.getrefcount(a), sys.getrefcount(d), sys.getrefcount(nothing)
    assert all(abs(x - y) < 100 for x, y in zip(before, after, strict=True)), (before, after)
