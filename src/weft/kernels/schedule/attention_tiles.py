"""Pieces of the attention kernels: packing rows, products with a block of scores, masks.

A block is up to ROWS rows by BLOCK columns of scores, kept as panels
[column / columns][row][columns] so that `multiply` writes them and reads them again as its left
operand.

Operands are multiplied in *units*, words of two bfloat16 (`words`).
"""

from collections.abc import Sequence
from dataclasses import replace

from weft.core import dtype as D
from weft.kernels.schedule.gemm_code import touch
from weft.kernels.schedule.tile import Tile, tile_for
from weft.kernels.schedule.words import halves, units_of
from weft.kernels.target import math as vmath
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import Function, Module, Operand, Value, const, lanes_of, vector, zero
from weft.kernels.target.math import Math
from weft.runtime import native

BLOCK = 64  # columns a step, part of the numbers' definition
ROWS = 48  # rows a block, at most
_ROWS_CAUSAL = 24  # fewer compute fewer of the scores that are hidden
MASKS = ("none", "bool", "float")
# where a kernel's result lies: strides of sample, head, query; where the rows' lse begin, or -1
RESULT = ("out_n", "out_h", "out_l", "lse_at")
Head = tuple[Operand, Operand]  # and its sample, first


def tile_of(d: D.dtype) -> Tile:
    """The register tile for operands of dtype `d`."""
    return replace(tile_for(register(d)), pairs=d is D.bfloat16)


def block_rows(*, causal: bool) -> int:
    """The rows of a block."""
    return _ROWS_CAUSAL if causal else ROWS


def open_kernel(
    f: Function, tile: Tile, names: Sequence[str], head: Sequence[str]
) -> tuple[Value, dict[str, Value], dict[str, Value], Value, Value]:
    """A kernel's out, operands and ints by their names, scale in all lanes, this thread's room."""
    (out, *operands), scratch, h, more = f.given(len(names), head)
    scale = f.load("double", more, 8)
    scale = scale if tile.element == "double" else f.cast("fptrunc", scale, "float")
    scale = f.splat(scale, tile.type)
    work = f.gep(scratch, f.mul(f.cast("sext", f.arg("tid"), "i64"), h["work_size"]))
    return out, dict(zip(names, operands, strict=True)), h, scale, work


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
        with f.loop(0, rows, down) as R, f.loop(0, columns, tile.lanes * along) as C:
            left = f.sub(columns, C.i)
            at = f.gep(f.arg("src"), f.add(f.mul(R.i, src_step), C.i), memory(d))
            mask = f.lane_mask(f.div(f.add(left, along - 1), along), tile.lanes)
            if name == "weave":

                def load(p: Value, f: Function = f, mask: Value = mask) -> Value:
                    return f.masked_load(vector(tile.lanes, memory(d)), p, mask)

                v = u.unit(load, at, src_step, f.icmp("slt", f.add(R.i, 1), rows))
            else:
                v = u.adjacent(at, u.masks(left))
            row = f.mul(f.div(R.i, down), dst_step)
            to = f.gep(f.arg("dst"), f.add(row, f.div(C.i, along)), tile.element)
            f.masked_store(v, to, mask)
        f.ret()


