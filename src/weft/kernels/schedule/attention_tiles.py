"""Pieces of the attention kernels: packing rows, products with a block of scores, masks.

A block is up to ROWS rows by BLOCK columns of scores, kept as panels
[column / columns][row][columns] so that `multiply` writes them and reads them again as its left
operand.

Operands are multiplied in *units*, words of two bfloat16 (`words`); where the host has tile
registers (`amx`), there. Then operands are filled up with zeros to whole depths of a register.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce

from weft.core import dtype as D
from weft.kernels.schedule import amx
from weft.kernels.schedule.micro import MULTIPLY, emit_multiply
from weft.kernels.schedule.tile import Tile, tile_for
from weft.kernels.schedule.words import halves_of_two, units_of
from weft.kernels.target import math as vmath
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import Function, Module, Operand, Value, const, lanes_of, vector, zero
from weft.kernels.target.llvm_types import lane_numbers
from weft.kernels.target.math import Math
from weft.runtime import native

BLOCK = 64  # columns a step, part of the numbers' definition
ROWS = 48  # rows a block, at most
_ROWS_CAUSAL = 24  # fewer compute fewer of the scores that are hidden
_ROWS_CAUSAL_IN_TILES = 32
MASKS = ("none", "bool", "float")
# where a kernel's result lies: strides of sample, head, query; where the rows' lse begin, or -1
RESULT = ("out_n", "out_h", "out_l", "lse_at")
Head = tuple[Operand, Operand]  # and its sample, first


def tile_of(d: D.dtype) -> Tile:
    """The register tile for operands of dtype `d`."""
    return replace(tile_for(register(d)), pairs=d is D.bfloat16)


def block_rows(tile: Tile, *, causal: bool) -> int:
    """The rows of a block."""
    if not causal:
        return ROWS
    return _ROWS_CAUSAL_IN_TILES if amx.in_tiles(tile) else _ROWS_CAUSAL


def depth(tile: Tile, count: int) -> int:
    """Units that an operand has along a sum of so many numbers."""
    return amx.depth(tile, -(-count // tile.per))


def deep(f: Function, tile: Tile, count: Operand) -> Operand:
    """As `depth`."""
    return amx.deep(f, tile, units(f, tile, count))


def emit_products(m: Module, tile: Tile) -> None:
    """`multiply` (see `micro`). In tile registers: rows at one pitch, one segment, both operands
    filled up to a depth; rows up to a multiple of sixteen are read and written, and sums go on
    from what c holds.
    """
    if not amx.in_tiles(tile):
        emit_multiply(m, tile)
        return
    f = m.function("multiply", MULTIPLY, internal=True)
    a, rows, count, segments, _, b, c, columns, first = (f.arg(n) for _, n in MULTIPLY)
    low, high = f.words(rows, 0, ("i64", "i64"))
    start, length = f.words(segments, 0, ("i64", "i64"))
    pitch, step = f.sub(high, low), tile.columns * amx.CELL
    needed = f.div(f.add(columns, tile.lanes - 1), tile.lanes)
    with f.loop(0, count, amx.ROWS) as R:
        row = f.gep(a, f.add(f.mul(R.i, pitch), start), tile.element)
        for width in f.switch(needed, (1, 2), tile.vectors):
            sums = [
                f.gep(c, f.add(f.mul(R.i, tile.columns), j * tile.lanes), tile.element)
                for j in range(width)
            ]
            with f.if_else(f.icmp("ne", first, 0)) as way:
                for j in range(width):
                    amx.zero(f, j)
                way.otherwise()
                for j, place in enumerate(sums):
                    amx.load(f, j, place, step)
            with f.loop(0, length, amx.DEPTH) as K:
                amx.load(f, 4, f.gep(row, K.i, tile.element), f.mul(pitch, amx.CELL))
                panel = f.gep(b, f.mul(K.i, tile.columns), tile.element)
                for j in range(width):
                    amx.load(f, 6 + j % 2, f.gep(panel, j * tile.lanes, tile.element), step)
                    amx.multiply_pairs(f, j, 4, 6 + j % 2)
            for j, place in enumerate(sums):
                amx.store(f, j, place, step)
    f.ret()


def open_kernel(
    f: Function, tile: Tile, names: Sequence[str], head: Sequence[str],
    registers: Sequence[tuple[int, int]] = ((amx.ROWS, amx.CELL * amx.DEPTH),) * 8,
) -> tuple[Value, dict[str, Value], dict[str, Value], Value, Value]:  # fmt: skip
    """A kernel's out, operands and ints by their names, scale in all lanes, this thread's room.

    `registers`: the shapes of tile registers, if the kernel multiplies in them.
    """
    (out, *operands), scratch, h, more = f.given(len(names), head)
    scale = f.load("double", more, 8)
    scale = scale if tile.element == "double" else f.cast("fptrunc", scale, "float")
    scale = f.splat(scale, tile.type)
    work = f.gep(scratch, f.mul(f.thread(), h["work_size"]))
    if amx.in_tiles(tile):
        amx.configure(f, registers)
    return out, dict(zip(names, operands, strict=True)), h, scale, work


def close_kernel(f: Function, tile: Tile) -> None:
    """The end of what `open_kernel` began."""
    if amx.in_tiles(tile):
        amx.release(f)
    f.ret()


def emit_copy(m: Module, tile: Tile, d: D.dtype) -> None:
    """`copy(dst, src, dst_step, src_step, rows, columns)`: units along rows; `weave`: down."""
    names = ("dst_step", "src_step", "rows", "columns")
    pointers = [("ptr noalias", "dst"), ("ptr noalias readonly", "src")]
    signature = [*pointers, *(("i64", n) for n in names)]
    for name in ("copy", "weave"):
        f = m.function(name, signature, internal=True)
        dst_step, src_step, rows, columns = (f.arg(n) for n in names)
        u = units_of(f, d, tile.lanes, pairs=tile.pairs)
        down, along = (u.per, 1) if name == "weave" else (1, u.per)
        end = rows
        if amx.in_tiles(tile) and name == "weave":
            end = f.mul(deep(f, tile, rows), down)
        with f.loop(0, end, down) as R, f.loop(0, columns, tile.lanes * along) as C:
            left = f.sub(columns, C.i)
            at = f.gep(f.arg("src"), f.add(f.mul(R.i, src_step), C.i), memory(d))
            mask = f.lane_mask(f.div(f.add(left, along - 1), along), tile.lanes)
            if name == "weave":
                there = mask
                if amx.in_tiles(tile):
                    here = f.select(f.icmp("slt", R.i, rows), left, 0)
                    there = f.lane_mask(here, tile.lanes)

                def load(p: Value, f: Function = f, mask: Value = there) -> Value:
                    return f.masked_load(vector(tile.lanes, memory(d)), p, mask)

                v = u.unit(load, at, src_step, f.icmp("slt", f.add(R.i, 1), rows))
            else:
                v = u.adjacent(at, u.masks(left))
                mask = f.lane_mask(tile.lanes, tile.lanes) if amx.in_tiles(tile) else mask
            row = f.mul(f.div(R.i, down), dst_step)
            to = f.gep(f.arg("dst"), f.add(row, f.div(C.i, along)), tile.element)
            f.masked_store(v, to, mask)
        f.ret()


def emit_transpose(m: Module, tile: Tile, d: D.dtype) -> None:
    """`transpose(panels, src, src_step, rows, width)`: panel[row / columns][e][row % columns].

    A panel has a row's depth + lanes rows: whole squares are written.
    """
    names = ("src_step", "rows", "width")
    f = m.function(
        "transpose",
        [("ptr noalias", "dst"), ("ptr noalias readonly", "src"), *(("i64", n) for n in names)],
        internal=True,
    )
    src_step, rows, width = (f.arg(n) for n in names)
    lanes, u = tile.lanes, units_of(f, d, tile.lanes, pairs=tile.pairs)
    panel_size = f.mul(f.add(deep(f, tile, width), lanes), tile.columns)
    with f.loop(0, rows, lanes) as J:
        # a missing row repeats the last one: its scores are hidden
        starts = [
            f.gep(
                f.arg("src"),
                f.mul(f.min(f.add(J.i, j), f.sub(rows, 1)), src_step),
                memory(d),
            )
            for j in range(lanes)
        ]
        panel = f.mul(f.div(J.i, tile.columns), panel_size)
        to = f.gep(f.arg("dst"), f.add(panel, f.rem(J.i, tile.columns)), tile.element)
        with f.loop(0, width, lanes * u.per) as L:
            masks = u.masks(f.sub(width, L.i))
            v = [u.adjacent(f.gep(s, L.i, memory(d)), masks) for s in starts]
            for i, row in enumerate(f.transpose(v)):
                place = f.mul(f.add(f.div(L.i, u.per), i), tile.columns)
                f.store(row, f.gep(to, place, tile.element), tile.align)
    f.ret()


def pack_values(
    f: Function, tile: Tile, d: D.dtype, dst: Value, src: Value, step: Value,
    rows: Operand, width: Operand,
) -> None:  # fmt: skip
    """Panels of columns: dst[c / columns][row][c % columns]."""
    every = deep(f, tile, rows)
    with f.loop(0, width, tile.columns) as C:
        columns = f.min(f.sub(width, C.i), tile.columns)
        to = f.gep(dst, f.mul(C.i, every), tile.element)
        f.call(
            "weave", "void", to, f.gep(src, C.i, memory(d)), f.typed(tile.columns, "i64"), step,
            rows, columns,
        )  # fmt: skip


def units(f: Function, tile: Tile, count: Operand) -> Operand:
    """Of so many numbers along a sum."""
    return f.div(f.add(count, tile.per - 1), tile.per)


def weight_places(tile: Tile, places: list[Value]) -> list[Value]:
    """Where a row's weights go as units: to the beginning of each panel's row."""
    whole, per = tile.vectors, tile.per
    return [places[i // whole * whole + i % whole // per] for i in range(0, len(places), per)]


def store_weights(f: Function, tile: Tile, weights: list[Value], places: list[Value]) -> None:
    """A row's weights as units."""
    if tile.pairs:
        weights = [
            f.cast("bitcast", halves_of_two(f, low, high, tile.lanes), tile.type)
            for low, high in zip(weights[::2], weights[1::2], strict=True)
        ]
    for w, place in zip(weights, places, strict=True):
        f.store(w, place, tile.align)


