"""What reaches an input that is NaN, tied or outside: torch's numbers (2.13)."""

from __future__ import annotations

import math

import pytest

import weft
import weft.nn.functional as F

NAN = math.nan


def grad(f, values: list, dtype=weft.float64) -> list:
    x = weft.tensor(values, dtype=dtype, requires_grad=True)
    f(x).sum().backward()
    assert x.grad is not None
    return x.grad.tolist()


@pytest.mark.parametrize("dtype", [weft.float32, weft.float64, weft.bfloat16])
@pytest.mark.parametrize(
    ("f", "there", "rest"),
    [
        (F.relu, 1.0, [0.0, 0.0, 1.0]),
        (F.relu6, 1.0, [0.0, 0.0, 1.0]),
        (F.hardtanh, 1.0, [0.0, 1.0, 0.0]),
        (F.elu, 1.0, [math.exp(-1), 1.0, 1.0]),
        (F.hardswish, 1.0, [1 / 6, 0.5, 5 / 6]),
    ],
)
def test_activations_pass_on_the_gradient_of_a_nan(f, there, rest, dtype):
    got = grad(f, [NAN, -1.0, 0.0, 1.0], dtype)
    assert got == pytest.approx([there, *rest], rel=1e-2)


def test_a_compiled_step_lets_a_nan_through_relu_as_eager_does():
    def step(x):
        x = x.detach().requires_grad_()
        (F.relu(x * 2) * 3).sum().backward()
        return x.grad

    x = weft.tensor([NAN, -1.0, 0.0, 2.0])
    run = weft.compile(step)
    for _ in range(3):
        assert run(x).tolist() == step(x).tolist() == [6.0, 0.0, 0.0, 6.0]


@pytest.mark.parametrize("f", [weft.maximum, weft.minimum])
def test_both_of_two_get_the_gradient_beside_a_nan(f):
    a = weft.tensor([NAN, 1.0, 2.0, 3.0], requires_grad=True)
    b = weft.tensor([1.0, NAN, 2.0, 1.0], requires_grad=True)
    f(a, b).sum().backward()
    of_last = [1.0, 0.0] if f is weft.maximum else [0.0, 1.0]
    assert a.grad is not None and a.grad.tolist() == [1.0, 1.0, 0.5, of_last[0]]
    assert b.grad is not None and b.grad.tolist() == [1.0, 1.0, 0.5, of_last[1]]


@pytest.mark.parametrize(
    ("f", "values", "want"),
    [
        (weft.median, [1.0, 3.0, 1.0, 3.0], [0.5, 0.0, 0.5, 0.0]),
        (weft.median, [[2.0, 2.0], [5.0, 2.0]], [[1 / 3, 1 / 3], [0.0, 1 / 3]]),
        (weft.median, [1.0, NAN, 2.0, NAN], [0.0, 0.5, 0.0, 0.5]),
        (weft.nanmedian, [1.0, NAN, 1.0, NAN], [0.5, 0.0, 0.5, 0.0]),
        (weft.nanmedian, [NAN, NAN], [0.5, 0.5]),
    ],
)
def test_equals_of_the_median_of_all_share_its_gradient(f, values, want):
    assert grad(f, values) == want


def test_logit_outside_of_its_domain_has_no_slope():
    inside = 1 / (0.3 * 0.7)
    inf = math.inf
    got = grad(weft.logit, [-0.5, 1.5, 0.0, 1.0, 0.3])
    assert got == pytest.approx([NAN, NAN, inf, inf, inside], nan_ok=True)
    got = grad(lambda x: weft.logit(x, 1e-6), [-0.5, 1.5, 0.0, NAN, 0.3])
    assert got == pytest.approx([0.0, 0.0, 0.0, NAN, inside], nan_ok=True)


def test_xlogy_of_nan_has_nan_as_its_slope():
    b = weft.tensor([NAN, 0.0, 2.0], dtype=weft.float64)
    got = grad(lambda a: weft.xlogy(a, b), [0.0, 0.0, 0.0])
    assert got == pytest.approx([NAN, 0.0, math.log(2)], nan_ok=True)


@pytest.mark.parametrize("dtype", [weft.int64, weft.float32, weft.uint8])
def test_a_number_beyond_int64_is_a_value_error_where_it_is_written(dtype):
    x = weft.zeros(3, dtype=dtype)
    for value in (2**63, -(2**63) - 1):
        with pytest.raises(ValueError, match="Overflow when unpacking long long"):
            x[0] = value
    assert x.tolist() == [0, 0, 0]


