"""einsum and its relatives against NumPy."""

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from tests.ops.rules import gradients

EQUATIONS = {
    "ij,jk->ik": [(2, 3), (3, 4)], "ij,jk": [(2, 3), (3, 4)],
    "bij,bjk->bik": [(2, 3, 4), (2, 4, 5)],
    "ii": [(3, 3)], "ii->i": [(3, 3)], "ij->ji": [(2, 3)], "ij->": [(2, 3)],
    "i,j->ij": [(2,), (3,)],
    "i,i": [(3,), (3,)], "ijk,k->ij": [(2, 3, 4), (4,)],
    "bhqd,bhkd->bhqk": [(2, 2, 3, 4), (2, 2, 5, 4)],
    "...ij,...jk->...ik": [(2, 1, 3, 4), (5, 4, 2)], "i...->...": [(2, 3, 4)], "...": [(2, 3)],
    "a,b,c->abc": [(2,), (3,), (4,)], "ab,bc,cd->ad": [(2, 3), (3, 4), (4, 2)],
    "ijij->ij": [(2, 3, 2, 3)], "iji->j": [(2, 3, 2)], "ab,ac->bc": [(4, 2), (4, 3)],
    "ij,ij->j": [(2, 3), (1, 3)], "bi,oik,bk->bo": [(2, 3), (4, 3, 5), (2, 5)],
    "ab, ab -> b": [(2, 3), (2, 3)],
    "zy,yx": [(2, 3), (3, 4)], "i,j->": [(2,), (3,)], "ij,jk->ki": [(0, 3), (3, 2)],
    "ik,kj": [(2, 0), (0, 3)],
}  # fmt: skip


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum_as_numpy(equation, rng):
    xs = [rng.normal(size=s) for s in EQUATIONS[equation]]
    got = weft.einsum(equation, *(weft.from_numpy(x) for x in xs))
    wanted = np.einsum(equation.replace(" ", ""), *xs)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got.numpy(), wanted, 1e-12, 1e-12)
    if all(x.size for x in xs):
        gradients(lambda *ts: weft.einsum(equation, *ts), xs, equation, order=1)


def test_einsum_by_lists_and_integers(rng):
    a, b = rng.normal(size=(2, 3)), rng.normal(size=(3, 4))
    ta, tb = weft.from_numpy(a), weft.from_numpy(b)
    got = weft.einsum(ta, [0, 1], tb, [1, 2], [2, 0])
    np.testing.assert_allclose(got.numpy(), (a @ b).T, 1e-12)
    np.testing.assert_allclose(weft.einsum("ij,jk", [ta, tb]).numpy(), a @ b, 1e-12)
    i = weft.arange(6).reshape(2, 3)
    assert weft.einsum("ij,kj->ik", i, i).tolist() == [[5, 14], [14, 50]]


@pytest.mark.parametrize(
    ("equation", "words"),
    [
        ("ij,jk,k", "more subscripts"), ("ij", "more operands"), ("i,jk", "does not match"),
        ("ij,jk->iz", "does not appear"), ("ij,jk->ii", "more than once"),
        ("ij,kj", "does not broadcast"), ("i1,jk", "invalid subscript"),
    ],
)  # fmt: skip
def test_mistakes_are_named(equation, words):
    with pytest.raises(RuntimeError, match=words):
        weft.einsum(equation, weft.zeros(2, 3), weft.zeros(3, 4))


