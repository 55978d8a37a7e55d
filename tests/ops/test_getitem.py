"""x[...] and x[...] = v: torch's placement, views, gradients, errors."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft
from tests.ops.rules import gradients

A = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
T = weft.tensor

# where NumPy and torch agree, NumPy is the oracle
SHARED = [
    1, -1, (1, 2), (slice(None), 1), (..., -1), (slice(0, 9), slice(1, None, 2)), None, (None, 0),
    (0, None, ..., None), (), ..., (..., slice(1, 0)), [0, 1], [1], [], ([0, 1], [2, 0]),
    (slice(None), [2, 0, 2]), ([[0], [1]], [0, 2]), (slice(None), [0, 1], [3, 0]),
    ([0, 1], slice(None), [3, 0]), ([1], slice(None), slice(1, 3)), (..., [0, -1]),
    np.array([1, 0]), np.array([[0, 1], [1, 0]]), np.array([True, False]), A > 7.0,
    (slice(None), A[0] > 5), (A[:, :, 0] > 3, 1), (A[:, :, 0] > 3, [0]), True, False, (0, True),
    ([0, 1], None, [1, 2]), (None, [0, 1]), np.int64(1), (slice(None), np.array([[1], [2]])),
    (slice(-2, None), slice(-3, -1)), (A[:, 0, 0] > 99,), ([True, False], [1]),
]  # fmt: skip


def ours(index):
    """NumPy arrays inside an index as tensors."""
    if isinstance(index, tuple):
        return tuple(ours(i) for i in index)
    return weft.from_numpy(index) if isinstance(index, np.ndarray) and index.ndim else index


@pytest.mark.parametrize("index", SHARED, ids=lambda i: str(i).replace("\n", ""))
def test_reads_as_numpy_does(index):
    x = weft.from_numpy(A.copy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = x[ours(index)]
    wanted = A[index]
    assert got.shape == wanted.shape
    np.testing.assert_array_equal(got.numpy(), wanted)
    np.testing.assert_array_equal(x[index].numpy(), wanted)  # NumPy arrays index as well


@pytest.mark.parametrize("index", SHARED, ids=lambda i: str(i).replace("\n", ""))
def test_writes_as_numpy_does_and_the_gradients_are_right(index):
    wanted = A.copy()
    x = weft.from_numpy(A.copy())
    value = -np.arange(1.0, wanted[index].size + 1, dtype=np.float32).reshape(wanted[index].shape)
    wanted[index] = value
    x[ours(index)] = weft.from_numpy(value.copy())
    np.testing.assert_array_equal(x.numpy(), wanted)

    a = weft.from_numpy(A.copy()).requires_grad_()
    v = weft.from_numpy(value.copy()).requires_grad_()
    y = a * 2
    y[ours(index)] = v
    (y * y).sum().backward()
    touched = np.zeros_like(A)
    touched[index] = 1
    left = np.zeros_like(A) if a.grad is None else a.grad.numpy()  # None: nothing of it is left
    np.testing.assert_array_equal(left, np.where(touched, 0, 8 * A))
    if np.unique(value).size == value.size == touched.sum():
        np.testing.assert_array_equal(v.grad.numpy(), 2 * value)


def test_an_int_beside_index_tensors_selects_first_as_in_torch():
    x = weft.from_numpy(A.copy())
    assert x[0, :, [0, 1]].tolist() == [[0, 1], [4, 5], [8, 9]]  # NumPy gives the transpose
    assert x[[0], :, 0].shape == (1, 3)
    assert x[T(1), [0, 2]].shape == (2, 4)


def test_basic_indexing_gives_views_and_the_rest_copies():
    x = weft.zeros(4, 4)
    for v in (x[1], x[:, 2], x[..., 0], x[None], x[1:3], x[T(1)], x[:], x[()]):
        assert v._is_view() and v.data_ptr() >= x.data_ptr()
    x[1][2] = 5.0
    x[:, 1:][0, 0] = 6.0
    assert x[1, 2].item() == 5 and x[0, 1].item() == 6
    for c in (x[[0]], x[x > -1], x[T([0])]):
        assert not c._is_view()
    x[[0]].zero_()
    assert x[0, 1].item() == 6


@pytest.mark.parametrize(
    ("index", "error", "words"),
    [
        (5, IndexError, "index 5 is out of bounds for dimension 0 with size 2"),
        ((slice(None), 5), IndexError, "index 5 is out of bounds for dimension 1 with size 3"),
        ((None, 0, 3), IndexError, "index 3 is out of bounds for dimension 1 with size 3"),
        ([5], IndexError, "index 5 is out of bounds for dimension 0 with size 2"),
        ([0, -3], IndexError, "index -3 is out of bounds for dimension 0 with size 2"),
        ((0, 0, 0, 0), IndexError, "too many indices for tensor of dimension 3"),
        (slice(None, None, -1), ValueError, "step must be greater than zero"),
        (slice(None, None, 0), ValueError, "slice step cannot be zero"),
        (T([1.0]), IndexError, "tensors used as indices must be long, int, byte or bool tensors"),
        (1.0, IndexError, "only integers, slices"),
        (T([True, False, True]), IndexError, r"The shape of the mask \[3\] at index 0 does not"),
        (([0, 1], [0, 1, 2]), IndexError, r"broadcast together with shapes \[2\], \[3\]"),
    ],
)  # fmt: skip
def test_mistakes_are_named(index, error, words):
    x = weft.from_numpy(A.copy())
    with pytest.raises(error, match=words):
        x[index]
    with pytest.raises(error, match=words):
        x[index] = 0.0
    np.testing.assert_array_equal(x.numpy(), A)


def test_more_mistakes():
    with pytest.raises(IndexError, match="invalid index of a 0-dim tensor"):
        T(3.0)[0]
    with pytest.raises(IndexError, match="out of bounds for dimension with size 0"):
        weft.zeros(0, 3)[[0]]
    x = weft.zeros(2, 3)
    with pytest.raises(TypeError, match="can't assign a list"):
        x[0] = [1, 2, 3]
    with pytest.raises(RuntimeError, match="source and destination dtypes match"):
        x[[0, 1]] = weft.ones(3).double()
    with pytest.raises(RuntimeError, match=r"value tensor of shape \[4\] cannot be broadcast"):
        x[x == 0] = weft.ones(4)
    with pytest.raises(RuntimeError, match=r"expanded size of the tensor \(3\) must match"):
        x[0] = weft.ones(4)
    with pytest.raises(RuntimeError, match="leaf"):
        weft.zeros(3).requires_grad_()[0] = 1.0
    with pytest.raises(RuntimeError, match="leaf"):
        weft.zeros(3).requires_grad_()[[0]] = 1.0
    with pytest.warns(UserWarning, match="non-tuple sequence"):
        assert x[[slice(0, 1), 0]].shape == (1,)


def test_values_are_cast_broadcast_and_stripped_of_leading_ones():
    x = weft.zeros(2, 3, dtype=weft.int64)
    x[0] = 2.7
    x[1] = weft.tensor([1.9, -1.9, 0.0])
    assert x.tolist() == [[2, 2, 2], [1, -1, 0]]
    y = weft.zeros(2, 3)
    y[0] = weft.ones(1, 1, 3)
    y[[1]] = weft.full((1, 1, 1, 3), 2.0)
    assert y.tolist() == [[1] * 3, [2] * 3]
    y[y > 1] = T(7)  # a 0-dim value of another dtype
    assert y.tolist() == [[1] * 3, [7] * 3]
    y[T([0, 0]), T([1, 1])] = T([8.0, 9.0])
    assert y[0, 1].item() == 9.0
    y[T([[False] * 3] * 2)] = weft.ones(0)
    y[...] = 3
    assert y.tolist() == [[3] * 3] * 2


def test_writes_to_views_reach_the_base_and_its_gradient():
    a = weft.ones(3, 4).requires_grad_()
    base = a * 3
    view = base.t()
    view[1, 2] = 10.0  # base[2, 1]
    view[[0, 3]] = 0.0
    assert base[2, 1].item() == 10 and base[:, 0].tolist() == [0, 0, 0]
    assert view.grad_fn is not None
    (base.sum() + view.sum()).backward()
    wanted = np.full((3, 4), 6.0)
    wanted[2, 1] = 0
    wanted[:, [0, 3]] = 0
    np.testing.assert_array_equal(a.grad.numpy(), wanted)


def test_index_put_adds_in_order_and_takes_none():
    x = weft.zeros(3)
    got = x.index_put_((T([0, 0, 0]),), T([1e8, 1.0, -1e8]), accumulate=True)
    assert got is x and x.tolist() == [0, 0, 0]
    y = weft.zeros(2, 3)
    y.index_put_((None, T([0, 2])), T([1.0, 2.0]))
    assert y.tolist() == [[1, 0, 2]] * 2
    z = y.index_put((T([1]), T([1])), T(5.0))
    assert z[1, 1].item() == 5 and y[1, 1].item() == 0
    i = weft.tensor([0, 1, 0])
    gradients(lambda p, q: p.index_put((i,), q, True), [np.ones((2, 2)), np.ones((3, 2))], order=1)
    gradients(lambda p, q: p.index_put((i[:2],), q), [np.ones((2, 2)), np.ones((2,))], order=1)


def test_repeated_reads_add_up_in_the_gradient():
    x = weft.ones(3).requires_grad_()
    x[[0, 0, 2]].sum().backward()
    assert x.grad.tolist() == [2, 0, 1]


def test_other_dtypes():
    for d in (weft.bfloat16, weft.float16, weft.bool, weft.uint8, weft.int16):
        x = weft.ones(2, 3).to(d)
        assert x[[1]].dtype is d and x[:, T([0, 1], dtype=weft.int32)].shape == (2, 2)
        x[[0]] = 0
        assert x.float().tolist() == [[0] * 3, [1] * 3]


@given(st.data())
def test_random_indices_agree_with_numpy(data):
    rank = data.draw(st.integers(0, 4))
    shape = tuple(data.draw(st.integers(0, 4)) for _ in range(rank))
    a = np.arange(float(np.prod(shape)), dtype=np.float32).reshape(shape)
    index = []
    common = data.draw(st.sampled_from([(1,), (3,), (2, 1), (2, 3)]))
    ellipsis = data.draw(st.integers(0, rank))
    lists = False
    for d, n in enumerate(shape):
        if d == ellipsis and data.draw(st.booleans()):
            index.append(...)
            break
        what = data.draw(st.sampled_from(["slice", "none", "list"] if n else ["slice", "none"]))
        if what == "none":
            index.append(None)
        if what == "list":
            lists = True
            values = st.lists(st.integers(-n, n - 1), min_size=6, max_size=6)
            flat = np.array(data.draw(values))[: int(np.prod(common))]
            index.append(flat.reshape(common))
        else:
            ends = st.one_of(st.none(), st.integers(-5, 5))
            step = data.draw(st.one_of(st.none(), st.integers(1, 3)))
            index.append(slice(data.draw(ends), data.draw(ends), step))
    index = tuple(index)
    x = weft.from_numpy(a.copy()).requires_grad_()
    y = x[ours(index)]
    np.testing.assert_array_equal(y.detach().numpy(), a[index])
    assert y._is_view() != lists or not a.size or not rank
    y.sum().backward()
    count = np.zeros_like(a)
    np.add.at(count, index, 1)
    np.testing.assert_array_equal(x.grad.numpy(), count)
