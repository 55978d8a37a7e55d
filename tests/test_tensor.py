"""The handle: construction, conversion, printing, views, in-place.  Literals from torch 2.13."""

import copy
import math
import pickle
from collections import deque

import numpy as np
import pytest

import weft
from tests.ops.rules import check
from weft.core import printing
from weft.ops.cast import Bitcast

T, nan, inf = weft.tensor, math.nan, math.inf


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        ([[1, 2], [3.5, 4]], "float32"), ([1, 2], "int64"), ([True, 2], "int64"),
        ([1, 2.5, True], "float32"), ([True], "bool"), (np.float64(3), "float64"),
        (np.arange(3), "int64"), (np.array([1.5]), "float64"), ([np.float32(1)], "float32"),
        ([np.int32(1)], "int32"), (range(3), "int64"), ((1, 2), "int64"), ([], "float32"),
        (2**63 - 1, "int64"), ([np.float64(1), np.float64(2)], "float64"), (np.bool_(True), "bool"),
        (deque([1.0, 2]), "float32"), ([deque([1]), (2,)], "int64"), (deque(), "float32"),
        ([1.0, np.float64(2)], "float64"), ([np.float32(1), 2.0], "float32"),
        ([np.int32(1), 2], "int64"), ([[True], [np.float16(2)]], "float16"),
    ],
)  # fmt: skip
def test_the_dtype_of_data(data, dtype):
    t = T(data)
    assert t.dtype is getattr(weft, dtype)
    np.testing.assert_array_equal(t.numpy(), np.array(data))


def test_construction():
    assert T([[]]).shape == (1, 0) and T([[], []]).shape == (2, 0)
    assert T([1.7, -1.7], dtype=weft.int64).tolist() == [1, -1]
    assert T([-1], dtype=weft.uint8).tolist() == [255]
    assert T([1.5, 0.0, nan], dtype=weft.bool).tolist() == [True, False, True]
    assert T([T(1.0), T(2.0)]).tolist() == T(deque([T(1.0), T(2.0)])).tolist() == [1, 2]
    a = np.arange(3.0)
    copied, shared = T(a), weft.from_numpy(a)
    a[0] = 9
    assert copied[0].item() == 0 and shared[0].item() == 9
    assert weft.as_tensor(a).data_ptr() == shared.data_ptr()
    x = T([1.0], requires_grad=True)
    assert x.is_leaf and x.requires_grad and not T(x).requires_grad


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ([[1], [2, 3]], ValueError, r"expected sequence of length 1 at dim 1 \(got 2\)"),
        ("a", TypeError, "invalid data type 'str'"),
        (None, RuntimeError, "Could not infer dtype of NoneType"),
        ([None], RuntimeError, "Could not infer dtype of NoneType"),
        ({1}, RuntimeError, "Could not infer dtype of set"),
        (2**63, ValueError, "Overflow"),
    ],
)
def test_what_is_no_tensor(data, error, words):
    with pytest.raises(error, match=words):
        T(data)


def test_more_refusals():
    with pytest.raises(RuntimeError, match="without overflow"):
        T([300], dtype=weft.uint8)
    with pytest.raises(ValueError, match="negative"):
        weft.from_numpy(np.arange(3)[::-1])
    with pytest.raises(TypeError, match="expected np"):
        weft.from_numpy([1])
    with pytest.raises(RuntimeError, match="floating point"):
        T([1]).requires_grad_()


def test_python_values():
    assert T([2.5]).item() == 2.5 and float(T([2.5])) == 2.5 and int(T(2.7)) == 2
    assert [1, 2, 3][T(1)] == 2 and T([1, 2]).tolist() == [1, 2] and T(3.0).tolist() == 3.0
    assert not T([0]) and T(1) and len(weft.zeros(2, 3)) == 2 and 1 in T([1, 2])
    assert [t.item() for t in T([1, 2])] == [1, 2] and reversed(T([1, 2])).tolist() == [2, 1]
    assert f"{T(3.14159):.2f}" == "3.14" and (T([1]) == None) is False  # noqa: E711
    for call, error in (
        (lambda: bool(T([])), RuntimeError), (lambda: bool(T([1, 2])), RuntimeError),
        (lambda: T([1.0, 2.0]).item(), RuntimeError), (lambda: len(T(1)), TypeError),
        (lambda: T(3.0).__index__(), TypeError), (lambda: iter(T(1)), TypeError),
        (lambda: T([1.0], requires_grad=True).numpy(), RuntimeError),
        (lambda: weft.zeros(2).size(5), IndexError),
    ):  # fmt: skip
        with pytest.raises(error):
            call()


def test_copies_and_pickles():
    x = T([1.0, 2.0], requires_grad=True)
    y = copy.deepcopy(x)
    assert y.requires_grad and y.is_leaf and y.data_ptr() != x.data_ptr()
    z = pickle.loads(pickle.dumps(x.detach().reshape(2, 1).t()))
    assert z.tolist() == [[1.0, 2.0]]
    p = copy.deepcopy(weft.Parameter(T([1.0])))
    assert type(p) is weft.Parameter
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(x * 2)


