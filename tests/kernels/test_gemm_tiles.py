"""Products of bfloat16 in tile registers: the bits that `gemm_tiles` defines, whatever the sizes,
the layouts, the rows beside a row, and the blocks that a long k comes in.
"""

import itertools

import ml_dtypes
import numpy as np
import pytest

from weft.core import dtype as D
from weft.core import scalar as S
from weft.kernels.layout import Layout
from weft.kernels.schedule import gemm_tiles
from weft.kernels.schedule.amx import multiplies_pairs_in_tiles
from weft.kernels.schedule.epilogue import Epilogue
from weft.kernels.schedule.gemm import plan_matmul, plan_matmul_packed
from weft.runtime import native

pytestmark = pytest.mark.skipif(not multiplies_pairs_in_tiles(), reason="no AMX-BF16 here")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
F32 = np.float32


def summed(a, b):
    """By the definition: chunks of 32 numbers of k, in each the even ones apart from the odd."""
    a, b = (x.astype(BFLOAT16).astype(np.float64) for x in (a, b))
    total = np.zeros((*a.shape[:-1], b.shape[-1]), F32)
    for first in range(0, a.shape[-1], 32):
        sums = [np.zeros_like(total), np.zeros_like(total)]
        for k in range(first, min(first + 32, a.shape[-1])):
            exact = a[..., k : k + 1] * b[..., k : k + 1, :] + sums[k % 2]
            sums[k % 2] = exact.astype(F32)
        total = total + (sums[0] + sums[1])
    return total


def across(x):
    return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)


def apart(x):
    return np.repeat(np.repeat(x, 2, -1), 2, -2)[..., ::2, ::2]


def packed(a, b, end=None, more=(), *, fast=False):
    out = np.full((*a.shape[:-1], b.shape[-1]), 7, a.dtype)
    pack = plan_matmul_packed(Layout.of(a), Layout.of(b), Layout.of(out), end, fast=fast)
    room = np.full(pack.size + 64, 255, np.uint8)
    room = room[-native.address(room) % 64 :][: pack.size]
    assert native.launch(pack.pack, room, (b,)) == 0
    assert native.launch(pack.launch, out, (a, room, *more)) == 0
    return out


def matmul(a, b, *, fast=False):
    out = np.full((*a.shape[:-1], b.shape[-1]), 7, a.dtype)
    plan = plan_matmul(Layout.of(a), Layout.of(b), Layout.of(out), fast=fast)
    assert native.launch(plan, out, (a, b)) == 0
    return out


@pytest.mark.parametrize("k", [1, 2, 31, 32, 33, 64, 768, 769, 800])
def test_every_number_of_rows(rng, k):
    a, b = (rng.standard_normal(s).astype(BFLOAT16) for s in ((40, k), (k, 70)))
    want = summed(a, b).astype(BFLOAT16)
    for rows in range(1, 41):
        assert (matmul(a[:rows], b) == want[:rows]).all()
    assert (matmul(a[7:8], b) == want[7:8]).all()


@pytest.mark.parametrize(("m", "n"), [*itertools.product((1, 17, 33), (1, 16, 31, 33, 64, 130))])
def test_every_layout(rng, m, n):
    for k in (33, 96):
        a, b = (rng.standard_normal(s).astype(BFLOAT16) for s in ((m, k), (k, n)))
        want = summed(a, b)
        for x, y in itertools.product((a, across(a), apart(a)), (b, across(b), apart(b))):
            assert (matmul(x, y) == want.astype(BFLOAT16)).all()
            assert (packed(x, y) == want.astype(BFLOAT16)).all()
            if m >= 8:
                x, y = x.astype(F32), y.astype(F32)
                assert (matmul(x, y, fast=True) == want).all()
                assert (packed(x, y, fast=True) == want).all()