class Scores:
    """Tables that `multiply` needs, and the scores' place: [panel][ROWS][columns]."""

    def __init__(self, f: Function, tile: Tile, table: Value, scores: Value, width: Operand):
        self.f, self.tile, self.scores = f, tile, scores
        self.operand = table  # rows of x: one segment of `width`
        self.rows = f.gep(table, 2, "i64")
        self.score_rows = f.gep(self.rows, ROWS, "i64")
        self.segments = f.gep(self.score_rows, ROWS, "i64")
        self.store_rows(self.rows, width)
        self.store_rows(self.score_rows, tile.columns)
        f.store(const("i64", 0), table)
        f.store(f.typed(width, "i64"), f.gep(table, 1, "i64"))

    def store_rows(self, to: Value, step: Operand) -> None:
        with self.f.loop(0, ROWS) as R:
            self.f.store(self.f.typed(self.f.mul(R.i, step), "i64"), self.f.gep(to, R.i, "i64"))

    def product(
        self, x: Value, count: Operand, panels: Value, first: Operand, columns: Operand,
        width: Operand, to: Value,
    ) -> None:  # fmt: skip
        """to = x[count rows, width] times columns [first, first + columns) of transposed panels."""
        f, tile = self.f, self.tile
        with f.loop(0, columns, tile.columns) as P:
            panel = f.mul(f.add(first, P.i), f.add(width, tile.lanes))
            f.call(
                "multiply", "void", x, self.rows, count, self.operand, f.typed(1, "i64"),
                f.gep(panels, panel, tile.element), f.gep(to, f.mul(P.i, ROWS), tile.element),
                f.min(f.sub(columns, P.i), tile.columns), f.typed(1, "i64"),
            )  # fmt: skip

    def spread(
        self, count: Operand, values: Value, total: Operand, first: Operand, columns: Operand,
        width: Operand, sums: Value, fresh: Operand,
    ) -> None:  # fmt: skip
        """sums (+)= scores[count, columns] times rows [first, first + columns) of value panels."""
        first, total = (deep(self.f, self.tile, x) for x in (first, total))
        f, tile = self.f, self.tile
        with f.loop(0, columns, tile.columns) as P:
            pair = f.gep(self.segments, f.mul(f.div(P.i, tile.columns), 2), "i64")
            f.store(f.typed(f.mul(P.i, ROWS), "i64"), pair)
            part = deep(f, tile, f.min(f.sub(columns, P.i), tile.columns))
            f.store(f.typed(part, "i64"), f.gep(pair, 1, "i64"))
        nseg = f.div(f.add(columns, tile.columns - 1), tile.columns)
        with f.loop(0, width, tile.columns) as C:
            place = f.add(f.mul(C.i, total), f.mul(first, tile.columns))
            f.call(
                "multiply", "void", self.scores, self.score_rows, count, self.segments, nseg,
                f.gep(values, place, tile.element), f.gep(sums, f.mul(C.i, ROWS), tile.element),
                f.min(f.sub(width, C.i), tile.columns), fresh,
            )  # fmt: skip

    def vectors(self, base: Value, row: Operand) -> list[Value]:
        """Where the vectors of one row of a BLOCK of scores lie."""
        f, tile = self.f, self.tile
        start = f.gep(base, f.mul(row, tile.columns), tile.element)
        return [
            f.gep(
                start,
                column // tile.columns * ROWS * tile.columns + column % tile.columns,
                tile.element,
            )
            for column in range(0, BLOCK, tile.lanes)
        ]


