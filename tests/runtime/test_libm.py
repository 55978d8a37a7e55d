"""The native maps against the same library through Python's math module."""

import math

import numpy as np
import pytest

from weft.runtime import random_dist as libm


@pytest.mark.parametrize("name", libm.NAMES)
def test_values_are_the_c_librarys(name):
    x = np.random.default_rng(0).uniform(1e-9, 7, (40, 50))[:, ::2]
    y = libm.libm(name, x)
    assert y.shape == x.shape and y.flags.c_contiguous
    np.testing.assert_array_equal(y, np.vectorize(getattr(math, name))(x))
    assert libm.libm(name, np.empty(0)).shape == (0,)


def test_ends_of_the_range():
    assert libm.libm("log", np.array([0.0]))[0] == -math.inf
    assert libm.libm("exp", np.array([1e4]))[0] == math.inf
    assert math.isnan(libm.libm("log", np.array([-1.0]))[0])