def test_conversions():
    x = T([1.5, -2.5, 0.0])
    assert x.long().tolist() == [1, -2, 0] and x.bool().tolist() == [True, True, False]
    assert x.to(weft.float64).dtype is weft.double and x.to("cpu") is x and x.float() is x
    assert x.type() == "torch.FloatTensor" and x.type("torch.LongTensor").dtype is weft.int64
    assert x.to(T([1])).dtype is weft.int64 and x.type_as(T([True])).dtype is weft.bool
    assert x.half().dtype is weft.float16 and x.char().dtype is weft.int8
    w = x.clone().requires_grad_()
    w.double().sum().backward()
    assert w.grad.dtype is weft.float32 and w.grad.tolist() == [1, 1, 1]


def test_bits():
    check(Bitcast)
    x = T([1.0, 2.0])
    assert x.view(weft.int32).tolist() == [1065353216, 1073741824]
    assert x.view(weft.int64).shape == (1,) and x.view(weft.int16).shape == (4,)
    x.view(weft.int32)[0] = 0
    assert x.tolist() == [0, 2]
    with pytest.raises(RuntimeError, match="divisible by 2"):
        T([1, 2, 3], dtype=weft.int16).view(weft.float32)
    with pytest.raises(RuntimeError, match="cannot be 0"):
        T(1.0).view(weft.int64)


PRINTED = {
    "T(3.)": "tensor(3.)", "T(0.1)": "tensor(0.1000)", "T(1e-5)": "tensor(1.0000e-05)",
    "T(nan)": "tensor(nan)", "T(100000000.)": "tensor(100000000.)", "T([])": "tensor([])",
    "T([], dtype=weft.int64)": "tensor([], dtype=torch.int64)",
    "weft.zeros(2, 0)": "tensor([], size=(2, 0))", "T([True])": "tensor([True])",
    "T([1.5, 2.])": "tensor([1.5000, 2.0000])", "T([-1.5, 2.25])": "tensor([-1.5000,  2.2500])",
    "T([nan, inf, 1.])": "tensor([nan, inf, 1.])", "T([1, 100, -5])": "tensor([  1, 100,  -5])",
    "T([1e10, 1.])": "tensor([1.0000e+10, 1.0000e+00])", "T([12345.678])": "tensor([12345.6777])",
    "T([0.5, 100.25])": "tensor([  0.5000, 100.2500])",
    "T([1., 2.], requires_grad=True)": "tensor([1., 2.], requires_grad=True)",
    "T([1.], dtype=weft.bfloat16)": "tensor([1.], dtype=torch.bfloat16)",
    "T([1., 2.], requires_grad=True) * 2": "tensor([2., 4.], grad_fn=<MulBackward0>)",
    "weft.arange(2000)": "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])",
    "weft.ones(2, 1, 2)": "tensor([[[1., 1.]],\n\n        [[1., 1.]]])",
    "weft.arange(1200.).reshape(2, 600)":
        "tensor([[0.0000e+00, 1.0000e+00, 2.0000e+00,  ..., 5.9700e+02, 5.9800e+02,\n"
        "         5.9900e+02],\n"
        "        [6.0000e+02, 6.0100e+02, 6.0200e+02,  ..., 1.1970e+03, 1.1980e+03,\n"
        "         1.1990e+03]])",
}  # fmt: skip


@pytest.mark.parametrize("code", PRINTED)
def test_printing(code):
    assert repr(eval(code)) == PRINTED[code]


def test_print_options():
    before = copy.copy(printing.OPTIONS)
    try:
        weft.set_printoptions(precision=2, sci_mode=False)
        assert repr(T([1e10, 1.5])) == "tensor([10000000000.00,           1.50])"
        weft.set_printoptions(profile="full")
        assert "..." not in repr(weft.arange(2000))
    finally:
        printing.OPTIONS.__dict__.update(before.__dict__)


def test_views_share_memory_and_know_their_place():
    x = weft.zeros(3, 4)
    v = x[1:, ::2]
    assert v.storage_offset() == 4 and v.stride() == (4, 2) and not v.is_contiguous()
    v.fill_(1.0)
    assert x.sum().item() == 4 and x[1].tolist() == [1, 0, 1, 0]
    x.t()[0, 0] = 7.0
    assert x[0, 0].item() == 7 and x.view(-1)._is_view() and x.flatten()[0].item() == 7
    copy_ = x.t().reshape(-1)
    assert not copy_._is_view() and x.t().contiguous().is_contiguous()
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        x.t().view(-1)
    assert x.detach().data_ptr() == x.data_ptr() and x.expand(2, 3, 4)._is_view()
    assert x.unfold(0, 2, 1)._is_view() and x.diagonal()._is_view()


