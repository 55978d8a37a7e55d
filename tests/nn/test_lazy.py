"""Layers that take their input size from the first input."""

import copy

import numpy as np
import pytest

import weft
from weft import nn, optim

CASES = [
    (lambda: nn.LazyLinear(3), lambda: nn.Linear(5, 3), (2, 5)),
    (lambda: nn.LazyLinear(3, bias=False), lambda: nn.Linear(5, 3, bias=False), (2, 5)),
    (lambda: nn.LazyConv1d(4, 3), lambda: nn.Conv1d(2, 4, 3), (1, 2, 7)),
    (lambda: nn.LazyConv2d(4, 3, 2, 1, 1, 2), lambda: nn.Conv2d(2, 4, 3, 2, 1, 1, 2), (1, 2, 7, 7)),
    (lambda: nn.LazyConv2d(4, 3, bias=False), lambda: nn.Conv2d(2, 4, 3, bias=False), (2, 7, 7)),
    (lambda: nn.LazyConvTranspose2d(4, 3, groups=2), lambda: nn.ConvTranspose2d(2, 4, 3, groups=2),
     (1, 2, 3, 3)),
    (lambda: nn.LazyBatchNorm1d(), lambda: nn.BatchNorm1d(3), (4, 3)),
    (lambda: nn.LazyBatchNorm2d(affine=False), lambda: nn.BatchNorm2d(3, affine=False),
     (2, 3, 2, 2)),
    (lambda: nn.LazyInstanceNorm2d(), lambda: nn.InstanceNorm2d(3, affine=True,
     track_running_stats=True), (2, 3, 2, 2)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_becomes_the_ordinary_layer_with_its_values(case):
    lazy, ordinary, shape = case
    m = lazy()
    x = weft.randn(*shape)
    weft.manual_seed(3)
    y = m(x)
    weft.manual_seed(3)
    other = ordinary()
    assert type(m) is type(other) and repr(m) == repr(other)
    assert list(m.state_dict()) == list(other.state_dict())
    for a, b in zip(m.state_dict().values(), other.state_dict().values(), strict=True):
        assert a.shape == b.shape
    np.testing.assert_allclose(y.detach().numpy(), other(x).detach().numpy(), rtol=1e-6)
    assert np.array_equal(m.eval()(x).detach().numpy(), other.eval()(x).detach().numpy())
    assert not m._hooked


def test_parameters_keep_their_identity():
    m = nn.LazyLinear(2)
    optimizer = optim.SGD(m.parameters(), lr=1.0)
    assert repr(m.weight) == "<UninitializedParameter>"
    with pytest.raises(RuntimeError, match="uninitialized parameter"):
        m.weight.shape
    for size in (lambda: m.weight.size(), lambda: m.weight.size(0)):
        with pytest.raises(RuntimeError, match="uninitialized parameter"):
            size()
    m(weft.ones(1, 3)).sum().backward()
    before = m.bias.detach().clone()
    optimizer.step()
    assert type(m.weight) is nn.Parameter
    np.testing.assert_allclose(m.bias.detach().numpy(), before.numpy() - 1)


def test_states_give_the_shape_too():
    state = nn.Linear(5, 2).state_dict()
    m = nn.LazyLinear(2)
    m.load_state_dict(state)
    assert m.weight.shape == (2, 5)
    y = m(weft.ones(1, 5))
    assert type(m) is nn.Linear and m.in_features == 5 and y.shape == (1, 2)


def test_copies_are_lazy_too():
    m = nn.Sequential(nn.LazyLinear(2), nn.ReLU(), nn.LazyLinear(1))
    other = copy.deepcopy(m)
    assert m(weft.ones(1, 3)).shape == (1, 1)
    assert nn.parameter.is_lazy(other[0].weight)
    assert other(weft.ones(1, 7)).shape == (1, 1) and other[0].in_features == 7


def test_wrong_inputs():
    with pytest.raises(RuntimeError, match=r"Expected 3D \(unbatched\) or 4D"):
        nn.LazyConv2d(4, 3)(weft.ones(2, 2))
    with pytest.raises(ValueError, match="divisible by groups"):
        nn.LazyConv2d(4, 3, groups=4)(weft.ones(1, 2, 5, 5))


def test_unpooling_undoes_pooling():
    x = weft.randn(2, 3, 6, 4)
    y, places = nn.MaxPool2d(2, return_indices=True)(x)
    back = nn.MaxUnpool2d(2)(y, places)
    assert back.shape == x.shape
    kept = back.numpy() != 0
    assert kept.sum() == y.numel() and np.array_equal(back.numpy()[kept], x.numpy()[kept])
    y, places = nn.MaxPool1d(2, return_indices=True)(x[0])
    assert nn.MaxUnpool1d(2)(y, places).shape == x[0].shape