def before(f: Function, limit: Operand, lanes: int) -> list[Value]:
    """The keys of a BLOCK before `limit`, vector by vector: one number in all lanes serves all."""
    type = vector(lanes, "i32")
    few = f.typed(f.min(f.max(limit, 0), BLOCK), "i64")
    few = f.splat(f.cast("trunc", few, "i32"), type)
    return [f.icmp("slt", lane_numbers(type, j), few) for j in range(0, BLOCK, lanes)]


def hide(
    f: Function, e: Element, d: D.dtype, kind: str, score: Value, mask_at: Value, seen: Value
) -> Value:
    """The score with the mask, -inf where not seen; the mask's vector starts at `mask_at`."""
    if kind == "float":
        add = e.from_memory(f.masked_load(e.memory_type(d), mask_at, seen), d)
        score = f.op("fadd", score, add)
    elif kind == "bool":
        byte = f.masked_load(vector(e.lanes, "i8"), mask_at, seen)
        seen = f.op("and", seen, f.icmp("ne", byte, zero(byte.type)))
    return f.select(seen, score, const(score.type, float("-inf")))


def combine(f: Function, rows: list[Value], join: str) -> Value:
    """Each row's lanes by halving; row i's number in lane i. Any power of two of rows."""
    lanes, half, rows = lanes_of(rows[0].type), lanes_of(rows[0].type) // 2, list(rows)
    while half:
        pairs = list(zip(rows[::2], rows[1::2] or rows, strict=True))
        parts = [q for q in range(2 * lanes) if not q & half]
        low = parts[:lanes]
        rows = [
            _join(f, f.shuffle(a, b, low), f.shuffle(a, b, [q | half for q in low]), join)
            for a, b in pairs
        ]
        half //= 2
    return rows[0]


