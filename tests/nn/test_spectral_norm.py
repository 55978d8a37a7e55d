"""spectral_norm by a hook: the largest singular value becomes 1; torch's draws and keys."""

import numpy as np
import pytest

import weft
from weft import nn
from weft.nn.utils.norm_hooks import remove_spectral_norm, spectral_norm

RECORDED = [
    [-0.46002382, -0.84324211],
    [-0.45939577, -0.84142035],
]


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (lambda: nn.Linear(4, 3), (2, 4)),
        (lambda: nn.Conv2d(2, 3, 3), (1, 2, 5, 5)),
        (lambda: nn.ConvTranspose2d(2, 3, 3), (1, 2, 5, 5)),
    ],
)
def test_the_largest_singular_value_becomes_one(layer, x):
    weft.manual_seed(0)
    m, x = spectral_norm(layer(), n_power_iterations=50), weft.randn(*x)
    m(x).sum().backward()
    dim = 1 if isinstance(m, nn.ConvTranspose2d) else 0
    w = m.weight.detach().transpose(0, dim).reshape(m.weight.shape[dim], -1)
    np.testing.assert_allclose(weft.linalg.svdvals(w)[0].item(), 1.0, rtol=1e-4)
    assert sorted(dict(m.named_parameters())) == ["bias", "weight_orig"]
    assert sorted(dict(m.named_buffers())) == ["weight_u", "weight_v"]
    assert m.weight_orig.grad is not None
    m.eval()
    before, y = m.weight_u.clone(), m(x)
    assert weft.equal(m.weight_u, before)  # no iteration in eval
    remove_spectral_norm(m)
    assert sorted(m.state_dict()) == ["bias", "weight"]
    np.testing.assert_allclose(m(x).detach().numpy(), y.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_torchs_numbers():
    """Recorded from torch 2.13 with manual_seed(0)."""
    weft.manual_seed(0)
    m = spectral_norm(nn.Linear(3, 2))
    got = [m(weft.ones(1, 3)).tolist()[0] for _ in range(2)]
    np.testing.assert_allclose(got, RECORDED, rtol=1e-5)


def test_refusals():
    m = spectral_norm(nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match="two spectral_norm hooks"):
        spectral_norm(m)
    with pytest.raises(ValueError, match="to be positive"):
        spectral_norm(nn.Linear(2, 2), n_power_iterations=0)
    with pytest.raises(ValueError, match="not found"):
        remove_spectral_norm(nn.Linear(2, 2))