def test_relatives(rng):
    a, b = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 3, 5))
    ta, tb = weft.from_numpy(a), weft.from_numpy(b)
    got = weft.tensordot(ta, tb, ([1, 2], [1, 0]))
    np.testing.assert_allclose(got.numpy(), np.tensordot(a, b, ([1, 2], [1, 0])), 1e-12)
    np.testing.assert_allclose(weft.tensordot(ta, tb, 1).numpy(), np.tensordot(a, b, 1), 1e-12)
    np.testing.assert_allclose(weft.kron(ta[0], tb).numpy(), np.kron(a[0], b), 1e-12)
    np.testing.assert_allclose(weft.inner(ta, ta).numpy(), np.inner(a, a), 1e-12)
    c = rng.normal(size=(2, 3))
    got = weft.cross(weft.from_numpy(c), weft.from_numpy(c[::-1].copy()))
    np.testing.assert_allclose(got.numpy(), np.cross(c, c[::-1]), 1e-12)
    gradients(weft.cross, [c, c[::-1].copy()], order=1)
    d = weft.cdist(weft.from_numpy(c), ta[0, :, :3])
    np.testing.assert_allclose(d.numpy(), np.linalg.norm(c[:, None] - a[0, :, :3], axis=-1), 1e-12)
    m = [rng.normal(size=s) for s in [(10,), (10, 30), (30, 5), (5, 7)]]
    got = weft.linalg.multi_dot([weft.from_numpy(x) for x in m])
    np.testing.assert_allclose(got.numpy(), np.linalg.multi_dot(m), 1e-10)
    nan = weft.full((2, 3, 3), float("nan"), dtype=weft.float64)
    got = weft.baddbmm(nan, ta, ta.mT, beta=0, alpha=2)
    np.testing.assert_allclose(got.numpy(), 2 * a @ a.swapaxes(1, 2), 1e-12)
    assert weft.vander(weft.tensor([1, 2, 3])).tolist() == np.vander([1, 2, 3]).tolist()
    assert weft.vander(weft.tensor([2.0]), 3, True).tolist() == [[1, 2, 4]]
    with pytest.raises(RuntimeError, match="contracted dimensions need to match"):
        weft.tensordot(ta, ta, 1)
    with pytest.raises(RuntimeError, match="must have length 3"):
        weft.cross(ta, ta, 2)


@pytest.mark.parametrize("mode", ["if_necessary", "always", "never"])
@pytest.mark.parametrize("width", [3, 40])
def test_distances(rng, mode, width):
    """By products or by differences: values, gradients, none at the same place, NaN."""
    modes = {
        "if_necessary": "use_mm_for_euclid_dist_if_necessary",
        "always": "use_mm_for_euclid_dist",
        "never": "donot_use_mm_for_euclid_dist",
    }
    a, b = rng.normal(size=(2, 5, width)), rng.normal(size=(4, width))

    def distance(x, y):
        return weft.cdist(x, y, compute_mode=modes[mode])

    got = distance(weft.from_numpy(a), weft.from_numpy(b))
    want = np.linalg.norm(a[:, :, None] - b, axis=-1)
    np.testing.assert_allclose(got.numpy(), want, 1e-12)
    if width == 3:
        gradients(distance, [a, b], order=1)
    x = weft.tensor([[3.0] * width, [1.0] * width], requires_grad=True)
    y = distance(x, x)
    y.sum().backward()
    assert y.detach().diagonal().tolist() == [0, 0]
    far = 2 / width**0.5
    np.testing.assert_allclose(x.grad.numpy(), [[far] * width, [-far] * width], rtol=1e-6)
    wide = weft.randn(33, width)
    assert (distance(wide, wide)[4:5] == distance(wide[4:5], wide)).all()
    assert distance(weft.full((1, width), float("nan")), wide).isnan().all()


def test_a_mode_of_distances_that_is_none():
    with pytest.raises(ValueError, match="ways is not a valid value for compute_mode"):
        weft.cdist(weft.ones(2, 3), weft.ones(2, 3), compute_mode="ways")


@pytest.mark.parametrize("wrap", [lambda f: f, weft.compile], ids=["eager", "compiled"])
def test_vectors_of_length_zero_have_finite_gradients(wrap):
    """The length's gradient at 0 is 0, as torch's: what is left divides by eps."""
    lengths = {
        "normalize": (lambda x: F.normalize(x, dim=-1), [[1e12, 1e12], [2 / 5**1.5, -1 / 5**1.5]]),
        "cosine": (lambda x: F.cosine_similarity(x, weft.ones(2, 2), -1), None),
        "distance": (lambda x: F.pairwise_distance(x, x.detach() + 1e-6), None),
    }
    for name, (fn, want) in lengths.items():

        def grad(x, fn=fn):
            x = x.detach().requires_grad_()
            fn(x).sum().backward()
            return x.grad

        run, x = wrap(grad), weft.tensor([[0.0, 0.0], [1.0, 2.0]])
        for _ in range(3):
            got = run(x)
            assert bool(got.isfinite().all()), name
            if want is not None:
                np.testing.assert_allclose(got.numpy(), np.array(want), 1e-5)
