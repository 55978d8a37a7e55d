"""Matrix products of the other dtypes.

float16 and bfloat16: widen both operands to float32 in scratch memory, multiply there, round the
result once (bfloat16 has a faster way on some hosts: `gemm_bf16`). Integers: element by element,
wrapping in their own width.
"""

from dataclasses import replace
from functools import cache

import numpy as np

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.gemm_code import (
    extra_word,
    gemm_kernel,
    kernel_names,
    pack_columns,
    pack_rows,
)
from weft.kernels.schedule.tile import Tile, tile_for
from weft.kernels.schedule.words import sums_to
from weft.kernels.target.element import Element
from weft.kernels.target.llvm import INT_TYPES, Function, Module, Operand, Value
from weft.runtime import native
from weft.runtime.native import Launch, Stage

HALVES = {"float16": D.float16, "bfloat16": D.bfloat16}
N_EXTRA = 4  # words of the three descriptors below, bytes of scratch before the threads' parts

# A descriptor says where the rows of one operand lie in memory, and where its float32 copy starts
# in scratch:
#   byte offset in scratch, rows, columns, stride of columns, count of dims, then (size, stride) of
# each, outermost first.


def descriptor(layout: Layout, offset: int) -> list[int]:
    """The descriptor of an operand whose float32 copy is `dense(layout)`."""
    kept = [
        (n, s)
        for n, s in zip(layout.shape[:-1], layout.strides[:-1], strict=True)
        if n == 0 or (s != 0 and n != 1)  # none of no rows is read, whatever their stride
    ]
    rows = 1
    for size, _ in kept:
        rows *= size
    pairs = [word for pair in kept for word in pair]
    return [offset, rows, layout.shape[-1], layout.strides[-1], len(kept), *pairs]


def dense(layout: Layout) -> Layout:
    """The layout of an operand's float32 copy: rows one after another, dims of stride 0 once."""
    strides, step = [1], layout.shape[-1]
    for size, stride in zip(
        reversed(layout.shape[:-1]), reversed(layout.strides[:-1]), strict=True
    ):
        repeated = stride == 0 or size == 1
        strides.append(0 if repeated else step)
        step *= 1 if repeated else size
    return Layout(layout.shape, tuple(reversed(strides)), np.dtype(np.float32))


@cache
def widener(name: str) -> int:
    """Of a launch with one input of a half dtype: that input to its float32 copy."""
    return native.load_made(["widen"], _widener_ir, name)["widen"]


def _widener_ir(name: str) -> str:
    module = Module()
    emit_conversion(module, "widen", HALVES[name], 0, tile_for("float").lanes, n_in=1)
    return module.text()


@cache
def half_kernels(
    name: str, a_class: str, b_class: str, in_scratch: str = "abc"
) -> tuple[dict[str, int], Tile]:
    """The stages widen_a, widen_b, gemm2 (it has two inputs), narrow of a half dtype."""
    tile = replace(tile_for("float"), a_class=a_class)
    names = [*_STAGES, *kernel_names("gemm", tile, in_scratch)]
    return native.load_made(names, _half_ir, name, tile, b_class, in_scratch), tile


_STAGES = ("widen_a", "widen_b", "narrow")


def _half_ir(name: str, tile: Tile, b_class: str, in_scratch: str) -> str:
    module = Module()
    packer = pack_rows if b_class == "rows" else pack_columns
    gemm_kernel(module, "gemm", tile, pack=packer, in_scratch=in_scratch)
    for place, stage in enumerate(_STAGES):
        emit_conversion(module, stage, HALVES[name], place, tile.lanes)
    return module.text()


def emit_conversion(
    module: Module, name: str, half: D.dtype, place: int, lanes: int, *, n_in: int = 2
) -> None:
    """One stage of a launch: input `place` to its float32 copy, or (place 2) the float32 product
    to out.
    """
    f = module.kernel(name)
    narrow = place == 2
    array, scratch, table = described(f, place, n_in)
    offset, rows, columns, stride, count = f.words(table, 0, ["i64"] * 5)
    copy = f.gep(scratch, offset)
    dims = f.gep(table, 5, "i64")

    def convert(row: Value, copy_row: Value, column: Operand, width: int) -> None:
        element = Element(f, width)
        at = f.gep(row, f.mul(column, stride), "i16")
        wide = f.gep(copy_row, column, "float")
        if narrow:
            f.store(sums_to(f, f.load(element.type(D.float32), wide), half, width), at)
        else:
            f.store(element.from_memory(f.load(element.memory_type(half), at), half), wide)

    first, last = f.split(rows)
    adjacent = f.select(f.icmp("eq", stride, 1), f.mul(f.div(columns, lanes), lanes), 0)
    with f.loop(first, last) as row:
        start = f.gep(array, outer_offset(f, dims, count, row.i), "i16")
        copy_row = f.gep(copy, f.mul(row.i, columns), "float")
        with f.loop(0, adjacent, lanes) as column:
            convert(start, copy_row, column.i, lanes)
        with f.loop(adjacent, columns) as column:
            convert(start, copy_row, column.i, 1)
    f.ret()


