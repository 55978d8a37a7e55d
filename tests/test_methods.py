"""Methods that torch has beside its functions: older spellings, in-place forms, what a tensor says
of itself.  Expected values: NumPy in float64, or what the definition says.
"""

import math

import numpy as np
import pytest

import weft


@pytest.fixture
def x(rng):
    return weft.from_numpy(rng.uniform(0.5, 3, (3, 4)))


def test_in_place_forms_write_into_the_tensor(x, rng):
    other = weft.from_numpy(rng.uniform(0.5, 3, (3, 4)))
    a, b = x.numpy().copy(), other.numpy()
    for name, args, want in (
        ("arctan2_", (other,), np.arctan2(a, b)),
        ("i0_", (), np.i0(a)),
        ("igamma_", (weft.ones(4, dtype=x.dtype),), None),
        ("igammac_", (weft.ones(4, dtype=x.dtype),), None),
        ("mvlgamma_", (1,), np.vectorize(math.lgamma)(a)),
        ("polygamma_", (1,), sum(1 / (a + k) ** 2 for k in range(20_000))),
    ):
        y = x.clone()
        at = y.data_ptr()
        assert getattr(y, name)(*args) is y and y.data_ptr() == at, name
        if want is None:  # the two halves of one integral
            other_half = {"igamma_": weft.igammac, "igammac_": weft.igamma}[name]
            want = 1 - other_half(x, *args).numpy()
        np.testing.assert_allclose(y.numpy(), want, 3e-4 if name == "polygamma_" else 1e-9)
    leaf = x.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="leaf"):
        leaf.arctan2_(other)


def test_older_spellings(x, rng):
    v, w = weft.from_numpy(rng.normal(size=3)), weft.from_numpy(rng.normal(size=5))
    assert (v.ger(w).numpy() == np.outer(v.numpy(), w.numpy())).all()
    assert weft.equal(weft.arctan2(x, x + 1), x.atan2(x + 1))
    tall = weft.from_numpy(rng.normal(size=(5, 3)))
    a, tau = tall.geqrf()
    np.testing.assert_allclose(a.orgqr(tau).numpy(), weft.linalg.qr(tall).Q.numpy(), 1e-9, 1e-12)
    square, b = tall[:3], tall[2:]
    lu, pivots = square.lu()
    np.testing.assert_allclose((square @ b.lu_solve(lu, pivots)).numpy(), b.numpy(), 1e-9, 1e-12)
    assert [int(i) for i in square.lu(get_infos=True)[2].reshape(-1)] == [0]


def test_parts_counts_and_places(x):
    parts = x.unsafe_split(3, 1)
    assert [p.shape[1] for p in parts] == [3, 1] and weft.equal(weft.cat(parts, 1), x)
    assert [p.shape[0] for p in x.unsafe_chunk(2)] == [2, 1]
    assert [p.shape[1] for p in x.unsafe_split_with_sizes([1, 0, 3], 1)] == [1, 0, 3]
    with pytest.raises(RuntimeError, match="sum exactly"):
        x.unsafe_split_with_sizes([1, 1], 1)
    hist, edges = x.histogram(4, range=(0.0, 4.0))
    counts, where = np.histogram(x.numpy(), 4, (0, 4))
    assert (hist.numpy() == counts).all() and (edges.numpy() == where).all()
    at = weft.tensor([[0, 2], [3, 0]]).nonzero_static(size=3)
    assert at.tolist() == [[0, 1], [1, 0], [-1, -1]]


def test_what_a_tensor_says_of_itself(x):
    assert x.is_cpu and not (x.is_xla or x.is_ipu or x.is_mtia) and x.output_nr == 0
    y = x.requires_grad_() * 2
    assert not y.retains_grad
    y.retain_grad()
    assert y.retains_grad and not x.retains_grad
