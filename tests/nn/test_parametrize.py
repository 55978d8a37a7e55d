"""Parametrizations, weight norm, spectral norm, batch norm folded away."""

import copy

import numpy as np
import pytest

import weft
from weft import nn
from weft.nn.utils import parametrizations, parametrize


class Symmetric(nn.Module):
    def forward(self, x):
        return (x + x.T) * 0.5

    def right_inverse(self, x):
        return x


class Doubled(nn.Module):
    def forward(self, x):
        return x * 2

    def right_inverse(self, x):
        return x * 0.5


def values(t):
    return t.detach().numpy()


def test_a_parametrized_weight_is_computed_and_trained():
    m = nn.Linear(3, 3)
    w = values(m.weight).copy()
    parametrize.register_parametrization(m, "weight", Symmetric())
    assert parametrize.is_parametrized(m, "weight") and not parametrize.is_parametrized(m, "bias")
    assert type(m).__name__ == "ParametrizedLinear" and isinstance(m, nn.Linear)
    assert parametrize.type_before_parametrizations(m) is nn.Linear
    np.testing.assert_allclose(values(m.weight), (w + w.T) / 2, rtol=1e-6)
    names = [n for n, _ in m.named_parameters()]
    assert names == ["bias", "parametrizations.weight.original"]
    m(weft.ones(1, 3)).sum().backward()
    np.testing.assert_allclose(values(m.parametrizations.weight.original.grad), np.ones((3, 3)))
    parametrize.register_parametrization(m, "weight", Doubled())
    np.testing.assert_allclose(values(m.weight), w + w.T, rtol=1e-6)
    m.weight = weft.eye(3)
    np.testing.assert_allclose(values(m.weight), np.eye(3), rtol=1e-6)
    parametrize.remove_parametrizations(m, "weight")
    assert type(m) is nn.Linear and isinstance(m.weight, nn.Parameter)
    np.testing.assert_allclose(values(m.weight), np.eye(3), rtol=1e-6)


def test_removing_may_leave_the_original():
    m = nn.Linear(2, 2)
    w = values(m.weight).copy()
    parametrize.register_parametrization(m, "weight", Symmetric())
    parametrize.remove_parametrizations(m, "weight", leave_parametrized=False)
    np.testing.assert_array_equal(values(m.weight), w)


def test_two_instances_keep_their_own_parametrizations():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    parametrize.register_parametrization(a, "weight", Symmetric())
    parametrize.register_parametrization(b, "bias", Doubled())
    assert isinstance(b.weight, nn.Parameter) and type(a) is not type(b)
    c = copy.deepcopy(a)
    with weft.no_grad():
        c.parametrizations.weight.original.fill_(3.0)
    assert not np.array_equal(values(a.weight), values(c.weight))


def test_cached_values_are_computed_once():
    class Counting(nn.Module):
        calls = 0

        def forward(self, x):
            Counting.calls += 1
            return x * 1

    m = nn.Linear(2, 2)
    parametrize.register_parametrization(m, "weight", Counting())
    before = Counting.calls
    with parametrize.cached():
        assert m.weight is m.weight
    assert Counting.calls == before + 1


def test_parametrizations_are_checked():
    class Shorter(nn.Module):
        def forward(self, x):
            return x[0]

    m = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="may not change the shape"):
        parametrize.register_parametrization(m, "weight", Shorter())
    with pytest.raises(ValueError, match="does not have a parameter"):
        parametrize.register_parametrization(m, "wait", Symmetric())
    with pytest.raises(ValueError, match="does not have a parametrization"):
        parametrize.remove_parametrizations(nn.Linear(1, 1), "weight")


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(dim):
    m = nn.Conv1d(2, 4, 3)
    w = values(m.weight).copy()
    parametrizations.weight_norm(m, dim=dim)
    np.testing.assert_allclose(values(m.weight), w, rtol=1e-5)
    g = m.parametrizations.weight.original0
    axes = None if dim is None else tuple(i for i in range(3) if i != dim)
    lengths = np.sqrt((w.astype(np.float64) ** 2).sum(axes, keepdims=dim is not None))
    np.testing.assert_allclose(values(g), lengths, rtol=1e-5)
    with weft.no_grad():
        g.mul_(3.0)
    np.testing.assert_allclose(values(m.weight), 3 * w, rtol=1e-5)


def test_the_older_weight_norm_and_its_states():
    m = nn.utils.weight_norm(nn.Linear(3, 2))
    assert list(m.state_dict()) == ["bias", "weight_g", "weight_v"]
    x = weft.ones(1, 3)
    y = values(m(x))
    m(x).sum().backward()
    assert m.weight_g.grad is not None and m.weight_v.grad is not None
    new = parametrizations.weight_norm(nn.Linear(3, 2))
    new.load_state_dict(m.state_dict())
    np.testing.assert_allclose(values(new(x)), y, rtol=1e-6)
    with pytest.raises(RuntimeError, match="two weight_norm hooks"):
        nn.utils.weight_norm(m)
    nn.utils.remove_weight_norm(m)
    assert isinstance(m.weight, nn.Parameter) and set(m.state_dict()) == {"weight", "bias"}
    np.testing.assert_allclose(values(m(x)), y, rtol=1e-6)
    with pytest.raises(ValueError, match="not found"):
        nn.utils.remove_weight_norm(m)


def test_spectral_norm():
    weft.manual_seed(0)
    m = nn.Linear(6, 4)
    w = values(m.weight).copy()
    parametrizations.spectral_norm(m, n_power_iterations=20)
    m(weft.ones(1, 6)).sum().backward()
    assert np.linalg.norm(values(m.weight), 2) == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(values(m.weight), w / np.linalg.norm(w, 2), rtol=1e-2, atol=1e-3)
    m.eval()
    u = values(m.parametrizations.weight[0]._u).copy()
    m(weft.ones(1, 6))
    np.testing.assert_array_equal(values(m.parametrizations.weight[0]._u), u)
    with pytest.raises(ValueError, match="no parameter or buffer"):
        parametrizations.spectral_norm(nn.ReLU())


def trained(bn):
    rng = np.random.default_rng(0)
    bn.running_mean.copy_(weft.from_numpy(rng.standard_normal(4).astype(np.float32)))
    bn.running_var.copy_(weft.from_numpy(rng.random(4).astype(np.float32) + 0.5))
    with weft.no_grad():
        bn.weight.uniform_(0.5, 2)
        bn.bias.normal_()
    return bn.eval()


@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_folds_into_the_layer_before(bias):
    bn = trained(nn.BatchNorm2d(4))
    x = weft.randn(2, 3, 5, 5)
    conv = nn.Conv2d(3, 4, 3, bias=bias).eval()
    fused = nn.utils.fuse_conv_bn_eval(conv, bn)
    np.testing.assert_allclose(values(fused(x)), values(bn(conv(x))), rtol=1e-4, atol=1e-5)
    up = nn.ConvTranspose2d(3, 4, 2, bias=bias).eval()
    fused = nn.utils.fuse_conv_bn_eval(up, bn, transpose=True)
    np.testing.assert_allclose(values(fused(x)), values(bn(up(x))), rtol=1e-4, atol=1e-5)
    flat = trained(nn.BatchNorm1d(4))
    linear = nn.Linear(5, 4, bias=bias).eval()
    fused = nn.utils.fuse_linear_bn_eval(linear, flat)
    z = weft.randn(3, 5)
    np.testing.assert_allclose(values(fused(z)), values(flat(linear(z))), rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError, match="only for eval"):
        nn.utils.fuse_conv_bn_eval(conv.train(), bn)
