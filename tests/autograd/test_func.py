"""Functions of functions: values from calculus, and each transform against another."""

import numpy as np
import pytest

import weft
from weft.autograd import func as F
from weft.autograd import functional, gradcheck, gradgradcheck


def t64(*shape, seed=0):
    return weft.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def close(a, b, tol=1e-9):
    assert a.shape == b.shape
    assert np.allclose(a.detach().numpy(), b.detach().numpy(), tol, tol)


def f(x, w):
    return (x @ w).tanh().sum(-1).exp()


def test_grad_and_value_leave_no_trace():
    x = t64(3)
    g, y = F.grad_and_value(lambda x: (x**3).sum())(x)
    close(g, 3 * x * x)
    assert not g.requires_grad and not y.requires_grad and x.grad is None
    g, aux = F.grad(lambda x: ((x * x).sum(), x + 1), has_aux=True)(x)
    close(g, 2 * x)
    close(aux, x + 1)
    with pytest.raises(RuntimeError, match="return a scalar"):
        F.grad(lambda x: x)(x)


def test_grad_nests_without_confusing_levels():
    x, y = t64().reshape(()), t64(seed=1).reshape(())
    close(F.grad(F.grad(lambda x: x**4))(x), 12 * x * x)
    inner = lambda y: F.grad(lambda x: x * y)(x) * y  # y * y
    close(F.grad(inner)(y), 2 * y)


def test_gradients_flow_on_to_the_caller():
    w = t64(3).requires_grad_()
    F.grad(lambda x: (x * x * w).sum())(t64(3, seed=1)).sum().backward()
    close(w.grad, 2 * t64(3, seed=1))


def test_vjp_and_jvp_are_transposes():
    x, w, v, g = t64(2, 3), t64(3, 4, seed=1), t64(2, 3, seed=2), t64(2, seed=3)
    y, pull = F.vjp(lambda x: f(x, w), x)
    y2, push = F.jvp(lambda x: f(x, w), (x,), (v,))
    close(y, y2)
    close((push * g).sum(), (pull(g) * v).sum())
    e = 1e-6
    close(push, (f(x + e * v, w) - f(x - e * v, w)) / (2 * e), 1e-6)


def test_jacobians_agree():
    x, w = t64(2, 3), t64(3, 4, seed=1)
    rev = F.jacrev(f, argnums=(0, 1))(x, w)
    fwd = F.jacfwd(f, argnums=(0, 1))(x, w)
    old = functional.jacobian(f, (x, w))
    fast = functional.jacobian(f, (x, w), vectorize=True)
    assert rev[0].shape == (2, 2, 3) and rev[1].shape == (2, 3, 4)
    for other in (fwd, old, fast):
        for a, b in zip(rev, other, strict=True):
            close(a, b)
    close(F.jacrev(lambda x: x * 2)(t64(2)), 2 * weft.eye(2, dtype=weft.float64))


def test_hessian_of_a_quadratic_form_and_of_a_network():
    a = t64(3, 3)
    close(F.hessian(lambda x: x @ a @ x)(t64(3, seed=1)), a + a.T)
    g = lambda x: f(x, t64(3, 4, seed=1)).sum()
    x = t64(2, 3)
    close(F.hessian(g)(x), functional.hessian(g, x))
    v = t64(2, 3, seed=5)
    _, hv = functional.hvp(g, x, v)
    close(hv.reshape(6), functional.hessian(g, x).reshape(6, 6) @ v.reshape(6))


def test_vmap_is_a_loop():
    x, w = t64(5, 3), t64(3, 4, seed=1)
    rows = weft.stack([f(r, w) for r in x.unbind(0)])
    close(F.vmap(f, (0, None))(x, w), rows)
    close(F.vmap(f, (1, None))(x.T, w), rows)
    pair = F.vmap(lambda d: {"a": d["a"] * 2, "b": d["b"].sum()}, out_dims=0)({"a": x, "b": x})
    close(pair["a"], x * 2)
    close(pair["b"], x.sum(1))
    close(F.vmap(lambda r: r * 2, out_dims=1)(x), x.T * 2)
    close(
        F.vmap(F.vmap(lambda a, b: a * b, (None, 0)), (0, None))(x[0], x[1]), weft.outer(x[0], x[1])
    )
    close(F.vmap(f, (0, None), chunk_size=2)(x, w), rows)


def test_vmap_of_grad_and_grad_of_vmap():
    x, w = t64(5, 3), t64(3, 4, seed=1)
    per_row = F.vmap(F.grad(lambda w, r: f(r, w)), (None, 0))(w, x)
    close(per_row, weft.stack([F.grad(lambda w, r=r: f(r, w))(w) for r in x.unbind(0)]))
    w = w.clone().requires_grad_()
    F.vmap(f, (0, None))(x, w).sum().backward()
    close(w.grad, per_row.sum(0))


def test_vmap_refusals():
    x = t64(4, 2)
    with pytest.raises(RuntimeError, match="value of a batched tensor"):
        F.vmap(lambda r: r * r.sum().item())(x)
    with pytest.raises(ValueError, match="same size in the mapped dimension"):
        F.vmap(lambda a, b: a + b)(x, t64(3, 2))
    with pytest.raises(ValueError, match="no dim to map"):
        F.vmap(lambda a: a, in_dims=None)(x)
    y = t64(2)
    with pytest.raises(RuntimeError, match="in-place write of a batched tensor"):
        F.vmap(lambda r: y.add_(r))(x)
    h = F.vmap(lambda r: (r * 1).mul_(2).add_(r))(x)
    close(h, x * 3)


def test_gradcheck_finds_a_wrong_rule():
    x = t64(2, 3).requires_grad_()
    w = t64(3, 4, seed=1).requires_grad_()
    assert gradcheck(f, (x, w), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(f, (x, w))
    assert gradcheck(f, (x, w), fast_mode=True)

    class Wrong(weft.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * x

        @staticmethod
        def backward(ctx, g):
            return g

    assert not gradcheck(Wrong.apply, x, raise_exception=False)
    with pytest.raises(RuntimeError, match="Jacobian mismatch for output 0"):
        gradcheck(Wrong.apply, x)


def test_functional_call_swaps_and_puts_back():
    net = weft.nn.Sequential(weft.nn.Linear(3, 2), weft.nn.Tanh())
    own = net[0].weight
    values = {k: weft.zeros_like(v) for k, v in net.named_parameters()}
    y = F.functional_call(net, values, (weft.ones(4, 3),))
    assert y.tolist() == [[0.0, 0.0]] * 4 and net[0].weight is own
    x = weft.ones(5, 3)
    params = {k: v.detach() for k, v in net.named_parameters()}
    loss = lambda p, r: F.functional_call(net, p, (r,)).sum()
    g = F.vmap(F.grad(loss), (None, 0))(params, x)
    assert g["0.weight"].shape == (5, 2, 3)