def _join(f: Function, a: Value, b: Value, join: str) -> Value:
    return f.op("fadd", a, b) if join == "sum" else f.select(f.fcmp("ogt", a, b), a, b)


Row = tuple[Value | None, Operand]  # its mask, and the keys before those that are hidden
Places = tuple[list[Value], list[Value]]  # of a row's scores, and of its weights


def weigh(
    f: Function, tile: Tile, d: D.dtype, masks: str, count: Operand, group: int,
    row: Callable[[Operand], Row], places: Callable[[Operand], Places], scale: Value,
    best: Value, total: Value, then: Callable[[Operand, Value], None],
) -> None:  # fmt: skip
    """A block's products of `count` queries of a group (one, or as many as lanes) become units of
    exp(s - best), and their best and total go on. `then` gets each query and exp(old best - best),
    a vector: what sums so far fade by.

    What is done once a query is done for the group at a time: half of the work otherwise.
    """
    el, type, lanes = tile.element, tile.type, tile.lanes
    wide, math = Element(f, lanes), Math(f, has_fma=native.host().has_fma)
    mask_type = "i8" if masks == "bool" else memory(d)
    kept = f.alloca(el, (group + 2) * lanes)
    shifts, fades = (f.gep(kept, (group + i) * lanes, el) for i in range(2))

    def joined(parts: list[Value], join: str) -> Value:
        return reduce(lambda a, b: _join(f, a, b, join), parts)

    def of_group(join: str) -> Value:
        rows = [f.load(type, f.gep(kept, i * lanes, el), tile.align) for i in range(group)]
        return combine(f, rows, join)

    def write(v: Value, at: Value) -> None:
        if group > 1:
            f.store(v, at, tile.align)
        else:
            f.store(f.extract(v, 0), at)

    with f.loop(0, count) as R:
        (scores_at, _), (mask, limit) = places(R.i), row(R.i)
        found = []
        for j, (place, seen) in enumerate(zip(scores_at, before(f, limit, lanes), strict=True)):
            score = f.op("fmul", f.load(type, place, tile.align), scale)
            where = place if mask is None else f.gep(mask, j * lanes, mask_type)
            found.append(hide(f, wide, d, masks, score, where, seen))
            f.store(found[-1], place, tile.align)
        f.store(joined(found, "max"), f.gep(kept, f.mul(R.i, lanes), el), tile.align)
    old = _of_group(f, tile, best, group)
    new = f.intrinsic("maxnum", type, of_group("max"), old)
    write(new, best)
    # all hidden so far: subtract 0, so that exp(-inf - 0) = 0
    shift = f.select(f.fcmp("oeq", new, const(type, float("-inf"))), zero(type), new)
    fade = vmath.call(math, "exp", f.op("fsub", old, shift))
    for v, at in ((shift, shifts), (fade, fades)):
        f.store(v, at, tile.align)
    with f.loop(0, count) as R:
        shift = f.splat(f.load(el, f.gep(shifts, R.i, el)), type)
        scores_at, kept_at = places(R.i)
        ps = [
            vmath.call(math, "exp", f.op("fsub", f.load(type, place, tile.align), shift))
            for place in scores_at
        ]
        store_weights(f, tile, ps, kept_at)
        f.store(joined(ps, "sum"), f.gep(kept, f.mul(R.i, lanes), el), tile.align)
        then(R.i, f.splat(f.load(el, f.gep(fades, R.i, el)), type))
    fade = f.load(type, fades, tile.align)
    write(
        f.op("fadd", f.op("fmul", _of_group(f, tile, total, group), fade), of_group("sum")), total
    )


