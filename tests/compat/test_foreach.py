"""torch._foreach_*: each name does for every tensor of a list what the tensor's method does."""

import numpy as np
import pytest

import weft
from weft.compat.torch_ import foreach

UNARY = sorted(
    n for n in vars(foreach) if n.startswith("_foreach_") and not foreach._TABLE.get(n[9:], ("x",))
)
NUMPY = {
    "acos": np.arccos, "asin": np.arcsin, "atan": np.arctan, "neg": np.negative,
    "frac": lambda x: x - np.trunc(x), "max": np.max, "reciprocal": lambda x: 1 / x,
    "round": np.rint, "rsqrt": lambda x: 1 / np.sqrt(x), "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}  # fmt: skip


def lists(count, seed=0):
    rng = np.random.default_rng(seed)
    return [[rng.uniform(0.1, 0.9, s) for s in ((2, 3), (4,), ())] for _ in range(count)]


def tensors(arrays):
    return [weft.from_numpy(np.array(a)) for a in arrays]


def check(name, wanted, args, kw=None):
    """Both forms of the name give `wanted`."""
    made = [tensors(a) if isinstance(a, list) and np.ndim(a[0]) else a for a in args]
    got = getattr(foreach, f"_foreach_{name}")(*made, **(kw or {}))
    assert type(got) is tuple
    for g, w in zip(got, wanted, strict=True):
        np.testing.assert_allclose(g.numpy(), w, rtol=1e-12)
    place = getattr(foreach, f"_foreach_{name}_")(*made, **(kw or {}))
    assert all(p is m for p, m in zip(place, made[0], strict=True))
    for m, w in zip(made[0], wanted, strict=True):
        np.testing.assert_allclose(m.numpy(), w, rtol=1e-12)


@pytest.mark.parametrize("name", [n[9:] for n in UNARY if hasattr(foreach, n + "_")])
def test_names_of_one_list(name):
    (a,) = lists(1)
    oracle = NUMPY.get(name) or getattr(np, name, None) or getattr(
        pytest.importorskip("scipy.special"), {"lgamma": "gammaln"}.get(name, name)
    )  # fmt: skip
    check(name, [oracle(x) for x in a], [a])


def test_operands_are_numbers_lists_or_one_tensor():
    a, b, c = lists(3)
    numbers = [0.5, 2.0, -1.0]
    for name, f in (
        ("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.divide),
        ("maximum", np.maximum), ("minimum", np.minimum), ("clamp_min", np.maximum),
        ("clamp_max", np.minimum),
    ):  # fmt: skip
        check(name, [f(x, y) for x, y in zip(a, b)], [a, b])
        check(name, [f(x, 0.4) for x in a], [a, 0.4])
        check(name, [f(x, n) for x, n in zip(a, numbers)], [a, numbers])
    check("add", [x + 0.3 * y for x, y in zip(a, b)], [a, b], {"alpha": 0.3})
    check("mul", [x * 3 for x in a], [a, weft.tensor(3.0, dtype=weft.float64)])
    check("pow", [x**y for x, y in zip(a, b)], [a, b])
    check("lerp", [x + z * (y - x) for x, y, z in zip(a, b, c)], [a, b, c])
    check("lerp", [x + 0.3 * (y - x) for x, y in zip(a, b)], [a, b], {"weight": 0.3})
    check("addcmul", [x + 0.5 * y * z for x, y, z in zip(a, b, c)], [a, b, c], {"value": 0.5})
    check("addcdiv", [x + n * y / z for x, y, z, n in zip(a, b, c, numbers)], [a, b, c, numbers])
    powers = foreach._foreach_pow(2.0, tensors(a))
    np.testing.assert_allclose(powers[1].numpy(), 2 ** a[1], rtol=1e-6)


def test_sums_copies_and_products():
    a, b = lists(2)
    norms = foreach._foreach_norm(tensors(a), 1, dtype=weft.float32)
    assert norms[0].dtype is weft.float32
    np.testing.assert_allclose([n.item() for n in norms], [abs(x).sum() for x in a], rtol=1e-6)
    sums = foreach._foreach_powsum(tensors(a), 3)
    np.testing.assert_allclose([s.item() for s in sums], [(x**3).sum() for x in a])
    target = tensors(a)
    foreach._foreach_copy_(target, tensors(b))
    assert all(np.array_equal(t.numpy(), y) for t, y in zip(target, b))
    kept = foreach._foreach_clone(target)
    foreach._foreach_zero_(target)
    assert not any(t.numpy().any() for t in target) and kept[0].numpy().all()
    (product,) = foreach._foreach_mm(tensors(a[:1]), tensors([b[0].T]))
    np.testing.assert_allclose(product.numpy(), a[0] @ b[0].T)


def test_gradients_pass():
    x = weft.ones(3, requires_grad=True)
    (y,) = foreach._foreach_mul([x], 3.0)
    y.sum().backward()
    assert x.grad.tolist() == [3, 3, 3]


def test_mistakes():
    t = [weft.ones(2), weft.ones(3)]
    with pytest.raises(RuntimeError, match="Tensor list must have at least one tensor"):
        foreach._foreach_exp([])
    with pytest.raises(RuntimeError, match="same number of tensors, got 2 and 1"):
        foreach._foreach_add(t, t[:1])
    with pytest.raises(RuntimeError, match="same number of elements as scalar list"):
        foreach._foreach_mul(t, [1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="unexpected keyword argument 'beta'"):
        foreach._foreach_add(t, 1.0, beta=2)
    with pytest.raises(TypeError, match="takes 1 arguments but 2 were given"):
        foreach._foreach_exp(t, 1)
