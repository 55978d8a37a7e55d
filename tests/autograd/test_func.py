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


def test_linearize_runs_the_function_once():
    calls = []

    def f(x):
        calls.append(1)
        return {"y": x.sin() * x, "c": weft.ones(2)}

    x = weft.tensor([0.5, 2.0], dtype=weft.float64)
    out, push = weft.func.linearize(f, x)
    for t in (weft.tensor([1.0, 0.0]).double(), weft.tensor([0.3, -2.0]).double()):
        got = push(t)
        wanted = (x.cos() * x + x.sin()) * t
        np.testing.assert_allclose(got["y"].numpy(), wanted.numpy(), rtol=1e-12)
        assert got["c"].tolist() == [0, 0] and not got["y"].requires_grad
    assert calls == [1] and out["y"].tolist() == (x.sin() * x).tolist()
    with pytest.raises(ValueError, match="linearize: tangents of shapes"):
        push(weft.ones(3))


def test_an_ensemble_by_stacked_states():
    models = [weft.nn.Sequential(weft.nn.Linear(3, 2), weft.nn.BatchNorm1d(2)) for _ in range(4)]
    models = [m.eval() for m in models]
    params, buffers = weft.func.stack_module_state(models)
    assert params["0.weight"].shape == (4, 2, 3) and params["0.weight"].is_leaf
    assert params["0.weight"].requires_grad and not buffers["1.running_mean"].requires_grad
    x = weft.randn(5, 3)

    def run(p, b):
        return weft.func.functional_call(models[0], (p, b), (x,))

    got = weft.func.vmap(run)(params, buffers)
    for y, m in zip(got, models, strict=True):
        np.testing.assert_allclose(y.detach().numpy(), m(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match="at least one model"):
        weft.func.stack_module_state([])
    with pytest.raises(RuntimeError, match="same class"):
        weft.func.stack_module_state([weft.nn.ReLU(), weft.nn.GELU()])
    with pytest.raises(RuntimeError, match="training/eval mode"):
        weft.func.stack_module_state([weft.nn.ReLU(), weft.nn.ReLU().eval()])


def test_dual_numbers_carry_tangents():
    ad = weft.autograd.forward_ad
    x, t = weft.tensor([1.0, 2.0]).double(), weft.tensor([1.0, -3.0]).double()
    with ad.dual_level():
        a, b = ad.make_dual(x, t), ad.make_dual(x * 2, t * t)
        primal, tangent = ad.unpack_dual(a.exp() * b + weft.ones(2))
        wanted = x.exp() * t * (2 * x) + x.exp() * t * t
        np.testing.assert_allclose(tangent.numpy(), wanted.numpy(), rtol=1e-12)
        np.testing.assert_allclose(primal.numpy(), (x.exp() * x * 2 + 1).numpy(), rtol=1e-12)
        assert ad.unpack_dual(a).tangent.tolist() == t.tolist()
        assert ad.unpack_dual(x).tangent is None
        assert ad.unpack_dual(x.clone().requires_grad_() * 2).tangent is None
        with pytest.raises(RuntimeError, match="must have the primal's dtype and shape"):
            ad.make_dual(x, t[:1])
        with pytest.raises(RuntimeError, match="Nested forward mode"), ad.dual_level():
            pass
    assert ad.unpack_dual(a).tangent is None
    with pytest.raises(RuntimeError, match="no level exists"):
        ad.make_dual(x, t)


def test_products_need_a_vector_unless_there_is_one_number():
    F = weft.autograd.functional
    x = weft.ones(2)
    with pytest.raises(RuntimeError, match="vector v can only be None if the user-provided"):
        F.vjp(lambda x: x * 2, x)
    with pytest.raises(RuntimeError, match="vector v can only be None if the input"):
        F.jvp(lambda x: x.sum(), x)
    with pytest.raises(RuntimeError, match="should contain a single element"):
        F.vhp(lambda x: x * 2, x, x)
    assert F.vjp(lambda x: (x * x).sum(), x)[1].tolist() == [2, 2]