def head_and_next(f: Function, h: dict[str, Value], unit: Value, end: Operand) -> list[Head]:
    """Of a unit, and of the next one (or itself) before `end`."""
    both = unit, f.min(f.add(unit, 1), f.sub(end, 1))
    return [(f.div(u, h["heads"]), f.rem(u, h["heads"])) for u in both]


def operand_row(
    f: Function, h: dict[str, Value], name: str, base: Value, head: Head, row: Operand, element: str
) -> Value:
    """Where a row of an operand begins."""
    start = f.add(f.mul(head[0], h[name + "_n"]), f.mul(head[1], h[name + "_h"]))
    return f.gep(base, f.add(start, f.mul(row, h[name + "_l"])), element)


def ask(f: Function, d: D.dtype, row: Value, width: Operand, *, write: bool = False) -> None:
    """Bring a row to the second cache, or, to be written, to the first: rows lie in pages of their
    own, which the hardware does not foresee.
    """
    line = max(1, 64 // d.itemsize)
    with f.loop(0, width, line) as C:
        f.touch(f.gep(row, C.i, memory(d)), level=1 if write else 2, write=write)


def result_row(
    f: Function, d: D.dtype, h: dict[str, Value], out: Value, at: tuple[Operand, Operand, Operand]
) -> tuple[Value, Value, Value]:
    """A query's row of the result, the place of its lse, and whether that is wanted."""
    n, head, query = at
    unit = f.add(f.mul(n, h["heads"]), head)
    lse = f.add(h["lse_at"], f.add(f.mul(unit, h["queries"]), query))
    wanted = f.icmp("sge", h["lse_at"], 0)
    row = operand_row(f, h, "out", out, (n, head), query, memory(d))
    return row, f.gep(out, lse, register(d)), wanted


def store_rows(
    f: Function, tile: Tile, d: D.dtype, width: Value, sums: tuple[Value, int, Operand],
    count: Operand, group: int, total: Value, best: Value,
    to: Callable[[Operand], tuple[Value, Value, Value]],
) -> None:  # fmt: skip
    """out = sums / total, 0 when the total is 0; then lse if wanted (`to`: see `result_row`), of
    `count` queries of a group.

    The sums: panels of so many rows, and the first row.
    """
    el, type, lanes, (base, rows, first) = tile.element, tile.type, tile.lanes, sums
    wide, math = Element(f, lanes), Math(f, has_fma=native.host().has_fma)
    totals, tops = (_of_group(f, tile, at, group) for at in (total, best))
    divisor = f.select(f.fcmp("oeq", totals, zero(type)), const(type, 1.0), totals)
    factors = f.alloca(el, lanes)
    # one quotient a row: divisions of vectors would be a tenth of the whole
    f.store(f.op("fdiv", const(type, 1.0), divisor), factors, tile.align)
    _, lse, wanted = to(0)
    with f.iff(wanted):
        sums_of_all = f.op("fadd", tops, vmath.call(math, "log", totals))
        f.masked_store(sums_of_all, lse, f.lane_mask(count, lanes))
    with f.loop(0, count) as R:
        factor, (out, *_) = f.splat(f.load(el, f.gep(factors, R.i, el)), type), to(R.i)
        with f.loop(0, width, lanes) as C:
            row = f.add(f.mul(f.div(C.i, tile.columns), rows), f.add(first, R.i))
            place = f.add(f.mul(row, tile.columns), f.rem(C.i, tile.columns))
            v = f.op("fmul", f.load(type, f.gep(base, place, el), tile.align), factor)
            v = wide.stored(v, d)
            mask = f.lane_mask(f.sub(width, C.i), lanes)
            f.masked_store(v, f.gep(out, C.i, memory(d)), mask)


def _of_group(f: Function, tile: Tile, at: Value, group: int) -> Value:
    """A number of each query of a group, or one in all lanes."""
    if group > 1:
        return f.load(tile.type, at, tile.align)
    return f.splat(f.load(tile.element, at), tile.type)
