"""Histograms, grid derivatives, mantissas, inner names: against NumPy and against each other."""

import numpy as np
import pytest

import weft
from tests.ops.rules import gradients


def test_histograms_count_as_numpy(rng):
    x = rng.normal(size=(50, 2))
    t = weft.from_numpy(x)
    hist, edges = weft.histogram(t, 7)
    want, places = np.histogram(x, 7)
    np.testing.assert_array_equal(hist.numpy(), want)
    np.testing.assert_allclose(edges.numpy(), places)
    got = weft.histogramdd(t, [3, 4], range=(-2.0, 2.0, -1.0, 1.0), density=True)
    want, _ = np.histogramdd(x, (3, 4), [(-2, 2), (-1, 1)], density=True)
    np.testing.assert_allclose(got.hist.numpy(), want)
    with pytest.raises(RuntimeError, match="max"):
        weft.histogram(t, 3, range=(2.0, 1.0))


@pytest.mark.parametrize("edge_order", [1, 2])
def test_gradient_is_numpys(rng, edge_order):
    x, at = rng.normal(size=(5, 4)), np.array([0.0, 0.5, 2.0, 2.5])
    got = weft.gradient(weft.from_numpy(x), edge_order=edge_order)
    for a, b in zip(got, np.gradient(x, edge_order=edge_order), strict=True):
        np.testing.assert_allclose(a.numpy(), b)
    (got,) = weft.gradient(weft.from_numpy(x), spacing=[weft.from_numpy(at)], dim=1,
                           edge_order=edge_order)  # fmt: skip
    np.testing.assert_allclose(got.numpy(), np.gradient(x, at, axis=1, edge_order=edge_order))
    gradients(lambda t: weft.gradient(t, edge_order=edge_order)[0], [x])


def test_frexp_and_shifts():
    x = weft.tensor([0.0, 1.0, -3.5, 1e-40, 3e38])
    m, e = weft.frexp(x)
    want = np.frexp(x.numpy())
    np.testing.assert_array_equal(e.numpy(), want[1])
    np.testing.assert_array_equal(m.numpy(), want[0])
    a = np.arange(15).reshape(3, 5)
    np.testing.assert_array_equal(weft.fft.fftshift(weft.from_numpy(a)).numpy(), np.fft.fftshift(a))
    back = weft.fft.ifftshift(weft.fft.fftshift(weft.from_numpy(a), 1), 1)
    np.testing.assert_array_equal(back.numpy(), a)


def test_copies_share_nothing_and_statistics_are_the_norms(rng):
    x = weft.from_numpy(rng.normal(size=(4, 6)))
    for y in (weft.expand_copy(x, (4, 6)), weft.t_copy(x), weft.unbind_copy(x)[0]):
        y.fill_(7.0)
    assert not bool((x == 7).any())
    y, mean, scale = weft.native_layer_norm(x, (6,), None, None, 1e-5)
    np.testing.assert_allclose(((x - mean) * scale).numpy(), y.numpy(), 1e-12)
    d = weft.nn.functional.pdist(x)
    full = np.linalg.norm(x.numpy()[:, None] - x.numpy()[None], axis=-1)
    np.testing.assert_allclose(d.numpy(), full[np.triu_indices(4, 1)])
    assert weft.empty_strided((2, 3), (1, 2)).stride() == (1, 2)
    assert weft.empty_permuted((2, 3), (1, 0)).stride() == (1, 2)
    assert weft.round(weft.tensor([15, 25]), decimals=-1).tolist() == [20, 20]
