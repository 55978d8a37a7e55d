"""Low-rank factors of matrices that have a low rank are exact."""

import numpy as np
import pytest

import weft


@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (2, 7, 5)])
def test_a_matrix_of_rank_three_comes_back(shape):
    weft.manual_seed(0)
    *batch, m, n = shape
    a = weft.randn(*batch, m, 3, dtype=weft.float64) @ weft.randn(*batch, 3, n, dtype=weft.float64)
    u, s, v = weft.svd_lowrank(a, q=4)
    assert u.shape == (*batch, m, 4) and s.shape == (*batch, 4) and v.shape == (*batch, n, 4)
    np.testing.assert_allclose((u * s[..., None, :] @ v.mT).numpy(), a.numpy(), atol=1e-9)
    np.testing.assert_allclose(s[..., :3], weft.linalg.svdvals(a)[..., :3], rtol=1e-9)


def test_pca_takes_the_mean_away():
    weft.manual_seed(0)
    a = weft.randn(8, 5, dtype=weft.float64)
    u, s, v = weft.pca_lowrank(a, q=5)
    centred = (a - a.mean(0)).numpy()
    np.testing.assert_allclose((u * s @ v.mT).numpy(), centred, atol=1e-9)
    with pytest.raises(ValueError, match="not greater than"):
        weft.pca_lowrank(a, q=6)