def test_in_place_keeps_the_dtype_and_the_memory():
    x = T([3, 1])
    with pytest.raises(RuntimeError, match="can't be cast"):
        x.add_(1.5)
    with pytest.raises(RuntimeError, match="can't be cast"):
        x.div_(2)
    assert x.mul_(T([2, 3])) is x and x.tolist() == [6, 3]
    with pytest.raises(RuntimeError, match="broadcast shape"):
        weft.zeros(2).add_(weft.ones(2, 2))
    with pytest.raises(RuntimeError, match="single memory location"):
        weft.zeros(3).expand(2, 3).add_(1)
    with pytest.raises(RuntimeError, match="leaf"):
        T([1.0]).requires_grad_().add_(1)
    with pytest.raises(RuntimeError, match="0-dimension"):
        weft.zeros(1).fill_(T([1.0, 2.0]))
    assert weft.zeros(2, dtype=weft.int64).copy_(T([1.7, 2.2])).tolist() == [1, 2]
    y = weft.ones(2, 3)
    p = y.data_ptr()
    assert y.t_().shape == (3, 2) and y.unsqueeze_(0).squeeze_().transpose_(0, 1).shape == (2, 3)
    assert y.data_ptr() == p and y.resize_(3, 2).shape == (3, 2)
    assert weft.zeros(3, 2).fill_diagonal_(1, wrap=True).tolist() == [[1, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int64", "bfloat16"])
def test_large_writes_are_exact_where_memories_overlap_too(kind):
    n = 1 << 20
    words = np.random.default_rng(0).integers(0, 1 << 16, n).astype(np.uint16)
    y = T(words.view(np.int16)).view(weft.bfloat16)  # all bits, NaNs among them
    y = y if kind == "bfloat16" else y.float().to(getattr(weft, kind))
    expected = y.numpy(force=True).copy() if kind != "bfloat16" else words.copy()
    bits = lambda t: (t.view(weft.int16) if kind == "bfloat16" else t).numpy().view(np.uint8)
    step = lambda x: x.copy_(y).detach()
    for run in (step, weft.compile(step)):
        x = weft.zeros(n, dtype=y.dtype)
        assert np.array_equal(bits(run(x)), expected.view(np.uint8))
    x[1:].copy_(x[:-1])
    expected[1:] = expected[:-1].copy()
    assert np.array_equal(bits(x), expected.view(np.uint8))
    x.view(1 << 10, -1).t().copy_(y.view(1 << 10, -1))
    turned = bits(x).reshape(1 << 10, 1 << 10, -1).transpose(1, 0, 2)
    assert np.array_equal(turned.reshape(-1), bits(y))


def test_in_place_gradients():
    x = weft.ones(2, 2, requires_grad=True)
    y = x * 2
    y[0].mul_(3)
    y.t()[1].add_(x[:, 0])
    y.exp_()
    y.sum().backward()
    w = np.array([[6.0, 7.0], [2.0, 3.0]])
    e = np.exp(w)
    wanted = np.array([[6 * e[0, 0] + e[0, 1], 6 * e[0, 1]], [2 * e[1, 0] + e[1, 1], 2 * e[1, 1]]])
    np.testing.assert_allclose(x.grad.numpy(), wanted, 1e-5)


def test_augmented_assignment_is_in_place():
    x = T([1.0, 2.0])
    y = x
    x += 1
    x -= T([0.5, 0.5])
    x *= 2
    x /= 4
    x **= 2
    assert y is x and x.tolist() == [0.5625, 1.5625]
    n = T([7, 8])
    m = n
    n //= 2
    n %= 3
    n |= 4
    n &= 5
    n ^= 1
    n <<= 2
    n >>= 1
    assert m is n and n.tolist() == [10, 8]
    with pytest.raises(RuntimeError, match="can't be cast"):
        n /= 2
    w = weft.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf"):
        w += 1
    with weft.no_grad():
        w -= 0.5
    assert w.tolist() == [0.5, 0.5] and w.is_leaf


def test_only_floating_results_are_on_the_tape():
    x = T([1.5, -1.0], requires_grad=True)
    for y in (x.long(), x.bool(), x > 0, x.count_nonzero(), x.argmax(), x.sort().indices):
        assert not y.requires_grad and y.grad_fn is None
    assert x.double().requires_grad


def test_numpys_words_for_dims():
    x = weft.arange(6.0).reshape(2, 3)
    assert x.sum(axis=0, keepdims=True).tolist() == [[3, 5, 7]]
    assert x.max(axis=1).values.tolist() == [2, 5] and x.argmax(axis=1).tolist() == [2, 2]
    assert weft.cumsum(x, axis=1)[0].tolist() == [0, 1, 3]
    assert weft.stack([x, x], axis=2).shape == (2, 3, 2)
    with pytest.raises(TypeError, match="both"):
        x.sum(dim=0, axis=0)


@pytest.mark.parametrize("number", [2, 2.0, True, np.float64(2), np.float32(2), np.int64(2)])
def test_numbers_in_place(number):
    x = weft.ones(3)
    assert x.add_(number) is x and x.dtype is weft.float32
    assert x.tolist() == [1.0 + float(number)] * 3
    assert x.mul_(number).tolist() == [(1.0 + float(number)) * float(number)] * 3
