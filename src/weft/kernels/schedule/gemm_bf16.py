"""Products of bfloat16 on hosts that multiply pairs of them (AVX512-BF16): twice float32's rate.

Both operands are first laid in scratch memory as 32-bit words of two neighbours along k (a last
odd one beside a zero); then the loops of `gemm_code` run over words, sums in float32; the results
are rounded once. An operand whose k is adjacent in memory is copied; otherwise two of its rows are
woven into one.

The numbers: each word adds two products to the sum, one rounding each, numbers too small for a
normal float32 counting as zero; words in order, in blocks of KC words. Nothing else changes them.
"""

from dataclasses import replace
from functools import cache

import numpy as np

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.gemm_code import (
    gemm_kernel,
    kernel_names,
    pack_columns,
    pack_kernel,
    pack_rows,
)
from weft.kernels.schedule.gemm_plain import HALVES, described, emit_conversion, outer_offset
from weft.kernels.schedule.tile import Tile, tile_for
from weft.kernels.schedule.words import Words
from weft.kernels.target.element import memory
from weft.kernels.target.llvm import Function, Module, Operand, Value, vector
from weft.runtime import native

_PACKERS = {"rows": pack_rows, "columns": pack_columns}


def words_of(layout: Layout, k_dim: int) -> tuple[Layout, bool]:
    """The layout of an operand's words (..., rows, columns) whose k runs along dim -1 or -2, and
    whether rows of it are woven (the other dim is adjacent in its memory, and k is not).
    """
    other_dim = -3 - k_dim
    woven = layout.strides[k_dim] != 1 and layout.strides[other_dim] == 1
    shape = list(layout.shape)
    shape[k_dim] = -(-shape[k_dim] // 2)
    strides, step = [0] * len(shape), 1
    inner, outer = (other_dim, k_dim) if woven else (k_dim, other_dim)
    for d in (inner, outer, *range(-3, -len(shape) - 1, -1)):
        kept = d >= -2 or not (layout.strides[d] == 0 or shape[d] == 1)
        strides[d] = step if kept else 0
        step *= max(shape[d], 1) if kept else 1
    return Layout(tuple(shape), tuple(strides), np.dtype(np.float32)), woven


def descriptor(layout: Layout, k_dim: int, words: Layout, offset: int) -> list[int]:
    """Where an operand lies and where its words go: byte offset in scratch, k, stride of k, size
    and stride of the other dim, number of matrices, count of dims, then (size, stride) of each.
    """
    other_dim = -3 - k_dim
    kept = [
        (n, s) for n, s, w in zip(layout.shape[:-2], layout.strides[:-2], words.strides[:-2],
                                  strict=True) if w
    ]  # fmt: skip
    count = 1
    for n, _ in kept:
        count *= n
    head = [offset, layout.shape[k_dim], layout.strides[k_dim]]
    other = [layout.shape[other_dim], layout.strides[other_dim]]
    return [*head, *other, count, len(kept), *(word for pair in kept for word in pair)]


def size_of(words: Layout) -> int:
    """Bytes of an operand's words in scratch, whole cache lines."""
    last = sum((n - 1) * s for n, s in zip(words.shape, words.strides, strict=True) if n)
    return -(-(last + 1) * 4 // 64) * 64


@cache
def products(a_class: str, b_class: str, in_scratch: str) -> tuple[list[int], Tile]:
    """The loops over words, for 2, 3, ... inputs."""
    tile = replace(tile_for("float"), pairs=True, a_class=a_class)
    names = kernel_names("gemm", tile, in_scratch)
    found = native.load_made(names, _products_ir, tile, b_class, in_scratch)
    return [found[name] for name in names], tile


def _products_ir(tile: Tile, b_class: str, in_scratch: str) -> str:
    module = Module()
    gemm_kernel(module, "gemm", tile, pack=_PACKERS[b_class], in_scratch=in_scratch)
    return module.text()


@cache
def packer(b_class: str) -> int:
    """Words at the start of scratch to panels."""
    return native.load_made(["pack_all"], _packer_ir, b_class)["pack_all"]


def _packer_ir(b_class: str) -> str:
    module = Module()
    pack = _PACKERS[b_class]
    pack_kernel(module, "pack_all", tile_for("float"), pack=pack, in_scratch=True)
    return module.text()


@cache
def stage(place: int, n_in: int, source: str, *, woven: bool) -> int:
    """Of a launch with so many inputs: one of them to its words, or (place 2) sums to out."""
    return native.load_made(["stage"], _stage_ir, place, n_in, source, woven=woven)["stage"]


def _stage_ir(place: int, n_in: int, source: str, *, woven: bool) -> str:
    module = Module()
    lanes = tile_for("float").lanes
    if place == 2:
        emit_conversion(module, "stage", HALVES["bfloat16"], 2, lanes)
    else:
        _emit_words(module, place, n_in, lanes, woven=woven, source=source)
    return module.text()


def _emit_words(
    module: Module, place: int, n_in: int, lanes: int, *, woven: bool, source: str
) -> None:
    f = module.kernel("stage")
    u = Words(f, D.bfloat16 if source == "i16" else D.float32, lanes)
    array, scratch, table = described(f, place, n_in)
    offset, k, k_step, other, other_step, count, dims = f.words(table, 0, ["i64"] * 7)
    to = f.gep(scratch, offset)
    pairs = f.div(f.add(k, 1), 2)
    rows, columns = (pairs, other) if woven else (other, pairs)
    first, last = f.split(f.mul(count, rows))
    with f.loop(first, last) as row:
        matrix, r = f.div(row.i, rows), f.rem(row.i, rows)
        start = f.gep(array, outer_offset(f, f.gep(table, 7, "i64"), dims, matrix), source)
        target = f.gep(to, f.mul(row.i, columns), "i32")
        if woven:
            _weave(f, u, start, target, k=k, k_step=k_step, row=r, columns=columns)
        else:
            at = f.gep(start, f.mul(r, other_step), source)
            _copy(f, u, at, target, k=k, k_step=k_step)
    f.ret()


def _weave(
    f: Function, u: Words, start: Value, target: Value, *, k: Value, k_step: Value, row: Operand,
    columns: Operand,
) -> None:  # fmt: skip
    """target[c] = (element c of row 2 row, that of the next row or 0), columns adjacent."""
    source = memory(u.d)
    low = f.gep(start, f.mul(f.mul(row, 2), k_step), source)
    more = f.icmp("slt", f.add(f.mul(row, 2), 1), k)
    whole = f.mul(f.div(columns, u.lanes), u.lanes)
    for first, last, width in ((0, whole, u.lanes), (whole, columns, 1)):
        type = vector(width, source)
        with f.loop(first, last, width) as column:
            at = f.gep(low, column.i, source)
            unit = u.unit(lambda place, type=type: f.load(type, place), at, k_step, more, width)
            f.store(unit, f.gep(target, column.i, "float"))


def _copy(f: Function, u: Words, row: Value, target: Value, *, k: Value, k_step: Value) -> None:
    """target[p] = (elements 2 p, 2 p + 1 of a row, or 0)."""
    source, step = memory(u.d), 2 * u.lanes
    adjacent = f.icmp("eq", k_step, 1)
    whole = f.select(adjacent, f.mul(f.div(k, step), step), 0)
    with f.loop(0, whole, step) as at:
        f.store(u.adjacent(f.gep(row, at.i, source)), f.gep(target, f.div(at.i, 2), "float"))
    with f.loop(whole, k, 2) as at:
        here, more = f.gep(row, f.mul(at.i, k_step), source), f.icmp("slt", f.add(at.i, 1), k)
        unit = u.unit(lambda place: f.load(source, place), here, k_step, more, 1)
        f.store(unit, f.gep(target, f.div(at.i, 2), "float"))
