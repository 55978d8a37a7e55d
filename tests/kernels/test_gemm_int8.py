"""Byte products against NumPy's int64, on every kind of host, any thread count."""

import os
import subprocess
import sys

import numpy as np
import pytest

from weft.kernels.layout import Layout
from weft.kernels.schedule.gemm_int8 import LONGEST, pack_int8, plan_matmul_int8
from weft.runtime import native, threads

SHAPES = [
    (1, 1, 1), (1, 64, 4), (5, 63, 3), (6, 65, 8), (7, 128, 31), (13, 200, 100), (49, 17, 260),
    (100, 130, 64), (0, 5, 4), (3, 7, 0),
]  # fmt: skip


def product(a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """a (M, K) by w (N, K), K filled up with zeros."""
    more = -a.shape[1] % 4
    a = np.ascontiguousarray(np.pad(a, ((0, 0), (0, more)), constant_values=255))
    out = np.full((a.shape[0], w.shape[0]), 77, np.int32)
    panels = pack_int8(w)
    launch = plan_matmul_int8(Layout.of(a), Layout.of(panels), Layout.of(out))
    assert native.launch(launch, out, (a, panels)) == 0
    return out


def operands(rng, m, n, k):
    return rng.integers(0, 256, (m, k)).astype(np.uint8), rng.integers(-128, 128, (n, k)).astype(
        np.int8
    )


@pytest.mark.parametrize("m,n,k", SHAPES)
def test_sums_are_exact(rng, m, n, k):
    a, w = operands(rng, m, n, k)
    np.testing.assert_array_equal(product(a, w), a.astype(np.int64) @ w.T.astype(np.int64))


def test_the_largest_sums_fit():
    a, w = np.full((2, LONGEST - 3), 255, np.uint8), np.full((3, LONGEST - 3), -128, np.int8)
    np.testing.assert_array_equal(product(a, w), np.full((2, 3), -255 * 128 * (LONGEST - 3)))


def test_threads_change_nothing(rng):
    a, w = operands(rng, 150, 300, 400)
    before = threads.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            threads.set_num_threads(count)
            results.append(product(a, w))
    finally:
        threads.set_num_threads(before)
    for r in results[1:]:
        np.testing.assert_array_equal(r, results[0])


@pytest.mark.parametrize("target", ["avx2", "sse"])
def test_hosts_without_the_instruction(target):
    here = "tests/kernels/test_gemm_int8.py::test_sums_are_exact"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", here],
        env={**os.environ, "WEFT_TARGET": target},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-2000:]


def test_what_does_not_fit_is_refused(rng):
    a, w = operands(rng, 8, 70, 8)
    panels, out = pack_int8(w), np.empty((8, 70), np.int32)
    of = Layout.of
    for x, p, y in (
        (a[:, :4], panels, out),
        (a, panels[:1], out),
        (a, panels, out[:7]),
        (a.astype(np.int8), panels, out),
        (a, panels, out.astype(np.int64)),
        (a.T.copy().T, panels, out),
    ):
        with pytest.raises(ValueError, match="matmul_int8"):
            plan_matmul_int8(of(x), of(p), of(y))
