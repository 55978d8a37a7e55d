"""The scalar table and expressions: interning, dtype rules, meaning."""

import functools
import math
import struct

import numpy as np
import pytest

from weft.core import dtype as D
from weft.core import scalar as S

X, Y = S.Arg(0, D.float32), S.Arg(1, D.float32)


def test_structure_is_identity() -> None:
    assert S.silu(X) is S.silu(S.Arg(0, D.float32))
    assert X + Y is not Y + X
    assert S.Const(0.0, D.float32) is not S.Const(-0.0, D.float32)
    assert S.Const(math.nan, D.float32) is S.Const(math.nan, D.float32)
    assert S.Const(1, D.int64) is not S.Const(1, D.int32)


def test_numbers_take_the_dtype_beside_them() -> None:
    assert repr(2 * X + 1) == "add(mul(f32(2.0), arg(0, f32)), f32(1.0))"
    assert S.lt(S.Arg(0, D.int8), 3).dtype is D.bool


def test_operands_must_agree() -> None:
    with pytest.raises(TypeError, match="add: operands have dtypes float32, float64"):
        S.add(X, S.Arg(1, D.float64))
    with pytest.raises(NotImplementedError, match="\"exp_cpu\" not implemented for 'Long'"):
        S.exp(S.Arg(0, D.int64))
    with pytest.raises(TypeError, match="condition is float32"):
        S.where(X, X, X)
    with pytest.raises(KeyError, match="expp"):
        S.Scalar("expp", (X,))


def test_composites_round_halves_once() -> None:
    x = S.Arg(0, D.bfloat16)
    assert S.gelu(x).dtype is D.bfloat16
    assert repr(S.gelu(x)).count("bf16(") == 1
    a = np.linspace(-4, 4, 101).astype(D.bfloat16.np)
    want = S.evaluate(S.gelu(X), (a.astype(np.float32),)).astype(D.bfloat16.np)
    assert (S.evaluate(S.gelu(x), (a,)) == want).all()


@pytest.mark.parametrize(
    ("to", "want"),
    [
        (D.int32, [-3, 2, 0, -(2**31), -(2**31), -(2**31)]),
        (D.int8, [-3, 2, 0, 0, 0, 0]),
        (D.bool, [True, True, False, True, True, True]),
    ],
)
def test_float_casts(to: D.dtype, want: list) -> None:
    a = np.float32([-3.7, 2.9, -0.0, np.nan, np.inf, -np.inf])
    assert S.evaluate(S.cast(X, to), (a,)).tolist() == want


def test_a_constant_is_cast_at_once() -> None:
    assert S.cast(S.Const(2, D.int64), D.float32) is S.Const(2.0, D.float32)


def test_shared_nodes_come_once() -> None:
    e = S.exp(X)
    assert len(S.postorder((e * e + e, e))) == 4


def test_substitute() -> None:
    e = S.where(X > Y, X, S.neg(Y))
    swapped = S.substitute(e, lambda n: Y if n is X else X if n is Y else n)
    assert swapped is S.where(Y > X, Y, S.neg(X))


@pytest.mark.parametrize("x", [-3.7, -0.3, 0.2, 1.0, 4.5, 30.0])
def test_reference_digamma_and_lgamma_recurrences(x: float) -> None:
    """psi(x + 1) = psi(x) + 1/x;  log|gamma(x + 1)| = log|gamma(x)| + log|x|"""
    f = {n: lambda v, n=n: float(S.TABLE[n].numpy(v)) for n in ("digamma", "lgamma", "erfinv")}
    assert f["digamma"](x + 1) == pytest.approx(f["digamma"](x) + 1 / x, rel=1e-12)
    assert f["lgamma"](x + 1) == pytest.approx(f["lgamma"](x) + math.log(abs(x)), abs=1e-12)
    y = math.tanh(x / 4)
    assert math.erf(f["erfinv"](y)) == pytest.approx(y, rel=1e-14)


def test_what_differs_is_spelled_otherwise() -> None:
    x, y = S.Arg(0, D.float32), S.Arg(0, D.float64)
    number = functools.partial(S.Const, dtype=D.float32)
    nan = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_0000_0001))[0]
    roots = [
        (x,), (y,), (x, x), (S.Param(0, D.float32),), (S.Coord(0),), (S.Cast(x, D.float64),),
        (S.cast(x, D.float16),), (x + x,), (x * x,), (x * x, x), (x * x, x * x), (x - x * x,),
        (x * x - x,), (S.Select(x < x, x, x * x),), (S.Select(x < x, x * x, x),),
        *[(number(v),) for v in (0.0, -0.0, float("nan"), nan, 0.1, 0.1 + 2**-56, float("inf"))],
        (S.Const(1, D.int64),), (S.Const(True, D.bool),), (S.Const(1.0, D.float64),),
    ]  # fmt: skip
    assert len({S.spelled(r) for r in roots}) == len(roots)
    assert S.spelled((S.Arg(0, D.float32) * S.Arg(0, D.float32),)) == S.spelled((x * x,))
    deep = x
    for _ in range(200):  # 2^200 nodes for who follows each path
        deep = deep * deep
    assert len(S.spelled((deep,))) < 20_000