def test_a_k_of_several_blocks(rng):
    """Sums wait in scratch memory, or where the result will be."""
    m, k, n = 35, 2 * gemm_tiles._BLOCK + 37, 70
    a, b = (rng.standard_normal(s).astype(BFLOAT16) for s in ((m, k), (k, n)))
    want = summed(a, b)
    assert (matmul(a, b) == want.astype(BFLOAT16)).all()
    assert (packed(a, across(b)) == want.astype(BFLOAT16)).all()
    assert (matmul(a.astype(F32), b.astype(F32), fast=True) == want).all()


def test_batches(rng):
    a, b = (rng.standard_normal(s).astype(BFLOAT16) for s in ((2, 3, 18, 64), (2, 3, 64, 40)))
    for x, y in (
        (a, b),
        (np.broadcast_to(a[:, :1], a.shape), b),
        (a, np.broadcast_to(b[:1], b.shape)),
        (a.swapaxes(0, 1).copy().swapaxes(0, 1), np.broadcast_to(b[0, 0], b.shape)),
        (a[..., :33], b[..., :33, :]),
        (np.broadcast_to(a[0, 0], a.shape), np.broadcast_to(b[0, 0], b.shape)),
    ):
        assert (matmul(x, y) == summed(x, y).astype(BFLOAT16)).all()


def test_no_k_gives_zeros():
    for m, n in ((1, 1), (20, 70)):
        a, b = np.zeros((m, 0), BFLOAT16), np.zeros((0, n), BFLOAT16)
        assert (matmul(a, b) == 0).all()


@pytest.mark.parametrize(
    ("m", "k", "n"), [(37, 96, 70), (64, 33, 64), (100, 64, 200), (161, 31, 128), (70, 3200, 130)]
)
def test_what_follows_sees_the_rounded_sums(rng, m, k, n):
    """Whole tiles one after the other, whose endings wait for the next products, and parts."""
    a, b = (rng.standard_normal(s).astype(BFLOAT16) for s in ((m, k), (k, n)))
    bias, residual = (rng.standard_normal(s).astype(BFLOAT16) for s in ((n,), (m, n)))
    args = [S.Arg(i, D.bfloat16) for i in range(3)]
    total = S.Scalar("add", (S.Scalar("add", (args[0], args[1])), args[2]))
    layouts = Layout.of(bias), Layout.of(residual)
    end = Epilogue((total,), layouts, (Layout.of(np.empty((m, n), BFLOAT16)),))
    want = (summed(a, b).astype(BFLOAT16) + bias).astype(BFLOAT16) + residual
    assert (packed(a, b, end, (bias, residual)) == want).all()
    for plain in (packed(a, b), matmul(a, b)):  # to round is an ending, too
        assert (plain == summed(a, b).astype(BFLOAT16)).all()


@pytest.mark.parametrize(("m", "n"), [(100, 128), (65, 70)])
def test_what_follows_float32_sums(rng, m, n):
    a, b = (rng.standard_normal(s).astype(F32) for s in ((m, 70), (70, n)))
    shift, out = rng.standard_normal((m, n)).astype(F32), Layout.of(np.empty((m, n), F32))
    total = S.Scalar("add", (S.Arg(0, D.float32), S.Arg(1, D.float32)))
    end = Epilogue((total,), (Layout.of(shift),), (out,))
    assert (packed(a, b, end, (shift,), fast=True) == summed(a, b) + shift).all()


def test_nan_and_infinity_reach_their_rows_and_columns_only(rng):
    for k in (31, 64, 70):
        a, b = (rng.standard_normal(s).astype(BFLOAT16) for s in ((19, k), (k, 70)))
        want = matmul(a, b)
        a[18, k - 1], a[6, 2], b[k - 1, 69] = np.nan, np.inf, np.nan
        got = matmul(a, b)
        assert np.isnan(got[18].astype(F32)).all() and np.isnan(got[:, 69].astype(F32)).all()
        assert np.isinf(got[6, :69].astype(F32)).all()
        rest = np.delete(np.arange(19), [6, 18])
        assert (got[rest, :69] == want[rest, :69]).all()
