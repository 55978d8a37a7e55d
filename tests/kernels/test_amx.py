"""Tile registers: their numbers are those that `schedule/amx.py` defines, whatever the rows."""

import ctypes
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from weft.kernels.schedule import amx
from weft.kernels.target.llvm import Module
from weft.runtime import native

needs = {
    "pairs": pytest.mark.skipif(not native.host().has("amx-bf16"), reason="no AMX-BF16 here"),
    "bytes": pytest.mark.skipif(not native.host().has("amx-int8"), reason="no AMX-INT8 here"),
}


def product(kind: str, a: np.ndarray, b: np.ndarray, dtype: type) -> np.ndarray:
    """a (rows, k) times b (k, 16), one instruction for every 16 cells of k."""
    per, (rows, k) = 4 // a.itemsize, a.shape
    cells = k // per
    depth = min(cells, amx.DEPTH)
    m = Module(512)
    f = m.function("go", [("ptr", "c"), ("ptr", "a"), ("ptr", "b")])
    amx.configure(f, [(rows, 64), (rows, 4 * depth), (depth, 64)])
    amx.zero(f, 0)
    with f.loop(0, cells, depth) as step:
        amx.load(f, 1, f.gep(f.arg("a"), f.mul(step.i, 4)), 4 * cells)
        amx.load(f, 2, f.gep(f.arg("b"), f.mul(step.i, 64)), 64)
        {"pairs": amx.multiply_pairs, "bytes": amx.multiply_bytes}[kind](f, 0, 1, 2)
    amx.store(f, 0, f.arg("c"), 64)
    amx.release(f)
    f.ret()
    go = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(native.load(m.text(), ["go"])["go"])
    panel = np.ascontiguousarray(b.reshape(cells, per, 16).transpose(0, 2, 1))
    out = np.full((rows, 16), 99, dtype)
    a = np.ascontiguousarray(a)
    go(out.ctypes.data, a.ctypes.data, panel.ctypes.data)
    return out


def fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return (a.astype(np.float64) * b + c).astype(np.float32)  # exact: 16 bits of product, one sum


def summed(a: np.ndarray, b: np.ndarray, total: np.ndarray | None = None) -> np.ndarray:
    """total + a b as bfloat16's pairs are summed, with as many instructions as k needs."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    out = np.zeros((len(a), b.shape[1]), np.float32) if total is None else total
    for first in range(0, len(b), 32):
        sums = [np.zeros_like(out), np.zeros_like(out)]
        for at in range(first, min(first + 32, len(b))):
            sums[at % 2] = fused(a[:, at : at + 1], b[at : at + 1], sums[at % 2])
        out = out + (sums[0] + sums[1])
    return out


@needs["pairs"]
@pytest.mark.parametrize(("rows", "k"), [(16, 32), (16, 160), (1, 32), (7, 14), (13, 64)])
def test_pairs_are_summed_as_defined(rows: int, k: int):
    rng = np.random.default_rng(rows * k)
    a = rng.standard_normal((rows, k)).astype(ml_dtypes.bfloat16)
    b = (rng.standard_normal((k, 16)) * 10.0 ** rng.integers(-3, 4, (k, 1))).astype(a.dtype)
    np.testing.assert_array_equal(product("pairs", a, b, np.float32), summed(a, b))


@needs["pairs"]
def test_infinity_and_nan_stay_in_their_rows_and_columns():
    a, b = np.ones((16, 32), ml_dtypes.bfloat16), np.ones((32, 16), ml_dtypes.bfloat16)
    a[3, 5], b[7, 2] = np.inf, np.nan
    got = product("pairs", a, b, np.float32)
    assert np.isnan(got[:, 2]).all()
    assert np.isinf(np.delete(got[3], 2)).all()
    assert (np.delete(np.delete(got, 3, 0), 2, 1) == 32).all()


@needs["bytes"]
@pytest.mark.parametrize(("rows", "k"), [(16, 64), (16, 256), (1, 64), (7, 28)])
def test_bytes_are_exact(rows: int, k: int):
    rng = np.random.default_rng(rows)
    a = rng.integers(0, 256, (rows, k)).astype(np.uint8)
    b = rng.integers(-128, 128, (k, 16)).astype(np.int8)
    a[0], b[:, 0] = 255, -128
    want = a.astype(np.int64) @ b
    np.testing.assert_array_equal(product("bytes", a, b, np.int32), want)


def test_no_tiles_where_the_target_is_restricted():
    code = "from weft.runtime import native; h = native.host(); print(h.has('amx-tile'))"
    if not native.host().has_avx512:
        pytest.skip("no AVX-512 here")
    env = dict(os.environ, WEFT_TARGET="avx512")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
