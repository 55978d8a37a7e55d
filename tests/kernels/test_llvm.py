"""The IR builder: what is folded, how loops and branches carry values, and that each piece runs."""

import ctypes
import itertools
import math
import struct

import ml_dtypes
import numpy as np
import pytest

from weft.kernels.target.llvm import Function, Module, Value, const, lane_numbers, mangle, vector
from weft.runtime import native

_names = itertools.count()


def run(build, *words: int, returns: str = "i64") -> int:
    """Emit `build(f, *args)`, whose value is returned, and call it."""
    m = Module(native.host().vector_bits)
    name = f"f{next(_names)}"
    f = m.function(name, [("i64", f"a{i}") for i in range(len(words))], returns)
    f.ret(build(f, *(f.arg(f"a{i}") for i in range(len(words)))))
    address = native.load(m.text(), [name])[name]
    result = {"i64": ctypes.c_int64, "double": ctypes.c_double}[returns]
    return ctypes.CFUNCTYPE(result, *[ctypes.c_int64] * len(words))(address)(*words)


def function() -> Function:
    return Module().function("f", [("i64", "n")])


def test_known_integers_are_folded():
    f = function()
    n = f.arg("n")
    assert (f.add(2, 3), f.sub(2, 3), f.mul(2, 3), f.div(7, 2), f.rem(7, 2)) == (5, -1, 6, 3, 1)
    assert (f.min(2, 3), f.max(2, 3)) == (2, 3)
    assert f.add(n, 0) is n and f.mul(1, n) is n and f.div(n, 1) is n and f.sub(n, 0) is n
    assert f.mul(n, 0) == 0 and f.rem(n, 1) == 0
    assert f.gep("%n", 0) == "%n"
    assert f.lines == []
    assert f.add(n, 1).type == "i64"
    assert len(f.lines) == 1


@pytest.mark.parametrize(
    "start,stop,step", [(0, 10, 1), (3, 11, 4), (5, 5, 1), (9, 2, 3), (-4, 3, 2)]
)
def test_loop_is_range(start, stop, step):
    def build(f: Function, a: Value, b: Value):
        with f.loop(a, b, step, [("i64", 1000), ("i64", 0)]) as L:
            L.next = [f.add(f.mul(L.carry[0], 3), L.i), f.add(L.carry[1], 1)]
        return f.add(f.mul(L.carry[0], 100), L.carry[1])

    total, count = 1000, 0
    for i in range(start, stop, step):
        total, count = total * 3 + i, count + 1
    assert run(build, start, stop) == total * 100 + count


def test_nested_loops_and_branches():
    def build(f: Function, n: Value):
        cell = f.alloca("i64")
        f.store(f.typed(0, "i64"), cell)
        with f.loop(0, n) as outer, f.loop(0, outer.i) as inner:
            even = f.icmp("eq", f.rem(inner.i, 2), 0)
            more = f.op("add", f.load("i64", cell), inner.i)
            with f.iff(even):
                f.store(more, cell)
        with f.if_else(f.icmp("sgt", n, 5)) as way:
            big = f.add(f.load("i64", cell), 1_000_000)
            way.otherwise()
            small = f.load("i64", cell)
        return way.merge("i64", big, small)

    for n in (0, 3, 9):
        total = sum(j for i in range(n) for j in range(i) if j % 2 == 0)
        assert run(build, n) == total + (1_000_000 if n > 5 else 0)


def test_switch():
    def build(f: Function, n: Value):
        cell = f.alloca("i64")
        for case in f.switch(n, [1, 4], default=9):
            f.store(f.typed(case * 11, "i64"), cell)
        return f.load("i64", cell)

    assert [run(build, n) for n in (1, 4, 9, 5)] == [11, 44, 99, 99]


@pytest.mark.parametrize("lanes", [2, 4, 8, 16, 32, 64])
def test_lane_mask(lanes):
    def build(f: Function, n: Value):
        bits = f.cast("bitcast", f.lane_mask(n, lanes), f"i{lanes}")
        return f.cast("zext", bits, "i64")

    for n in (-5, 0, 1, lanes - 1, lanes, lanes + 9):
        expected = (1 << min(max(n, 0), lanes)) - 1
        assert run(build, n) & (2**64 - 1) == expected


def test_split_covers_everything_once():
    m = Module()
    f = m.function(
        "part", [("ptr", "out"), ("i32", "tid"), ("i32", "nth"), ("i64", "total"), ("i64", "unit")]
    )
    first, last = f.split(f.arg("total"), 6)
    f.store(f.typed(first, "i64"), "%out")
    f.store(f.typed(last, "i64"), f.gep("%out", 1, "i64"))
    f.ret()
    address = native.load(m.text(), ["part"])["part"]
    types = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    call = ctypes.CFUNCTYPE(None, *types)(address)
    cell = (ctypes.c_int64 * 2)()
    for total, threads in itertools.product((0, 1, 5, 6, 7, 100), (1, 2, 3, 8)):
        end = 0
        for tid in range(threads):
            call(ctypes.addressof(cell), tid, threads, total, 6)
            assert cell[0] == end and cell[1] >= end
            assert cell[1] % 6 == 0 or cell[1] == total
            end = cell[1]
        assert end == total