def described(f: Function, place: int, n_in: int) -> tuple[Value, Value, Value]:
    """Input `place` of a launch (2: out), its scratch, the descriptor."""
    array = f.load("ptr", f.gep("%args", 2 if place == 2 else 3 + place, "i64"))
    scratch = f.load("ptr", f.gep("%args", 3 + n_in, "i64"))
    word = f.load("i64", f.gep("%args", extra_word(n_in) + place, "i64"))
    return array, scratch, f.gep("%args", word, "i64")


def outer_offset(f: Function, dims: Value, count: Value, index: Operand) -> Value:
    """The element offset of a flat row index; dims are (size, stride), outermost first."""
    with f.loop(0, count, 1, [("i64", index), ("i64", 0)]) as d:
        dim = f.gep(dims, f.mul(f.sub(f.sub(count, 1), d.i), 2), "i64")
        size, stride = f.words(dim, 0, ["i64"] * 2)
        rest, offset = d.carry
        d.next = [f.div(rest, size), f.add(offset, f.mul(f.rem(rest, size), stride))]
    return d.carry[1]


# -- integers


def plan_integers(a: Layout, b: Layout, out: Layout, *, parallel: bool) -> Launch:
    """The launch of an integer product (see `plan_matmul`)."""
    (m, k), n = a.shape[-2:], b.shape[-1]
    batch = zip(out.shape[:-2], a.strides[:-2], b.strides[:-2], out.strides[:-2], strict=True)
    dims = [word for dim in batch for word in dim]
    rows = out.size // n
    ints = (rows, m, n, k, *a.strides[-2:], *b.strides[-2:], out.strides[-2], len(dims) // 4, *dims)
    return Launch((Stage(_integer_kernel(INT_TYPES[a.dtype.name]), parallel),), ints)


@cache
def _integer_kernel(element: str) -> int:
    return native.load_made(["integers"], _integers_ir, element)["integers"]


def _integers_ir(element: str) -> str:
    """Each row of out: for k, for n: out[n] += a[k] * b[k, n]; in any order, integers wrap."""
    module = Module()
    f = module.kernel("integers")
    out, a, b = f.words("%args", 2, ["ptr"] * 3)
    rows, m, n, k, a_rs, a_cs, b_rs, b_cs, ldc, count = f.words("%args", 6, ["i64"] * 10)
    dims = f.gep("%args", 16, "i64")
    first, last = f.split(rows)
    with f.loop(first, last) as flat:
        row, batch = f.rem(flat.i, m), f.div(flat.i, m)
        with f.loop(0, count, 1, [("i64", batch), ("i64", 0), ("i64", 0), ("i64", 0)]) as d:
            dim = f.gep(dims, f.mul(f.sub(f.sub(count, 1), d.i), 4), "i64")
            size, *strides = f.words(dim, 0, ["i64"] * 4)
            at = f.rem(d.carry[0], size)
            offsets = [f.add(o, f.mul(at, s)) for o, s in zip(d.carry[1:], strides, strict=True)]
            d.next = [f.div(d.carry[0], size), *offsets]
        a_row = f.gep(a, f.add(d.carry[1], f.mul(row, a_rs)), element)
        b_start = f.gep(b, d.carry[2], element)
        out_row = f.gep(out, f.add(d.carry[3], f.mul(row, ldc)), element)
        with f.loop(0, n) as column:
            b_column = f.gep(b_start, f.mul(column.i, b_cs), element)
            with f.loop(0, k, 1, [(element, 0)]) as inner:
                x = f.load(element, f.gep(a_row, f.mul(inner.i, a_cs), element))
                y = f.load(element, f.gep(b_column, f.mul(inner.i, b_rs), element))
                inner.next = [f.op("add", inner.carry[0], f.op("mul", x, y))]
            f.store(inner.carry[0], f.gep(out_row, column.i, element))
    f.ret()
    return module.text()
