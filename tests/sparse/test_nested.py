"""Nested tensors: each function is the function on each part; padding; gradients; refusals."""

import copy

import pytest

import weft
from weft import nested
from weft.nn import functional as F

A = weft.arange(6.0).reshape(2, 3)
B = weft.arange(9.0).reshape(3, 3)


def both():
    return nested.nested_tensor([A, B])


def test_what_it_is():
    n = both()
    assert n.is_nested and not A.is_nested and isinstance(n, weft.Tensor)
    assert (n.dim(), n.size(0), n.size(2), n.size(-1), n.numel()) == (3, 2, 3, 3, 15)
    assert n.dtype is weft.float32 and n.layout is weft.strided
    assert [p.tolist() for p in n.unbind()] == [A.tolist(), B.tolist()]
    assert n[1].tolist() == B.tolist() and n[-1][0].tolist() == [0.0, 1.0, 2.0]
    assert nested.nested_tensor([[1.0, 2.0], [3.0]]).unbind()[1].tolist() == [3.0]
    assert repr(nested.nested_tensor([[1.0, 2.0], [3.0]])) == (
        "nested_tensor([\n  tensor([1., 2.]),\n  tensor([3.])\n])"
    )
    again = copy.deepcopy(n)
    again[0].zero_()
    assert n[0].tolist() == A.tolist() and nested.as_nested_tensor(n) is n


def test_padding():
    n = both()
    padded = n.to_padded_tensor(0.0)
    assert padded.shape == (2, 3, 3) and padded[0].tolist() == [*A.tolist(), [0.0] * 3]
    wide = nested.to_padded_tensor(n, -1.0, (3, 4, 5))
    assert wide.shape == (3, 4, 5) and wide[1, :3, :3].tolist() == B.tolist()
    assert wide.sum().item() == (A.sum() + B.sum()).item() - (60 - 15)
    assert nested.nested_tensor([]).to_padded_tensor(0.0).shape == (0,)
    with pytest.raises(RuntimeError, match="Truncation is not supported"):
        n.to_padded_tensor(0.0, (2, 2, 3))


FUNCTIONS = {
    "relu": F.relu, "gelu": F.gelu, "neg": lambda x: -x, "twice": lambda x: x * 2,
    "sum": lambda x: x + x, "half": lambda x: x / 2, "from": lambda x: 1 - x,
    "linear": lambda x: F.linear(x, B[:, :3], B[0]), "softmax": lambda x: x.softmax(-1),
    "turned": lambda x: x.transpose(-1, -2), "product": lambda x: x @ x.transpose(-1, -2),
    "double": lambda x: x.double(), "layer": weft.nn.Linear(3, 4), "clone": lambda x: x.clone(),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_the_function_of_each_part(name):
    y = FUNCTIONS[name](both())
    assert y.is_nested and y.size(0) == 2
    for got, part in zip(y.unbind(), (A, B), strict=True):
        wanted = FUNCTIONS[name](part)
        assert weft.equal(got, wanted) and got.dtype is wanted.dtype


def test_dims_count_from_the_whole():
    n = both()
    assert n.transpose(1, 2)[0].tolist() == A.t().tolist()
    assert weft.equal(n.softmax(2)[1], B.softmax(1)) and weft.equal(n.select(2, 1)[0], A[:, 1])
    with pytest.raises(RuntimeError, match="dim 0 of a nested tensor"):
        n.softmax(0)
    with pytest.raises(IndexError, match="out of range"):
        n.softmax(3)


def test_gradients_flow_to_the_parts():
    p = A.clone().requires_grad_()
    q = nested.as_nested_tensor([p, B])
    assert q.requires_grad and not q.is_leaf
    (q * 3).to_padded_tensor(0.0).sum().backward()
    assert p.grad.tolist() == [[3.0] * 3] * 2
    leaf = nested.nested_tensor([A, B], requires_grad=True)
    assert leaf.is_leaf and leaf.grad is None
    (leaf * 2).to_padded_tensor(0.0).sum().backward()
    assert leaf.grad.is_nested and leaf.grad[1].tolist() == [[2.0] * 3] * 3


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        (lambda n: n.shape, RuntimeError, "doesn't support sizes"),
        (lambda n: n.size(1), RuntimeError, "dimension 1 is irregular"),
        (lambda n: n.stride(), RuntimeError, "doesn't support strides"),
        (lambda n: n + A, RuntimeError, "Expected both self and other to be nested"),
        (lambda n: n.sum(), NotImplementedError, "aten::sum"),
        (lambda n: weft.exp(n), NotImplementedError, "NestedTensorCPU"),
        (lambda n: n._a, NotImplementedError, "to_padded_tensor"),
        (lambda n: n[5], IndexError, "out of bounds"),
        (lambda n: n + nested.nested_tensor([A]), RuntimeError, "parts"),
        (lambda n: nested.nested_tensor([A, A[0]]), RuntimeError, "must have the same dimension"),
        (lambda n: A.to_padded_tensor(0.0), NotImplementedError, "aten::to_padded_tensor"),
    ],
)
def test_refusals(wrong, kind, words):
    with pytest.raises(kind) as e:
        wrong(both())
    assert words in str(e.value)
