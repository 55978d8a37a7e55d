"""The C target against the reference: every row, the strict sums, strided buffers."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.core.loop_text import parse
from tests.kernels.lower_reduction import lower_reduction
from tests.kernels.run import close, launched, of, rows, values
from weft.core import dtype as D
from weft.core import scalar as S
from weft.core.loop import Program
from weft.kernels.eager import plan_reduce
from weft.kernels.schedule.lower import lower_nest
from weft.kernels.target.c import print_c, signature

COMPILER = (
    os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler on this machine")


def built(folder: Path, programs: list[Program]) -> ctypes.CDLL:
    source = folder / "k.c"
    source.write_text(print_c(*programs))
    flags = ["-O1", "-std=c99", "-D_DEFAULT_SOURCE", "-Wall", "-Werror", "-ffp-contract=off"]
    subprocess.run(
        [str(COMPILER), *flags, "-shared", "-fPIC", str(source), "-o", str(folder / "k.so"), "-lm"],
        check=True,
    )
    return ctypes.CDLL(str(folder / "k.so"))


def call(lib: ctypes.CDLL, p: Program, *arrays: np.ndarray) -> None:
    getattr(lib, p.name)(*[ctypes.c_void_p(a.ctypes.data) for a in arrays])


@needs_compiler
def test_every_row_on_every_dtype(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    programs, cases = [], []
    for name, d in rows():
        xs = [values(rng, d, 60, name, k) for k in range(S.TABLE[name].arity)]
        e = S.Scalar(name, tuple(S.Arg(i, d) for i in range(len(xs))))
        out = np.empty(60, e.dtype.np)
        p = lower_nest((e,), tuple(map(of, xs)), (of(out),))
        programs.append(Program(f"k{len(programs)}", p.params, p.body))
        cases.append((name, d, e, xs, out))
    lib = built(tmp_path, programs)
    wrong = []
    for p, (name, d, e, xs, out) in zip(programs, cases, strict=True):
        call(lib, p, out, *xs)
        if not close(
            out, S.evaluate(e, tuple(xs)), 1000 if name in ("lgamma", "digamma") else 4
        ).all():
            wrong.append((name, d.name))
    assert wrong == []


@needs_compiler
def test_sums_have_the_native_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 9000)).astype(np.float32)
    strided = rng.standard_normal((40, 6)).astype(np.float32)[::2, ::-1]
    cases = [(x, (1,)), (x, (0, 1)), (strided, (0,))]
    programs = []
    for a, dims in cases:
        out = np.empty(np.sum(a, axis=dims).shape, np.float32)
        p = lower_reduction("sum", S.Arg(0, D.float32), dims, False, (of(a),), of(out), a.shape)
        programs.append(Program(f"k{len(programs)}", p.params, p.body))
    lib = built(tmp_path, programs)
    for p, (a, dims) in zip(programs, cases, strict=True):
        got, want = (np.empty(np.sum(a, axis=dims).shape, np.float32) for _ in range(2))
        call(lib, p, got, a)
        launched(plan_reduce("sum", S.Arg(0, D.float32), dims, False, [of(a)], of(want)), want, a)
        assert got.tobytes() == want.tobytes()


@needs_compiler
def test_casts(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    programs, cases = [], []
    for a in D.ALL:
        for b in D.ALL:
            x = values(rng, a, 40)
            if a.is_floating_point and not b.is_floating_point:
                x = x[np.abs(np.nan_to_num(x.astype(np.float64), posinf=1e9)) < 100]
                x = x[~np.isnan(x)] if b is not D.bool else x
            out = np.empty(x.shape, b.np)
            p = lower_nest((S.cast(S.Arg(0, a), b),), (of(x),), (of(out),))
            programs.append(Program(f"k{len(programs)}", p.params, p.body))
            cases.append((x, b, out))
    lib = built(tmp_path, programs)
    for p, (x, b, out) in zip(programs, cases, strict=True):
        call(lib, p, out, x)
        assert close(out, S.round_to(x, b), 0).all(), (x.dtype, b)


def test_text_is_readable() -> None:
    p = parse("def axpy(y: f32[n], x: f32[n:s], n: i64, s: i64, a: f32):\n"
              "    for i in range(n):\n        y[i] = add(y[i], a * x[i])\n")  # fmt: skip
    assert signature(p) == "void axpy(float *y, const float *x, int64_t n, int64_t s, float a)"
    assert "    y[i] = (y[i] + (a * x[i * s]));" in print_c(p).splitlines()
