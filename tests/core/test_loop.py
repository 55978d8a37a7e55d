"""The Loop IR: text, verifier, interpreter."""

import numpy as np
import pytest

from tests.core.loop_interp import run
from tests.core.loop_text import parse
from weft.core import dtype as D
from weft.core.loop import Accumulate, Index, Load, LoopError, Program, Store, i64, verify
from weft.core.scalar import Const, Scalar, Select, cast

TEXT = """\
def scaled_sum(out: f32[rows], x: f32[rows:step, n:1], rows: i64, step: i64, n: i64, a: f32):
    for i in range(rows):
        acc = alloc(f32, 16)
        for l in range(16):
            acc[l] = f32(0.0)
        for j in range(n):
            acc[j % 16] = add(acc[j % 16], a * x[i, j])
        for l in range(8):
            acc[l] = add(acc[l], acc[l + 8])
        out[i] = where(acc[0] < f32('inf'), acc[0], neg(acc[1]))
"""


def test_text_round_trips() -> None:
    p = parse(TEXT)
    assert str(p) == TEXT
    assert parse(str(p)) == p
    assert isinstance(p.body[0].body[2].body[0], Accumulate)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "a - b - c", "a - (b - c)", "a * (b + c)", "-3", "a // 4 % 3", "(a < b) == (b < c)",
        "i64(f64(a) / f64(2.5))", "where(a < b, a, max(b, c))", "i64(b1(a) & b1(b) | b1(c))",
    ],
)  # fmt: skip
def test_expressions_keep_their_shape(text: str) -> None:
    want = "out[0] = " + (f"i64({text})" if "==" in text else text)
    source = f"def f(out: i64[1], a: i64, b: i64, c: i64):\n    {want}\n"
    assert parse(str(parse(source))) == parse(source)
    assert str(parse(source)).splitlines()[1].strip() == want


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("out[0] = b", "b is not bound"),
        ("out[0] = 1", "holds float32, the value is int64"),
        ("out[a] = a", "index a is float32"),
        ("out[0, 0] = a", "has 1 dims, got 2"),
        ("y[0] = a", "no buffer is named y"),
        ("out[0] = a + 1", "operands have dtypes"),
        ("out[0] = expp(a)", "no scalar is named expp"),
        ("out[0] = lt(out[0], a)", "holds float32, the value is bool"),
        ("while a: pass", "not a statement"),
        ("a = alloc(f32, 4)", "bound twice"),
        ("out[0] = lambda: 3", "not an expression"),
        ("out[0] =", "line 2"),
    ],
)
def test_errors_say_what_and_where(line: str, why: str) -> None:
    with pytest.raises(LoopError, match=why):
        parse(f"def f(out: f32[1], a: f32):\n    {line}\n")


def test_a_local_ends_with_its_block() -> None:
    with pytest.raises(LoopError, match="no buffer is named acc"):
        parse(
            "def f(out: f32[1]):\n    for i in range(2):\n        acc = alloc(f32, 1)\n"
            "    out[0] = acc[0]\n"
        )


def test_an_update_must_be_an_accumulate() -> None:
    p = parse("def f(out: f32[1], a: f32):\n    out[0] = add(out[0], a)\n")
    s = p.body[0]
    assert isinstance(s, Accumulate)
    value = Scalar("add", (Load("out", D.float32, s.indices), s.value))
    with pytest.raises(LoopError, match="Accumulate"):
        verify(Program("f", p.params, (Store("out", s.indices, value),)))


def test_interpreter() -> None:
    x = np.arange(40, dtype=np.float32).reshape(2, 20)
    out = np.empty(2, np.float32)
    run(parse(TEXT), {"out": out, "x": x, "rows": 2, "step": 20, "n": 20, "a": 0.5})
    want = [sum(x[i, j] * 0.5 for j in (0, 8, 16)) for i in (0, 1)]
    assert out.tolist() == want


def test_interpreter_checks_arrays_and_bounds() -> None:
    p = parse(
        "def f(out: f32[n], n: i64):\n    for i in range(n + 1):\n        out[i] = f32(1.0)\n"
    )
    with pytest.raises(IndexError, match=r"out\[3\] is outside shape \[3\]"):
        run(p, {"out": np.zeros(3, np.float32), "n": 3})
    with pytest.raises(ValueError, match="out is float64"):
        run(p, {"out": np.zeros(3), "n": 3})
    with pytest.raises(ValueError, match="no value for n"):
        run(p, {"out": np.zeros(3, np.float32)})


def test_halves_round_once_an_operation() -> None:
    p = parse("def f(out: bf16[1], a: bf16[1]):\n    out[0] = a[0] * a[0] + a[0]\n")
    a = np.array([1.0078125], D.bfloat16.np)
    out = np.empty(1, D.bfloat16.np)
    run(p, {"out": out, "a": a})
    assert out[0] == (a * a + a)[0]


def test_nodes_are_interned() -> None:
    i = Index("i")
    assert Load("x", D.float32, (i,)) is Load("x", D.float32, (Index("i"),))
    assert i64(3) is Const(3, D.int64)
    e = Select(Scalar("lt", (i, i64(3))), cast(i, D.float32), Const(0.0, D.float32))
    assert e.dtype is D.float32