def test_smm_wants_a_sparse_tensor():
    with pytest.raises(RuntimeError, match="sparse"):
        weft.smm(weft.ones(2, 2), weft.ones(2, 2))


@pytest.mark.parametrize(
    "f",
    [
        weft.sign, weft.floor, weft.ceil, weft.round, weft.trunc, F.relu6, F.hardshrink,
        lambda x: x // 2, lambda x: F.threshold(x, 9.0, 0.0), lambda x: F.hardtanh(x, -0.1, 0.1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [weft.float32, weft.bfloat16])
def test_a_flat_piece_lets_no_infinity_through(f, dtype):
    x = weft.tensor([7.5, 0.25, -0.5], dtype=dtype, requires_grad=True)
    y = f(x)
    y.backward(weft.full((3,), math.inf, dtype=dtype))
    flat = (f(x + 0.125) == y) | (y == x.trunc())
    assert x.grad is not None and flat.any() and not weft.isnan(x.grad).any()
    assert x.grad[flat].tolist() == [0.0] * int(flat.sum())


INF = math.inf


@pytest.mark.parametrize(
    ("f", "values", "want"),
    [
        (weft.max, [NAN, 1.0, NAN], [0.5, 0.0, 0.5]),
        (weft.min, [NAN, 1.0, -INF], [1.0, 0.0, 0.0]),
        (weft.amax, [NAN, 1.0], [NAN, NAN]),
        (lambda x: weft.linalg.vector_norm(x, INF), [NAN, 1.0, -2.0], [0.0, 0.0, 0.0]),
        (lambda x: x.var(0), [INF, 1.0, 0.0], [NAN, -INF, -INF]),
        (lambda x: x.copysign(-2.0), [NAN, INF, 0.0, 3.0], [NAN, NAN, 0.0, -1.0]),
        (lambda x: weft.logaddexp(x, x.detach()), [INF, -INF, 1.0], [NAN, NAN, 0.5]),
        (lambda x: x**0.5, [-INF, -0.0, 4.0], [NAN, -INF, 0.25]),
        (lambda x: x.clamp(min=weft.zeros_like(x)), [NAN, -1.0, 0.0], [0.0, 0.0, 1.0]),
        (lambda x: x.clamp(weft.full_like(x, NAN)), [1.0, INF], [0.0, 0.0]),
        (lambda x: weft.zeros_like(x).clamp(max=x), [NAN, -1.0, 0.0], [0.0, 1.0, 0.0]),
        (weft.sinc, [1e-200, 0.0, NAN, 1.0], [0.0, 0.0, NAN, -1.0]),
        (weft.special.entr, [0.0, INF, -1.0, 1.0], [INF, -INF, NAN, -1.0]),
        (weft.special.i1, [0.0, 1e-300, 1e-9], [0.5, 0.5, 0.5]),
        (
            lambda x: weft.special.xlog1py(x, weft.tensor([1.0, -1.0, INF, NAN])),
            [0.0, 0.0, 0.0, 0.0],
            [math.log(2), 0.0, INF, NAN],
        ),
        (
            lambda x: weft.special.xlog1py(weft.ones_like(x) * 2, x),
            [0.0, -1.0, 3.0],
            [2.0, INF, 0.5],
        ),
    ],
)
def test_gradients_beside_nan_and_infinity_are_torchs(f, values, want):
    assert grad(f, values) == pytest.approx(want, nan_ok=True)


def test_sinc_keeps_its_slope_near_zero():
    near = [1e-10, 1e-6, 1e-4]
    assert grad(weft.sinc, near, weft.float32) == pytest.approx([0, 0, 0], abs=2e-3)


def test_the_variance_has_its_second_derivative():
    x = weft.tensor([1.0, 2.0, 4.0], dtype=weft.float64)
    got = weft.func.hessian(lambda x: x.var())(x)
    assert weft.allclose(got, weft.eye(3, dtype=weft.float64) - 1 / 3)


def test_values_beside_nan():
    assert weft.special.i1(weft.tensor(1e-12, dtype=weft.float64)).item() == pytest.approx(5e-13)
    got = weft.special.zeta(weft.tensor([2.0, NAN]), weft.tensor([1.0, 2.0])).tolist()
    assert got == pytest.approx([math.pi**2 / 6, NAN], nan_ok=True)
    assert math.isnan((weft.tensor(-INF) ** 0.5).item())