def test_two_threads_begin_with_their_own_units_and_take_all_once():
    m = Module()
    args = [("i32", "tid"), ("i32", "nth"), *(("i64", n) for n in ("drawn", "mine", "total"))]
    f = m.function("own", args, "i64")
    f.ret(f.own_first(f.arg("drawn"), f.arg("mine"), f.arg("total")))
    address = native.load(m.text(), ["own"])["own"]
    types = [ctypes.c_int64, ctypes.c_int, ctypes.c_int, *[ctypes.c_int64] * 3]
    own = ctypes.CFUNCTYPE(*types)(address)
    for total in range(12):
        for first in range(total + 1):  # however many the first thread is quick enough for
            taken = [
                [own(t, 2, 0, i, total) for i in range(n)]
                for t, n in ((0, first), (1, total - first))
            ]
            assert sorted(taken[0] + taken[1]) == list(range(total))
            for t, numbers in enumerate(taken):
                half = list(range(t, total, 2))
                assert numbers[: len(half)] == half[: len(numbers)]
    assert [own(t, 3, 7, 4, 9) for t in range(3)] == [7, 7, 7]  # as drawn


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.0, 0.1, 1e-45, 3.5e38, -1e300, math.inf, -math.inf, math.nan]
)
def test_float_constants_keep_their_bits(value):
    def bits(type: str, integer: str):
        return lambda f: f.cast("zext", f.cast("bitcast", const(type, value), integer), "i64")

    with np.errstate(over="ignore"):
        narrow = np.float32(value).view(np.uint32)
    assert run(bits("float", "i32")) == narrow
    wide = run(lambda f: f.cast("bitcast", const("double", value), "i64"))
    assert struct.pack("<q", wide) == struct.pack("<d", value)
    brain = np.asarray(np.float32(min(max(value, -3e38), 3e38)), ml_dtypes.bfloat16)
    if value == value and abs(value) < 1e38:
        assert run(
            lambda f: f.cast("zext", f.cast("bitcast", const("bfloat", value), "i16"), "i64")
        ) == brain.view(np.uint16)


@pytest.mark.parametrize(
    "lanes,element", [(16, "float"), (8, "double"), (4, "i64"), (16, "i32"), (32, "i8")]
)
def test_masked_memory_touches_only_its_lanes(lanes, element):
    dtype = {"float": "f4", "double": "f8", "i64": "i8", "i32": "i4", "i8": "i1"}[element]
    type = vector(lanes, element)
    m = Module(native.host().vector_bits)
    f = m.function("copy", [("ptr", "to"), ("ptr", "from"), ("i64", "n")])
    mask = f.lane_mask(f.arg("n"), lanes)
    f.masked_store(f.masked_load(type, "%from", mask, otherwise=7), "%to", mask)
    f.ret()
    address = native.load(m.text(), ["copy"])["copy"]
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)
    source = np.arange(1, lanes + 1).astype(dtype)
    for n in (0, 1, lanes // 2 + 1, lanes):
        target = np.zeros(lanes, dtype)
        call(target.ctypes.data, source.ctypes.data, n)
        assert target.tolist() == source[:n].tolist() + [0] * (lanes - n)


def test_intrinsics_are_declared_once_with_the_right_name():
    m = Module()
    f = m.function("f", [("<4 x float>", "x"), ("ptr", "p")])
    x = f.arg("x")
    f.fma(x, x, x)
    f.fma(x, 1.0, x)
    f.intrinsic("vector.reduce.fmax", "float", x)
    f.intrinsic("fabs", "<4 x float>", x)
    f.intrinsic("smax", "i64", 3, f.typed(4, "i64"))
    f.ret()
    declared = [
        line.split("@")[1].split("(")[0] for line in m.text().split("\n") if "declare" in line
    ]
    assert len(set(declared)) == len(declared)
    assert set(declared) == {
        "llvm.fma.v4f32",
        "llvm.vector.reduce.fmax.v4f32",
        "llvm.fabs.v4f32",
        "llvm.smax.i64",
    }
    assert mangle("<8 x ptr>") == "v8p0" and mangle("bfloat") == "bf16"
    assert lane_numbers("<3 x i32>", 5) == "<i32 5, i32 6, i32 7>"


def test_streamed_store():
    m = Module(native.host().vector_bits)
    f = m.function("fill", [("ptr", "to")])
    values = Value("<float 1.5, float -2.0, float 0.25, float 8.0>", "<4 x float>")
    f.store(values, "%to", 16, stream=True)
    f.ret()
    address = native.load(m.text(), ["fill"])["fill"]
    room = np.zeros(16, np.float32)
    start = -room.ctypes.data % 16 // 4
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(room.ctypes.data + 4 * start)
    assert room[start : start + 4].tolist() == [1.5, -2.0, 0.25, 8.0]


def test_bodies_take_turns_unless_they_branch():
    f = function()
    n = f.arg("n")

    def sums(k: int):
        return f.add(f.add(n, k), n)

    def branching(k: int):
        with f.iff(f.icmp("slt", n, k)):
            return f.add(n, k)

    found = f.woven([lambda: sums(5), lambda: sums(6)])
    text = "\n".join(f.lines)
    order = [text.index(t) for t in ("%n, 5", "%n, 6", f"{found[0]} =", f"{found[1]} =")]
    assert order == sorted(order)
    f.lines.clear()
    f.woven([lambda: branching(5), lambda: branching(6)])
    labels = [line for line in f.lines if line.endswith(":")]
    assert len(labels) == 4
    text = "\n".join(f.lines)
    assert text.index("%n, 5") < text.index(labels[1]) < text.index("%n, 6")