def emit_transpose(m: Module, tile: Tile, d: D.dtype) -> None:
    """`transpose(panels, src, src_step, rows, width)`: panel[row / columns][e][row % columns].

    A panel has a row's units + lanes rows: whole squares are written.
    """
    names = ("src_step", "rows", "width")
    f = m.function(
        "transpose",
        [("ptr noalias", "dst"), ("ptr noalias readonly", "src"), *(("i64", n) for n in names)],
        internal=True,
    )
    src_step, rows, width = (f.arg(n) for n in names)
    lanes, u = tile.lanes, units_of(f, d, tile.lanes, pairs=tile.pairs)
    panel_size = f.mul(f.add(u.units(width), lanes), tile.columns)
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
    deep = units(f, tile, rows)
    with f.loop(0, width, tile.columns) as C:
        columns = f.min(f.sub(width, C.i), tile.columns)
        to = f.gep(dst, f.mul(C.i, deep), tile.element)
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
        parts = [halves(f, w, D.float32, tile.lanes) for w in weights]
        weights = [
            f.cast("bitcast", f.shuffle(low, high, range(2 * tile.lanes)), tile.type)
            for low, high in zip(parts[::2], parts[1::2], strict=True)
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
        first, total = (units(self.f, self.tile, x) for x in (first, total))
        f, tile = self.f, self.tile
        with f.loop(0, columns, tile.columns) as P:
            pair = f.gep(self.segments, f.mul(f.div(P.i, tile.columns), 2), "i64")
            f.store(f.typed(f.mul(P.i, ROWS), "i64"), pair)
            depth = units(f, tile, f.min(f.sub(columns, P.i), tile.columns))
            f.store(f.typed(depth, "i64"), f.gep(pair, 1, "i64"))
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


def combine(f: Function, values: list[Value], join: str) -> Value:
    """One scalar of all lanes of all vectors: vectors in order, then lanes by halving."""
    total = values[0]
    for v in values[1:]:
        total = _join(f, total, v, join)
    lanes = lanes_of(total.type)
    half = lanes // 2
    while half:
        total = _join(
            f, total, f.shuffle(total, total, [*range(half, 2 * half)] * (lanes // half)), join
        )
        half //= 2
    return f.extract(total, 0)


def _join(f: Function, a: Value, b: Value, join: str) -> Value:
    return f.op("fadd", a, b) if join == "sum" else f.select(f.fcmp("ogt", a, b), a, b)


def weigh(
    f: Function, tile: Tile, d: D.dtype, masks: str, places: list[Value], mask: Value | None,
    limit: Operand, scale: Value, best: Value, total: Value, kept: list[Value],
) -> Value:  # fmt: skip
    """A block's products of one query, at `places`, become exp(s - best), at `kept`; best and total
    go on.

    Keys from `limit` on are hidden. Gives exp(old best - best), a vector: what sums so far fade by.
    """
    el, type = tile.element, tile.type
    wide, math = Element(f, tile.lanes), Math(f, has_fma=native.host().has_fma)
    mask_type = "i8" if masks == "bool" else memory(d)
    found = []
    for j, place in enumerate(places):
        seen = f.lane_mask(f.sub(limit, j * tile.lanes), tile.lanes)
        score = f.op("fmul", f.load(type, place, tile.align), scale)
        where = place if mask is None else f.gep(mask, j * tile.lanes, mask_type)
        found.append(hide(f, wide, d, masks, score, where, seen))
    old = f.load(el, best)
    new = f.intrinsic("maxnum", el, combine(f, found, "max"), old)
    f.store(new, best)
    # all hidden so far: subtract 0, so that exp(-inf - 0) = 0
    shift = f.splat(f.select(f.fcmp("oeq", new, float("-inf")), const(el, 0.0), new), type)
    fade = vmath.call(math, "exp", f.op("fsub", f.splat(old, type), shift))
    ps = [vmath.call(math, "exp", f.op("fsub", score, shift)) for score in found]
    store_weights(f, tile, ps, kept)
    faded = f.op("fmul", f.load(el, total), f.extract(fade, 0))
    f.store(f.op("fadd", faded, combine(f, ps, "sum")), total)
    return fade


def store_lse(f: Function, tile: Tile, best: Value, total: Value, to: Value) -> None:
    math = Math(f, has_fma=native.host().has_fma)
    log = vmath.call(math, "log", f.splat(total, tile.type))
    f.store(f.op("fadd", best, f.extract(log, 0)), to)


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
        touch(f, f.gep(row, C.i, memory(d)), level=1 if write else 2, write=write)


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


def store_row(
    f: Function, tile: Tile, d: D.dtype, width: Value, sums: Value, row: tuple[Operand, int],
    total: Value, best: Value, to: tuple[Value, Value, Value],
) -> None:  # fmt: skip
    """out = sums / total, 0 when the total is 0; then lse if wanted (`to`: see `result_row`).

    The sums are row r of panels of so many rows.
    """
    wide, (r, rows), (out, lse, wanted) = Element(f, tile.lanes), row, to
    empty = f.fcmp("oeq", total, 0.0)
    divisor = f.splat(f.select(empty, const(tile.element, 1.0), total), tile.type)
    with f.loop(0, width, tile.lanes) as C:
        panel = f.div(C.i, tile.columns)
        place = f.add(f.mul(f.add(f.mul(panel, rows), r), tile.columns), f.rem(C.i, tile.columns))
        v = f.load(tile.type, f.gep(sums, place, tile.element), tile.align)
        v = wide.to_memory(wide.rounded(f.op("fdiv", v, divisor), d), d)
        f.masked_store(v, f.gep(out, C.i, memory(d)), f.lane_mask(f.sub(width, C.i), tile.lanes))
    with f.iff(wanted):
        store_lse(f, tile, best, total, lse)
