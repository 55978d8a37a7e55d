"""grouped_mm and conv_tbc against loops in float64; 16-bit addmm and norm round once."""

import numpy as np
import pytest

import weft
from weft.nn import functional as F


def draw(*shape, seed=0):
    return weft.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def test_groups_of_rows_columns_and_inner_parts():
    a, b, c = draw(7, 4), draw(3, 4, 5, seed=1), draw(7, 5, seed=2)
    ends = weft.tensor([2, 2, 6], dtype=weft.int32)
    parts = [(0, 2), (2, 2), (2, 6)]
    rows = F.grouped_mm(a, b, offs=ends).numpy()
    for i, (s, e) in enumerate(parts):
        np.testing.assert_allclose(rows[s:e], a.numpy()[s:e] @ b.numpy()[i], rtol=1e-12)
    assert not rows[6:].any()
    columns = F.grouped_mm(b.mT, a.T, offs=ends).numpy()
    for i, (s, e) in enumerate(parts):
        wanted = b.mT.numpy()[i] @ a.T.numpy()[:, s:e]
        np.testing.assert_allclose(columns[:, s:e], wanted, rtol=1e-12)
    inner = F.grouped_mm(a.T, c, offs=ends).numpy()
    for i, (s, e) in enumerate(parts):
        np.testing.assert_allclose(inner[i], a.T.numpy()[:, s:e] @ c.numpy()[s:e], atol=1e-12)
    whole = F.grouped_mm(b.mT, b)
    np.testing.assert_allclose(whole.numpy(), b.mT.numpy() @ b.numpy(), rtol=1e-12)
    assert F.grouped_mm(b.mT, b, out_dtype=weft.float32).dtype is weft.float32


def test_grouped_mm_refuses():
    a, b = draw(7, 4), draw(3, 4, 5)
    with pytest.raises(RuntimeError, match="Have to provide offsets"):
        F.grouped_mm(a, b)
    with pytest.raises(RuntimeError, match="Have to provide offsets"):
        F.grouped_mm(b.mT, b, offs=weft.tensor([1, 2, 3]))
    with pytest.raises(RuntimeError, match="must increase and end at most at 7"):
        F.grouped_mm(a, b, offs=weft.tensor([2, 8, 9]))
    with pytest.raises(RuntimeError, match="same dtype"):
        F.grouped_mm(a.float(), b, offs=weft.tensor([1, 2, 3]))


def test_conv_tbc_is_conv1d_in_another_order():
    x, w, bias = draw(6, 2, 3), draw(3, 3, 4, seed=1), draw(4, seed=2)
    got = weft.conv_tbc(x, w, bias, 1)
    padded = np.pad(x.numpy(), ((1, 1), (0, 0), (0, 0)))
    wanted = bias.numpy() + sum(padded[k : k + 6] @ w.numpy()[k] for k in range(3))
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-10)


def test_16_bit_addmm_and_norm_round_once():
    a, b, c = (draw(8, 8, seed=s).to(weft.bfloat16) for s in range(3))
    got = weft.addmm(a, b, c, beta=-4.775, alpha=2.0315)
    wide = [t.double().numpy() for t in (a, b, c)]
    wanted = weft.from_numpy(-4.775 * wide[0] + 2.0315 * wide[1] @ wide[2]).to(weft.bfloat16)
    differ = (got != wanted).sum().item()
    assert got.dtype is weft.bfloat16 and differ <= 1  # float32 sums, rounded once
    norm = a.norm()
    assert norm.item() == weft.tensor(np.linalg.norm(wide[0])).to(weft.bfloat16).item()
