"""Gradient clipping and parameters as one vector."""

import numpy as np
import pytest

import weft
from weft import nn
from weft.nn import utils


def parameters():
    rng = np.random.default_rng(0)
    made = [nn.Parameter(weft.zeros(*s)) for s in ((3, 2), (4,), (1,))]
    for p in made[:2]:
        p.grad = weft.from_numpy(rng.standard_normal(tuple(p.shape)).astype(np.float32))
    return made


def grads(ps):
    return np.concatenate([p.grad.numpy().ravel() for p in ps if p.grad is not None])


@pytest.mark.parametrize("p", [2.0, 1.0, 3.5, float("inf")])
def test_clip_grad_norm(p):
    ps = parameters()
    before = grads(ps)
    norm = np.linalg.norm(before, p)
    assert utils.clip_grad_norm_(ps, 100.0, p).item() == pytest.approx(norm, rel=1e-5)
    np.testing.assert_array_equal(grads(ps), before)
    found = utils.clip_grad_norm_(iter(ps), 0.5, p)
    assert found.item() == pytest.approx(norm, rel=1e-5)
    np.testing.assert_allclose(grads(ps), before * (0.5 / (norm + 1e-6)), rtol=1e-5)


def test_clip_grad_norm_of_one_of_none_and_of_infinities():
    ps = parameters()
    assert utils.clip_grad_norm_(ps[2], 1.0).item() == 0.0
    assert utils.clip_grad_norm_(ps[1], 1.0).item() > 0
    with pytest.warns(UserWarning, match="empty generator"):
        utils.clip_grad_norm_((p for p in ()), 1.0)
    ps[0].grad[0, 0] = float("inf")
    with pytest.raises(RuntimeError, match="non-finite"):
        utils.clip_grad_norm_(ps, 1.0, error_if_nonfinite=True)


def test_total_norm_does_not_change_anything():
    ps = parameters()
    found = [p.grad for p in ps[:2]]
    before = grads(ps)
    total = utils.get_total_norm(found)
    assert total.item() == pytest.approx(np.linalg.norm(before), rel=1e-5)
    np.testing.assert_array_equal(grads(ps), before)
    utils.clip_grads_with_norm_(ps, 1.0, total)
    assert np.linalg.norm(grads(ps)) == pytest.approx(1.0, rel=1e-4)


def test_clip_grad_value():
    ps = parameters()
    before = grads(ps)
    utils.clip_grad_value_(ps, 0.3)
    np.testing.assert_array_equal(grads(ps), before.clip(-0.3, 0.3).astype(np.float32))


def test_parameters_and_vectors():
    m = nn.Linear(3, 2)
    v = utils.parameters_to_vector(m.parameters())
    assert v.shape == (8,) and v.requires_grad
    utils.vector_to_parameters(weft.arange(8).float(), m.parameters())
    assert m.weight.tolist() == [[0, 1, 2], [3, 4, 5]] and m.bias.tolist() == [6, 7]
    assert m.weight.requires_grad and m.weight.is_leaf
    with pytest.raises(TypeError, match=r"expected torch\.Tensor"):
        utils.vector_to_parameters([1], m.parameters())
