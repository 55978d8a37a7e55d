"""Unsigned by signed bytes: out[m, n] = sum over k of a[m, k] * w[n, k], exact in int32.

The weight comes packed, once for all calls: panels of 64 columns, in each for every four k the
four bytes of column 0, of column 1, ... (`pack_int8`).  One instruction (vpdpbusd) then multiplies
four bytes of a row of `a` by four of each of 16 columns and adds them up; other hosts take more.
Integer sums are exact in any order, so tiles and threads change nothing.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from weft.kernels.layout import Layout
from weft.kernels.target.llvm import Function, Module, Operand, Value, vector, zero
from weft.runtime import native
from weft.runtime.native import Launch, Stage

COLUMNS = 64  # of a panel: part of the packed weights' format
FOUR = 4  # bytes that are multiplied and added at once
LONGEST = 65_535  # k: beyond it (255 * 128 a product) a sum may not fit in int32
_PARALLEL_FROM = 1 << 19
_QUICK_BELOW = 1 << 15
_BLOCK = 8  # row tiles of a unit of work


def pack_int8(weight: np.ndarray) -> np.ndarray:
    """int8 (N, K) as panels (ceil(N / 64), ceil(K / 4), 64, 4), zeros where there is nothing."""
    n, k = weight.shape
    panels, fours = -(-n // COLUMNS), -(-k // FOUR)
    whole = np.zeros((panels * COLUMNS, fours * FOUR), np.int8)
    whole[:n, :k] = weight
    split = whole.reshape(panels, COLUMNS, fours, FOUR)
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3))


def plan_matmul_int8(a: Layout, panels: Layout, out: Layout) -> Launch:
    """out[m, n] = a[m, :] . w[n, :]; uint8 (M, 4 F), int8 (P, F, 64, 4), int32 (M, N), contiguous.

    ValueError: a layout or size that the kernel does not read.
    """
    if not (a.is_contiguous and panels.is_contiguous and out.is_contiguous):
        raise ValueError("matmul_int8: operands must be contiguous")
    (m, k), (count, fours), n = a.shape, panels.shape[:2], out.shape[1]
    fits = panels.shape[2:] == (COLUMNS, FOUR) and k == fours * FOUR and out.shape[0] == m
    if not fits or not (count - 1) * COLUMNS < n <= count * COLUMNS or k > LONGEST:
        raise ValueError(f"matmul_int8: {a.shape}, {panels.shape} do not give {out.shape}")
    if [x.dtype.name for x in (a, panels, out)] != ["uint8", "int8", "int32"]:
        raise ValueError(f"matmul_int8: dtypes {a.dtype}, {panels.dtype}, {out.dtype}")
    if not out.size:
        return Launch(())
    work = out.size * k
    stage = Stage(_kernel(), work >= _PARALLEL_FROM)
    return Launch((stage,), (m, n, fours, count), quick=work < _QUICK_BELOW)


@cache
def _kernel() -> int:
    host = native.host()
    lanes = host.lanes(4)
    rows, vectors = (6, 4) if host.registers >= 32 else (3, 2)
    module = Module(host.vector_bits)
    for count in range(1, rows + 1):
        _tile(module, count, vectors, lanes)
    f = module.kernel("matmul_int8")
    out, a, w = f.words("%args", 2, ["ptr"] * 3)
    m, n, fours, panels = f.words("%args", 6, ["i64"] * 4)
    k = f.mul(fours, FOUR)
    block = rows * _BLOCK
    blocks = f.div(f.add(m, block - 1), block)
    with f.units(f.mul(panels, blocks)) as unit:
        panel = f.div(unit, blocks)
        first = f.mul(f.rem(unit, blocks), block)
        last = f.min(f.add(first, block), m)
        n0 = f.mul(panel, COLUMNS)
        piece = f.gep(w, f.mul(f.mul(panel, fours), COLUMNS * FOUR))
        width = vectors * lanes
        with f.loop(0, COLUMNS, width) as group, f.iff(f.icmp("slt", f.add(n0, group.i), n)):
            column = f.add(n0, group.i)
            b = f.gep(piece, f.mul(group.i, FOUR))
            with f.loop(first, last, rows) as row:
                place = f.gep(out, f.add(f.mul(row.i, n), column), "i32")
                here = f.gep(a, f.mul(row.i, k))
                left = f.min(f.sub(last, row.i), rows)
                for count in f.switch(left, range(1, rows), rows):
                    f.call(f"tile{count}", "void", fours, here, k, b, place, n, f.sub(n, column))
    f.ret()
    return native.load(module.text(), ["matmul_int8"])["matmul_int8"]


def _tile(module: Module, rows: int, vectors: int, lanes: int) -> None:
    """c[rows, vectors * lanes] = a @ panel over `fours` steps; `left` columns are stored."""
    arguments = [("i64", "fours"), ("ptr", "a"), ("i64", "lda"), ("ptr", "b"), ("ptr", "c"),
                 ("i64", "ldc"), ("i64", "left")]  # fmt: skip
    f = module.function(f"tile{rows}", arguments, internal=True)
    sums, whole = vector(lanes, "i32"), lanes * FOUR
    start = [f.gep(f.arg("a"), f.mul(f.arg("lda"), r)) for r in range(rows)]
    with f.loop(0, f.arg("fours"), 1, [(sums, zero(sums))] * (rows * vectors)) as step:
        b = f.gep(f.arg("b"), f.mul(step.i, COLUMNS * FOUR))
        columns = [f.load(sums, f.gep(b, v * whole), 1) for v in range(vectors)]
        done: list[Operand] = []
        for r in range(rows):
            four = f.load("i32", f.gep(start[r], f.mul(step.i, FOUR)), 1)
            done += [
                _dot(f, step.carry[r * vectors + v], f.splat(four, sums), columns[v])
                for v in range(vectors)
            ]
        step.next = done
    for r in range(rows):
        for v in range(vectors):
            place = f.gep(f.arg("c"), f.add(f.mul(f.arg("ldc"), r), v * lanes), "i32")
            mask = f.lane_mask(f.sub(f.arg("left"), v * lanes), lanes)
            f.masked_store(step.carry[r * vectors + v], place, mask)
    f.ret()


def _dot(f: Function, total: Value, four: Value, columns: Value) -> Value:
    """total + the products of a row's four unsigned bytes with each column's four signed ones."""
    host = native.host()
    if host.vector_bits == 512 and host.has("avx512vnni"):
        return f.intrinsic("x86.avx512.vpdpbusd.512", total.type, total, four, columns)
    for byte in range(FOUR):
        u = f.op("and", f.op("lshr", four, 8 * byte), 255)
        s = f.op("ashr", f.op("shl", columns, 24 - 8 * byte), 24)
        total = f.op("add", total, f.op("mul", u, s))
    return total
