"""What a mask chooses, against NumPy; facts of torch 2.13 as literals."""

import numpy as np
import pytest

import weft
from tests.ops.rules import gradients
from weft.ops.masked import one_hot

T = weft.tensor


def test_masked_fill_keeps_the_dtype_and_broadcasts_the_mask():
    x = weft.arange(6.0).reshape(2, 3)
    assert x.masked_fill(T([True, False, True]), -1).tolist() == [[-1, 1, -1], [-1, 4, -1]]
    assert weft.arange(3).masked_fill(T([True, False, True]), 1.5).tolist() == [1, 1, 1]
    assert weft.zeros(2).masked_fill(T([[True], [False]]), T(2)).tolist() == [[2, 2], [0, 0]]
    y = x.clone()
    assert y.masked_fill_(y > 2, 0.0) is y and y.tolist() == [[0, 1, 2], [0, 0, 0]]
    half = x.to(weft.bfloat16).masked_fill(x > 2, float("-inf"))
    assert half.dtype is weft.bfloat16 and half[1].tolist() == [-np.inf] * 3
    mask = T([[True, False], [False, False]])
    gradients(lambda a: a.masked_fill(mask, 3.0), [np.ones((2, 2))])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: x.masked_fill(weft.ones(4), 0.0), "only supports boolean masks"),
        (lambda x: x.masked_fill(weft.ones(5) > 0, 0.0), "must match the size"),
        (lambda x: x.masked_fill(x > 0, weft.ones(2)), "0-dimensional value tensor"),
        (lambda x: x.masked_select(weft.ones(4)), "expected BoolTensor for mask"),
        (lambda x: x.masked_scatter(x > -1, weft.ones(2)), "source < number of ones in mask"),
        (lambda x: one_hot(T([0, 5]), 3), "smaller than num_classes"),
        (lambda x: one_hot(T([0, -1]), 3), "non-negative"),
        (lambda x: one_hot(T([0.0])), "LongTensor"),
        (lambda x: one_hot(T([], dtype=weft.int64)), "Can not infer total number of classes"),
        (lambda x: weft.bincount(T([-1])), "1-d non-negative integral"),
        (lambda x: weft.bincount(T([0.5])), "1-d non-negative integral"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(RuntimeError, match=words):
        call(weft.arange(4.0))


def test_masked_select_and_scatter():
    a = np.arange(12.0).reshape(3, 4)
    x = weft.from_numpy(a.copy())
    np.testing.assert_array_equal(x.t().masked_select(x.t() % 2 == 0).numpy(), a.T[a.T % 2 == 0])
    assert x.masked_select(T([True, False, False, True])).tolist() == [0, 3, 4, 7, 8, 11]
    assert x.masked_select(x > 99).shape == (0,)
    got = x.masked_scatter(x > 8, T([5.0, 6.0, 7.0, 8.0], dtype=weft.float64))
    assert got[2].tolist() == [8, 5, 6, 7] and got[:2].tolist() == a[:2].tolist()
    mask = T([[True, False], [True, True]])
    gradients(lambda p: p.masked_select(mask), [np.ones((2, 2))])
    gradients(lambda p, s: p.masked_scatter(mask, s), [np.ones((2, 2)), np.ones(5)])


def test_nonzero():
    a = np.array([[0, 1, 0], [2, 0, 3]])
    x = weft.from_numpy(a)
    np.testing.assert_array_equal(x.nonzero().numpy(), np.argwhere(a))
    rows, cols = x.nonzero(as_tuple=True)
    assert rows.tolist() == [0, 1, 1] and cols.tolist() == [1, 0, 2]
    assert [i.tolist() for i in weft.where(x > 1)] == [[1, 1], [0, 2]]
    assert T(3.0).nonzero().shape == (1, 0) and T(0.0).nonzero().shape == (0, 0)
    assert weft.nonzero(T(3.0), as_tuple=True)[0].tolist() == [0]
    assert weft.zeros(0, 3).nonzero().shape == (0, 2) and x.argwhere().dtype is weft.int64
    assert x.count_nonzero().item() == 3 and x.count_nonzero(0).tolist() == [1, 1, 1]


def test_one_hot_and_bincount():
    y = one_hot(T([[0, 2], [1, 0]]))
    assert y.dtype is weft.int64 and y.tolist() == [[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [1, 0, 0]]]
    assert one_hot(T(1), 4).tolist() == [0, 1, 0, 0]
    assert one_hot(T([], dtype=weft.int64), 3).shape == (0, 3)
    assert weft.bincount(T([1, 3, 1]), minlength=6).tolist() == [0, 2, 0, 1, 0, 0]
    assert weft.bincount(T([1, 0, 1]), T([0.5, 2.0, 1.0])).tolist() == [2.0, 1.5]
    assert weft.bincount(T([], dtype=weft.int64)).shape == (0,)
