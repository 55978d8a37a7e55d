"""Large modules are compiled in parts that together do what the whole does."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from weft.kernels.target.llvm import Module, Value
from weft.runtime import machine
from weft.runtime.parts import split


def module(last: int, adds: int = 900) -> str:
    """f(x) = 3 g(x) + table[1] + last, where g adds 1 `adds` times; h(x) = g(x) + table[0]."""
    m = Module()
    m.globals.append("@table = internal constant [2 x i64] [i64 100, i64 2000], align 64")
    table = Value("@table", "ptr")
    argument = [("i64", "x")]
    g = m.function("g", argument, "i64", internal=True)
    value = g.arg("x")
    for _ in range(adds):
        value = g.op("add", value, 1)
    g.ret(g.intrinsic("smax", "i64", value, 0))
    h = m.function("h", argument, "i64", internal=True)
    h.ret(h.op("add", h.call("g", "i64", h.arg("x")), h.load("i64", table)))
    big = m.function("f", argument, "i64")
    value = big.arg("x")
    for _ in range(adds):
        value = big.op("sub", value, 1)
    parts = [big.call("h", "i64", big.arg("x")), big.call("g", "i64", big.arg("x"))]
    value = big.op("add", value, big.op("add", *parts))
    value = big.op("add", value, big.load("i64", big.gep(table, 1, "i64")))
    pair = big.alloca("i64", 8)
    big.store(Value("0", "i64"), pair, 8, stream=True)
    big.ret(big.op("add", value, last))
    return m.text()


def call(address: int, x: int) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(x)


def test_parts_do_what_the_whole_does():
    for last in (5, 6):
        text = module(last)
        assert len(split(text)) > 1
        expected = (41 - 900) + (41 + 900 + 100) + (41 + 900) + 2000 + last
        assert call(machine.load(text, ["f"])["f"], 41) == expected


def test_modules_that_begin_alike_share_parts():
    one, other = split(module(1)), split(module(2))
    assert one[0] == other[0] and one[-1] != other[-1]
    assert "define hidden i64 @g" in one[0] and "!0" in one[-1]
    plain = split(module(1).replace(", !nontemporal !0", "").replace("!0 = !{i32 1}", ""))
    assert plain[0] == one[0] and plain[-1] != one[-1]  # metadata goes where it is referred to


def test_what_it_does_not_know_stays_whole():
    text = module(7)
    for line in ("@state = internal global i64 5", "@alias = internal constant ptr @table"):
        whole = f"{line}\n{text}"
        assert split(whole) == [whole]
    assert split(module(7, adds=9)) == [module(7, adds=9)]
    assert split("x" * 99_999) == ["x" * 99_999]


def test_an_error_in_a_part_is_the_caller_s():
    with pytest.raises(RuntimeError, match="undefined value"):
        machine.load(module(8).replace("add i64 %x, 1", "add i64 %no, 1"), ["f"])
    assert call(machine.load(module(9), ["f"])["f"], 0) == 900 + 100 + 2000 + 9


def test_variables_are_shared_by_the_parts():
    """A global that several parts read and write lies in the first of them."""
    body = "\n".join(f"  %x{i} = add i64 {i}, 1" for i in range(1500))
    text = f"""declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
@many = internal global [4 x i64] zeroinitializer
@one = internal global i64 0
define void @first(i64 %v) {{
{body}
  store i64 %v, ptr @one
  ret void
}}
define i64 @second() {{
{body}
  %r = load i64, ptr @one
  ret i64 %r
}}
define i64 @third() {{
{body}
  %r = load i64, ptr @many
  ret i64 %r
}}
"""
    given = split(text)
    assert len(given) > 1
    assert sum("@one = hidden global" in p for p in given) == 1
    found = machine.load(text, ("first", "second", "third"))
    first = ctypes.CFUNCTYPE(None, ctypes.c_int64)(found["first"])
    second, third = (ctypes.CFUNCTYPE(ctypes.c_int64)(found[n]) for n in ("second", "third"))
    first(41)
    assert (second(), third()) == (41, 0)


FAR = """
import ctypes
from weft.runtime import machine

body = "\\n".join(f"  %x{i} = add i64 {i}, 1" for i in range(1500))
images = machine._objects(f'''@one = internal global i64 0
define internal i64 @deep(i64 %v) {{
{body}
  %old = load i64, ptr @one
  %new = add i64 %v, %old
  store i64 %new, ptr @one
  ret i64 %new
}}
define internal i64 @twice(i64 %v) {{
{body}
  %a = call i64 @deep(i64 %v)
  ret i64 %a
}}
define i64 @first(i64 %v) {{
{body}
  %p = alloca ptr
  store ptr @deep, ptr %p
  %f = load ptr, ptr %p
  %a = call i64 %f(i64 %v)
  %b = call i64 @twice(i64 %v)
  %c = load i64, ptr @one
  %d = add i64 %b, %c
  ret i64 %d
}}
''')
assert len(images) == 3
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
take = lambda size: libc.mmap(None, size, 0, 0x4022, -1, 0)  # address space alone
maps = lambda: open("/proc/self/maps").read().splitlines()
code = lambda: [int(s[: s.index("-")], 16) for s in maps() if " r-xp 00000000 00:00" in s]
far = 0
machine._link("near", images, ["first"], {})
low, rooms = take(1 << 34), []
for size in (1 << 20, 1 << 16, 1 << 13):
    while (room := take(size)) > low:
        rooms.append((room, size))
for room, size in rooms[-16:]:
    before = {*code()}
    libc.munmap(room, 1 << 13)  # a hole that the smallest part fits
    first = machine._link(f"far{room}", images, ["first"], {})["first"]
    new = {*code()} - before
    far += bool(new) and max(new) - min(new) > 1 << 31
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(first)(5) == 20
print("far", far)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's map of the address space")
def test_parts_may_lie_far_apart():
    """As where gigabytes lie between a hole that one part fits and the next free memory."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", FAR], cwd=Path(__file__).parents[2], env=env,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    assert int(run.stdout.split()[1]) > 3, "no parts lay far apart: the test shows nothing"
