"""The builtin behind `cat` and `stack`: NumPy's values, the tape's gradients, no reference lost."""

import gc
import sys

import numpy as np
import pytest

import weft
from weft.ops import dispatch, join
from weft.runtime import native

if not native.tensor_builtins():
    pytest.skip("no builtins here", allow_module_level=True)
joined = native.tensor_builtins()["joined"]
CONCATS, STACKS = join._CONCATS, join._STACKS


def tensors(shapes, grad=False, dtype=weft.float32):
    draw = np.random.default_rng(0)
    return [weft.tensor(draw.normal(size=s), dtype=dtype, requires_grad=grad) for s in shapes]


@pytest.mark.parametrize(
    "dtype", [weft.float32, weft.float64, weft.int64, weft.bool, weft.complex64]
)
@pytest.mark.parametrize("shape", [(), (3,), (1, 1), (2, 3), (2, 1, 4)])
def test_stack_is_numpys(shape, dtype):
    xs = tensors([shape] * 5) if dtype.is_complex else tensors([shape] * 5, dtype=dtype)
    xs = [x.to(dtype) for x in xs]
    for dim in range(-len(shape) - 1, len(shape) + 1):
        y = joined(STACKS, xs, dim, True)
        assert y.dtype is dtype and y.is_contiguous()
        np.testing.assert_array_equal(y.numpy(), np.stack([x.numpy() for x in xs], dim))


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_cat_is_numpys_and_sends_each_its_part(dim):
    shapes = [[2, 3, 4] for _ in range(4)]
    for s, n in zip(shapes, (3, 1, 1, 2), strict=True):
        s[dim] = n
    xs = tensors(shapes, grad=True)
    xs[1].requires_grad_(False)
    y = joined(CONCATS, tuple(xs), dim)
    np.testing.assert_array_equal(
        y.detach().numpy(), np.concatenate([x.detach().numpy() for x in xs], dim)
    )
    w = weft.randn(y.shape)
    (y * w).sum().backward()
    parts = np.split(w.numpy(), np.cumsum([s[dim] for s in shapes])[:-1], dim)
    for x, part in zip(xs, parts, strict=True):
        if x.requires_grad:
            np.testing.assert_array_equal(x.grad.numpy(), part)
        else:
            assert x.grad is None


def test_stack_of_more_than_a_word_has_bits():
    """Each tensor's gradient comes to it, be it the seventieth, through a node or to a leaf."""
    leaves = tensors([()] * 70, grad=True)
    made = [x * 2 if i % 2 else x for i, x in enumerate(leaves)]
    y = joined(STACKS, made, 0, True)
    (y * weft.arange(70.0)).sum().backward()
    assert [x.grad.item() for x in leaves] == [i * (1 + i % 2) for i in range(70)]
    with weft.no_grad():
        assert joined(STACKS, made, 0, True).grad_fn is None


def test_second_derivatives():
    x, y = tensors([(3,), (3,)], grad=True)
    z = joined(STACKS, [x * x, y], 0, True)
    (g,) = weft.autograd.grad((z * z).sum(), x, create_graph=True)
    g.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 12 * x.detach().numpy() ** 2, rtol=1e-6)


class Own(weft.Tensor):
    pass


@pytest.mark.parametrize(
    "xs",
    [
        [],
        "ab",
        (weft.ones(2), 1.0),
        (weft.ones(2), weft.ones(2, dtype=weft.float64)),
        (weft.ones(2), weft.ones(3, 2)),
        (weft.ones(2, 3).t(), weft.ones(3, 2)),
        (weft.ones(0, 2), weft.ones(1, 2)),
        (weft.ones(2).as_subclass(Own), weft.ones(2)),
        (weft.ones(5000), weft.ones(5000)),
        [weft.ones(2, 2), weft.ones(2, 3)],
    ],
)
def test_what_it_leaves_to_python(xs):
    assert joined(CONCATS, xs, 0) is None


def test_bad_dims_and_recorders_are_pythons():
    xs = [weft.ones(2, 3), weft.ones(2, 3)]
    for dim in (2, -3, 2**70, "x", None, True):
        assert joined(CONCATS, xs, dim) is None
    assert joined(STACKS, xs, 3, True) is None and joined(STACKS, [], 0, True) is None
    seen = []

    @weft.compile
    def f(a, b):
        seen.append(joined(CONCATS, [a, b], 0))
        return weft.cat([a, b]), weft.stack((a, b), -1)

    for _ in range(3):
        got = f(*xs)
        np.testing.assert_array_equal(got[0].numpy(), np.ones((4, 3)))
        assert got[1].shape == (2, 3, 2)
    assert seen == [None] * 3
    with pytest.raises(IndexError):
        weft.stack(xs, 4)
    with pytest.warns(UserWarning), weft.autograd.detect_anomaly():
        assert joined(CONCATS, tensors([(2,), (2,)], grad=True), 0) is None


def test_references():
    """What is joined, its shapes' numbers and the op's count end as they began."""
    gc.collect()
    xs = tensors([(300, 1), (301, 1)], grad=True)
    counted = [*xs, *(x._a for x in xs), xs, CONCATS[0], xs[0]._a.dtype, None, native.Meta]

    def counts():
        return [sys.getrefcount(o) for o in counted]

    before = counts()
    for _ in range(500):
        joined(CONCATS, xs, 0)
        joined(CONCATS, tuple(xs), 0).sum().backward()
        joined(CONCATS, xs, 1)  # does not fit
        joined(CONCATS, [*xs, 1], 0)
    xs[0].grad = xs[1].grad = None
    gc.collect()
    after = counts()
    assert all(abs(a - b) < 100 for a, b in zip(after, before, strict=True)), (before, after)


def test_cat_and_stack_ask_it(monkeypatch):
    asked = []
    monkeypatch.setattr(dispatch, "joined", lambda *given: asked.append(given))
    for _ in range(dispatch._OFTEN + 1):  # the builtins come once: what stands in for one stays
        weft.full((2,), 17.25)
    xs = [weft.ones(2), weft.ones(2)]
    weft.cat(xs), weft.stack(xs, 1)
    assert (CONCATS, xs, 0) in asked and (STACKS, xs, 1, True) in asked
