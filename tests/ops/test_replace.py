"""Writes as values, flat places, and sets, against NumPy."""

import numpy as np
import pytest

import weft
from tests.ops.rules import gradients

T = weft.tensor


def test_scatters_of_views(rng):
    a = rng.normal(size=(3, 4))
    x = weft.from_numpy(a)
    for call, at in (
        (lambda x, s: x.select_scatter(s, 1, -1), (slice(None), -1)),
        (lambda x, s: weft.slice_scatter(x, s, 1, 1, -1, 2), (slice(None), slice(1, -1, 2))),
        (lambda x, s: x.diagonal_scatter(s, 1), ([0, 1, 2], [1, 2, 3])),
    ):
        src = rng.normal(size=a[at].shape)
        wanted = a.copy()
        wanted[at] = src
        np.testing.assert_array_equal(call(x, weft.from_numpy(src)).numpy(), wanted)
        np.testing.assert_array_equal(x.numpy(), a)
        gradients(call, [a, src], order=1)
    got = weft.as_strided_scatter(weft.zeros(2, 3), T([1.0, 2.0]), (2,), (2,), 1)
    assert got.tolist() == [[0, 1, 0], [2, 0, 0]]
    with pytest.raises(RuntimeError, match="size equal to the slice of self"):
        x.select_scatter(weft.zeros(2), 0, 0)


def test_put_and_index_reduce():
    x = T([[1.0, 2.0], [3.0, 4.0]])
    assert x.put(T([0, -1]), T([9.0, 8.0])).tolist() == [[9, 2], [3, 8]]
    assert x.put(T([1, 1]), T([1.0, 1.0]), accumulate=True).tolist() == [[1, 4], [3, 4]]
    y = x.clone()
    assert y.put_(T([0]), T([5.0])) is y and y[0, 0].item() == 5
    got = x.index_reduce(0, T([0, 0]), T([[3.0, 5.0], [2.0, 2.0]]), "prod")
    assert got.tolist() == [[6, 20], [3, 4]]
    got = x.index_reduce(1, T([1]), T([[9.0], [0.0]]), "amax", include_self=False)
    assert got.tolist() == [[1, 9], [3, 0]]
    with pytest.raises(IndexError, match="long tensor"):
        x.put(T([0.0]), T([1.0]))
    with pytest.raises(IndexError, match="same number of elements"):
        x.put(T([0]), T([1.0, 2.0]))
    with pytest.raises(RuntimeError, match="one of prod, mean, amax or amin"):
        x.index_reduce(0, T([0]), x[:1], "sum")


def test_sets_and_places():
    assert weft.isin(T([[1, 2], [3, 4]]), T([2, 4, 9])).tolist() == [[False, True], [False, True]]
    assert weft.isin(T([1, 2]), 2, invert=True).tolist() == [True, False]
    assert not weft.isin(T([1]), T([], dtype=weft.int64)).any()
    flat = T([5, 22, 0])
    for ours, theirs in zip(
        weft.unravel_index(flat, (2, 3, 4)), np.unravel_index(flat.numpy(), (2, 3, 4))
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs)
    assert weft.diagflat(T([[1, 2]]), 1).tolist() == [[0, 1, 0], [0, 0, 2], [0, 0, 0]]


def test_integrals():
    y, x = T([1.0, 2.0, 4.0]), T([0.0, 1.0, 3.0])
    assert weft.trapezoid(y).item() == 4.5 and weft.trapz(y, x).item() == 7.5
    assert weft.trapezoid(y, dx=2).item() == 9
    assert weft.cumulative_trapezoid(y, x).tolist() == [1.5, 7.5]
    a = np.arange(6.0).reshape(2, 3) ** 2
    got = weft.trapezoid(weft.from_numpy(a), dim=0)
    np.testing.assert_allclose(got.numpy(), np.trapezoid(a, axis=0))
